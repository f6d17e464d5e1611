// SPDX-License-Identifier: GPL-2.0-only
//! What the guest's agent and the harness share: the protocol between them, and polling.

pub mod poll;
pub mod proto;
