// SPDX-License-Identifier: GPL-2.0
//! Every build and run step of xt_traffic: `cargo xtask --help`.

mod archive;
mod bench;
mod box_image;
mod buildroot;
mod commands;
mod deb;
mod fetch;
mod guest_root;
mod kconfig;
mod mirrors;
mod pins;
mod process;
mod rust;
mod sandbox;
mod series;
mod stamp;
mod tree;
mod ui;
mod vm_image;
mod workshop;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use commands::{
    bench as bench_command, build, build_iptables, build_kernel, build_libxt, build_module, cache, deb as deb_command,
    demo, patches, replay, setup, shell, test, vm_test,
};
use workshop::Workshop;

/// Build, run and test xt_traffic
///
/// Everything slow is kept in $XDG_CACHE_HOME/xt-traffic (~/.cache/xt-traffic). XT_TRAFFIC_MIRROR names
/// a Debian mirror instead of those of apt's own configuration. Logs are in target/log.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Install what this machine lacks
    Setup,
    /// Build the patched kernel
    BuildKernel(build_kernel::Options),
    /// Build the kernel module
    BuildModule(build_kernel::Options),
    /// Build the patched iptables
    BuildIptables,
    /// Build the iptables extension
    BuildLibxt(build_libxt::Options),
    /// Build everything that a guest is made of
    Build(build_kernel::Options),
    /// Build Debian packages of everything, a repository for apt
    Deb(deb_command::Options),
    /// Do everything from nothing, replay a recorded capture, and show the tables
    Demo(build_kernel::Options),
    /// Send captures to a guest's mirror port and print what it counted
    Replay(replay::Options),
    /// Open a shell in a guest with all of it installed
    Shell(build_kernel::Options),
    /// Run every test there is
    Test,
    /// Run the tests in QEMU
    VmTest(vm_test::Options),
    /// Measure what a packet costs, beside what it costs others
    Bench(bench_command::Options),
    /// Apply, export or check a patch series
    #[command(subcommand)]
    Patches(patches::Action),
    /// Look at the cache, or clean it
    #[command(subcommand)]
    Cache(cache::Action),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
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

fn run(command: &Command) -> Result<()> {
    process::handle_signals()?;
    let ws = &Workshop::open()?;
    match command {
        Command::Setup => setup::run(ws),
        Command::BuildKernel(options) => build_kernel::run(ws, options),
        Command::BuildModule(options) => build_module::run(ws, options),
        Command::BuildIptables => build_iptables::run(ws),
        Command::BuildLibxt(options) => build_libxt::run(ws, options),
        Command::Build(options) => build::run(ws, options),
        Command::Deb(options) => deb_command::run(ws, options),
        Command::Demo(options) => demo::run(ws, options),
        Command::Replay(options) => replay::run(ws, options),
        Command::Shell(options) => shell::run(ws, options),
        Command::Test => test::run(ws),
        Command::VmTest(options) => vm_test::run(ws, options),
        Command::Bench(options) => bench_command::run(ws, options),
        Command::Patches(action) => patches::run(ws, action),
        Command::Cache(action) => cache::run(ws, *action),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_rule_may_begin_with_a_dash() {
        let words = ["xtask", "replay", "--rule", "-A PROMISC -j DROP", "--backend", "legacy", "a.pcap"];
        assert!(Cli::try_parse_from(words).is_ok());
        assert!(Cli::try_parse_from(["xtask", "replay"]).is_err());
    }
}
