// SPDX-License-Identifier: GPL-2.0
//! Frames by the thousand, from a seed: most of them right, many of them wrong in one place or another.

mod damage;
mod talk;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use self::talk::Talk;
use super::{ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, IPV4, IPV6, Mac, padded};

/// An endless source of frames. The same seed, box and addresses give the same frames.
pub struct Generator {
    random: Rng,
    box_mac: Mac,
    /// Who talks, of each family.
    four: Vec<Ipv4Addr>,
    six: Vec<Ipv6Addr>,
    /// Some that have talked and may talk on.
    talks: Vec<Talk>,
    ready: Vec<Vec<u8>>,
}

impl Generator {
    /// `box_mac` is the address of the port that will receive the frames: a few are addressed to it.
    /// `addresses` are the ones that talk (and now and then any other of the same family does).
    pub fn new<A: Into<IpAddr>>(seed: u64, box_mac: Mac, addresses: Vec<A>) -> Self {
        assert!(!addresses.is_empty(), "somebody has to talk");
        let (mut four, mut six) = (vec![], vec![]);
        for address in addresses {
            match address.into() {
                IpAddr::V4(address) => four.push(address),
                IpAddr::V6(address) => six.push(address),
            }
        }
        Self { random: Rng::with_seed(seed), box_mac, four, six, talks: vec![], ready: vec![] }
    }

    fn odds(&mut self, one_in: u32) -> bool {
        self.random.u32(..one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.random.u8(..)).take(count).collect()
    }

    /// A new batch, last frame first: one conversation step, which can be several frames.
    fn batch(&mut self) -> Vec<Vec<u8>> {
        let ethernet = self.ethernet();
        let (ethertype, packets) = self.packets();
        let ethertype = match self.random.u8(..40) {
            0 => self.pick(&[IPV4, IPV6]),
            1 => self.random.u16(..),
            _ => ethertype,
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
