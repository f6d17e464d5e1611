// SPDX-License-Identifier: GPL-2.0

//! Memory on the heap, for the accounting's tests on the host.

extern crate std;

use crate::accounting::{
    packet::Packet,
    slots::{Memory, Slot, Slots},
};
use std::{boxed::Box, convert::Infallible, sync::OnceLock, vec::Vec};

/// Bytes that are allocated at once, as in the kernel.
const PAGE_SIZE: usize = 4096;

/// An array of at most `limit` slots.
pub struct HeapSlots<T> {
    limit: u32,
    pages: Vec<OnceLock<Box<[T]>>>,
}

impl<T> HeapSlots<T> {
    const PER_PAGE: u32 = (PAGE_SIZE / size_of::<T>()) as u32;
}

impl<T: Default> Slots<T> for HeapSlots<T> {
    #[inline]
    fn get(&self, index: u32) -> Option<&T> {
        let page = self.pages.get((index / Self::PER_PAGE) as usize)?.get()?;
        page.get((index % Self::PER_PAGE) as usize)
    }

    fn make(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        self.pages[(index / Self::PER_PAGE) as usize]
            .get_or_init(|| (0..Self::PER_PAGE).map(|_| T::default()).collect());
        self.get(index)
    }

    fn memory(&self) -> usize {
        let pages = self
            .pages
            .iter()
            .filter(|page| page.get().is_some())
            .count();
        pages * PAGE_SIZE
    }
}

/// Memory on the heap, of which no array may have more than so many slots.
#[derive(Clone, Copy)]
pub struct Heap {
    /// The bound.
    pub most: u32,
}

impl Heap {
    /// No bound but the arrays' own.
    pub const ENDLESS: Self = Self { most: u32::MAX };
}

impl Memory for Heap {
    type Slots<T: Slot> = HeapSlots<T>;
    type Error = Infallible;

    fn backoff(&self) -> u32 {
        1024
    }

    fn slots<T: Slot>(&self, limit: u32) -> Result<HeapSlots<T>, Infallible> {
        let limit = limit.min(self.most);
        let pages = limit.div_ceil(HeapSlots::<T>::PER_PAGE);
        Ok(HeapSlots {
            limit,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
        })
    }
}

/// A packet in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Packet for Bytes<'_> {
    fn linear(&self) -> &[u8] {
        self.0
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn is_aggregate(&self) -> bool {
        false
    }

    fn wire_len(&self, _payload: u16) -> u64 {
        self.0.len() as u64
    }
}
