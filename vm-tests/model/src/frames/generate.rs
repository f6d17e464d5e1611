// SPDX-License-Identifier: GPL-2.0-only
//! Pseudo-random frames: most are valid, many have an error.

mod conversation;
mod damage;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use fastrand::Rng;

use self::conversation::Conversation;
use super::{ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, IPV4, IPV6, LAYERS, Layer, Mac, padded};

/// An infinite iterator of frames. The same arguments give the same frames.
pub struct Generator {
    random: Rng,
    port_mac: Mac,
    /// Whether frames have all kinds of headers around the packet, and not only VLAN tags.
    encapsulates: bool,
    ipv4: Vec<IpAddr>,
    ipv6: Vec<IpAddr>,
    /// Past conversations, which may continue.
    conversations: Vec<Conversation>,
    /// Generated frames, the next one last.
    ready: Vec<Vec<u8>>,
}

impl Generator {
    /// `port_mac` is the address of the port that will receive the frames; a few frames are
    /// addressed to it. Most packets are between `addresses`, a few use random addresses.
    ///
    /// # Panics
    /// Without addresses.
    pub fn new<A: Into<IpAddr>>(seed: u64, port_mac: Mac, addresses: Vec<A>) -> Self {
        assert!(!addresses.is_empty(), "no addresses");
        let (ipv4, ipv6) = addresses.into_iter().map(Into::into).partition(IpAddr::is_ipv4);
        let (conversations, ready) = (vec![], vec![]);
        Self { random: Rng::with_seed(seed), port_mac, encapsulates: false, ipv4, ipv6, conversations, ready }
    }

    /// Puts all kinds of headers around the packets, in any order, more than a mirror device
    /// removes at most.
    #[must_use]
    pub fn encapsulated(self) -> Self {
        Self { encapsulates: true, ..self }
    }

    /// True with probability `1 / one_in`.
    fn odds(&mut self, one_in: u32) -> bool {
        self.random.u32(..one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.random.u8(..)).take(count).collect()
    }

    /// The frames of one step of a conversation, the last one first.
    fn batch(&mut self) -> Vec<Vec<u8>> {
        let ethernet = self.ethernet();
        let layers = self.layers();
        let (ethertype, packets) = self.packets();
        let ethertype = match self.random.u8(..40) {
            0 => self.pick(&[IPV4, IPV6]),
            1 => self.random.u16(..),
            _ => ethertype,
        };
        let mut frames: Vec<Vec<u8>> = packets
            .into_iter()
            .map(|packet| {
                let packet = if self.odds(4) { self.broken(packet) } else { packet };
                let frame = ethernet.wrap_in(&layers, ethertype, &packet);
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
            2 => self.port_mac,
            _ => self.pick(&[ALICE, BOB]),
        };
        let mut ethernet = Ethernet::new(ALICE, destination);
        if self.encapsulates {
            return ethernet;
        }
        let tags = self.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 3]);
        for _ in 0..tags {
            let kind = self.pick(&[DOT1Q, DOT1AD]);
            // VLAN 0 carries a priority alone. The upper bits are priority and drop eligibility.
            let vlan = self.pick(&[0, 0, 1, 5, 4094, 4095]) | self.pick(&[0, 0x1000, 0xe000]);
            ethernet = ethernet.tag(kind, vlan);
        }
        ethernet
    }

    fn layers(&mut self) -> Vec<Layer> {
        if !self.encapsulates {
            return vec![];
        }
        let most = self.pick(&[2, 4, 4, 20]);
        (0..self.random.usize(..most)).map(|_| self.pick(&LAYERS)).collect()
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
