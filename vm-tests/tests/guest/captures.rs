// SPDX-License-Identifier: GPL-2.0-only
//! Captures of real programs, replayed to tables. `captures/record.sh` has recorded them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use vm_harness::artifacts::Artifacts;
use vm_harness::replay::{Backend, Options, Table, print, replay};
use vm_tests::{BACKENDS, unwrap};

/// Rules that count all traffic of both families.
const RULES: [&str; 2] = [
    "-A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name)
}

/// Replays captures. The tables must match the model.
fn replayed(backend: Backend, rules: &[&str], captures: Vec<PathBuf>) -> Result<Vec<Table>> {
    let rules = rules.iter().map(|&rule| rule.to_owned()).collect();
    replay(&Options { artifacts: Artifacts::from_environment()?, backend, rules, captures, check: true })
}

fn printed(tables: &[Table]) -> String {
    let mut bytes = vec![];
    print(tables, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Replays one capture with both back ends. The tables must be the same and must match the model.
fn check(name: &str) {
    for backend in BACKENDS {
        let tables = unwrap(replayed(backend, &RULES, vec![path(&format!("{name}.pcap"))]));
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
