// SPDX-License-Identifier: GPL-2.0-only
//! `replay`: sends captures to a guest and prints its tables.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use fs_err::File;
use vm_harness::replay::{self, Backend, Pace, Receiver};

use crate::builds::kernel::{self, Config};
use crate::images::guest;
use crate::workspace::Workspace;

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    /// The iptables back end that takes the rules
    #[arg(long, default_value = "nft", value_parser = ["nft", "legacy"])]
    backend: String,
    /// The arguments of an `iptables` command, or a whole `ip6tables` command; may be repeated
    /// [default: count every IPv4 address]
    #[arg(long = "rule", value_name = "RULE", allow_hyphen_values = true)]
    rules: Vec<String>,
    /// Receive the frames at a port in promiscuous mode, without a mirror device
    ///
    /// Broadcasts, multicasts and frames with several tags or other headers around the packet are
    /// not counted then. The port gets an address that is not the destination of any frame.
    #[arg(long)]
    plain_port: bool,
    /// Count packets whose end is missing with the length in their header
    ///
    /// For captures with a snap length, and for mirrors that cut frames. It sets the flag `sliced`
    /// of the mirror device.
    #[arg(long, conflicts_with = "plain_port")]
    sliced: bool,
    /// Send the frames as fast as possible, and not at the times of the capture
    ///
    /// No timeout passes: 30 seconds for UDP, 120 for a repeated SYN, 600 for other protocols. So
    /// there can be fewer connections. Bytes stay the same.
    #[arg(long)]
    fast: bool,
    /// Fail if the tables or the device's statistics differ from those of the independent model
    #[arg(long)]
    check: bool,
    /// Capture files (pcap or pcapng, also gzipped), replayed in this order
    ///
    /// The link types Ethernet, SLL, SLL2, RAW, IPV4, IPV6, NULL and LOOP are replayed. Frames
    /// without an Ethernet header get one, from 02:a1:ce:00:00:01 to 02:b0:b0:00:00:02.
    ///
    /// Each capture begins when the one before has ended. The guest's clock jumps while no frame
    /// arrives. Pauses of more than 11 minutes are shortened to 11 minutes: no timeout is longer.
    /// Frames stay in the order of the file, also when their times go back.
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
}

/// Prints the tables, and nothing else, on standard output. Frames that cannot be replayed are
/// reported on standard error; they are an error if a capture has no others.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    // Check the names before the kernel is built.
    for capture in &options.captures {
        File::open(capture)?;
    }
    let choice = options.kernel.choose(ws, Config::Test)?;
    let options = replay::Options {
        artifacts: guest::artifacts(ws, &choice)?,
        backend: if options.backend == "legacy" { Backend::Legacy } else { Backend::Nft },
        rules: options.rules.clone(),
        captures: options.captures.clone(),
        receiver: match options.plain_port {
            true => Receiver::Plain,
            false => Receiver::Mirror { sliced: options.sliced },
        },
        pace: if options.fast { Pace::Fast } else { Pace::Captured },
        check: options.check,
    };
    let step = ws.step("replay", "replaying")?;
    let tables = replay::replay_with_progress(&options, |sent, all| {
        if sent == 0 {
            step.set_total(all as u64);
        }
        step.set_position(sent as u64);
    })?;
    step.finish();
    replay::print(&tables, std::io::stdout().lock())
}
