// SPDX-License-Identifier: GPL-2.0

//! What is counted, and where: the pure part of the match.
//!
//! Nothing here knows of the kernel. It is safe code on `core` alone, and builds as a crate
//! of its own for the host, where its tests run.
//!
//! On the way of a packet: [`packet`] and [`ipv6`] (who sends to whom, by which protocol),
//! [`network`] (which of the two is accounted for), [`transport`] and [`flows`] (does it start a
//! connection), and [`cpu_tables`], which puts it all into the rows of a [`table`]: [`direct`] ones in a small
//! network, else [`hashed`] ones.
//!
//! On the way to a reader: [`table_text`] makes the text of a file from [`rows`], [`sort`] and
//! [`report`] (the text of a row), [`delivery`] hands its lines to readers, and [`stats`] is the
//! text of `.stats`. [`platform`] says what they need from the kernel.
//!
//! [`params`] is what a rule asks for; [`slots`] says what memory tables need from their
//! surroundings.

#![forbid(unsafe_code)]

pub mod counters;
pub mod cpu_tables;
pub mod delivery;
pub mod direct;
pub mod flows;
pub mod hash;
pub mod hashed;
pub mod ipv6;
pub mod key;
pub mod network;
pub mod packet;
pub mod params;
pub mod platform;
pub mod report;
pub mod row;
pub mod rows;
pub mod slots;
pub mod sort;
pub mod stats;
pub mod table;
pub mod table_text;
pub mod transport;
