// SPDX-License-Identifier: GPL-2.0-only
//! The feature that each test in QEMU is for, and the tests that run on each kernel series.
//!
//! A new module of tests needs an entry in [`MODULES`].

use anyhow::{Context, Result};

/// A row of the table in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// The hook and its place in the kernel.
    Hook,
    /// Mirror devices: encapsulations, statistics, the life of a device.
    MirrorDevices,
    /// The checks of IP receive before the hook.
    Receive,
    /// Packets that GRO or the sender's offloads have merged.
    Offloads,
    /// Bytes per address, for each option that selects packets.
    Bytes,
    /// Connections and their timeouts.
    Connections,
    /// The options of the match.
    Options,
    /// Commands of iptables, whatever the back end.
    Rules,
    /// Tests that run with iptables-nft and with iptables-legacy.
    Nft,
    /// The same tests with the other back end.
    Legacy,
    /// Network namespaces.
    Namespaces,
    /// The files in /proc and their readers.
    Files,
    /// `--clearonread`.
    ClearOnRead,
    /// The bounds of memory, full tables, sweeps.
    Memory,
    /// Captures that are replayed, and the comparison with the model.
    Replay,
    /// The service of the package, in a guest.
    Service,
    /// The packages, in the Debian VM.
    Deployment,
    /// Signed packages on a machine with Secure Boot.
    SecureBoot,
    /// The harness of the tests.
    Harness,
}

impl Feature {
    /// All features, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::Hook,
        Self::MirrorDevices,
        Self::Receive,
        Self::Offloads,
        Self::Bytes,
        Self::Connections,
        Self::Options,
        Self::Rules,
        Self::Nft,
        Self::Legacy,
        Self::Namespaces,
        Self::Files,
        Self::ClearOnRead,
        Self::Memory,
        Self::Replay,
        Self::Service,
        Self::Deployment,
        Self::SecureBoot,
        Self::Harness,
    ];

    /// What the README calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook => "the hook PROMISC",
            Self::MirrorDevices => "mirror devices",
            Self::Receive => "checks of the IP header before the hook",
            Self::Offloads => "offloads: GRO, large segments",
            Self::Bytes => "bytes per address",
            Self::Connections => "connections and timeouts",
            Self::Options => "options of the match",
            Self::Rules => "rules, both back ends in one test",
            Self::Nft => "rules, iptables-nft",
            Self::Legacy => "rules, iptables-legacy",
            Self::Namespaces => "network namespaces",
            Self::Files => "files and readers",
            Self::ClearOnRead => "clear on read",
            Self::Memory => "memory, full tables, sweeps",
            Self::Replay => "replay of captures, comparison with the model",
            Self::Service => "the service",
            Self::Deployment => "deployment of the packages",
            Self::SecureBoot => "Secure Boot",
            Self::Harness => "the test harness",
        }
    }
}

/// Where the tests of a module run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    /// On each series: `test` and `ci` run them on all.
    OnEachSeries,
    /// On the default series. `vm-test --series all` runs them on all.
    OnTheDefaultSeries,
}

use Feature::*;
use Runs::{OnEachSeries, OnTheDefaultSeries};

/// The modules with tests: program and module, feature, and where they run. The module of tests in
/// the `main.rs` of a program is empty.
///
/// Those on each series test what another kernel can change: where the hook is, what receive and
/// the offloads do before it, the interfaces between the kernel and both back ends, namespaces, and
/// the files in /proc. The others test code of our own, which is the same on all kernels: the
/// options, what is counted, and which rows a full table keeps. They run on the default series. So
/// do `fast` and `deploy`, each of which needs another kernel, and `secure_boot`, which needs the
/// packages of `deploy`.
const MODULES: &[(&str, &str, Feature, Runs)] = &[
    ("guest", "bytes", Bytes, OnTheDefaultSeries),
    ("guest", "captures", Replay, OnTheDefaultSeries),
    ("guest", "clear", ClearOnRead, OnTheDefaultSeries),
    ("guest", "commands", Rules, OnTheDefaultSeries),
    ("guest", "drop_reason", Hook, OnEachSeries),
    ("guest", "extensions", Rules, OnEachSeries),
    ("guest", "files", Files, OnEachSeries),
    ("guest", "harness", Harness, OnTheDefaultSeries),
    ("guest", "headers", Receive, OnEachSeries),
    ("guest", "hooks", Hook, OnEachSeries),
    ("guest", "isolation", Hook, OnEachSeries),
    ("guest", "lifetimes", Rules, OnEachSeries),
    ("guest", "limits", Memory, OnEachSeries),
    ("guest", "mirror", Hook, OnEachSeries),
    ("guest", "mirror_device", MirrorDevices, OnEachSeries),
    ("guest", "model", Replay, OnTheDefaultSeries),
    ("guest", "namespaces", Namespaces, OnEachSeries),
    ("guest", "offloads", Offloads, OnEachSeries),
    ("guest", "options", Options, OnTheDefaultSeries),
    ("guest", "readers", Memory, OnEachSeries),
    ("guest", "remote_mirror", MirrorDevices, OnEachSeries),
    ("guest", "replays", Replay, OnTheDefaultSeries),
    ("guest", "rules", Rules, OnEachSeries),
    ("guest", "samples", Files, OnTheDefaultSeries),
    ("guest", "selftest", Hook, OnEachSeries),
    ("guest", "service", Service, OnTheDefaultSeries),
    ("guest", "sizes", Files, OnTheDefaultSeries),
    ("guest", "sockets", Hook, OnEachSeries),
    ("guest", "stock", Rules, OnEachSeries),
    ("guest", "successors", Rules, OnTheDefaultSeries),
    ("guest", "sweeps", Memory, OnTheDefaultSeries),
    ("guest", "time", Connections, OnTheDefaultSeries),
    ("guest", "user_namespaces", Namespaces, OnEachSeries),
    ("fast", "", Memory, OnTheDefaultSeries),
    ("fast", "memory", Memory, OnTheDefaultSeries),
    ("fast", "sweep", Memory, OnTheDefaultSeries),
    ("deploy", "", Deployment, OnTheDefaultSeries),
    ("secure_boot", "", SecureBoot, OnTheDefaultSeries),
];

/// The entry of a test.
fn entry(program: &str, test: &str) -> Result<(Feature, Runs)> {
    let module = module(test);
    let found = MODULES.iter().find(|(of, name, ..)| *of == program && *name == module);
    let (.., feature, runs) = found.with_context(|| {
        format!("the test {test} of {program} belongs to no feature: add its module to {}", file!())
    })?;
    Ok((*feature, *runs))
}

/// The module of a test in its program.
fn module(test: &str) -> &str {
    let path = test.strip_suffix("::nft").or_else(|| test.strip_suffix("::legacy")).unwrap_or(test);
    path.split_once("::").map_or("", |(module, _)| module)
}

/// The feature that a test is for.
///
/// # Errors
/// When its module is unknown.
pub fn feature(program: &str, test: &str) -> Result<Feature> {
    let (feature, _) = entry(program, test)?;
    Ok(match test.rsplit_once("::") {
        Some((_, "nft")) => Nft,
        Some((_, "legacy")) => Legacy,
        _ => feature,
    })
}

/// Whether a test runs on each series.
///
/// # Errors
/// When its module is unknown.
pub fn runs_on_each_series(program: &str, test: &str) -> Result<bool> {
    entry(program, test).map(|(_, runs)| runs == OnEachSeries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use fs_err as fs;

    use super::*;

    #[test]
    fn the_list_has_exactly_the_modules_with_tests() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm-tests/tests");
        for program in ["guest", "fast"] {
            let main = fs::read_to_string(tests.join(program).join("main.rs")).unwrap();
            let mut modules: BTreeSet<_> =
                main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
            if main.contains("\nguest_test!(") || main.contains("\n#[test]") {
                modules.insert("");
            }
            let listed = MODULES.iter().filter(|(of, ..)| *of == program).map(|(_, module, ..)| *module).collect();
            assert_eq!(modules, listed, "{program}");
        }
    }

    #[test]
    fn each_feature_has_a_module_and_a_name() {
        let names: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        assert_eq!(names.len(), Feature::ALL.len());
        for feature in Feature::ALL {
            let has_module = MODULES.iter().any(|(_, _, of, _)| *of == feature);
            assert!(has_module || matches!(feature, Nft | Legacy), "{feature:?}");
        }
    }

    #[test]
    fn a_test_of_one_back_end_belongs_to_the_back_end() {
        assert_eq!(feature("guest", "rules::a_table_exists").unwrap(), Rules);
        assert_eq!(feature("guest", "rules::changes::nft").unwrap(), Nft);
        assert_eq!(feature("guest", "rules::changes::legacy").unwrap(), Legacy);
        assert_eq!(feature("fast", "a_million_packets").unwrap(), Memory);
        assert!(runs_on_each_series("guest", "rules::changes::nft").unwrap());
    }

    #[test]
    fn an_unknown_module_is_an_error() {
        for (program, test) in [("guest", "new::test"), ("fast", "mirror::test"), ("guest", "test")] {
            let error = feature(program, test).unwrap_err().to_string();
            assert!(error.contains(test) && error.contains("features.rs"), "{error}");
        }
    }
}
