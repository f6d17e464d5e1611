// SPDX-License-Identifier: GPL-2.0-only
//! Starts processes that end with this process, also when a signal kills it.
//!
//! The kernel kills such a process when the thread that has started it ends:
//! <https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html>. A virtual machine can
//! outlive the thread of a test. So one thread starts all of them, and ends with this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// A command, and where its result goes.
type Request = (Command, Sender<io::Result<Child>>);

/// The way to the thread that starts processes.
static STARTER: LazyLock<Sender<Request>> = LazyLock::new(|| {
    let (starter, requests) = channel::<Request>();
    std::thread::spawn(move || {
        for (mut command, result) in requests {
            // The receiver waits, so it still exists.
            drop(result.send(command.spawn()));
        }
    });
    starter
});

/// Starts a process, which is killed when this process ends.
pub(crate) fn spawn(mut command: Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    end_with_this_process(&mut command);
    let (sender, result) = channel();
    STARTER.send((command, sender)).context("the thread that starts processes has ended")?;
    let child = result.recv().context("the thread that starts processes has ended")?;
    child.with_context(|| format!("cannot run {name}"))
}

fn end_with_this_process(command: &mut Command) {
    let this = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // There is no signal if this process has ended before.
        if getppid() == Some(this) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
    };
    // SAFETY: After `fork` the closure makes only system calls, which are async-signal-safe, and
    // an error from their number, which allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
