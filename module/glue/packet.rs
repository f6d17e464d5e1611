// SPDX-License-Identifier: GPL-2.0

//! Packets at a hook.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::accounting::packet::Packet;
use core::{
    marker::PhantomData,
    num::NonZeroU16,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::c_int, //
};

#[cfg(not(CONFIG_64BIT))]
compile_error!("32-bit kernels have other offsets in `struct sk_buff`, and jiffies wrap around");

/// A packet at a hook of IPv4 or IPv6. Its data start with the network header.
///
/// # Invariants
///
/// For `'a`, the pointer is valid, the packet's buffer is valid, and nothing changes the packet's
/// data or the fields that are read here. Other fields, such as reference counts, may change, so
/// there is no reference to the whole `struct sk_buff`.
#[derive(Clone, Copy)]
pub(crate) struct SkBuff<'a> {
    skb: NonNull<bindings::sk_buff>,
    _borrowed: PhantomData<&'a ()>,
}

impl<'a> SkBuff<'a> {
    /// Wraps the packet that a hook was called with.
    ///
    /// # Safety
    ///
    /// For `'a`, `skb` must be valid, and its data and lengths must not change. The data must start
    /// with a network header that IP receive or IP output has checked.
    #[inline]
    pub(super) unsafe fn from_raw(skb: *const bindings::sk_buff) -> Self {
        // SAFETY: A valid pointer is not null.
        let skb = unsafe { NonNull::new_unchecked(skb.cast_mut()) };
        // INVARIANT: The safety requirements say the same.
        Self {
            skb,
            _borrowed: PhantomData,
        }
    }

    /// Returns the number of bytes of the packet.
    #[inline]
    fn len(&self) -> u32 {
        // SAFETY: By the type invariants the pointer is valid, and the field does not change.
        unsafe { (*self.skb.as_ptr()).len }
    }

    /// Returns the number of bytes outside of the linear part.
    #[inline]
    fn data_len(&self) -> u32 {
        // SAFETY: By the type invariants the pointer is valid, and the field does not change.
        unsafe { (*self.skb.as_ptr()).data_len }
    }

    /// Returns the address of the packet's first byte.
    #[inline]
    fn data(&self) -> *const u8 {
        // SAFETY: By the type invariants the pointer is valid, and the field does not change.
        unsafe { (*self.skb.as_ptr()).data }
    }

    /// Returns the address of the buffer with the linear part.
    #[inline]
    fn head(&self) -> *const u8 {
        // SAFETY: By the type invariants the pointer is valid, and the field does not change.
        unsafe { (*self.skb.as_ptr()).head }
    }

    /// Returns the address of the information that follows the buffer (`skb_shinfo`).
    #[inline]
    fn shinfo(&self) -> *const bindings::skb_shared_info {
        // SAFETY: By the type invariants the pointer is valid, and the field does not change.
        let end = unsafe { (*self.skb.as_ptr()).end };
        // SAFETY: On 64-bit kernels `end` is the offset from `head` to the end of the buffer. The
        // shared information follows in the same allocation.
        unsafe { self.head().add(end as usize) }.cast()
    }

    /// Returns what the packet says about its segments.
    #[inline]
    fn segments(&self) -> Segments {
        let shinfo = self.shinfo();
        // SAFETY: By the type invariants the buffer is valid, and so is the shared information
        // that follows it, aligned (`SKB_DATA_ALIGN`). The field does not change.
        let size = unsafe { (*shinfo).gso_size };
        // SAFETY: As above.
        let count = unsafe { (*shinfo).gso_segs };
        // SAFETY: As above.
        let kind = unsafe { (*shinfo).gso_type };
        Segments { size, count, kind }
    }

    /// Copies `N` bytes that are not all in the linear part. `None` if the packet ends before.
    #[cold]
    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let offset = c_int::try_from(offset).ok()?;
        // SAFETY: By the type invariants the pointer is valid, and `bytes` has room for `N` bytes.
        // The function checks that the packet has `N` bytes at `offset`.
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

    /// Returns the length on the wire of an aggregate whose transport header is at `transport`:
    /// the sum of its segments, in bytes.
    #[cold]
    fn segments_len(&self, segments: Segments, size: NonZeroU16, transport: usize) -> u64 {
        let inserted = self.inserted_len();
        let headers = self
            .segment_headers(segments, transport)
            .saturating_sub(inserted);
        let length = u64::from(self.len()).saturating_sub(inserted);
        let count = match segments.count {
            // Packets from virtual machines can come without the number (`SKB_GSO_DODGY`).
            0 => length
                .saturating_sub(headers)
                .div_ceil(u64::from(size.get())),
            count => u64::from(count),
        };
        length.saturating_add(headers.saturating_mul(count.saturating_sub(1)))
    }

    /// Returns the length of the headers that every segment repeats, in bytes, from the network
    /// header on.
    ///
    /// The segments of a tunnel repeat the inner headers as well. For other packets `transport` is
    /// used and not the field `transport_header`: IPv6 receive sets that to the end of the IPv6
    /// header, even if extension headers follow.
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

    /// Returns the offset of the transport header of the packet in a tunnel, in bytes from the
    /// start of the data.
    fn inner_transport(&self) -> usize {
        // SAFETY: By the type invariants the pointer is valid, and the fields do not change.
        let headers = unsafe { &(*self.skb.as_ptr()).__bindgen_anon_4.headers };
        // SAFETY: The union is a `struct_group` of the C side. Its variants have the same fields,
        // so each is valid.
        let headers = unsafe { headers.as_ref() };
        let from_head = headers.inner_transport_header;
        usize::from(from_head).saturating_sub(self.data().addr().saturating_sub(self.head().addr()))
    }

    fn tcp_header_len(&self, transport: usize) -> usize {
        let [offset] = self.array(transport.saturating_add(12)).unwrap_or_default();
        usize::from(offset >> 4) * 4
    }

    /// Returns the number of bytes that were not on the wire.
    ///
    /// GRO of Linux 6.12 inserts a hop-by-hop header with a jumbo payload option into IPv6
    /// packets of more than 64 KiB ("BIG TCP"), because the length field of the IPv6 header has 16
    /// bits. GRO does not merge packets that come with such an option.
    fn inserted_len(&self) -> u64 {
        let Some((fixed, extension)) = self.linear().split_first_chunk::<40>() else {
            return 0;
        };
        match (fixed, extension) {
            ([0x60..=0x6f, _, _, _, 0, 0, HOP_BY_HOP, ..], [_, 0, JUMBO, 4, ..]) => 8,
            _ => 0,
        }
    }
}

impl Packet for SkBuff<'_> {
    #[inline]
    fn linear(&self) -> &[u8] {
        let length = self.len().wrapping_sub(self.data_len()) as usize;
        // SAFETY: The linear part of a valid `struct sk_buff` is `len - data_len` bytes at `data`.
        // By the type invariants it is valid and does not change for `'a`, which `self` does not
        // outlive. `data_len` is at most `len`, so the difference does not wrap around.
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

    /// IP receive has trimmed the packet to the length in its header. If GRO has merged the packet,
    /// or GSO has yet to split it, the result is the sum of the segments. Each has the headers of
    /// the first.
    #[inline]
    fn wire_len(&self, payload: u16) -> u64 {
        let segments = self.segments();
        match NonZeroU16::new(segments.size) {
            None => u64::from(self.len()),
            Some(size) => self.segments_len(segments, size, payload.into()),
        }
    }
}

/// What `struct skb_shared_info` says about segments.
#[derive(Clone, Copy)]
struct Segments {
    /// Bytes of payload in each segment but the last. 0 if the packet is not an aggregate.
    size: u16,
    /// The number of segments.
    count: u16,
    /// Bits `SKB_GSO_*`.
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

/// The protocol number of the hop-by-hop header (`NEXTHDR_HOP`).
const HOP_BY_HOP: u8 = 0;
/// The type of the jumbo payload option (`IPV6_TLV_JUMBO`):
/// <https://www.rfc-editor.org/rfc/rfc2675#section-2>.
const JUMBO: u8 = 0xc2;
/// The size of `struct udphdr` in bytes.
const UDP_HEADER: usize = 8;
/// The size of the SCTP common header, `struct sctphdr`, in bytes.
const SCTP_HEADER: usize = 12;
