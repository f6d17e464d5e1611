// SPDX-License-Identifier: GPL-2.0
//! The model against examples that were computed by hand.

mod connections;
mod receive;
mod rules;
mod tables;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::frames::{Ip, Ipv4, Ipv6};

const BOX: Mac = [2, 0, 0, 0, 0, 9];

/// Two hosts of 10.0.0.0/8, and one outside.
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const FAR: [u8; 4] = [192, 0, 2, 7];

/// Two hosts of 2001:db8::/32, and one outside.
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 7);

const SIX: Ipv6 = Ipv6 { source: A6, destination: FAR6 };

fn inside() -> Rule {
    Rule::new(A.into(), 8, Internal::Count)
}

fn inside6() -> Rule {
    Rule::new6(A6, 32, Internal::Count)
}

/// Both rules for everything, with all files, on frames at one time: how many packets there were, and how many
/// of them started a connection.
fn seen(frames: &[Vec<u8>]) -> (u64, usize) {
    let of = |rule: Rule| Expected::of(&rule.with(&File::ALL), BOX, frames);
    let (four, six) = (of(Rule::everything()), of(Rule::everything6()));
    (four.packets + six.packets, four.started.len() + six.started.len())
}

fn counted(frame: Vec<u8>) -> bool {
    seen(&[frame]).0 == 1
}
