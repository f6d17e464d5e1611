// SPDX-License-Identifier: GPL-2.0-only
//! Tables with many rows.

use std::net::Ipv4Addr;

use anyhow::ensure;
use traffic_model::frames::{Ip, mirrored};
use traffic_model::model::{Internal, Rule};
use vm_tests::{count, expected, guest_test};

const ROWS: u32 = 1 << 16;

// New addresses alternate between both ends of a range. In this order a recursive sort is deepest,
// and a sender can choose it.
guest_test!(many_addresses_in_the_worst_order, |guest| {
    let address = |n: u32| Ipv4Addr::from(0x0a10_0000 + if n % 2 == 0 { n } else { ROWS - n }).octets();
    let frame = |n| mirrored(&Ip::new(address(n), [192, 0, 2, 1]).udp((1, 2), b""));
    let frames: Vec<_> = (0..ROWS).map(frame).collect();
    let text = count(guest, "--net 10.0.0.0/8", &frames)?;
    ensure!(text.lines().count() == ROWS as usize + 1, "{} lines", text.lines().count());
    let rule = Rule::new(Ipv4Addr::new(10, 0, 0, 0), 8, Internal::Count);
    ensure!(text == expected(&rule, &frames).text());
});
