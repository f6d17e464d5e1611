// SPDX-License-Identifier: GPL-2.0

//! Safe interfaces to the C side of the kernel. All `unsafe` code of the module is here.
//!
//! The crate has three layers:
//!
//! - `accounting`, with `atomic`, uses nothing but `core`.
//! - `glue` uses the kernel. Of this crate it uses `atomic` and the plain traits of `accounting`:
//!   [`packet`] implements `Packet`, [`paged`] implements `Slots` and `Memory`, and [`procfs`]
//!   serves any `Lines` through a `Reader`. It knows no table, no rule and no layout of
//!   parameters, so [`xt_match`] can register any match and [`procfs`] can serve any file.
//!   [`compat`] has what the kernel crate of an old kernel lacks.
//! - The files beside this folder use both, and have no `unsafe` code.

pub(crate) mod boottime;
pub(crate) mod budget;
pub(crate) mod compat;
pub(crate) mod jiffies;
pub(crate) mod memcg;
pub(crate) mod net;
pub(crate) mod packet;
pub(crate) mod paged;
pub(crate) mod params;
pub(crate) mod percpu;
pub(crate) mod pernet;
pub(crate) mod procfs;
pub(crate) mod random;
pub(crate) mod reader_list;
pub(crate) mod task;
pub(crate) mod xt_match;
