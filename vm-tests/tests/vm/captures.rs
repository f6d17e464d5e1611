// SPDX-License-Identifier: GPL-2.0
//! Captures of real programs that talk to each other (`captures/record.sh` recorded them), from file to table.

use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use vm_tests::artifacts::Artifacts;
use vm_tests::capture::Capture;
use vm_tests::model::Rule;
use vm_tests::replay::{Backend, Options, Table, replay};

use crate::support::{BACKENDS, expected, same_table};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name)
}

fn options(backend: Backend, rules: &[&str], captures: Vec<PathBuf>) -> Options {
    let artifacts = Artifacts::from_environment().unwrap();
    Options { artifacts, backend, rules: rules.iter().map(|&rule| rule.to_owned()).collect(), captures }
}

fn text(table: &Table) -> &str {
    std::str::from_utf8(&table.text).unwrap()
}

/// Replays one capture with both back ends: the same table each time, and the one that the model expects.
fn check(name: &str) {
    let file = path(&format!("{name}.pcap"));
    let capture = Capture::open(&file).unwrap();
    let model = expected(&Rule::everything(), &capture.frames().collect::<Vec<_>>());
    for backend in BACKENDS {
        let tables = replay(&options(backend, &[], vec![file.clone()])).unwrap_or_else(|error| panic!("{error:#}"));
        let [table] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!(table.name, "all");
        same_table(name, text(table), &model.text()).unwrap();
        assert_snapshot!(name, text(table));
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
        "-A PROMISC -m traffic --traffic --net 192.0.2.0/24 --nointernal --name leaving",
        "iptables -A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name all",
        "ip6tables -P PROMISC DROP",
    ];
    let captures = vec![path("ping.pcap"), path("names.pcap"), path("ping.pcap")];
    let tables = replay(&options(Backend::Nft, &rules, captures)).unwrap();
    let printed: String = tables.iter().map(|table| format!("==> {} <==\n{}", table.name, text(table))).collect();
    assert_snapshot!("several_captures_and_rules", printed);
}

#[test]
fn a_compressed_capture_is_the_same_capture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let packed = folder.path().join("ping.pcap.gz");
    let mut encoder = GzEncoder::new(std::fs::File::create(&packed)?, Compression::best());
    std::io::copy(&mut std::fs::File::open(path("ping.pcap"))?, &mut encoder)?;
    encoder.finish()?;
    let tables = replay(&options(Backend::Legacy, &[], vec![packed]))?;
    assert_snapshot!("ping", text(&tables[0]));
    Ok(())
}

#[test]
fn a_refused_rule_fails_with_what_iptables_said() {
    let rules = ["-A PROMISC -m traffic --traffic --net 10.0.0.1/8 --name t"];
    let error = replay(&options(Backend::Nft, &rules, vec![])).unwrap_err();
    assert_snapshot!("refused_rule", format!("{error:#}"));
}
