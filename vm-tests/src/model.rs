// SPDX-License-Identifier: GPL-2.0
//! A second opinion: what `/proc` must say about a list of frames.
//!
//! It is written from the contract and from the kernel's receive path, and shares no line with the module:
//! the parser is `etherparse`. A frame is counted when it reaches IPv4 receive as a packet for another host
//! ([`for_another_host`]), passes the header checks there ([`checked`]), and has an end inside the network.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, SingleVlanHeaderSlice};

use crate::frames::Mac;

/// What `--nointernal` says about packets with both ends inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// The option is not there: they count like all others.
    Count,
    /// `--nointernal`: they do not count.
    Skip,
    /// `! --nointernal`: nothing else counts.
    Only,
}

/// The parameters of a rule with `--traffic`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    base: u32,
    mask: u32,
    internal: Internal,
}

impl Rule {
    /// The network `base/length`.
    ///
    /// # Panics
    /// When the length is more than 32.
    pub fn new(base: Ipv4Addr, length: u32, internal: Internal) -> Self {
        assert!(length <= 32, "an IPv4 prefix of {length} bits");
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Self { base: base.to_bits() & mask, mask, internal }
    }

    /// Every address there is.
    pub fn everything() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED, 0, Internal::Count)
    }

    fn inside(&self, address: u32) -> bool {
        address & self.mask == self.base
    }
}

/// What is known of a counted packet.
struct Packet {
    source: u32,
    destination: u32,
    class: Class,
    bytes: u64,
}

/// The pairs of columns after TOTAL.
#[derive(Clone, Copy)]
enum Class {
    Tcp,
    Udp,
    Other,
}

/// What the kernel must have after some frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// How many frames matched the rule.
    pub packets: u64,
    /// Their bytes at the IP layer.
    pub bytes: u64,
    /// By address: for each class the bytes out and in.
    rows: BTreeMap<u32, [[u64; 2]; 3]>,
}

impl Expected {
    /// Counts frames that arrive at a port with the address `box_mac`.
    pub fn of<F: AsRef<[u8]>>(rule: &Rule, box_mac: Mac, frames: impl IntoIterator<Item = F>) -> Self {
        let mut expected = Self::default();
        for frame in frames {
            if let Some(packet) = for_another_host(frame.as_ref(), box_mac).and_then(checked) {
                expected.count(rule, &packet);
            }
        }
        expected
    }

    fn count(&mut self, rule: &Rule, packet: &Packet) {
        let (out, into) = (rule.inside(packet.source), rule.inside(packet.destination));
        let counted = match rule.internal {
            Internal::Count => out || into,
            Internal::Skip => out != into,
            Internal::Only => out && into,
        };
        if !counted {
            return;
        }
        self.packets += 1;
        self.bytes += packet.bytes;
        if out {
            self.rows.entry(packet.source).or_default()[packet.class as usize][0] += packet.bytes;
        }
        if into {
            self.rows.entry(packet.destination).or_default()[packet.class as usize][1] += packet.bytes;
        }
    }

    /// The text of `/proc/net/xt_traffic/NAME`.
    pub fn text(&self) -> String {
        let mut text = String::from("IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n");
        for (address, classes) in &self.rows {
            let total = |way: usize| classes.iter().map(|pair| pair[way]).sum::<u64>();
            write!(text, "{}", Ipv4Addr::from_bits(*address)).expect("a String takes everything");
            for [out, into] in std::iter::once([total(0), total(1)]).chain(classes.iter().copied()) {
                write!(text, "\t{out}\t{into}").expect("a String takes everything");
            }
            text.push('\n');
        }
        text
    }
}

/// The IPv4 packet in a frame that the kernel takes for another host's, from its header to the frame's end.
///
/// A frame is another host's when its destination address is neither the port's nor a group's, or when it has
/// a tag of a VLAN that the box has no interface for (here: any VLAN). A tag with VLAN 0 gives a priority
/// alone: the kernel strips it, and looks at what is below as if it had not been there. It strips one tag with
/// a VLAN, and if another one follows, nobody receives the frame.
fn for_another_host(frame: &[u8], box_mac: Mac) -> Option<&[u8]> {
    let header = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let group = header.destination()[0] & 1 != 0;
    let mut other = !group && header.destination() != box_mac;
    let mut kind = header.ether_type();
    let mut rest = &frame[header.slice().len()..];
    while matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
        let tag = SingleVlanHeaderSlice::from_slice(rest).ok()?;
        kind = tag.ether_type();
        rest = &rest[tag.slice().len()..];
        if tag.vlan_identifier().value() != 0 {
            other = true;
            break;
        }
    }
    (other && kind == EtherType::IPV4).then_some(rest)
}

/// The checks of IPv4 receive: version, header length, checksum, total length.
fn checked(packet: &[u8]) -> Option<Packet> {
    // The version is 4, the header has at least 20 bytes, and all that it claims is there.
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let total = usize::from(header.total_len());
    if total > packet.len() || total < header.slice().len() || !checksum_is_right(&header) {
        return None;
    }
    Some(Packet {
        source: header.source_addr().to_bits(),
        destination: header.destination_addr().to_bits(),
        class: match header.protocol() {
            IpNumber::TCP => Class::Tcp,
            IpNumber::UDP => Class::Udp,
            _ => Class::Other,
        },
        bytes: total as u64,
    })
}

/// The sum over the header as it came, its checksum included. (`etherparse` can compute the checksum of a parsed
/// header, but that has lost the reserved flag bit.)
fn checksum_is_right(header: &Ipv4HeaderSlice) -> bool {
    Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, IPV4, Ipv4, fix_checksum, mirrored};

    const BOX: Mac = [2, 0, 0, 0, 0, 9];

    fn ping() -> Vec<u8> {
        Ipv4::new([10, 0, 0, 1], [192, 0, 2, 7]).ping(1, b"12345678")
    }

    fn counted(frame: Vec<u8>) -> bool {
        Expected::of(&Rule::everything(), BOX, [frame]).packets == 1
    }

    #[test]
    fn rows_are_sorted_and_split_by_protocol() {
        let (a, b) = ([10, 0, 0, 1], [9, 0, 0, 2]);
        let frames = [Ipv4::new(a, b).udp((1, 2), b"1234"), Ipv4::new(b, a).tcp((1, 2), 0, 2, b""), ping()];
        let expected = Expected::of(&Rule::everything(), BOX, frames.iter().map(|packet| mirrored(packet)));
        assert_eq!(
            expected.text(),
            "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n\
             9.0.0.2\t40\t32\t40\t0\t0\t32\t0\t0\n\
             10.0.0.1\t68\t40\t0\t40\t32\t0\t36\t0\n\
             192.0.2.7\t0\t36\t0\t0\t0\t0\t0\t36\n"
        );
        assert_eq!((expected.packets, expected.bytes), (3, 108));
    }

    #[test]
    fn internal_traffic() {
        let rule = |internal| Rule::new([10, 0, 0, 0].into(), 8, internal);
        let inside = mirrored(&Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]).udp((1, 2), b""));
        let leaving = mirrored(&ping());
        let outside = mirrored(&Ipv4::new([9, 0, 0, 1], [11, 0, 0, 2]).udp((1, 2), b""));
        for (internal, packets) in [(Internal::Count, 2), (Internal::Skip, 1), (Internal::Only, 1)] {
            let expected = Expected::of(&rule(internal), BOX, [&inside, &leaving, &outside]);
            assert_eq!(expected.packets, packets, "{internal:?}");
        }
    }

    #[test]
    fn addresses_of_the_frame() {
        assert!(counted(mirrored(&ping())));
        assert!(!counted(Ethernet::new(ALICE, BOX).wrap(IPV4, &ping())));
        assert!(!counted(Ethernet::new(ALICE, BROADCAST).wrap(IPV4, &ping())));
        assert!(!counted(Ethernet::new(ALICE, BOB).wrap(0x0801, &ping())));
    }

    #[test]
    fn tags() {
        for kind in [DOT1Q, DOT1AD] {
            let to_box = Ethernet::new(ALICE, BOX);
            assert!(counted(to_box.clone().tag(kind, 5).wrap(IPV4, &ping())));
            assert!(!counted(to_box.clone().tag(kind, 0xe000).wrap(IPV4, &ping())));
            assert!(counted(to_box.clone().tag(kind, 0).tag(DOT1Q, 5).wrap(IPV4, &ping())));
            assert!(!counted(to_box.tag(kind, 5).tag(DOT1Q, 6).wrap(IPV4, &ping())));
            let to_bob = Ethernet::new(ALICE, BOB);
            assert!(counted(to_bob.clone().tag(kind, 0).wrap(IPV4, &ping())));
            assert!(!counted(to_bob.tag(kind, 5).tag(DOT1Q, 0).wrap(IPV4, &ping())));
        }
    }

    #[test]
    fn bad_headers() {
        let broken = |at: usize, value: u8| {
            let mut packet = ping();
            packet[at] = value;
            fix_checksum(&mut packet);
            mirrored(&packet)
        };
        assert!(counted(broken(3, 36)), "the true length");
        assert!(counted(broken(3, 20)), "a shorter one: the rest is padding");
        assert!(!counted(broken(3, 37)), "more than there is");
        assert!(!counted(broken(3, 19)), "less than the header");
        assert!(!counted(broken(0, 0x65)), "version");
        assert!(!counted(broken(0, 0x44)), "header length");
        let mut packet = ping();
        packet[10] ^= 1;
        assert!(!counted(mirrored(&packet)), "checksum");
        assert!(!counted(mirrored(&ping()[..35])), "truncated");
        assert!(!counted(vec![0; 13]));
    }

    #[test]
    fn the_reserved_flag_is_no_error() {
        let evil = Ipv4 { fragment: 0x8000, ..Ipv4::new([10, 0, 0, 1], [192, 0, 2, 7]) };
        assert!(counted(mirrored(&evil.ping(1, b""))));
    }

    #[test]
    fn both_zeros_of_the_checksum_are_right() {
        // The fields are chosen so that the sum of all but the checksum is 0xffff.
        let mut packet = ping();
        fix_checksum(&mut packet);
        let sum = u16::from_be_bytes([packet[10], packet[11]]);
        packet[4..6].copy_from_slice(&sum.to_be_bytes());
        for zero in [[0, 0], [0xff, 0xff]] {
            packet[10..12].copy_from_slice(&zero);
            assert!(counted(mirrored(&packet)));
        }
    }
}
