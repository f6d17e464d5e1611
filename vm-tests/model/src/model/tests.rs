// SPDX-License-Identifier: GPL-2.0-only
//! Compares the model with examples that were computed by hand.

mod connections;
mod mirror;
mod receive;
mod rules;
mod tables;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::frames::{Ip, mirrored};

/// The address of the mirror port.
const PORT: Mac = [2, 0, 0, 0, 0, 9];

/// Two hosts of 10.0.0.0/8, and one outside.
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const FAR: [u8; 4] = [192, 0, 2, 7];

/// Two hosts of 2001:db8::/32, and one outside.
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 7);

fn inside() -> Rule {
    Rule::new(A, 8, Internal::Count)
}

fn inside6() -> Rule {
    Rule::new(A6, 32, Internal::Count)
}

/// Counts frames with rules for all addresses of both families and with all files. Returns the
/// number of packets and the number of connections.
fn seen(frames: &[Vec<u8>]) -> (u64, usize) {
    let [ipv4, ipv6] = [Rule::ALL_IPV4, Rule::ALL_IPV6].map(|rule| Expected::of(&rule.with(&File::ALL), PORT, frames));
    (ipv4.packets + ipv6.packets, ipv4.started.len() + ipv6.started.len())
}

fn counted(frame: Vec<u8>) -> bool {
    seen(&[frame]).0 == 1
}
