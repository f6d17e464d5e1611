// SPDX-License-Identifier: GPL-2.0

//! Sends the same packets to the accounting and to the independent model, and compares the results.

// The tests and the fuzz target use different parts of this module.
#![allow(dead_code)]

pub mod accounting;
pub mod bytes;
pub mod receive;

use accounting::{Accounting, Nonlinear, CLOCK, ROOMY, START};
use core::{fmt, net::IpAddr, time::Duration};
use traffic_model::{
    frames::{Ethernet, Mac, ALICE, BOB, IPV4, IPV6},
    model::{self, Expected, File, Rule},
};
use xt_traffic_accounting::accounting::{
    flow::Ticks,
    network::{Internal, Network},
    packet::Family,
    params::{Counts, Sizes},
    table::Size,
};

/// The MAC address of the mirror port.
const MIRROR_MAC: Mac = [2, 0, 0, 0, 0, 9];

/// The files in the order of [`Outcome::texts`].
const FILES: [File; 3] = [File::Traffic, File::Ipconn, File::Portconn];

/// A family of the accounting that can be compared with the model.
pub trait Modelled: Family + fmt::Debug {
    /// The size of the IP header in bytes. The linear area of every packet contains it.
    const HEADER: usize;
    /// The EtherType of its packets.
    const ETHERTYPE: u16;

    /// The address in the first bytes of `bytes`, in network byte order.
    fn address(bytes: [u8; 16]) -> Self;

    /// A mask with `length` leading ones.
    fn mask(length: u32) -> Self {
        let wide = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Self::address(wide.to_be_bytes())
    }

    /// The address in the form that the model takes.
    fn ip(self) -> IpAddr;

    /// The packet in `bytes` without padding. `None` if the IP receive path would drop it.
    fn received(bytes: &[u8]) -> Option<&[u8]>;
}

impl Modelled for u32 {
    const HEADER: usize = 20;
    const ETHERTYPE: u16 = IPV4;

    fn address([a, b, c, d, ..]: [u8; 16]) -> Self {
        Self::from_be_bytes([a, b, c, d])
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }

    fn received(bytes: &[u8]) -> Option<&[u8]> {
        receive::version4(bytes)
    }
}

impl Modelled for u128 {
    const HEADER: usize = 40;
    const ETHERTYPE: u16 = IPV6;

    fn address(bytes: [u8; 16]) -> Self {
        Self::from_be_bytes(bytes)
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn received(bytes: &[u8]) -> Option<&[u8]> {
        receive::version6(bytes)
    }
}

/// The arrival of a packet at a CPU.
#[derive(Clone)]
pub struct Arrival {
    /// The time since the arrival before.
    pub gap: Ticks,
    /// The number of the CPU.
    pub cpu: usize,
    /// The number of bytes in the linear area after the IP header.
    pub linear: usize,
    /// The packet, valid or broken, perhaps with padding.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} CPU {} linear {}:", self.gap, self.cpu, self.linear)?;
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// A rule, and the packets that reach it.
#[derive(Clone, Debug)]
pub struct Scenario<A> {
    pub base: A,
    pub length: u32,
    /// The length of `--prefix`, if it is given.
    pub prefix: Option<u32>,
    pub internal: Internal,
    pub counts: Counts,
    pub hash_size: u32,
    pub cpus: usize,
    pub arrivals: Vec<Arrival>,
}

/// The results of the accounting after a scenario.
pub struct Outcome {
    /// The texts of the files: traffic, ipconn, portconn.
    pub texts: [Option<String>; 3],
    /// The indexes of the packets that matched.
    pub matched: Vec<usize>,
    /// The bytes of all packets that matched.
    pub bytes: u64,
    /// How often a flow was forgotten before it expired.
    pub forgotten: u64,
}

impl<A: Modelled> Scenario<A> {
    /// Panics if the results of the accounting and of the model differ.
    pub fn check(&self) {
        let (outcome, expected) = (self.run(), self.expected());
        assert_eq!(outcome.forgotten, 0, "the model forgets no flow");
        for (file, text) in FILES.into_iter().zip(&outcome.texts) {
            if let Some(text) = text {
                model::same_table(&file.name("table"), text, &expected.text_of(file)).unwrap();
            }
        }
        assert_eq!(
            (outcome.matched.len() as u64, outcome.bytes),
            (expected.packets, expected.bytes)
        );
        if !self.counts.traffic {
            assert_eq!(outcome.matched, expected.started);
        }
    }

    /// The results of the accounting.
    pub fn run(&self) -> Outcome {
        let network = self.network();
        let rows = network.rows().min(ROOMY.addresses.rows.into()) as u32;
        let sizes = Sizes {
            addresses: Size::hashed(rows),
            ports: Sizes::PORTS,
            hash_size: self.hash_size,
        };
        self.run_with(sizes.for_network(&network))
    }

    fn network(&self) -> Network<A> {
        let network = Network::new(self.base, A::mask(self.length), self.internal).unwrap();
        let shared_bits = self.prefix.map_or(0, |prefix| A::BITS - prefix);
        network.with_shared_rows(shared_bits).unwrap()
    }

    /// The results of the accounting with tables of these sizes.
    pub fn run_with(&self, sizes: Sizes) -> Outcome {
        let accounting = Accounting::new(self.network(), self.counts, sizes, self.cpus);
        let (mut now, mut matched, mut bytes) = (START, vec![], 0);
        for (number, arrival) in self.arrivals.iter().enumerate() {
            now += arrival.gap;
            let Some(packet) = A::received(&arrival.bytes) else {
                continue;
            };
            let pieces = Nonlinear {
                bytes: packet,
                linear: A::HEADER + arrival.linear,
            };
            if accounting.count(arrival.cpu % self.cpus, now, pieces) {
                matched.push(number);
                bytes += packet.len() as u64;
            }
        }
        Outcome {
            texts: accounting.texts(),
            matched,
            bytes,
            forgotten: accounting.forgotten(),
        }
    }

    /// The results of the model.
    pub fn expected(&self) -> Expected {
        let mut now = 0;
        let frames = self.arrivals.iter().map(|arrival| {
            now += arrival.gap;
            let time = Duration::from_micros(now * 1_000_000 / CLOCK.ticks_per_second);
            (
                time,
                Ethernet::new(ALICE, BOB).wrap(A::ETHERTYPE, &arrival.bytes),
            )
        });
        Expected::at_times(&self.rule(), MIRROR_MAC, frames)
    }

    fn rule(&self) -> Rule {
        let internal = match self.internal {
            Internal::Any => model::Internal::Count,
            Internal::Exclude => model::Internal::Skip,
            Internal::Only => model::Internal::Only,
        };
        let Counts {
            traffic,
            ipconn,
            portconn,
        } = self.counts;
        let wanted = FILES.into_iter().zip([traffic, ipconn, portconn]);
        let files = wanted.filter_map(|(file, wanted)| wanted.then_some(file));
        let rule = Rule::new(self.base.ip(), self.length, internal);
        let rule = self.prefix.map_or(rule, |prefix| rule.with_prefix(prefix));
        rule.with(&files.collect::<Vec<_>>())
    }
}
