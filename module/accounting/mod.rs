// SPDX-License-Identifier: GPL-2.0

//! The accounting: it parses packets, counts bytes and connections, and formats the counts.
//!
//! Nothing here depends on the kernel. It is safe code on `core` alone, so it also builds as a
//! crate for the host, where its tests run.
//!
//! For each packet: [`packet`] and [`ipv6`] parse the IP header, [`network`] tells which ends of
//! the packet are counted, [`transport`], [`flow`] and [`recent_flows`] tell whether the packet
//! starts a connection, and [`cpu_tables`] adds to the rows of a [`table`]. The recent flows are in
//! arrays ([`flow_array`]). A [`row`] is found by the address itself in a small network
//! ([`direct`]), and by a hash otherwise ([`hashed`], [`index`]). When all rows are in use,
//! [`recycler`] and [`age`] tell which of them a new address replaces.
//!
//! For each read: [`table_text`] is the text of a file. A [`listing`] has the rows of all CPUs, and
//! a [`ledger`] what was delivered of them. [`version`] lets a reader see a [`block`] of rows as it
//! was at one moment, [`sort`] sorts the rows, [`report`] formats them, [`delivery`] hands the
//! lines to the reader, and [`stats`] formats `.stats`. [`platform`] is the interface to the
//! kernel's lists and locks.
//!
//! [`params`] checks the parameters of a rule, and [`limits`] fits them into the memory.
//! [`counters`], [`key`] and [`hash`] are the types that the others are built on. [`slots`] is the
//! interface to the memory allocator.

#![forbid(unsafe_code)]

pub mod age;
pub mod block;
pub mod counters;
pub mod cpu_tables;
pub mod delivery;
pub mod direct;
pub mod flow;
pub mod flow_array;
pub mod hash;
pub mod hashed;
pub mod index;
pub mod ipv6;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod listing;
pub mod network;
pub mod packet;
pub mod params;
pub mod platform;
pub mod recent_flows;
pub mod recycler;
pub mod report;
pub mod row;
pub mod slots;
pub mod sort;
pub mod stats;
pub mod table;
pub mod table_text;
pub mod transport;
pub mod version;

#[cfg(all(test, loom))]
#[path = "../tests/interleavings/rows.rs"]
mod interleavings;
