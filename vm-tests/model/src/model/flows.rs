// SPDX-License-Identifier: GPL-2.0
//! Which packets start a connection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::IpNumber;

use super::packet::{Packet, TCP, UDP};

/// A SYN that comes again not later than this after it was last seen is a retransmission.
const SYN_REPEATS: Duration = Duration::from_secs(120);
/// Two endpoints that are silent for so long have ended their UDP conversation.
const UDP_SILENCE: Duration = Duration::from_secs(30);
/// Two addresses that are silent for so long have ended their conversation in another protocol.
const OTHER_SILENCE: Duration = Duration::from_secs(600);

/// The bits of byte 13 of a TCP header that matter, and the one of them that starts a connection.
const SYN: u8 = 2;
const SYN_ACK_RST_FIN: u8 = SYN | 16 | 4 | 1;

/// The ICMP types that are requests: echo, timestamp, information, address mask.
const REQUESTS: [u8; 4] = [8, 13, 15, 17];
/// ICMPv6 has one: echo.
const REQUESTS6: [u8; 1] = [128];

/// The pairs of columns after TOTAL in the files of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tcp,
    Udp,
    Icmp,
    Other,
}

/// What makes two packets belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flow {
    /// The same SYN: from, to, and the sequence number.
    Tcp(SocketAddr, SocketAddr, u32),
    /// Two endpoints, the smaller first.
    Udp(SocketAddr, SocketAddr),
    /// Two addresses, the smaller first, and the protocol.
    Other(IpAddr, IpAddr, u8),
}

/// When each flow was last seen.
#[derive(Debug, Default)]
pub(super) struct Flows(HashMap<Flow, Duration>);

impl Flows {
    /// If the packet starts a connection: its class and the port that it counts under.
    pub fn start(&mut self, packet: &Packet, time: Duration) -> Option<(Class, u16)> {
        match packet.protocol {
            TCP => self.tcp(packet, time).map(|port| (Class::Tcp, port)),
            UDP => self.udp(packet, time).map(|port| (Class::Udp, port)),
            protocol if protocol == icmp_of(packet) => is_request(packet).then_some((Class::Icmp, 0)),
            protocol => {
                let (first, second) = sorted(packet.source, packet.destination);
                let silence = self.silence(Flow::Other(first, second, protocol), time);
                silence.is_none_or(|silence| silence >= OTHER_SILENCE).then_some((Class::Other, 0))
            }
        }
    }

    fn tcp(&mut self, packet: &Packet, time: Duration) -> Option<u16> {
        // No more than these 20 bytes are needed, so a data offset that `etherparse` would refuse does not matter.
        let header: &[u8; 20] = transport(packet)?;
        if header[13] & SYN_ACK_RST_FIN != SYN {
            return None;
        }
        let (source, destination) = endpoints(packet, header);
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let since = self.silence(Flow::Tcp(source, destination, sequence), time);
        since.is_none_or(|since| since > SYN_REPEATS).then_some(destination.port())
    }

    fn udp(&mut self, packet: &Packet, time: Duration) -> Option<u16> {
        let header: &[u8; 8] = transport(packet)?;
        let (source, destination) = endpoints(packet, header);
        let (first, second) = sorted(source, destination);
        let silence = self.silence(Flow::Udp(first, second), time);
        silence.is_none_or(|silence| silence >= UDP_SILENCE).then_some(destination.port())
    }

    /// Remembers that a flow is seen now, and gives how long it was not before; none for a new one.
    fn silence(&mut self, flow: Flow, now: Duration) -> Option<Duration> {
        self.0.insert(flow, now).map(|before| now.saturating_sub(before))
    }
}

/// The protocol number that is ICMP in the packet's family.
fn icmp_of(packet: &Packet) -> u8 {
    if packet.source.is_ipv4() { IpNumber::ICMP.0 } else { IpNumber::IPV6_ICMP.0 }
}

fn is_request(packet: &Packet) -> bool {
    let requests: &[u8] = if packet.source.is_ipv4() { &REQUESTS } else { &REQUESTS6 };
    transport::<8>(packet).is_some_and(|header| requests.contains(&header[0]))
}

/// The first bytes of the transport header, if the packet has all of them.
fn transport<'a, const LENGTH: usize>(packet: &Packet<'a>) -> Option<&'a [u8; LENGTH]> {
    packet.payload.first_chunk().filter(|_| !packet.later_fragment)
}

/// Source and destination. TCP and UDP both begin with the ports.
fn endpoints(packet: &Packet, header: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    (SocketAddr::new(packet.source, port(0)), SocketAddr::new(packet.destination, port(2)))
}

fn sorted<T: Ord>(one: T, other: T) -> (T, T) {
    if one <= other { (one, other) } else { (other, one) }
}
