// SPDX-License-Identifier: GPL-2.0
//! Frames by the thousand, from a seed: most of them right, many of them wrong in one place or another.

use std::net::Ipv4Addr;

use fastrand::Rng;

use super::{
    ACK, ALICE, BOB, BROADCAST, DONT_FRAGMENT, DOT1AD, DOT1Q, Ethernet, ICMP, IPV4, IPV6, Ipv4, MORE_FRAGMENTS, Mac,
    SYN, TCP, UDP, fix_checksum, fragments, padded, tcp_stream,
};

/// An endless source of frames. The same seed, box and addresses give the same frames.
pub struct Generator {
    random: Rng,
    box_mac: Mac,
    addresses: Vec<Ipv4Addr>,
    ready: Vec<Vec<u8>>,
}

impl Generator {
    /// `box_mac` is the address of the port that will receive the frames: a few are addressed to it.
    /// `addresses` are the ones that talk (and now and then any other does).
    pub fn new(seed: u64, box_mac: Mac, addresses: Vec<Ipv4Addr>) -> Self {
        assert!(!addresses.is_empty(), "somebody has to talk");
        Self { random: Rng::with_seed(seed), box_mac, addresses, ready: Vec::new() }
    }

    fn odds(&mut self, one_in: u32) -> bool {
        self.random.u32(..one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    /// A new batch, last frame first: one conversation step, which can be several frames.
    fn batch(&mut self) -> Vec<Vec<u8>> {
        let ethernet = self.ethernet();
        let packets = self.packets();
        let ethertype = match self.random.u8(..20) {
            0 => IPV6,
            1 => self.random.u16(..),
            _ => IPV4,
        };
        let mut frames: Vec<Vec<u8>> = packets
            .into_iter()
            .map(|packet| {
                let broken = self.odds(4);
                let packet = if broken { self.broken(packet) } else { packet };
                let frame = ethernet.wrap(ethertype, &packet);
                let frame = if self.odds(2) { padded(frame) } else { frame };
                if self.odds(30) { self.mangled(frame) } else { frame }
            })
            .collect();
        frames.reverse();
        frames
    }

    fn ethernet(&mut self) -> Ethernet {
        let multicast = [0x01, 0, 0x5e, 1, 2, 3];
        let destination = match self.random.u8(..20) {
            0 => BROADCAST,
            1 => multicast,
            2 => self.box_mac,
            _ => self.pick(&[ALICE, BOB]),
        };
        let mut ethernet = Ethernet::new(ALICE, destination);
        let tags = self.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 3]);
        for _ in 0..tags {
            let kind = self.pick(&[DOT1Q, DOT1AD]);
            // VLAN 0 says a priority and no VLAN; the upper bits are priority and drop eligibility.
            let vlan = self.pick(&[0, 0, 1, 5, 4094, 4095]) | self.pick(&[0, 0x1000, 0xe000]);
            ethernet = ethernet.tag(kind, vlan);
        }
        ethernet
    }

    fn address(&mut self) -> Ipv4Addr {
        if self.odds(20) {
            return Ipv4Addr::from(self.random.u32(..));
        }
        self.addresses[self.random.usize(..self.addresses.len())]
    }

    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut ip = Ipv4::new(self.address(), self.address());
        ip.id = self.random.u16(..);
        if self.odds(8) {
            ip.options = vec![1; self.random.usize(1..=40)];
        }
        let ports = (self.random.u16(..), self.random.u16(..));
        let longest = self.pick(&[10, 100, 1400, 1400, 9000]);
        let size = self.random.usize(..longest);
        let data = vec![self.random.u8(..); size];
        match self.random.u8(..10) {
            0..=2 => vec![ip.udp(ports, &data)],
            3 => vec![ip.tcp(ports, self.random.u32(..), self.pick(&[SYN, ACK, SYN | ACK]), &data)],
            4 | 5 => {
                let count = self.random.usize(2..40);
                tcp_stream(&ip, ports, count, size.clamp(1, 1400))
            }
            6 => vec![ip.ping(ports.0, &data)],
            7 => fragments(&ip, ports, size, self.pick(&[8, 64, 1480])),
            8 => {
                ip.fragment = self.random.u16(..) & !DONT_FRAGMENT | self.pick(&[0, MORE_FRAGMENTS]);
                vec![ip.packet(self.pick(&[TCP, UDP, ICMP]), &data)]
            }
            _ => vec![ip.packet(self.random.u8(..), &data)],
        }
    }

    /// Breaks one thing in an IPv4 packet that a receiver has to check.
    fn broken(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let total = u16::from_be_bytes([packet[2], packet[3]]);
        let (mut total, mut repair) = (total, true);
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
            // Total length: more than there is, less than there is (the rest is padding), less than a header.
            3 => total = total.wrapping_add(self.random.u16(1..2000)),
            4 => total = self.random.u16(..=total),
            5 => total = self.random.u16(..24),
            // Cut short on the way.
            6 => packet.truncate(self.random.usize(..packet.len())),
            // A bit somewhere, the header's checksum not repaired.
            _ => {
                let at = self.random.usize(..packet.len());
                packet[at] ^= 1 << self.random.u8(..8);
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

    /// Damages a frame anywhere. It keeps at least one byte: an empty frame cannot be sent.
    fn mangled(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
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

impl Iterator for Generator {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.ready.pop() {
                return Some(frame);
            }
            self.ready = self.batch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_frames() {
        let make = |seed| Generator::new(seed, [2; 6], vec![Ipv4Addr::LOCALHOST]).take(500).collect::<Vec<_>>();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn no_frame_is_empty_and_most_are_whole() {
        let frames: Vec<_> = Generator::new(7, [2; 6], vec![Ipv4Addr::LOCALHOST]).take(5000).collect();
        assert!(frames.iter().all(|frame| !frame.is_empty()));
        let whole = frames.iter().filter(|frame| etherparse::SlicedPacket::from_ethernet(frame).is_ok()).count();
        assert!((2500..4900).contains(&whole), "{whole} of 5000 are whole");
    }
}
