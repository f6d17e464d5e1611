// SPDX-License-Identifier: GPL-2.0-only
//! The statistics of a mirror device.

use std::collections::BTreeMap;

use super::packet::{Fault, Packet};

/// The frames that a port gives to the device: a shorter one is an error of the port.
pub fn has_ethernet_header(frame: &[u8]) -> bool {
    frame.len() >= 14
}

/// What `ethtool -S` must show for a mirror device that has received the frames, without zeros.
pub fn statistics<F: AsRef<[u8]>>(frames: impl IntoIterator<Item = F>, sliced: bool) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        let frame = frame.as_ref();
        if !has_ethernet_header(frame) {
            continue;
        }
        let name = match Packet::mirrored(frame, sliced) {
            Ok(packet) if packet.source.is_ipv4() => "ipv4",
            Ok(_) => "ipv6",
            Err(Fault::NotIp) => "not_ip",
            Err(Fault::Broken) => "broken",
            Err(Fault::Cut) => "cut",
            Err(Fault::TooDeep) => "too_deep",
        };
        *counts.entry(format!("rx_{name}_packets")).or_default() += 1;
        *counts.entry(format!("rx_{name}_bytes")).or_default() += frame.len() as u64;
    }
    counts
}
