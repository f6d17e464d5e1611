// SPDX-License-Identifier: GPL-2.0
//! Tables with many rows.

use std::net::Ipv4Addr;

use anyhow::ensure;
use traffic_model::frames::{Ipv4, mirrored};
use traffic_model::model::{Internal, Rule};

use crate::support::{count, expected, in_guest};

const ROWS: u32 = 1 << 16;

/// Addresses that come from both ends of a range in turn. It is the order in which a sorting that recurses goes
/// deepest, and whoever sends the traffic can choose it.
#[test]
fn addresses_in_a_bad_order() {
    let address = |n: u32| Ipv4Addr::from(0x0a10_0000 + if n % 2 == 0 { n } else { ROWS - n }).octets();
    let frame = |n| mirrored(&Ipv4::new(address(n), [192, 0, 2, 1]).udp((1, 2), b""));
    let frames: Vec<_> = (0..ROWS).map(frame).collect();
    in_guest(|guest| {
        let text = count(guest, "--net 10.0.0.0/8", &frames)?;
        ensure!(text.lines().count() == ROWS as usize + 1, "{} lines", text.lines().count());
        let rule = Rule::new(Ipv4Addr::new(10, 0, 0, 0), 8, Internal::Count);
        ensure!(text == expected(&rule, &frames).text());
        Ok(())
    });
}
