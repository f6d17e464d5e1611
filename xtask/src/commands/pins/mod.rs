// SPDX-License-Identifier: GPL-2.0-only
//! `pins`: the pinned versions of the kernel's sources, and those that Debian has.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::sources::pins::Download;
use crate::workspace::Workspace;

mod check;
mod lists;
mod update;
mod version;

pub use check::Notice;

#[derive(Subcommand, Debug)]
pub enum Action {
    /// Say whether a pin is behind Debian's newest version, and whether that has security fixes
    ///
    /// The exit status is 0 if all pins are the newest versions, 3 if one is behind, and 4 if the
    /// security archive has a newer version than one of them. It is 1 after an error.
    Check(Checked),
    /// Go to Debian's newest version, if the patches apply, the kernel builds and the tests pass
    ///
    /// Downloads the newest source and configuration, applies the series, builds, and runs some
    /// tests in a guest. Only then it rewrites xtask/pins.toml.
    Update(update::Options),
}

/// The pins to check.
#[derive(Args, Debug)]
pub struct Checked {
    /// The kernel series [default: all]
    series: Option<String>,
    /// Ask the mirrors once a day, and print nothing for a pin that is the newest
    #[arg(long, hide = true, requires = "series")]
    for_build: bool,
}

pub fn run(ws: &Workspace, action: &Action) -> Result<ExitCode> {
    match action {
        Action::Check(Checked { series: Some(series), for_build: true }) => {
            check::run_for_build(ws, series)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check(Checked { series, .. }) => {
            let worst = check::run(ws, &chosen(ws, series.as_ref())?)?;
            Ok(ExitCode::from(worst.exit_status()))
        }
        Action::Update(options) => {
            for series in chosen(ws, options.series())? {
                update::run(ws, &series, options)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The series that is named, or all that are Debian packages.
fn chosen(ws: &Workspace, named: Option<&String>) -> Result<Vec<String>> {
    if let Some(series) = named {
        let is_package = ws.pins().kernel_source(series)?.is_package();
        ensure!(is_package, "the source of {series} is not a package {}", source_package(series));
        return Ok(vec![series.clone()]);
    }
    let all = ws.pins().kernel.series.iter().filter(|(_, source)| Download::is_package(source));
    Ok(all.map(|(series, _)| series.clone()).collect())
}

/// The name of Debian's package with the source of a series.
fn source_package(series: &str) -> String {
    format!("linux-source-{series}")
}

/// The name of Debian's package with the configuration of a series.
fn config_package(series: &str) -> String {
    format!("linux-config-{series}")
}
