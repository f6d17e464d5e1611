// SPDX-License-Identifier: GPL-2.0-only
//! Captures of real programs, replayed to tables. `captures/record.sh` has recorded them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use traffic_model::frames::{Ip, mirrored};
use vm_harness::artifacts::Artifacts;
use vm_harness::replay::{Backend, Options, Pace, Receiver, Table, print, replay};
use vm_tests::{BACKENDS, unwrap};

/// Rules that count all traffic of both families.
const RULES: [&str; 2] = [
    "-A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name)
}

/// Replays captures at their own times. The tables must match the model.
fn replayed(backend: Backend, rules: &[&str], captures: Vec<PathBuf>) -> Result<Vec<Table>> {
    replayed_at(Pace::Captured, backend, rules, captures)
}

fn replayed_at(pace: Pace, backend: Backend, rules: &[&str], captures: Vec<PathBuf>) -> Result<Vec<Table>> {
    let rules = rules.iter().map(|&rule| rule.to_owned()).collect();
    let (artifacts, receiver) = (Artifacts::from_environment()?, Receiver::Mirror { sliced: false });
    replay(&Options { artifacts, backend, rules, captures, receiver, pace, check: true })
}

fn printed(tables: &[Table]) -> String {
    let mut bytes = vec![];
    print(tables, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Replays one capture with both back ends. The tables must be the same and must match the model.
/// The captures have no pauses, so the pace does not matter. GRO merges packets at the fast pace.
fn check(name: &str) {
    for (backend, pace) in BACKENDS.into_iter().zip([Pace::Captured, Pace::Fast]) {
        let tables = unwrap(replayed_at(pace, backend, &RULES, vec![path(&format!("{name}.pcap"))]));
        assert_snapshot!(name, printed(&tables));
    }
}

macro_rules! captures {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

captures! { ping web web_offloaded names shell_session bulk vlan }

#[test]
fn several_captures_and_rules_at_once() {
    let rules = [
        "-A PROMISC -m traffic --traffic --ipconn --net 192.0.2.0/24 --nointernal --name leaving",
        "iptables -A PROMISC -m traffic --portconn --net 0.0.0.0/0 --name all",
        "ip6tables -P PROMISC DROP",
        "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/64 ! --nointernal --name six",
    ];
    let captures = vec![path("ping.pcap"), path("names.pcap"), path("ping.pcap")];
    let tables = unwrap(replayed(Backend::Nft, &rules, captures));
    assert_snapshot!("several_captures_and_rules", printed(&tables));
}

#[test]
fn a_compressed_capture_and_the_default_rule() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let packed = folder.path().join("ping.pcap.gz");
    let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::best());
    std::io::copy(&mut File::open(path("ping.pcap"))?, &mut encoder)?;
    encoder.finish()?;
    let from_packed = replayed(Backend::Legacy, &[], vec![packed])?;
    let from_plain = replayed(Backend::Legacy, &[], vec![path("ping.pcap")])?;
    assert_eq!(from_packed, from_plain);
    Ok(())
}

#[test]
fn a_refused_rule_fails_with_the_message_of_iptables() {
    let rules = ["-A PROMISC -m traffic --traffic --net 10.0.0.1/8 --name t"];
    let error = replayed(Backend::Nft, &rules, vec![]).unwrap_err();
    assert_snapshot!("refused_rule", format!("{error:#}"));
}

/// A capture of frames with their times in seconds: https://www.tcpdump.org/manpages/pcap-savefile.5.txt
fn capture(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (seconds, frame) in frames {
        file.extend(words(&[*seconds, 0, frame.len() as u32, frame.len() as u32]));
        file.extend(frame);
    }
    file
}

#[test]
fn connections_follow_the_times_of_the_capture() -> Result<()> {
    // A client asks for the time every 64 seconds, for 20 minutes. UDP ends after 30 seconds.
    let client = Ip::new([10, 0, 0, 1], [10, 0, 0, 123]);
    let server = client.clone().reversed();
    let asks = |second| [(second, mirrored(&client.udp((40_000, 123), &[0; 48])))];
    let answers = |second| [(second, mirrored(&server.udp((123, 40_000), &[0; 48])))];
    let frames: Vec<_> = (0..20).map(|n| n * 64).flat_map(|second| [asks(second), answers(second)]).flatten().collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("time.pcap");
    std::fs::write(&path, capture(&frames))?;
    for (pace, connections) in [(Pace::Captured, 20), (Pace::Fast, 1)] {
        let options = Options {
            artifacts: Artifacts::from_environment()?,
            backend: Backend::Nft,
            rules: vec![RULES[0].to_owned()],
            captures: vec![path.clone()],
            receiver: Receiver::Mirror { sliced: false },
            pace,
            check: true,
        };
        let tables = replay(&options)?;
        let ports = tables.iter().find(|table| table.name == "all.portconn").context("no table")?;
        let row = format!("123\t{connections}\t{connections}\t0\t0\t{connections}\t{connections}\t");
        let text = String::from_utf8_lossy(&ports.text);
        ensure!(text.lines().nth(1).is_some_and(|line| line.starts_with(&row)), "{pace:?}: {text}");
    }
    Ok(())
}
