// SPDX-License-Identifier: GPL-2.0

//! Packets as hooks see them.
//!
//! C header: `include/linux/skbuff.h`

use crate::accounting::packet::Packet;
use kernel::{bindings, ffi::c_int};

/// A packet at a hook of IPv4 or IPv6: its data start with the network header.
pub(crate) struct SkBuff<'a>(&'a bindings::sk_buff);

impl<'a> SkBuff<'a> {
    /// Wraps what a hook was given.
    ///
    /// # Safety
    ///
    /// `skb` must be valid, and not be changed, for `'a`. Its data must start with a network
    /// header that IP receive or IP output has checked.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: *const bindings::sk_buff) -> Self {
        // SAFETY: The caller promises it.
        Self(unsafe { &*skb })
    }

    /// Copies bytes that are not in the linear part, or not all of them.
    #[cold]
    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let offset = c_int::try_from(offset).ok()?;
        // SAFETY: The skb is valid, and `bytes` has room for N bytes. Fails if they are not there.
        let status = unsafe { bindings::skb_copy_bits(self.0, offset, bytes.as_mut_ptr().cast(), N as c_int) };
        (status == 0).then_some(bytes)
    }

    #[inline]
    fn shared_info(&self) -> &bindings::skb_shared_info {
        // SAFETY: The shared info of a valid skb is where its buffer ends, and aligned.
        unsafe { &*self.0.head.add(self.0.end as usize).cast() }
    }

    /// The length of a packet that is an aggregate, whose transport header is at `transport`.
    #[cold]
    fn segments_len(&self, transport: usize) -> u64 {
        let shinfo = self.shared_info();
        let inserted = self.inserted_len();
        let headers = self.segment_headers(shinfo, transport).saturating_sub(inserted);
        let length = u64::from(self.0.len) - inserted;
        let segments = match shinfo.gso_segs {
            // A virtual machine's host may leave the counting to us (SKB_GSO_DODGY).
            0 => length.saturating_sub(headers).div_ceil(u64::from(shinfo.gso_size)),
            segments => u64::from(segments),
        };
        length + headers * segments.saturating_sub(1)
    }

    /// Bytes of the headers that every segment repeats, from the network header on.
    ///
    /// A tunnel repeats the inner ones, too. Otherwise the skb is not asked where the transport
    /// header is: IPv6 receive lets it point behind the IPv6 header, extensions or not.
    fn segment_headers(&self, shinfo: &bindings::skb_shared_info, transport: usize) -> u64 {
        let is = |kinds: u32| shinfo.gso_type & kinds != 0;
        let transport = if is(TUNNEL) { self.inner_transport() } else { transport };
        let size = match shinfo.gso_type {
            _ if is(TCP) => self.tcp_header_len(transport),
            _ if is(UDP) => UDP_HEADER,
            _ if is(SCTP) => SCTP_HEADER,
            _ => 0,
        };
        (transport + size).min(self.length()) as u64
    }

    /// Where the transport header of the packet in the tunnel is.
    fn inner_transport(&self) -> usize {
        // SAFETY: The fields are plain data in all variants of the union.
        let from_head = unsafe { self.0.__bindgen_anon_4.headers.as_ref() }.inner_transport_header;
        let data = self.0.data.addr() - self.0.head.addr();
        usize::from(from_head).saturating_sub(data)
    }

    fn tcp_header_len(&self, transport: usize) -> usize {
        let [offset] = self.array(transport + 12).unwrap_or_default();
        usize::from(offset >> 4) * 4
    }

    /// Bytes that were never on the wire: GRO gives IPv6 packets of more than 64 KiB a hop-by-hop
    /// header with the length that their own header cannot hold ("BIG TCP").
    fn inserted_len(&self) -> u64 {
        match self.linear() {
            [0x60..=0x6f, _, _, _, 0, 0, HOP_BY_HOP, ..] => 8,
            _ => 0,
        }
    }
}

impl Packet for SkBuff<'_> {
    #[inline]
    fn linear(&self) -> &[u8] {
        let length = self.0.len.saturating_sub(self.0.data_len) as usize;
        // SAFETY: The linear part of a valid skb is `len - data_len` bytes at `data`, and they
        // don't change while `self` lives.
        unsafe { core::slice::from_raw_parts(self.0.data, length) }
    }

    #[inline]
    fn length(&self) -> usize {
        self.0.len as usize
    }

    #[inline]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        match self.linear().get(offset..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Some(*bytes),
            None => self.copy(offset),
        }
    }

    /// IP receive has trimmed the packet to the length in its header. What GRO has merged, or GSO
    /// is still to split, counts as its segments: each has the headers of the first.
    #[inline]
    fn wire_len(&self, payload: usize) -> u64 {
        match self.shared_info().gso_size {
            0 => u64::from(self.0.len),
            _ => self.segments_len(payload),
        }
    }
}

const TCP: u32 = (bindings::SKB_GSO_TCPV4 | bindings::SKB_GSO_TCPV6) as u32;
const UDP: u32 = bindings::SKB_GSO_UDP_L4 as u32;
const SCTP: u32 = bindings::SKB_GSO_SCTP as u32;
const TUNNEL: u32 = (bindings::SKB_GSO_GRE
    | bindings::SKB_GSO_GRE_CSUM
    | bindings::SKB_GSO_IPXIP4
    | bindings::SKB_GSO_IPXIP6
    | bindings::SKB_GSO_UDP_TUNNEL
    | bindings::SKB_GSO_UDP_TUNNEL_CSUM) as u32;

/// The number of the hop-by-hop header (`NEXTHDR_HOP`).
const HOP_BY_HOP: u8 = 0;
/// Bytes of `struct udphdr`.
const UDP_HEADER: usize = 8;
/// Bytes of the SCTP common header, `struct sctphdr`.
const SCTP_HEADER: usize = 12;
