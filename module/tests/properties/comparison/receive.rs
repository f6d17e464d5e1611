// SPDX-License-Identifier: GPL-2.0

//! What IP receive lets through to the hook, and how it trims it: `ip_rcv_core` and `ip6_rcv_core` of the kernel.

/// The packet without padding, unless its version, header length, checksum or total length is wrong.
pub fn version4(bytes: &[u8]) -> Option<&[u8]> {
    let head: &[u8; 20] = bytes.first_chunk()?;
    let header_len = usize::from(head[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let header = bytes.get(..header_len)?;
    let sound =
        head[0] >> 4 == 4 && header_len >= 20 && total >= header_len && sum(header) == 0xffff;
    bytes.get(..total).filter(|_| sound)
}

/// The packet without padding, unless its version or payload length is wrong. Without a payload length but with
/// hop-by-hop options it may be a jumbogram: then it stays as long as it is.
pub fn version6(bytes: &[u8]) -> Option<&[u8]> {
    let head: &[u8; 40] = bytes.first_chunk()?;
    let packet = match (u16::from_be_bytes([head[4], head[5]]), head[6]) {
        (0, 0) => bytes,
        (payload, _) => bytes.get(..40 + usize::from(payload))?,
    };
    (head[0] >> 4 == 6).then_some(packet)
}

/// Makes a packet that IP receive takes out of one that has at least a header of that family.
pub fn repair(bytes: &mut [u8]) {
    let length = bytes.len() as u16;
    match bytes.first().map(|byte| byte >> 4) {
        Some(6) if bytes.len() >= 40 => bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes()),
        Some(4) if bytes.len() >= 20 => {
            let words = usize::from(bytes[0] & 0xf).clamp(5, bytes.len() / 4);
            bytes[0] = 0x40 | words as u8;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[10..12].fill(0);
            let checksum = !sum(&bytes[..words * 4]);
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        _ => {}
    }
}

/// The one's complement sum of an even number of bytes.
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
