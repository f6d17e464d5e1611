// SPDX-License-Identifier: GPL-2.0

//! What a flow is, and which flow a packet belongs to. [`recent_flows`](super::recent_flows)
//! remembers flows.

use super::{
    age::Periods,
    flow_array::SETS_PER_EIGHT_FLOWS,
    hash::{Hash, Seed},
    key::Key,
    packet::Header,
    transport::{Opening, Ports},
};

/// A point in time, or a duration, in ticks of a monotonic clock that starts above 0.
pub type Ticks = u64;

/// The rate of a clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The number of ticks per second.
    pub ticks_per_second: Ticks,
}

impl Clock {
    /// The lifetime of a flow, in ticks: a packet that comes earlier than this after the last one
    /// belongs to the same flow.
    ///
    /// A TCP SYN within 120 s, inclusive, is a retransmission. A UDP flow expires after 30 s
    /// without a packet and other flows after 600 s: a packet at that moment starts a new flow.
    fn lifetime(self, kind: Kind) -> Ticks {
        match kind {
            Kind::Syn => 120 * self.ticks_per_second + 1,
            Kind::Datagrams => 30 * self.ticks_per_second,
            Kind::Packets => 600 * self.ticks_per_second,
        }
    }
}

/// What a flow consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A TCP SYN and its retransmissions.
    Syn,
    /// The UDP datagrams between two endpoints.
    Datagrams,
    /// The packets of another protocol between two addresses.
    Packets,
}

/// The number of kinds.
pub(super) const KINDS: usize = 3;

/// The identity of a flow: a hash of its addresses, its ports, and its sequence or protocol number.
///
/// Two flows with the same hash count as one. A sender who does not know the seed cannot
/// provoke that. The probability is about 2^-62 for each new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub(super) kind: Kind,
    pub(super) tag: u64,
    /// What selects its first set.
    pub(super) first: u32,
    pub(super) lifetime: Ticks,
}

impl Flow {
    /// What is stored in [`Way::end`](super::flow_array::Way::end) if the last packet of the flow
    /// comes at `now`. Ticks do not reach 2^63 in practice, so this does not wrap around.
    #[inline]
    pub(super) fn end(self, now: Ticks) -> u64 {
        now.wrapping_add(self.lifetime) << 1
    }
}

/// Makes [`Flow`]s from packets. All CPUs of a table must use the same one.
#[derive(Clone, Copy)]
pub struct Flows {
    pub(super) seed: Seed,
    /// For each [`Kind`], the state with which its hashes start.
    starts: [Hash; KINDS],
    /// For each [`Kind`], the lifetime of its flows.
    lifetimes: [Ticks; KINDS],
    /// The largest number of sets of each [`Kind`].
    pub(super) limit: u32,
    clock: Clock,
}

impl Flows {
    /// Flows for [`RecentFlows`](super::recent_flows::RecentFlows) with room for `limit` flows of
    /// each kind.
    pub fn new(seed: Seed, clock: Clock, limit: u32) -> Self {
        let kinds = [Kind::Syn, Kind::Datagrams, Kind::Packets];
        Self {
            seed,
            starts: kinds.map(|kind| seed.hash().word(kind as u64)),
            lifetimes: kinds.map(|kind| clock.lifetime(kind)),
            limit: limit
                .saturating_mul(SETS_PER_EIGHT_FLOWS)
                .div_ceil(8)
                .max(1),
            clock,
        }
    }

    /// The periods of the clock, for the ages of rows.
    pub fn periods(&self) -> Periods {
        Periods::new(self.clock.ticks_per_second)
    }

    /// The flow that a packet belongs to. `None` for an ICMP request, each of which is a
    /// connection.
    #[inline]
    pub fn flow<A: Key>(&self, header: &Header<A>, opening: &Opening) -> Option<Flow> {
        let ends = (header.source, header.destination);
        match *opening {
            Opening::Syn { ports, sequence } => Some(self.make(Kind::Syn, ends, ports, sequence)),
            Opening::Datagram { ports } => {
                let swapped = (ends.0, ports.source) > (ends.1, ports.destination);
                let (ends, ports) = if swapped {
                    ((ends.1, ends.0), ports.swapped())
                } else {
                    (ends, ports)
                };
                Some(self.make(Kind::Datagrams, ends, ports, 0))
            }
            Opening::Packet { protocol } => {
                let ends = (ends.0.min(ends.1), ends.0.max(ends.1));
                Some(self.make(
                    Kind::Packets,
                    ends,
                    Ports {
                        source: 0,
                        destination: 0,
                    },
                    protocol.into(),
                ))
            }
            Opening::Request => None,
        }
    }

    #[inline]
    fn make<A: Key>(&self, kind: Kind, ends: (A, A), ports: Ports, number: u32) -> Flow {
        let rest =
            u64::from(number) << 32 | u64::from(ports.source) << 16 | u64::from(ports.destination);
        let hash = A::hash_both(ends, self.starts[kind as usize]).word(rest);
        Flow {
            kind,
            tag: hash.finish(),
            first: hash.index(),
            lifetime: self.lifetimes[kind as usize],
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::accounting::packet::Part;

    pub const CLOCK: Clock = Clock {
        ticks_per_second: 250,
    };
    pub const NOW: Ticks = 1_000_000;

    pub fn flows(limit: u32) -> Flows {
        Flows::new(Seed::new(42), CLOCK, limit)
    }

    pub fn header(source: u32, destination: u32) -> Header<u32> {
        Header {
            source,
            destination,
            protocol: 0,
            part: Part::First,
            payload: 20,
        }
    }

    pub fn syn(source: u16, destination: u16, sequence: u32) -> Opening {
        Opening::Syn {
            ports: Ports {
                source,
                destination,
            },
            sequence,
        }
    }

    pub fn udp(source: u16, destination: u16) -> Opening {
        Opening::Datagram {
            ports: Ports {
                source,
                destination,
            },
        }
    }

    fn flow(header: Header<u32>, opening: Opening) -> Flow {
        flows(1 << 16).flow(&header, &opening).unwrap()
    }

    #[test]
    fn both_directions_of_udp_and_other_protocols_are_one_flow() {
        assert_eq!(flow(header(1, 2), udp(5, 6)), flow(header(2, 1), udp(6, 5)));
        assert_eq!(flow(header(1, 1), udp(5, 6)), flow(header(1, 1), udp(6, 5)));
        let packet = |protocol| Opening::Packet { protocol };
        assert_eq!(
            flow(header(1, 2), packet(47)),
            flow(header(2, 1), packet(47))
        );
        assert_ne!(flow(header(1, 2), udp(5, 6)), flow(header(1, 2), udp(6, 5)));
        assert_ne!(
            flow(header(1, 2), packet(47)),
            flow(header(1, 2), packet(50))
        );
    }

    #[test]
    fn each_direction_and_sequence_number_of_tcp_is_a_flow() {
        assert_ne!(
            flow(header(1, 2), syn(5, 6, 7)),
            flow(header(2, 1), syn(6, 5, 7))
        );
        assert_ne!(
            flow(header(1, 2), syn(5, 6, 7)),
            flow(header(1, 2), syn(5, 6, 8))
        );
    }

    #[test]
    fn flows_of_different_protocols_differ() {
        let zero = [syn(0, 0, 0), udp(0, 0), Opening::Packet { protocol: 0 }]
            .map(|opening| flow(header(1, 1), opening));
        assert!(
            zero[0].tag != zero[1].tag && zero[1].tag != zero[2].tag && zero[0].tag != zero[2].tag
        );
        assert_eq!(flows(1).flow(&header(1, 2), &Opening::Request), None);
    }
}
