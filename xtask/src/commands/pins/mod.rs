// SPDX-License-Identifier: GPL-2.0-only
//! `pins`: the pinned versions of the kernel's sources and of iptables, and those that Debian has.

use std::cmp::Ordering;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use self::lists::{Listed, Lists, Part};
use crate::sources::pins::{Download, Pins, alternatives};
use crate::workspace::Workspace;

mod check;
mod file;
mod iptables;
mod lists;
mod update;
mod version;

pub use check::Notice;

/// What `pins` calls Debian's iptables.
pub const IPTABLES: &str = "iptables";

#[derive(Subcommand, Debug)]
pub enum Action {
    /// Say whether a pin is behind Debian's newest version, and whether that has security fixes
    ///
    /// The exit status is 0 if all pins are the newest versions, 3 if one is behind, and 4 if the
    /// security archive has a newer version than one of them. It is 1 after an error.
    Check(Checked),
    /// Go to Debian's newest version, if the patches apply, the kernel builds and the tests pass
    ///
    /// For a kernel series: downloads the newest source and configuration, applies the series,
    /// builds, and runs some tests in a guest. For iptables: downloads Debian's newest packages,
    /// and applies the patches to the release that they are made of. Only then it rewrites
    /// xtask/pins.toml.
    Update(update::Options),
}

/// The pins to check.
#[derive(Args, Debug)]
pub struct Checked {
    /// Kernel series, or `iptables` [default: all]
    #[arg(value_name = "PIN")]
    pins: Vec<String>,
    /// Ask the mirrors once a day, and print nothing for a pin that is the newest
    #[arg(long, hide = true, requires = "pins")]
    for_build: bool,
}

/// What is pinned to a version of Debian's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pinned {
    /// The source of a kernel series, which is a package.
    Kernel(String),
    /// The packages of iptables.
    Iptables,
}

impl Pinned {
    /// All, the kernel series first.
    fn all(pins: &Pins) -> Vec<Self> {
        let series = pins.kernel.series.iter().filter(|(_, source)| Download::is_package(source));
        series.map(|(series, _)| Self::Kernel(series.clone())).chain([Self::Iptables]).collect()
    }

    fn named(pins: &Pins, name: &str) -> Result<Self> {
        let found = Self::find(pins, name)?;
        found.with_context(|| format!("the source of {name} is not a package {}", source_package(name)))
    }

    /// The one that is named. [`None`] for a series whose source is not a package.
    fn find(pins: &Pins, name: &str) -> Result<Option<Self>> {
        if name == IPTABLES {
            return Ok(Some(Self::Iptables));
        }
        let source = pins.kernel.series.get(name).with_context(|| {
            let series = pins.kernel.series.keys().map(String::as_str);
            let known: Vec<_> = [IPTABLES].into_iter().chain(series).collect();
            format!("unknown pin {name} (expected {})", alternatives(&known))
        })?;
        Ok(source.is_package().then(|| Self::Kernel(name.to_owned())))
    }

    /// The ones that are named, or all.
    fn chosen(pins: &Pins, names: &[String]) -> Result<Vec<Self>> {
        if names.is_empty() { Ok(Self::all(pins)) } else { names.iter().map(|name| Self::named(pins, name)).collect() }
    }

    fn name(&self) -> &str {
        match self {
            Self::Kernel(series) => series,
            Self::Iptables => IPTABLES,
        }
    }

    /// The pinned version.
    fn version<'a>(&self, ws: &'a Workspace) -> Result<&'a str> {
        match self {
            Self::Kernel(series) => Ok(&ws.pins().kernel_source(series)?.version),
            Self::Iptables => ws.pins().debian_iptables_version(),
        }
    }

    /// Debian's package whose version is pinned.
    fn package(&self) -> String {
        match self {
            Self::Kernel(series) => source_package(series),
            Self::Iptables => IPTABLES.to_owned(),
        }
    }

    /// The versions that Debian has, oldest first. apt does not go to backports unless it is told
    /// to, so a version of iptables there is not an update. The sources of a series have its name.
    fn versions(&self, lists: &Lists) -> Result<Vec<Listed>> {
        let package = self.package();
        let mut versions = lists.versions(&package)?;
        versions.retain(|listed| self.follows(listed.part));
        ensure!(!versions.is_empty(), "the archive has no package {package}");
        Ok(versions)
    }

    /// The newest of these versions, or the one that is asked for.
    fn newest(&self, lists: &Lists, to: Option<&str>) -> Result<Listed> {
        lists::select(self.versions(lists)?, &self.package(), to)
    }

    fn follows(&self, part: Part) -> bool {
        *self != Self::Iptables || part != Part::Backports
    }
}

pub fn run(ws: &Workspace, action: &Action) -> Result<ExitCode> {
    match action {
        Action::Check(Checked { pins, for_build: true }) => {
            check::run_for_build(ws, &Pinned::chosen(ws.pins(), pins)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check(Checked { pins, .. }) => {
            let worst = check::run(ws, &Pinned::chosen(ws.pins(), pins)?)?;
            Ok(ExitCode::from(worst.exit_status()))
        }
        Action::Update(options) => {
            let pins = Pinned::chosen(ws.pins(), options.pin())?;
            ensure!(
                !options.port || !pins.contains(&Pinned::Iptables),
                "--port is for a kernel series: the patches for iptables are for one release"
            );
            let lists = Lists::updated(ws)?;
            pins.iter().try_for_each(|pinned| update(ws, pinned, &lists, options))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Goes to the newest version of a pin, or to the one that is asked for.
fn update(ws: &Workspace, pinned: &Pinned, lists: &Lists, options: &update::Options) -> Result<()> {
    let (name, old, to) = (pinned.name(), pinned.version(ws)?, options.to.as_deref());
    let new = pinned.newest(lists, to)?;
    let version = &new.download.version;
    if !is_wanted(old, version, to) {
        let what = if to.is_some() { "pinned already" } else { "the newest version" };
        eprintln!("{name}: {old} is {what}");
        return Ok(());
    }
    let kind = if new.is_security() { " from the security archive" } else { "" };
    eprintln!("{name}: from {old} to {version}{kind}");
    match pinned {
        Pinned::Kernel(series) => update::run(ws, series, lists, new.download, options),
        Pinned::Iptables => iptables::run(ws, lists, version),
    }
}

/// Whether to go from the version `old` to the version `new`. A version that was asked for with
/// `to` may be older.
fn is_wanted(old: &str, new: &str, to: Option<&str>) -> bool {
    match to {
        Some(_) => new != old,
        None => version::compare(new, old) == Ordering::Greater,
    }
}

/// The name of Debian's package with the source of a series.
fn source_package(series: &str) -> String {
    format!("linux-source-{series}")
}

/// The name of Debian's package with the configuration of a series.
fn config_package(series: &str) -> String {
    format!("linux-config-{series}")
}

#[cfg(test)]
mod tests {
    use super::lists::tests::lists_of;
    use super::*;

    #[test]
    fn backports_have_no_update_of_iptables() {
        for part in [Part::Security, Part::Release, Part::Updates] {
            assert!(Pinned::Iptables.follows(part), "{part:?}");
        }
        assert!(!Pinned::Iptables.follows(Part::Backports));
        assert!(Pinned::Kernel("7.3".into()).follows(Part::Backports));
    }

    #[test]
    fn an_unknown_pin_is_an_error_that_names_the_known_ones() {
        let text = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap();
        let mut pins = Pins::parse(&text).unwrap();
        let package = pins.debian_iptables[0].clone();
        pins.kernel.series = ["1.2", "3.4"].map(|series| (series.to_owned(), package.clone())).into();
        let error = format!("{:#}", Pinned::named(&pins, "foo").unwrap_err());
        assert_eq!(error, "unknown pin foo (expected iptables, 1.2 or 3.4)");
        assert_eq!(Pinned::named(&pins, IPTABLES).unwrap(), Pinned::Iptables);
        assert_eq!(Pinned::named(&pins, "3.4").unwrap(), Pinned::Kernel("3.4".into()));
    }

    #[test]
    fn an_update_goes_to_a_version_that_the_check_knows() {
        let (_folder, lists) = lists_of(IPTABLES, [(Part::Release, "1-1"), (Part::Backports, "2-1~bpo13+1")]);
        let version = |to| Pinned::Iptables.newest(&lists, to).map(|listed| listed.download.version);
        assert_eq!(version(None).unwrap(), "1-1");
        let error = version(Some("2-1~bpo13+1")).unwrap_err().to_string();
        assert_eq!(error, "the archive has no iptables 2-1~bpo13+1 (it has 1-1)");

        let series = Pinned::Kernel("7.3".into());
        let versions = [(Part::Security, "7.3.1-1~bpo13+1"), (Part::Backports, "7.3.2-1~bpo13+1")];
        let (_folder, lists) = lists_of(&series.package(), versions);
        assert_eq!(series.newest(&lists, None).unwrap().download.version, "7.3.2-1~bpo13+1");
        let error = Pinned::Iptables.newest(&lists, None).unwrap_err().to_string();
        assert_eq!(error, "the archive has no package iptables");
    }

    #[test]
    fn a_version_that_is_asked_for_may_be_older() {
        assert!(is_wanted("1.8.11-2", "1.8.11-2+deb13u1", None));
        assert!(!is_wanted("1.8.11-2", "1.8.11-2", None) && !is_wanted("1.8.11-2", "1.8.11-1", None));
        assert!(is_wanted("1.8.11-2", "1.8.11-1", Some("1.8.11-1")));
        assert!(!is_wanted("1.8.11-2", "1.8.11-2", Some("1.8.11-2")));
    }
}
