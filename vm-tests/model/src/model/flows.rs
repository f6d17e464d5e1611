// SPDX-License-Identifier: GPL-2.0-only
//! Decides which packets start a connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use etherparse::IpNumber;

use super::packet::{Packet, TCP, UDP};

/// The same SYN within this time after the last one is a retransmission.
const SYN_RETRANSMISSION: Duration = Duration::from_secs(120);
/// A UDP flow ends after this idle time.
const UDP_TIMEOUT: Duration = Duration::from_secs(30);
/// A flow of another protocol ends after this idle time.
const OTHER_TIMEOUT: Duration = Duration::from_secs(600);

/// Flags in byte 13 of a TCP header. A connection starts with SYN set and the other three unset.
const SYN: u8 = 2;
const SYN_ACK_RST_FIN: u8 = SYN | 16 | 4 | 1;

/// The ICMP requests: echo, timestamp, information, address mask, extended echo (RFC 792, RFC 950,
/// RFC 8335).
const REQUESTS: [u8; 5] = [8, 13, 15, 17, 42];
/// The ICMPv6 requests: echo, extended echo (RFC 4443, RFC 8335).
const REQUESTS6: [u8; 2] = [128, 160];

/// The pairs of columns after TOTAL in the files of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tcp,
    Udp,
    Icmp,
    Other,
}

/// The protocol, the source, the destination, and the sequence number of a SYN. For protocols other
/// than TCP the smaller endpoint is the first one, and for those without ports, ports are 0.
type Flow = (u8, SocketAddr, SocketAddr, u32);

/// When each flow was last seen.
#[derive(Debug, Default)]
pub(super) struct Flows(HashMap<Flow, Duration>);

impl Flows {
    /// The class and the port of the connection that the packet starts, if it starts one.
    pub fn start(&mut self, packet: &Packet, time: Duration) -> Option<(Class, u16)> {
        if packet.later_fragment {
            return None;
        }
        match packet.protocol {
            TCP => self.tcp(packet, time).map(|port| (Class::Tcp, port)),
            UDP => self.udp(packet, time).map(|port| (Class::Udp, port)),
            protocol if protocol == icmp_of(packet) => is_request(packet).then_some((Class::Icmp, 0)),
            protocol => {
                let [source, destination] = [packet.source, packet.destination].map(|ip| SocketAddr::new(ip, 0));
                let idle = self.idle_time(two_way(protocol, source, destination), time);
                idle.is_none_or(|idle| idle >= OTHER_TIMEOUT).then_some((Class::Other, 0))
            }
        }
    }

    fn tcp(&mut self, packet: &Packet, time: Duration) -> Option<u16> {
        // Only these 20 bytes matter: an invalid data offset, which `etherparse` refuses, does not.
        let header: &[u8; 20] = transport(packet)?;
        if header[13] & SYN_ACK_RST_FIN != SYN {
            return None;
        }
        let (source, destination) = endpoints(packet, header);
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let idle = self.idle_time((TCP, source, destination, sequence), time);
        idle.is_none_or(|idle| idle > SYN_RETRANSMISSION).then_some(destination.port())
    }

    fn udp(&mut self, packet: &Packet, time: Duration) -> Option<u16> {
        let header: &[u8; 8] = transport(packet)?;
        let (source, destination) = endpoints(packet, header);
        let idle = self.idle_time(two_way(UDP, source, destination), time);
        idle.is_none_or(|idle| idle >= UDP_TIMEOUT).then_some(destination.port())
    }

    /// Records that a flow is seen now. Returns the time since its last packet; `None` for a new
    /// flow.
    fn idle_time(&mut self, flow: Flow, now: Duration) -> Option<Duration> {
        self.0.insert(flow, now).map(|before| now.saturating_sub(before))
    }
}

/// The protocol number of ICMP in the packet's family.
fn icmp_of(packet: &Packet) -> u8 {
    if packet.source.is_ipv4() { IpNumber::ICMP.0 } else { IpNumber::IPV6_ICMP.0 }
}

fn is_request(packet: &Packet) -> bool {
    let requests: &[u8] = if packet.source.is_ipv4() { &REQUESTS } else { &REQUESTS6 };
    transport::<8>(packet).is_some_and(|header| requests.contains(&header[0]))
}

/// The first `LENGTH` bytes of the transport header, if the packet has them.
fn transport<'a, const LENGTH: usize>(packet: &'a Packet<'_>) -> Option<&'a [u8; LENGTH]> {
    packet.payload.first_chunk()
}

/// Source and destination: TCP and UDP headers both begin with the ports.
fn endpoints(packet: &Packet, header: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    (SocketAddr::new(packet.source, port(0)), SocketAddr::new(packet.destination, port(2)))
}

fn two_way(protocol: u8, one: SocketAddr, other: SocketAddr) -> Flow {
    (protocol, one.min(other), one.max(other), 0)
}
