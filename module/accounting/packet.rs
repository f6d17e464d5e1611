// SPDX-License-Identifier: GPL-2.0

//! Parsing packets.

use super::counters::Protocol;

/// The addresses and the protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    /// Who sent it.
    pub source: A,
    /// Whom it is for.
    pub destination: A,
    /// The column that its bytes belong to.
    pub protocol: Protocol,
}

impl Header<u32> {
    /// Bytes of an IPv4 header without options.
    pub const IPV4_SIZE: usize = 20;

    /// Reads the header at the start of `packet`, or says that it is not all there.
    ///
    /// Version, header length and checksum are the receiver's affair: IP receive has checked them
    /// before any hook sees the packet. Fragments carry the protocol in their own header, so
    /// there is nothing special about them.
    #[inline]
    pub fn from_ipv4(packet: &[u8]) -> Option<Self> {
        let h: &[u8; Self::IPV4_SIZE] = packet.first_chunk()?;
        Some(Self {
            source: u32::from_be_bytes([h[12], h[13], h[14], h[15]]),
            destination: u32::from_be_bytes([h[16], h[17], h[18], h[19]]),
            protocol: Protocol::from_number(h[9]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8) -> [u8; 20] {
        let mut h = [0; 20];
        h[0] = 0x45;
        h[9] = protocol;
        h[12..16].copy_from_slice(&[192, 0, 2, 1]);
        h[16..20].copy_from_slice(&[198, 51, 100, 255]);
        h
    }

    #[test]
    fn reads_an_ipv4_header() {
        let header = Header::from_ipv4(&ipv4(17)).unwrap();
        assert_eq!(header.source, 0xc000_0201);
        assert_eq!(header.destination, 0xc633_64ff);
        assert_eq!(header.protocol, Protocol::Udp);
    }

    #[test]
    fn knows_tcp_udp_and_the_rest() {
        for number in 0..=255 {
            let expected = match number {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => Protocol::Other,
            };
            assert_eq!(Header::from_ipv4(&ipv4(number)).unwrap().protocol, expected);
        }
    }

    #[test]
    fn refuses_a_short_header() {
        for length in 0..20 {
            assert_eq!(Header::from_ipv4(&ipv4(6)[..length]), None);
        }
    }
}
