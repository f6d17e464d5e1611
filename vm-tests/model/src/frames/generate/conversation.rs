// SPDX-License-Identifier: GPL-2.0-only
//! Valid packets of conversations between two endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Generator;
use crate::frames::{
    ACK, Extension, FIN, GRE, ICMP, ICMPV6, IPV4, Ip, MORE_FRAGMENTS, PSH, RST, SCTP, SYN, TCP, UDP, gre, sctp,
};

/// How many conversations are remembered.
const REMEMBERED: usize = 50;

#[derive(Clone)]
pub(super) struct Conversation {
    ip: Ip,
    ports: (u16, u16),
    /// The sequence number of the first SYN.
    sequence: u32,
}

impl Conversation {
    fn reversed(self) -> Self {
        Self { ip: self.ip.reversed(), ports: (self.ports.1, self.ports.0), ..self }
    }
}

impl Generator {
    /// The packets of one step of a conversation, and their EtherType.
    pub(super) fn packets(&mut self) -> (u16, Vec<Vec<u8>>) {
        let Conversation { ip, ports, sequence } = self.conversation();
        let longest = self.pick(&[10, 100, 1400, 1400, 9000]);
        let size = self.random.usize(..longest);
        let data = vec![self.random.u8(..); size];
        let packets = match self.random.u8(..16) {
            0..=2 => vec![ip.udp(ports, &data)],
            3..=6 => {
                let (flags, sequence) = (self.flags(), self.pick(&[sequence, sequence, sequence ^ 1]));
                vec![ip.tcp(ports, sequence, flags, &data)]
            }
            7 => {
                let count = self.random.usize(2..20);
                ip.stream(ports, count, &vec![7; size.clamp(1, 1400)])
            }
            8 | 9 => vec![self.icmp(&ip, ports, &data)],
            10 | 11 => vec![self.other(&ip, ports, &data)],
            12 | 13 => {
                let (protocol, payload) = self.payload(&ip, ports, sequence, &data);
                let step = self.pick(&[8, 16, 24, 64, 1480]);
                ip.fragments(protocol, &payload[..payload.len().min(6 * step)], step)
            }
            14 => {
                // A truncated transport header in a valid packet.
                let (protocol, payload) = self.payload(&ip, ports, sequence, &data);
                let length = self.random.usize(..=payload.len().min(21));
                vec![ip.packet(protocol, &payload[..length])]
            }
            _ => vec![self.odd(&ip, &data)],
        };
        (ip.ethertype(), packets)
    }

    /// With probability 1/2 the next packet of a remembered conversation, in either direction.
    fn conversation(&mut self) -> Conversation {
        if !self.conversations.is_empty() && self.odds(2) {
            let at = self.random.usize(..self.conversations.len());
            let conversation = self.conversations[at].clone();
            return if self.odds(2) { conversation.reversed() } else { conversation };
        }
        let ports = (self.port(), self.port());
        let conversation = Conversation { ip: self.ip(), ports, sequence: self.random.u32(..) };
        if self.conversations.len() < REMEMBERED {
            self.conversations.push(conversation.clone());
        } else {
            let at = self.random.usize(..REMEMBERED);
            self.conversations[at] = conversation.clone();
        }
        conversation
    }

    fn port(&mut self) -> u16 {
        let any = self.random.u16(..);
        self.pick(&[any, any, 40000, 443, 80, 53, 22, 1, 0, 65535])
    }

    fn ip(&mut self) -> Ip {
        let ipv6 = match (self.ipv4.is_empty(), self.ipv6.is_empty()) {
            (false, false) => self.odds(2),
            (no_ipv4, _) => no_ipv4,
        };
        let mut ip = Ip::new(self.address(ipv6), self.address(ipv6));
        if ipv6 {
            ip.extensions = self.extensions();
            return ip;
        }
        ip.id = self.random.u16(..);
        if self.odds(8) {
            ip.options = vec![1; self.random.usize(1..=40)];
        }
        ip
    }

    fn address(&mut self, ipv6: bool) -> IpAddr {
        match (self.odds(20), ipv6) {
            (true, false) => Ipv4Addr::from(self.random.u32(..)).into(),
            (true, true) => Ipv6Addr::from(self.random.u128(..)).into(),
            (false, false) => self.ipv4[self.random.usize(..self.ipv4.len())],
            (false, true) => self.ipv6[self.random.usize(..self.ipv6.len())],
        }
    }

    /// No extension headers, a few, or a number close to the limit of 16 that the module parses.
    pub(super) fn extensions(&mut self) -> Vec<Extension> {
        let count = match self.random.u8(..16) {
            0..=9 => 0,
            10..=14 => self.random.usize(1..5),
            _ => self.random.usize(14..19),
        };
        (0..count).map(|_| self.extension()).collect()
    }

    fn extension(&mut self) -> Extension {
        let length = self.pick(&[0, 0, 6, 7, 14, 40, 300]);
        let options = vec![0; length];
        match self.random.u8(..12) {
            0..=2 => Extension::HopByHop(options),
            3..=5 => Extension::Destination(options),
            6 | 7 => Extension::Routing(options),
            8 => {
                let length = self.random.usize(..30);
                Extension::Authentication(self.bytes(length))
            }
            9 => Extension::Fragment(0, true, self.random.u32(..)),
            10 => Extension::Fragment(self.random.u16(..0x2000), self.random.bool(), self.random.u32(..)),
            _ => Extension::ATOMIC,
        }
    }

    fn flags(&mut self) -> u8 {
        let any = self.random.u8(..);
        self.pick(&[SYN, SYN, SYN, SYN | ACK, SYN | ACK, SYN | 0xc0, ACK, PSH | ACK, FIN | ACK, RST, SYN | RST, any])
    }

    /// Requests, replies and errors. Sometimes the type is one of the other family's ICMP.
    fn icmp(&mut self, ip: &Ip, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let types4 = [8, 8, 0, 3, 11, 13, 14, 15, 16, 17, 18];
        let types6 = [128, 128, 129, 1, 2, 3, 4, 133, 135, 136];
        let ipv6 = ip.is_ipv6() != self.odds(10);
        let kind = if ipv6 { self.pick(&types6) } else { self.pick(&types4) };
        let rest = (u32::from(ports.0) << 16 | u32::from(ports.1)).to_be_bytes();
        ip.icmp(kind, rest, data)
    }

    fn other(&mut self, ip: &Ip, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        match self.random.u8(..4) {
            0 => ip.packet(SCTP, &sctp(ports, 1, data)),
            1 => ip.packet(GRE, &gre(IPV4, data)),
            // The other family's ICMP.
            2 => ip.packet(if ip.is_ipv6() { ICMP } else { ICMPV6 }, data),
            _ => ip.packet(self.pick(&[50, 59, 89, 103, 253]), data),
        }
    }

    /// A transport protocol's number, and its header and data.
    fn payload(&mut self, ip: &Ip, ports: (u16, u16), sequence: u32, data: &[u8]) -> (u8, Vec<u8>) {
        match self.random.u8(..4) {
            0 => (TCP, ip.segment(ports, sequence, SYN, data)),
            1 => (UDP, ip.datagram(ports, data)),
            2 => (ip.icmp_number(), ip.message(self.pick(&[8, 128]), [0; 4], data)),
            _ => (SCTP, sctp(ports, 1, data)),
        }
    }

    /// A random protocol number, or a fragment without the others of its packet.
    fn odd(&mut self, ip: &Ip, data: &[u8]) -> Vec<u8> {
        if !ip.is_ipv6() && self.odds(2) {
            let fragment = self.random.u16(..) | self.pick(&[0, MORE_FRAGMENTS]);
            let protocol = self.pick(&[TCP, UDP, ICMP, SCTP]);
            return Ip { fragment, ..ip.clone() }.packet(protocol, data);
        }
        // Some numbers are those of extension headers: then the data is parsed as one.
        let protocol = self.random.u8(..);
        ip.packet(self.pick(&[protocol, protocol, 0, 43, 44, 51, 60]), data)
    }
}
