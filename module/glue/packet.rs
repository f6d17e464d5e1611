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

    #[cold]
    fn segments_len(&self, length: u64, shinfo: &bindings::skb_shared_info) -> u64 {
        let headers = self.segment_headers(shinfo);
        let segments = match shinfo.gso_segs {
            // A virtual machine's host may leave the counting to us (SKB_GSO_DODGY).
            0 => length.saturating_sub(headers).div_ceil(u64::from(shinfo.gso_size)),
            segments => u64::from(segments),
        };
        length + headers * segments.saturating_sub(1)
    }

    /// Bytes of the headers that every segment repeats, from the network header on.
    fn segment_headers(&self, shinfo: &bindings::skb_shared_info) -> u64 {
        let is = |kinds: u32| shinfo.gso_type & kinds != 0;
        // SAFETY: The skb is valid. For GSO packets the transport headers are set, the inner one
        // if the packet is in a tunnel. A TCP header follows in the linear part, or, when a
        // virtual machine's host lies about the packet, at least in the memory behind it, which
        // ends with the shared info.
        let headers = unsafe {
            match (is(TCP), is(TUNNEL)) {
                (true, false) => bindings::skb_tcp_all_headers(self.0),
                (true, true) => bindings::skb_inner_tcp_all_headers(self.0),
                (false, false) => bindings::skb_transport_offset(self.0),
                (false, true) => bindings::skb_inner_transport_offset(self.0),
            }
        };
        let transport = match shinfo.gso_type {
            _ if is(UDP) => UDP_HEADER,
            _ if is(SCTP) => SCTP_HEADER,
            _ => 0,
        };
        (u64::try_from(headers).unwrap_or(0) + transport).min(self.linear().len() as u64)
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
    fn wire_len(&self) -> u64 {
        let length = u64::from(self.0.len);
        // SAFETY: The skb is valid, and so is the shared info that it points to.
        let shinfo = unsafe { &*bindings::skb_shinfo(self.0) };
        match shinfo.gso_size {
            0 => length,
            _ => self.segments_len(length, shinfo),
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

/// Bytes of `struct udphdr`.
const UDP_HEADER: u64 = 8;
/// Bytes of the SCTP common header, `struct sctphdr`.
const SCTP_HEADER: u64 = 12;
