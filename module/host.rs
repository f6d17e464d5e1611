// SPDX-License-Identifier: GPL-2.0

//! What the accounting needs from the kernel, for its tests on the host.

extern crate std;

use crate::accounting::{
    delivery::{
        ReadError,
        Reader,
        Sink, //
    },
    key::Key,
    ledger::Ledger,
    packet::Packet,
    platform::Platform,
    row::{
        Collect,
        Counted, //
    },
    slots::{
        Memory,
        Slot,
        Slots, //
    },
    table::Table,
    table_text::{
        TablePerCpu,
        TableText, //
    },
};
use std::{
    boxed::Box,
    convert::Infallible,
    string::String,
    sync::{
        Mutex,
        OnceLock,
        PoisonError, //
    },
    vec::Vec,
};

/// Bytes that are allocated at once. The kernel allocates by the page, too.
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

/// Memory on the heap.
#[derive(Clone, Copy)]
pub struct Heap {
    /// The number of slots that an array can have at most.
    pub most: u32,
}

impl Heap {
    /// Arrays have no limit but their own.
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

/// The host in the place of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Platform for Host {
    type Error = ReadError;
    type List<T> = Vec<T>;
    type Lock<T> = Mutex<T>;

    fn list<T>(capacity: usize) -> Result<Vec<T>, ReadError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), ReadError> {
        list.push(item);
        Ok(())
    }

    fn truncate<T>(list: &mut Vec<T>, length: usize) {
        list.truncate(length);
    }

    fn with<T: Unpin, R>(lock: &Mutex<T>, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pause() -> Result<(), ReadError> {
        Ok(())
    }
}

/// The text of the tables of some CPUs.
pub type HostText<'a, K, const PAIRS: usize, M> =
    TableText<Vec<&'a Table<K, PAIRS, M>>, K, PAIRS, Host>;

/// The table of CPU `n` is item `n`.
impl<K, const PAIRS: usize, M: Memory> TablePerCpu<K, PAIRS> for Vec<&Table<K, PAIRS, M>> {
    type Memory = M;

    fn cpus(&self) -> u32 {
        self.len() as u32
    }

    fn table(&self, cpu: u32) -> Option<&Table<K, PAIRS, M>> {
        self.get(cpu as usize).copied()
    }

    fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// The rows of a table, in no particular order.
#[derive(Clone, Debug)]
pub struct Collected<K, const PAIRS: usize>(pub Vec<Counted<K, PAIRS>>);

impl<K, const PAIRS: usize> Default for Collected<K, PAIRS> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, const PAIRS: usize> Collect<K, PAIRS> for Collected<K, PAIRS> {
    type Error = Infallible;

    fn count(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, row: Counted<K, PAIRS>) -> Result<(), Infallible> {
        self.0.push(row);
        Ok(())
    }

    fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    fn pause(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// An empty ledger.
pub fn ledger<K: Key, const PAIRS: usize>() -> Mutex<Ledger<Host, K, PAIRS>> {
    Mutex::new(Ledger::new().expect("the host has memory"))
}

impl<K: Key, const PAIRS: usize, M: Memory> HostText<'_, K, PAIRS, M> {
    /// Reads the text from its beginning to its end.
    ///
    /// # Panics
    ///
    /// If the text cannot be read, or is not UTF-8.
    pub fn read_all(&self) -> String {
        let mut buffer = Buffer::new(usize::MAX);
        let mut reader = Reader::default();
        let mut read = |buffer: &mut Buffer| {
            let offset = buffer.bytes.len() as u64;
            reader
                .read(self, offset, buffer)
                .expect("a text can be read")
        };
        while read(&mut buffer) > 0 {}
        reader.close(self);
        String::from_utf8(buffer.bytes).expect("a text is UTF-8")
    }
}

/// The buffer of a reader.
#[derive(Debug)]
pub struct Buffer {
    /// What has been read.
    pub bytes: Vec<u8>,
    space: usize,
}

impl Buffer {
    /// An empty buffer with room for `space` bytes.
    pub const fn new(space: usize) -> Self {
        Self {
            bytes: Vec::new(),
            space,
        }
    }
}

impl Sink for Buffer {
    fn space(&self) -> usize {
        self.space
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.space);
        self.bytes.extend(&bytes[..taken]);
        self.space -= taken;
        taken
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
