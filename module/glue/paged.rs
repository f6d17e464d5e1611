// SPDX-License-Identifier: GPL-2.0

//! Arrays that grow page by page, in any context.

use super::memcg::Memcg;
use crate::accounting::{
    counters::Counters,
    slots::Slots,
    table::{Link, Memory, Row},
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, Ordering},
};
use kernel::{
    alloc::{flags, Flags, KVVec},
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
};

/// Types whose all-zero bytes are their `Default`, and that own nothing.
///
/// # Safety
///
/// All bytes zero must be a valid value, and dropping a value must do nothing.
pub(crate) unsafe trait ZeroIsDefault: Sync {}

// SAFETY: An integer.
unsafe impl ZeroIsDefault for Link {}
// SAFETY: Nothing but integers, as the size shows.
unsafe impl ZeroIsDefault for Row {}
const _: () = assert!(size_of::<Row>() == 16 + size_of::<Counters>());

/// `__GFP_ACCOUNT`: charge the active memory cgroup.
fn account() -> Flags {
    GFP_KERNEL_ACCOUNT & !GFP_KERNEL
}

/// What lies in one allocation.
#[repr(C, align(4096))]
struct Page([MaybeUninit<u8>; PAGE_SIZE]);

/// An array of up to `limit` slots.
///
/// # Invariants
///
/// A pointer in `directory` is null or comes from `KBox<Page>::into_raw`; the page is filled with
/// valid slots. It changes only from null, so a page lives as long as the array.
pub(crate) struct PagedSlots<T: ZeroIsDefault> {
    directory: KVVec<AtomicPtr<Page>>,
    limit: u32,
    payer: Arc<Memcg>,
    _slots: PhantomData<T>,
}

impl<T: ZeroIsDefault> PagedSlots<T> {
    const PER_PAGE: u32 = {
        assert!(PAGE_SIZE % size_of::<T>() == 0 && align_of::<T>() <= PAGE_SIZE);
        (PAGE_SIZE / size_of::<T>()) as u32
    };

    /// An empty array. Its pages will be charged to `payer`.
    pub(crate) fn new(limit: u32, payer: Arc<Memcg>) -> Result<Self> {
        // Whole cache lines, so that nobody else's data share one with a small directory.
        let pages = (limit.div_ceil(Self::PER_PAGE) as usize).next_multiple_of(8);
        let mut directory = KVVec::with_capacity(pages, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..pages {
            directory.push(AtomicPtr::default(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self { directory, limit, payer, _slots: PhantomData })
    }

    /// A page of zeros, or nothing when memory is short or the payer has used up its share.
    #[cold]
    fn new_page(&self) -> Option<NonNull<Page>> {
        let _charge = self.payer.charge();
        // Not GFP_ATOMIC: that may exceed the payer's limit and take the last reserves. Addresses
        // that find no memory are still counted, together.
        let flags = flags::GFP_NOWAIT | flags::__GFP_ZERO | flags::__GFP_NOWARN | account();
        let page = KBox::<Page>::new_uninit(flags).ok()?;
        NonNull::new(KBox::into_raw(page).cast())
    }
}

impl<T: ZeroIsDefault> Slots<T> for PagedSlots<T> {
    #[inline]
    fn get(&self, index: u32) -> Option<&T> {
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        // Pairs with the release in `make`: what is in the page is seen as zeroed.
        let page = NonNull::new(page.load(Ordering::Acquire))?;
        // SAFETY: By the type's invariant the page is filled with slots, and `index` modulo their
        // number is one of them. The page lives as long as `self`.
        Some(unsafe { page.cast::<T>().add((index % Self::PER_PAGE) as usize).as_ref() })
    }

    fn make(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        if page.load(Ordering::Relaxed).is_null() {
            let new = self.new_page()?.as_ptr();
            // INVARIANT: The page is full of zeros, which are slots by `ZeroIsDefault`, and
            // nothing but null is replaced.
            let published = page.compare_exchange(core::ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed);
            if published.is_err() {
                // SAFETY: From `into_raw`, and nobody else has seen it.
                drop(unsafe { KBox::from_raw(new) });
            }
        }
        self.get(index)
    }
}

impl<T: ZeroIsDefault> Drop for PagedSlots<T> {
    fn drop(&mut self) {
        for page in &mut self.directory {
            if let Some(page) = NonNull::new(*page.get_mut()) {
                // SAFETY: By the type's invariant. Slots need no drop (`ZeroIsDefault`), and
                // nobody has a reference to one since `self` is borrowed mutably.
                drop(unsafe { KBox::from_raw(page.as_ptr()) });
            }
        }
    }
}

/// The memory of one CPU's table.
pub(crate) struct KernelMemory;

impl Memory for KernelMemory {
    type Rows = PagedSlots<Row>;
    type Links = PagedSlots<Link>;
}
