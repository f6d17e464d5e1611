// SPDX-License-Identifier: GPL-2.0

//! What is counted, and where: the pure part of the match.
//!
//! Nothing here knows of the kernel. It is safe code on `core` alone, and builds as a crate
//! of its own for the host, where its tests run.
//!
//! A packet goes through [`packet`] (who sends how much to whom), [`network`] (which of the two
//! is accounted for) and [`table`] (their rows). [`report`] turns tables into the text of the
//! files. [`slots`] says what memory the tables need from their surroundings.

#![forbid(unsafe_code)]

pub mod counters;
pub mod network;
pub mod packet;
pub mod params;
pub mod report;
pub mod slots;
pub mod table;
