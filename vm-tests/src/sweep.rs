// SPDX-License-Identifier: GPL-2.0-only
//! Sweeps: packets with far more addresses than a table has room for, beside hosts that talk.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use traffic_model::frames::{Ip, mirrored};
use vm_harness::guest::Guest;

use crate::pktgen::{self, Generating};
use crate::row;

/// The length of each packet at the IP layer. All are UDP packets.
pub const BYTES: u64 = 100;

/// A kind of sweep.
pub struct Sweep {
    /// The program that makes the rule.
    pub program: &'static str,
    /// The network of the table.
    pub net: &'static str,
    /// pktgen commands for the addresses.
    addresses: &'static [&'static str],
    /// The address of a host, which is not swept.
    pub host: fn(u16) -> IpAddr,
    /// The address outside of the network, which all packets have.
    pub outside: IpAddr,
}

/// The sources are swept. The hosts are in the first quarter of the network.
pub const V4: Sweep = Sweep {
    program: "iptables",
    net: "10.0.0.0/8",
    addresses: &[
        "flag IPSRC_RND",
        "src_min 10.64.0.0",
        "src_max 10.255.255.255",
        "dst_min 192.0.2.1",
        "dst_max 192.0.2.1",
    ],
    host: |host| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + u32::from(host))),
    outside: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
};

/// The destinations are swept: pktgen varies no other IPv6 addresses.
pub const V6: Sweep = Sweep {
    program: "ip6tables",
    net: "2001:db8::/32",
    addresses: &["src6 3fff::1", "dst6_min 2001:db8:1::", "dst6_max 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
    host: |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)),
    outside: IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
};

impl Sweep {
    /// Starts to generate `packets` packets on CPU 0. `options` are further pktgen commands.
    ///
    /// # Errors
    /// As [`pktgen::start`].
    pub fn start(&self, guest: &mut Guest, packets: u64, options: &[&str]) -> Result<Generating> {
        // With the Ethernet header.
        let size = format!("pkt_size {}", BYTES + 14);
        pktgen::start(guest, 1, packets, &[&[size.as_str()], options, self.addresses].concat())
    }

    /// Sends a packet from each of these hosts to port 0.
    ///
    /// # Errors
    /// When a frame is lost.
    pub fn send(&self, guest: &mut Guest, hosts: impl IntoIterator<Item = u16>) -> Result<()> {
        let headers = if self.outside.is_ipv6() { 48 } else { 28 };
        let data = vec![7; BYTES as usize - headers];
        let frame = |host| mirrored(&Ip::new((self.host)(host), self.outside).udp((1, 2), &data));
        guest.send(0, hosts.into_iter().map(frame))
    }

    /// The bytes that a host has sent or received, by its row. 0 if it has none.
    ///
    /// # Errors
    /// When the text of the table has an invalid row.
    pub fn bytes(&self, text: &str, host: u16) -> Result<u64> {
        Ok(row(text, &(self.host)(host).to_string())?.first().copied().unwrap_or(0))
    }
}
