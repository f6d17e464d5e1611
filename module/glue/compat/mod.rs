// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate of Linux 6.12 lacks, at the paths that it has in later kernels.
//!
//! For a later kernel this is the kernel crate itself. When Linux 6.12 is not supported any more,
//! replace `crate::glue::compat` by `kernel` in all other files, and remove this folder and the
//! lines of `Kbuild` that set `linux_6_12`.

#[cfg(linux_6_12)]
mod linux_6_12;

#[cfg(not(linux_6_12))]
use kernel as source;
#[cfg(linux_6_12)]
use linux_6_12 as source;

pub(crate) use source::{
    cpu,
    fs,
    iov,
    prelude,
    time,
    transmute,
    types, //
};
