// SPDX-License-Identifier: GPL-2.0

//! Everything that touches the C side of the kernel, and all `unsafe` code.
//!
//! What comes out of it is safe: per-CPU data ([`percpu`]), memory that grows in the packet path
//! ([`paged`]), state per network namespace ([`netns`]), files ([`procfs`]), packets ([`packet`])
//! and the registration of a match ([`xt_match`]).

pub(crate) mod clock;
pub(crate) mod log;
pub(crate) mod memcg;
pub(crate) mod netns;
pub(crate) mod packet;
pub(crate) mod paged;
pub(crate) mod params;
pub(crate) mod percpu;
pub(crate) mod procfs;
pub(crate) mod random;
pub(crate) mod task;
pub(crate) mod xt_match;
