// SPDX-License-Identifier: GPL-2.0
//! The guest's init process: makes a machine out of the bare initramfs, then does what the host asks for
//! over a virtio-serial port (see `proto.rs` for the form of a message, [`serve::answer`] for the words).
//!
//! It uses std alone and is linked statically, so that it depends on nothing in the guest. As process 1 it
//! must never end: the kernel panics when it does, QEMU exits, and the host learns of it at once. That is
//! exactly what is wanted when it fails, so errors end it.
//!
//! Started again inside the guest, as `/init TOOL ARGUMENTS`, it is one of the [`tools`] that tests need there and
//! that no package has.

mod children;
mod netdev;
mod proto;
mod serve;
mod setup;
mod sys;
mod tools;

use std::process::Command;

fn main() {
    // The kernel hands the words of its command line that it does not know to its init process.
    let words: Vec<String> = if std::process::id() == 1 { Vec::new() } else { std::env::args().skip(1).collect() };
    let done = if words.is_empty() { work() } else { tools::run(&words) };
    if let Err(error) = done {
        eprintln!("agent: {error}");
        std::process::exit(1);
    }
}

fn work() -> Result<(), String> {
    // Only init may mount and power off; a developer who starts it by hand should not lose a machine.
    if std::process::id() != 1 {
        return Err("this program is the init process of a test guest and does nothing elsewhere".into());
    }
    let machine = setup::boot()?;
    if setup::wants_shell()? {
        // The shell gets the console as its controlling terminal, so that Ctrl-C and job control work.
        let status = Command::new("/bin/sh").args(["-c", "exec setsid cttyhack sh -l"]).status();
        if let Err(error) = status {
            eprintln!("agent: no shell: {error}");
        }
    } else {
        serve::serve(&machine)?;
    }
    Err(format!("cannot power off: {}", sys::power_off()))
}

/// Adds what was tried to an error, for people who read the console.
fn failed<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}
