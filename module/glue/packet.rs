// SPDX-License-Identifier: GPL-2.0

//! Packets as hooks see them.
//!
//! C header: `include/linux/skbuff.h`

use crate::accounting::packet::Packet;
use core::{marker::PhantomData, num::NonZeroU16, ptr::NonNull};
use kernel::{bindings, ffi::c_int};

#[cfg(not(CONFIG_64BIT))]
compile_error!(
    "offsets in a packet's buffer and the ticks of the clock are those of a 64-bit kernel"
);

/// A packet at a hook of IPv4 or IPv6: its data start with the network header.
///
/// # Invariants
///
/// The pointer is valid for `'a`, and so is what the packet's fields point to. Nobody changes the
/// packet's data and the fields that are read here; there is no reference to all of it because others may
/// change other fields, such as reference counts.
#[derive(Clone, Copy)]
pub(crate) struct SkBuff<'a> {
    skb: NonNull<bindings::sk_buff>,
    _borrowed: PhantomData<&'a ()>,
}

impl<'a> SkBuff<'a> {
    /// Wraps what a hook was given.
    ///
    /// # Safety
    ///
    /// `skb` must be valid, and its data must not be changed, for `'a`. They must start with a network
    /// header that IP receive or IP output has checked.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: *const bindings::sk_buff) -> Self {
        // SAFETY: The caller promises it.
        // INVARIANT: As well.
        Self {
            skb: unsafe { NonNull::new_unchecked(skb.cast_mut()) },
            _borrowed: PhantomData,
        }
    }

    /// All bytes of the packet.
    #[inline]
    fn len(&self) -> u32 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.skb.as_ptr()).len }
    }

    /// Bytes that are not in the linear part.
    #[inline]
    fn data_len(&self) -> u32 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.skb.as_ptr()).data_len }
    }

    /// Where the packet begins.
    #[inline]
    fn data(&self) -> *const u8 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.skb.as_ptr()).data }
    }

    /// Where the buffer begins that the linear part is in.
    #[inline]
    fn head(&self) -> *const u8 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.skb.as_ptr()).head }
    }

    /// What it says about the segments that it is made of.
    #[inline]
    fn segments(&self) -> Segments {
        // SAFETY: By the type's invariant; the shared info is where the buffer ends, and aligned.
        unsafe {
            let shinfo = self
                .head()
                .add((*self.skb.as_ptr()).end as usize)
                .cast::<bindings::skb_shared_info>();
            Segments {
                size: (*shinfo).gso_size,
                count: (*shinfo).gso_segs,
                kind: (*shinfo).gso_type,
            }
        }
    }

    /// Copies bytes that are not in the linear part, or not all of them.
    #[cold]
    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let offset = c_int::try_from(offset).ok()?;
        // SAFETY: The skb is valid, and `bytes` has room for N bytes. Fails if they are not there.
        let status = unsafe {
            bindings::skb_copy_bits(
                self.skb.as_ptr(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as c_int,
            )
        };
        (status == 0).then_some(bytes)
    }

    /// The length of a packet that is an aggregate, whose transport header is at `transport`.
    #[cold]
    fn segments_len(&self, segments: Segments, size: NonZeroU16, transport: usize) -> u64 {
        let inserted = self.inserted_len();
        let headers = self
            .segment_headers(segments, transport)
            .saturating_sub(inserted);
        let length = u64::from(self.len()).saturating_sub(inserted);
        let count = match segments.count {
            // A virtual machine's host may leave the counting to us (SKB_GSO_DODGY).
            0 => length
                .saturating_sub(headers)
                .div_ceil(u64::from(size.get())),
            count => u64::from(count),
        };
        length.saturating_add(headers.saturating_mul(count.saturating_sub(1)))
    }

    /// Bytes of the headers that every segment repeats, from the network header on.
    ///
    /// A tunnel repeats the inner ones, too. Otherwise the skb is not asked where the transport
    /// header is: IPv6 receive lets it point behind the IPv6 header, extensions or not.
    fn segment_headers(&self, segments: Segments, transport: usize) -> u64 {
        let is = |kinds: u32| segments.kind & kinds != 0;
        let transport = if is(TUNNEL) {
            self.inner_transport()
        } else {
            transport
        };
        let size = match segments.kind {
            _ if is(TCP) => self.tcp_header_len(transport),
            _ if is(UDP) => UDP_HEADER,
            _ if is(SCTP) => SCTP_HEADER,
            _ => 0,
        };
        transport.saturating_add(size).min(self.length()) as u64
    }

    /// Where the transport header of the packet in the tunnel is.
    fn inner_transport(&self) -> usize {
        // SAFETY: By the type's invariant; the field is a number in all variants of the union.
        let from_head = unsafe {
            (*self.skb.as_ptr())
                .__bindgen_anon_4
                .headers
                .as_ref()
                .inner_transport_header
        };
        usize::from(from_head).saturating_sub(self.data().addr().saturating_sub(self.head().addr()))
    }

    fn tcp_header_len(&self, transport: usize) -> usize {
        let [offset] = self.array(transport.saturating_add(12)).unwrap_or_default();
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
        let length = self.len().wrapping_sub(self.data_len()) as usize;
        // SAFETY: By the type's invariant. The linear part of a valid skb is so many bytes at `data`; `data_len` is a part
        // of `len`.
        unsafe { core::slice::from_raw_parts(self.data(), length) }
    }

    #[inline]
    fn length(&self) -> usize {
        self.len() as usize
    }

    #[inline]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        match self.linear().get(offset..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Some(*bytes),
            None => self.copy(offset),
        }
    }

    #[inline]
    fn is_aggregate(&self) -> bool {
        self.segments().size != 0
    }

    /// IP receive has trimmed the packet to the length in its header. What GRO has merged, or GSO
    /// is still to split, counts as its segments: each has the headers of the first.
    #[inline]
    fn wire_len(&self, payload: u16) -> u64 {
        let segments = self.segments();
        match NonZeroU16::new(segments.size) {
            None => u64::from(self.len()),
            Some(size) => self.segments_len(segments, size, payload.into()),
        }
    }
}

/// The segments of an aggregate, from `struct skb_shared_info`.
#[derive(Clone, Copy)]
struct Segments {
    /// Bytes of payload in each but the last; 0 if the packet is no aggregate.
    size: u16,
    /// How many there are.
    count: u16,
    /// `SKB_GSO_*` bits.
    kind: u32,
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
