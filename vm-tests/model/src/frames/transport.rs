// SPDX-License-Identifier: GPL-2.0
//! What IP carries. The checksum comes from outside: it covers the addresses, too.

pub(super) fn udp(ports: (u16, u16), data: &[u8], sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let head = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    let mut segment = [&head[..], data].concat();
    // In UDP a sum of zero means that there is none.
    let sum = match sum(&segment) {
        0 => 0xffff,
        sum => sum,
    };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub(super) fn tcp(ports: (u16, u16), sequence: u32, flags: u8, data: &[u8], sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let mut segment = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = sum(&segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// An ICMP or ICMPv6 message with code 0.
pub(super) fn icmp(kind: u8, rest: [u8; 4], data: &[u8], sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], &rest, data].concat();
    let sum = sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An SCTP packet with anything for chunks. Its checksum is zero: nobody who only looks on checks it.
pub fn sctp(ports: (u16, u16), tag: u32, chunks: &[u8]) -> Vec<u8> {
    let head = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    [&head[..], &tag.to_be_bytes(), &[0; 4], chunks].concat()
}

/// A GRE packet without any options.
pub fn gre(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &ethertype.to_be_bytes(), payload].concat()
}
