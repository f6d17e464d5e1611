// SPDX-License-Identifier: GPL-2.0-only
//! The guest's init process: it sets up the system, then serves the host's requests over a
//! virtio-serial port (`proto.rs` has the format of messages, `serve.rs` the requests).
//!
//! It is linked statically, so it depends on no file in the guest. When process 1 ends, the kernel
//! panics, QEMU exits, and the host notices at once. So errors end it.
//!
//! As `/init TOOL ARGUMENTS` it runs one of the [`tools`] for tests.

mod child;
mod netdev;
mod serve;
mod setup;
mod sys;
mod tools;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::system::{RebootCommand, reboot};

fn main() -> Result<()> {
    // The kernel passes unknown words of its command line to init.
    let words: Vec<String> = if std::process::id() == 1 { Vec::new() } else { std::env::args().skip(1).collect() };
    if words.is_empty() { init() } else { tools::run(&words) }.context("agent")
}

fn init() -> Result<()> {
    // Mounting and powering off would harm a host.
    ensure!(std::process::id() == 1, "this program is the init process of a test guest");
    let module = setup::boot()?;
    if setup::wants_shell()? {
        // With the console as its controlling terminal, Ctrl-C and job control work in the shell.
        let status = Command::new("/bin/sh").args(["-c", "exec setsid cttyhack sh -l"]).status();
        if let Err(error) = status {
            eprintln!("agent: cannot start a shell: {error}");
        }
    } else {
        serve::serve(&module)?;
    }
    reboot(RebootCommand::PowerOff).context("cannot power off")
}
