// SPDX-License-Identifier: GPL-2.0-only
//! All build and run steps of xt_traffic: `cargo xtask --help`.
//!
//! Sources ([`sources`]) become products ([`builds`]), products become what boots ([`images`]) or
//! what is installed ([`packages`]); [`commands`] has the subcommands.

mod bench;
mod builds;
mod commands;
mod host;
mod images;
mod markdown;
mod packages;
mod process;
mod sources;
mod stamp;
#[cfg(test)]
mod tidy;
mod ui;
mod vm_tests;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use builds::kernel;
use clap::{Parser, Subcommand};
use workspace::Workspace;

/// Build, run and test xt_traffic
///
/// Products are cached in $XDG_CACHE_HOME/xt-traffic (~/.cache/xt-traffic), logs are in target/log.
/// XT_TRAFFIC_MIRROR names a Debian mirror to use instead of the mirrors of apt's configuration.
/// XT_TRAFFIC_ARCHIVE names an archive that keeps every version, with @PATH@ and @SNAPSHOTID@ as in
/// apt's option Acquire::Snapshots::URI. XT_TRAFFIC_FILES names a folder or an address that has the
/// pinned files.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Install the packages that the other commands need; nothing else changes the host
    Setup(commands::setup::Options),
    /// Build everything, replay a recorded capture and show the table
    Demo(commands::demo::Options),
    /// Run all tests
    Test(commands::test::Options),
    /// Run the tests in QEMU
    VmTest(commands::vm_test::Options),
    /// Send captures to a guest's mirror port and print the tables
    Replay(commands::replay::Options),
    /// Open a shell in a guest
    Shell(kernel::Options),
    /// Benchmark the cost per packet, and compare it with other counters
    Bench(commands::bench::Options),
    /// Build Debian packages and a repository for apt
    Deb(commands::deb::Options),
    /// Build everything that a guest boots
    Build(kernel::Options),
    /// Build the patched kernel
    BuildKernel(commands::build::KernelOptions),
    /// Build the kernel module
    BuildModule(kernel::Options),
    /// Build the patched iptables
    BuildIptables,
    /// Build the iptables extension
    BuildLibxt(commands::build::LibxtOptions),
    /// Apply, export or check the patches
    #[command(subcommand)]
    Patches(commands::patches::Action),
    /// Compare the pins of the kernels and of iptables with what Debian has, or update them
    #[command(subcommand)]
    Pins(commands::pins::Action),
    /// Run all checks that a change must pass
    Ci(commands::ci::Options),
    /// Show the size of the cache, or clean it
    #[command(subcommand)]
    Cache(commands::cache::Action),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(status) => status,
        Err(_) if process::interrupted() => {
            eprintln!("error: interrupted");
            ExitCode::from(process::EXIT_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<ExitCode> {
    process::handle_signals()?;
    let ws = &Workspace::open()?;
    match command {
        Command::Setup(options) => commands::setup::run(ws, options),
        Command::Demo(options) => commands::demo::run(ws, options),
        Command::Test(options) => commands::test::run(ws, options),
        Command::VmTest(options) => commands::vm_test::run(ws, options),
        Command::Replay(options) => commands::replay::run(ws, options),
        Command::Shell(options) => commands::shell::run(ws, options),
        Command::Bench(options) => commands::bench::run(ws, options),
        Command::Deb(options) => commands::deb::run(ws, options),
        Command::Build(options) => commands::build::guest(ws, options),
        Command::BuildKernel(options) => commands::build::kernel(ws, options),
        Command::BuildModule(options) => commands::build::module(ws, options),
        Command::BuildIptables => commands::build::iptables(ws),
        Command::BuildLibxt(options) => commands::build::libxt(ws, options),
        Command::Patches(action) => commands::patches::run(ws, action),
        Command::Pins(action) => return commands::pins::run(ws, action),
        Command::Ci(options) => commands::ci::run(ws, options),
        Command::Cache(action) => commands::cache::run(ws, *action),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_rule_may_begin_with_a_dash() {
        let words = ["xtask", "replay", "--rule", "-A PROMISC -j DROP", "--backend", "legacy", "a.pcap"];
        assert!(Cli::try_parse_from(words).is_ok());
        assert!(Cli::try_parse_from(["xtask", "replay"]).is_err());
    }

    #[test]
    fn only_a_mirror_device_counts_sliced_packets() {
        let replay = |options: &[&str]| Cli::try_parse_from([&["xtask", "replay"], options, &["a.pcap"]].concat());
        assert!(replay(&["--sliced", "--fast"]).is_ok() && replay(&["--plain-port", "--fast"]).is_ok());
        assert!(replay(&["--plain-port", "--sliced"]).is_err());
    }
}
