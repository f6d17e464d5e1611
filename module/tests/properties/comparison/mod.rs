// SPDX-License-Identifier: GPL-2.0

//! The accounting and the independent model, side by side.

// The tests and the fuzz target use different parts of it.
#![allow(dead_code)]

pub mod bytes;
pub mod machine;
pub mod receive;
pub mod rows;

use core::{fmt, net::IpAddr, time::Duration};
use machine::{Machine, Pieces, CLOCK, ROOMY, START};
use traffic_model::{
    frames::{Ethernet, Mac, ALICE, BOB, IPV4, IPV6},
    model::{self, Expected, File, Rule},
};
use xt_traffic_accounting::{
    accounting::{
        flows::Ticks,
        network::{Internal, Network},
        packet::Family,
        params::{Counts, Sizes},
        table::Size,
    },
    host::Heap,
};

/// The port of the box that looks on.
const BOX: Mac = [2, 0, 0, 0, 0, 9];

/// A family that the model knows, too.
pub trait Modelled: Family + fmt::Debug {
    /// The size of its header, which lies at hand in every packet.
    const HEADER: usize;
    /// What Ethernet calls it.
    const ETHERTYPE: u16;

    /// The address with the first bytes of these.
    fn address(bytes: [u8; 16]) -> Self;

    /// A mask of so many ones.
    fn mask(length: u32) -> Self;

    /// The address as the model wants it.
    fn ip(self) -> IpAddr;

    /// What IP receive leaves of these bytes, if it takes them for a packet.
    fn received(bytes: &[u8]) -> Option<&[u8]>;
}

impl Modelled for u32 {
    const HEADER: usize = 20;
    const ETHERTYPE: u16 = IPV4;

    fn address([a, b, c, d, ..]: [u8; 16]) -> Self {
        Self::from_be_bytes([a, b, c, d])
    }

    fn mask(length: u32) -> Self {
        Self::MAX.checked_shl(32 - length).unwrap_or(0)
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

    fn mask(length: u32) -> Self {
        Self::MAX.checked_shl(128 - length).unwrap_or(0)
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn received(bytes: &[u8]) -> Option<&[u8]> {
        receive::version6(bytes)
    }
}

/// A packet on its way.
#[derive(Clone)]
pub struct Arrival {
    /// How long after the one before.
    pub gap: Ticks,
    /// Which CPU handles it.
    pub cpu: usize,
    /// How many bytes behind the IP header lie at hand.
    pub linear: usize,
    /// The packet, sound or not, perhaps with padding.
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

/// A rule and what comes its way.
#[derive(Clone, Debug)]
pub struct Scenario<A> {
    pub base: A,
    pub length: u32,
    pub internal: Internal,
    pub counts: Counts,
    pub buckets: u32,
    pub cpus: usize,
    pub arrivals: Vec<Arrival>,
}

/// What the machine has after a scenario.
pub struct Outcome {
    /// The texts of the files: traffic, ipconn, portconn.
    pub texts: [Option<String>; 3],
    /// The numbers of the packets that matched, and the bytes of all of them.
    pub matched: Vec<usize>,
    pub bytes: u64,
    /// Flows that were forgotten too early.
    pub forgotten: u64,
}

impl<A: Modelled> Scenario<A> {
    /// Fails if the accounting and the model differ in anything.
    pub fn check(&self) {
        let (outcome, expected) = (self.run(&Heap::ENDLESS), self.expected());
        assert_eq!(outcome.forgotten, 0, "that is a matter of chance");
        for (file, text) in files().zip(&outcome.texts) {
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

    /// What the accounting says.
    pub fn run(&self, memory: &Heap) -> Outcome {
        let network = self.network();
        let rows = network.size().min(ROOMY.addresses.rows.into()) as u32;
        let sizes = Sizes {
            addresses: Size::hashed(rows, self.buckets),
            ..ROOMY
        };
        self.run_with(sizes.for_network(&network), memory)
    }

    fn network(&self) -> Network<A> {
        Network::new(self.base, A::mask(self.length), self.internal).unwrap()
    }

    /// What it says when its tables have these sizes.
    pub fn run_with(&self, sizes: Sizes, memory: &Heap) -> Outcome {
        let machine = Machine::new(self.network(), self.counts, sizes, self.cpus, memory);
        let (mut now, mut matched, mut bytes) = (START, vec![], 0);
        for (number, arrival) in self.arrivals.iter().enumerate() {
            now += arrival.gap;
            let Some(packet) = A::received(&arrival.bytes) else {
                continue;
            };
            let pieces = Pieces {
                bytes: packet,
                linear: A::HEADER + arrival.linear,
            };
            if machine.count(arrival.cpu % self.cpus, now, pieces) {
                matched.push(number);
                bytes += packet.len() as u64;
            }
        }
        Outcome {
            texts: machine.texts(),
            matched,
            bytes,
            forgotten: machine.forgotten(),
        }
    }

    /// What the model says.
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
        Expected::at_times(&self.rule(), BOX, frames)
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
        let wanted: Vec<_> = files()
            .zip([traffic, ipconn, portconn])
            .filter(|(_, wanted)| *wanted)
            .collect();
        let rule = Rule::new(self.base.ip(), self.length, internal);
        rule.with(&wanted.into_iter().map(|(file, _)| file).collect::<Vec<_>>())
    }
}

/// In the order of [`Outcome::texts`].
fn files() -> impl Iterator<Item = File> {
    [File::Traffic, File::Ipconn, File::Portconn].into_iter()
}
