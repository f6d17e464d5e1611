// SPDX-License-Identifier: GPL-2.0-only
//! `pins update iptables`: Debian's packages of the newest version, which ours are compared with,
//! and whose version ours continue. Ours are made of the upstream release and of our patches.

use anyhow::{Context, Result, ensure};

use super::IPTABLES;
use super::file::{PinsFile, replace_tables};
use super::lists::{self, Lists};
use super::update::{entries_since, texts_naming};
use crate::host;
use crate::sources::fetch;
use crate::sources::pins::{Download, Pins, upstream};
use crate::sources::tree::Tree;
use crate::workspace::Workspace;

/// Changes the pins to those of a version if the packages are of the release that is built, and the
/// patches apply to it.
pub fn run(ws: &Workspace, lists: &Lists, version: &str) -> Result<()> {
    let old = ws.pins().debian_iptables_version()?;
    let release = &ws.pins().iptables.version;
    ensure!(upstream(version) == release, "{version} is not made of iptables {release}, which the patches are for");

    let packages = of_version(ws.pins(), version, |package| lists.versions(package))?;
    let file = PinsFile::with(ws, |text| replace_tables(text, "[[debian_iptables]]", &packages))?;
    let candidate = file.candidate(ws)?;
    let _lock = host::require(ws)?;
    let files: Vec<_> = packages.iter().map(|package| fetch::pinned(&candidate, package)).collect::<Result<_>>()?;
    let commits = Tree::iptables(&candidate)?.commits().context("the pins stay")?;
    eprintln!("{IPTABLES}: all {} patches apply", commits.len());
    file.write()?;
    let entries = files.first().map(|package| entries_since(package, IPTABLES, old)).unwrap_or_default();
    for line in entries.into_iter().chain(texts_naming(ws, old)) {
        eprintln!("    {line}");
    }
    eprintln!(
        "next: Debian's own patches are not in our packages, so what this version fixes may need a patch in \
         iptables-patches/{release}. Then `cargo xtask deb` compares the packages"
    );
    Ok(())
}

/// The pinned packages in another version, in the same order.
fn of_version(
    pins: &Pins,
    version: &str,
    versions: impl Fn(&str) -> Result<Vec<lists::Listed>>,
) -> Result<Vec<Download>> {
    let find = |pin: &Download| {
        let package = pin.package();
        Ok(lists::select(versions(package)?, package, Some(version))?.download)
    };
    pins.debian_iptables.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::super::lists::{Listed, Part};
    use super::*;

    fn pinned() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap()
    }

    /// A package in another version, with a hash of its own.
    fn listed(package: &str, version: &str) -> Listed {
        let file = format!("{package}_{version}_amd64.deb");
        let download = Download {
            version: version.into(),
            sha256: format!("{:064x}", package.len()),
            size: 7,
            paths: vec![format!("pool/updates/main/i/iptables/{file}"), format!("pool/main/i/iptables/{file}")],
            snapshot: Some("20260102T030405Z".into()),
            file,
        };
        Listed { download, part: Part::Security }
    }

    fn rewrite(text: &str, version: &str) -> Result<String> {
        let find = |package: &str| Ok(vec![listed(package, "1.8.11-1"), listed(package, version)]);
        let packages = of_version(&Pins::parse(text)?, version, find)?;
        replace_tables(text, "[[debian_iptables]]", &packages)
    }

    #[test]
    fn only_the_pins_of_debians_packages_change() {
        let text = pinned();
        let before = Pins::parse(&text).unwrap();
        let version = format!("{}+deb13u1", before.debian_iptables_version().unwrap());
        let after = Pins::parse(&rewrite(&text, &version).unwrap()).unwrap();
        assert_eq!(after.debian_iptables_version().unwrap(), version);
        let names = |pins: &Pins| pins.debian_iptables.iter().map(|pin| pin.package().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before));
        for pin in &after.debian_iptables {
            assert_eq!(format!("{pin:?}"), format!("{:?}", listed(pin.package(), &version).download));
        }
        let rest = |mut pins: Pins| {
            pins.debian_iptables.clear();
            format!("{pins:?}")
        };
        assert_eq!(rest(after), rest(before));
    }

    #[test]
    fn pins_that_do_not_change_are_written_as_they_are() {
        let text = pinned();
        let same = Pins::parse(&text).unwrap().debian_iptables;
        assert_eq!(replace_tables(&text, "[[debian_iptables]]", &same).unwrap(), text);
    }

    #[test]
    fn a_package_that_lacks_the_version_is_an_error() {
        let pins = Pins::parse(&pinned()).unwrap();
        let find = |package: &str| {
            let version = if package == "libip6tc2" { "1.8.11-3" } else { "1.8.11-4" };
            Ok(vec![listed(package, version)])
        };
        let error = of_version(&pins, "1.8.11-4", find).unwrap_err().to_string();
        assert_eq!(error, "the archive has no libip6tc2 1.8.11-4 (it has 1.8.11-3)");
    }

    #[test]
    fn pins_of_another_release_are_refused() {
        let text = rewrite(&pinned(), "1.8.12-1").unwrap();
        assert!(Pins::parse(&text).is_err());
    }
}
