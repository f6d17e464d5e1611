// SPDX-License-Identifier: GPL-2.0-only
//! Makes invalid packets and frames from valid ones.

use super::Generator;
use crate::frames::fix_checksum;

impl Generator {
    /// Breaks one field that a receiver must check.
    pub(super) fn broken(&mut self, packet: Vec<u8>) -> Vec<u8> {
        if packet[0] >> 4 == 6 { self.broken6(packet) } else { self.broken4(packet) }
    }

    fn broken4(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let (mut total, mut repair) = (u16::from_be_bytes([packet[2], packet[3]]), true);
        match self.random.u8(..8) {
            // Version.
            0 => packet[0] = packet[0] & 0x0f | self.pick(&[0, 0x30, 0x50, 0x60, 0xf0]),
            // Header length: too small, or up to more than the packet has.
            1 => packet[0] = 0x40 | self.random.u8(..16),
            // Checksum.
            2 => {
                let at = self.random.usize(10..12);
                packet[at] ^= 1 << self.random.u8(..8);
                repair = false;
            }
            // Total length: longer than the packet, shorter (the rest is padding), shorter than a
            // header.
            3 => total = total.wrapping_add(self.random.u16(1..2000)),
            4 => total = self.random.u16(..=total),
            5 => total = self.random.u16(..24),
            // Truncated.
            6 => packet.truncate(self.random.usize(..packet.len())),
            // Any bit, without repairing the checksum.
            _ => {
                self.flip(&mut packet);
                repair = false;
            }
        }
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&total.to_be_bytes());
        }
        if repair {
            fix_checksum(&mut packet);
        }
        packet
    }

    fn broken6(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let mut length = u16::from_be_bytes([packet[4], packet[5]]);
        match self.random.u8(..8) {
            // Version.
            0 => packet[0] = packet[0] & 0x0f | self.pick(&[0, 0x40, 0x50, 0x70, 0xf0]),
            // Payload length: longer than the packet, shorter (the rest is padding), zero.
            1 => length = length.wrapping_add(self.random.u16(1..2000)),
            2 => length = self.random.u16(..=length),
            3 => length = self.random.u16(..=length.min(48)),
            4 => length = 0,
            // The next header field is wrong.
            5 => {
                let any = self.random.u8(..);
                packet[6] = self.pick(&[any, 0, 0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135]);
            }
            // Truncated.
            6 => packet.truncate(self.random.usize(..packet.len())),
            // Any bit in the first 100 bytes, where headers are.
            _ => {
                let end = packet.len().min(100);
                self.flip(&mut packet[..end]);
                return packet;
            }
        }
        if let Some(field) = packet.get_mut(4..6) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        packet
    }

    fn flip(&mut self, packet: &mut [u8]) {
        let at = self.random.usize(..packet.len());
        packet[at] ^= 1 << self.random.u8(..8);
    }

    /// Truncates a frame or changes some bytes. At least one byte remains: an empty frame cannot be
    /// sent.
    pub(super) fn mangled(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.odds(2) {
            let length = self.random.usize(1..=frame.len());
            frame.truncate(length);
        } else {
            for _ in 0..self.random.usize(1..8) {
                let at = self.random.usize(..frame.len());
                frame[at] = self.random.u8(..);
            }
        }
        frame
    }
}
