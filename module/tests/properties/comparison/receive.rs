// SPDX-License-Identifier: GPL-2.0

//! The checks of the IP receive path before the hook, and how it trims packets: `ip_rcv_core()` and
//! `ip6_rcv_core()` of the kernel
//! (<https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/ip_input.c> and
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv6/ip6_input.c>).

use traffic_model::frames::fix_checksum;

/// The IPv4 packet without padding. `None` if the version, the header length, the checksum or the
/// total length is wrong.
pub fn version4(bytes: &[u8]) -> Option<&[u8]> {
    let head: &[u8; 20] = bytes.first_chunk()?;
    let header_len = usize::from(head[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let header = bytes.get(..header_len)?;
    let sound =
        head[0] >> 4 == 4 && header_len >= 20 && total >= header_len && sum(header) == 0xffff;
    bytes.get(..total).filter(|_| sound)
}

/// The IPv6 packet without padding. `None` if the version or the payload length is wrong. A packet
/// with payload length 0 and a Hop-by-Hop Options header may be a jumbogram
/// (<https://www.rfc-editor.org/rfc/rfc2675>): IP receive passes it on untrimmed if it has no jumbo
/// payload option. These packets are too short for a valid one.
pub fn version6(bytes: &[u8]) -> Option<&[u8]> {
    let head: &[u8; 40] = bytes.first_chunk()?;
    let packet = match (u16::from_be_bytes([head[4], head[5]]), head[6]) {
        (0, 0) => bytes,
        (payload, _) => bytes.get(..40 + usize::from(payload))?,
    };
    (head[0] >> 4 == 6).then_some(packet)
}

/// Corrects the lengths and the checksum in the header of a packet. Does nothing if the packet is
/// shorter than an IP header.
pub fn repair(bytes: &mut [u8]) {
    let length = bytes.len() as u16;
    match bytes.first().map(|byte| byte >> 4) {
        Some(6) if bytes.len() >= 40 => bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes()),
        Some(4) if bytes.len() >= 20 => {
            let words = usize::from(bytes[0] & 0xf).clamp(5, bytes.len() / 4);
            bytes[0] = 0x40 | words as u8;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            fix_checksum(bytes);
        }
        _ => {}
    }
}

/// The one's complement sum of an even number of bytes: <https://www.rfc-editor.org/rfc/rfc1071>.
fn sum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
