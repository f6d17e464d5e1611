// SPDX-License-Identifier: GPL-2.0
//! Right packets: who talks to whom, and what they say.

use super::Generator;
use crate::frames::{
    ACK, Extension, FIN, GRE, ICMP, ICMPV6, IPV4, Ip, Ipv4, Ipv6, MORE_FRAGMENTS, PSH, RST, SCTP, SYN, TCP, UDP, gre,
    sctp,
};

/// How many talks are remembered.
const TALKS: usize = 50;

/// Two endpoints.
#[derive(Clone)]
pub(super) struct Talk {
    ip: Ip,
    ports: (u16, u16),
    /// Of its first SYN.
    sequence: u32,
}

impl Talk {
    fn reversed(self) -> Self {
        Self { ip: self.ip.reversed(), ports: (self.ports.1, self.ports.0), ..self }
    }
}

impl Generator {
    /// What one says to another, and its EtherType.
    pub(super) fn packets(&mut self) -> (u16, Vec<Vec<u8>>) {
        let Talk { ip, ports, sequence } = self.talk();
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
                // Not even a whole transport header, in a packet that is.
                let (protocol, payload) = self.payload(&ip, ports, sequence, &data);
                let length = self.random.usize(..=payload.len().min(21));
                vec![ip.packet(protocol, &payload[..length])]
            }
            _ => vec![self.odd(&ip, &data)],
        };
        (ip.ethertype(), packets)
    }

    /// Half of the time somebody talks on, or gets an answer.
    fn talk(&mut self) -> Talk {
        if !self.talks.is_empty() && self.odds(2) {
            let at = self.random.usize(..self.talks.len());
            let talk = self.talks[at].clone();
            return if self.odds(2) { talk.reversed() } else { talk };
        }
        let ports = (self.port(), self.port());
        let talk = Talk { ip: self.ip(), ports, sequence: self.random.u32(..) };
        if self.talks.len() < TALKS {
            self.talks.push(talk.clone());
        } else {
            let at = self.random.usize(..TALKS);
            self.talks[at] = talk.clone();
        }
        talk
    }

    fn port(&mut self) -> u16 {
        let any = self.random.u16(..);
        self.pick(&[any, any, 40000, 443, 80, 53, 22, 1, 0, 65535])
    }

    fn ip(&mut self) -> Ip {
        let six = match (self.four.is_empty(), self.six.is_empty()) {
            (false, false) => self.odds(2),
            (no_four, _) => no_four,
        };
        if six {
            let (source, destination) = (self.address6(), self.address6());
            return Ip::V6(Ipv6 { source, destination }, self.extensions());
        }
        let mut ip = Ipv4::new(self.address4(), self.address4());
        ip.id = self.random.u16(..);
        if self.odds(8) {
            ip.options = vec![1; self.random.usize(1..=40)];
        }
        Ip::V4(ip)
    }

    fn address4(&mut self) -> std::net::Ipv4Addr {
        if self.odds(20) {
            return self.random.u32(..).into();
        }
        self.four[self.random.usize(..self.four.len())]
    }

    fn address6(&mut self) -> std::net::Ipv6Addr {
        if self.odds(20) {
            return self.random.u128(..).into();
        }
        self.six[self.random.usize(..self.six.len())]
    }

    /// Extension headers: none, some, or about as many as are walked.
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

    /// Requests, answers and errors; the types of one ICMP are sometimes used in the other.
    fn icmp(&mut self, ip: &Ip, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let types4 = [8, 8, 0, 3, 11, 13, 14, 15, 16, 17, 18];
        let types6 = [128, 128, 129, 1, 2, 3, 4, 133, 135, 136];
        let four = matches!(ip, Ip::V4(_)) != self.odds(10);
        let kind = if four { self.pick(&types4) } else { self.pick(&types6) };
        let rest = (u32::from(ports.0) << 16 | u32::from(ports.1)).to_be_bytes();
        ip.icmp(kind, rest, data)
    }

    fn other(&mut self, ip: &Ip, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        match self.random.u8(..4) {
            0 => ip.packet(SCTP, &sctp(ports, 1, data)),
            1 => ip.packet(GRE, &gre(IPV4, data)),
            // The ICMP of the other family is nothing special.
            2 => ip.packet(if ip.icmp_number() == ICMP { ICMPV6 } else { ICMP }, data),
            _ => ip.packet(self.pick(&[50, 59, 89, 103, 253]), data),
        }
    }

    /// Any protocol's header and data.
    fn payload(&mut self, ip: &Ip, ports: (u16, u16), sequence: u32, data: &[u8]) -> (u8, Vec<u8>) {
        match self.random.u8(..4) {
            0 => (TCP, ip.segment(ports, sequence, SYN, data)),
            1 => (UDP, ip.datagram(ports, data)),
            2 => (ip.icmp_number(), ip.message(self.pick(&[8, 128]), [0; 4], data)),
            _ => (SCTP, sctp(ports, 1, data)),
        }
    }

    /// Any protocol number, or a fragment of something that nobody has sent.
    fn odd(&mut self, ip: &Ip, data: &[u8]) -> Vec<u8> {
        match ip {
            Ip::V4(ip) if self.odds(2) => {
                let fragment = self.random.u16(..) | self.pick(&[0, MORE_FRAGMENTS]);
                let protocol = self.pick(&[TCP, UDP, ICMP, SCTP]);
                Ipv4 { fragment, ..ip.clone() }.packet(protocol, data)
            }
            // Any byte, or the number of an extension header, which the data is then taken for.
            _ => {
                let protocol = self.random.u8(..);
                ip.packet(self.pick(&[protocol, protocol, 0, 43, 44, 51, 60]), data)
            }
        }
    }
}
