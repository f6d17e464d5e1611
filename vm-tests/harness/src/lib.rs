// SPDX-License-Identifier: GPL-2.0
//! A box behind a mirror port, in QEMU: frames go in at its network port, text comes out of its `/proc`.
//!

//! * [`guest`] runs the machine that [`artifacts`] names, and moves the frames into it without losing one.
//! * [`model`] computes what `/proc` must say about frames, with a parser that is not the kernel module's.
//! * [`machine`] runs a whole computer from its own disk, and types at its terminal.
//! * [`log`] decides whether a guest's kernel log is clean.
//! * [`replay`] and [`shell`] are what `cargo xtask` offers to people.

pub mod accel;
pub mod artifacts;
mod door;
pub mod guest;
pub mod log;
pub mod machine;
pub mod replay;
pub mod shell;
