// SPDX-License-Identifier: GPL-2.0

//! Arrays that grow page by page, in any context.

use super::{
    budget::Budget,
    memcg::Memcg,
    task, //
};
use crate::{
    accounting::slots::{
        Memory,
        Slot,
        Slots, //
    },
    atomic::{
        AtomicPtr,
        AtomicU32,
        Ordering, //
    },
};
use core::{
    mem::{
        self,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// The memory of a page. Its alignment suffices for all slots, as [`PagedSlots::PER_PAGE`] asserts.
#[repr(align(4096))]
struct Page(#[expect(dead_code)] [u8; PAGE_SIZE]);

/// An array of up to `limit` slots.
///
/// # Invariants
///
/// A pointer in `directory` is null, or owns a page from [`PageAllocator::allocate`] that is filled
/// with valid slots. It changes only from null, so a page lives as long as the array.
pub(crate) struct PagedSlots<T: Slot> {
    directory: KVVec<AtomicPtr<T>>,
    limit: u32,
    /// The number of pages. Only the context that makes slots changes it.
    pages: AtomicU32,
    allocator: PageAllocator,
}

impl<T: Slot> PagedSlots<T> {
    const PER_PAGE: u32 = {
        assert!(PAGE_SIZE % size_of::<T>() == 0);
        assert!(align_of::<T>() <= align_of::<Page>());
        // Pages are freed without dropping the slots.
        assert!(!mem::needs_drop::<T>());
        (PAGE_SIZE / size_of::<T>()) as u32
    };

    #[inline(never)]
    fn new(limit: u32, allocator: PageAllocator) -> Result<Self> {
        // Whole cache lines: so a small directory shares none with other data.
        let length = (limit.div_ceil(Self::PER_PAGE) as usize).next_multiple_of(8);
        let mut directory = KVVec::with_capacity(length, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..length {
            directory.push(AtomicPtr::default(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            directory,
            limit,
            pages: AtomicU32::new(0),
            allocator,
        })
    }

    /// Makes a page that is full of slots. `None` if there is no memory, or if the memory cgroup
    /// has reached its limit.
    #[cold]
    fn new_page(&self) -> Option<NonNull<T>> {
        let page = self.allocator.allocate()?.cast::<T>();
        for index in 0..Self::PER_PAGE as usize {
            // SAFETY: `PER_PAGE` slots fit into a page, by the assertions there. So slot `index`
            // lies within it.
            let slot = unsafe { page.add(index) };
            // SAFETY: The page is new, so the slot is valid for writes, and it is aligned by the
            // assertions at `PER_PAGE`.
            unsafe { slot.write(T::default()) };
        }
        Some(page)
    }
}

impl<T: Slot> Slots<T> for PagedSlots<T> {
    #[inline]
    fn get(&self, index: u32) -> Option<&T> {
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        // Pairs with the release in `make`: the slots are visible as they were made.
        let page = NonNull::new(page.load(Ordering::Acquire))?;
        // SAFETY: A page has `PER_PAGE` slots, so this one lies within it.
        let slot = unsafe { page.add((index % Self::PER_PAGE) as usize) };
        // SAFETY: By the type invariants the page is filled with valid slots, and lives as long as
        // `self`. There are only shared references to slots.
        Some(unsafe { slot.as_ref() })
    }

    fn make(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        if page.load(Ordering::Relaxed).is_null() {
            let new = self.new_page()?;
            // INVARIANT: The page is full of slots, and only null is replaced.
            let published = page.compare_exchange(
                ptr::null_mut(),
                new.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            match published {
                Ok(_) => self.pages.store(
                    self.pages.load(Ordering::Relaxed).wrapping_add(1),
                    Ordering::Relaxed,
                ),
                // SAFETY: `new_page` has allocated the page. It was not published, so there is no
                // other pointer to it.
                Err(_) => unsafe { self.allocator.free(new.cast()) },
            }
        }
        self.get(index)
    }

    fn memory(&self) -> usize {
        let pages = self.pages.load(Ordering::Relaxed) as usize;
        pages * PAGE_SIZE + self.directory.len() * size_of::<AtomicPtr<T>>()
    }
}

/// # Context
///
/// Process context. Might sleep.
impl<T: Slot> Drop for PagedSlots<T> {
    fn drop(&mut self) {
        for page in &mut self.directory {
            if let Some(page) = NonNull::new(*page.get_mut()) {
                // SAFETY: By the type invariants the page comes from the allocator, and this array
                // owns it. `self` is borrowed mutably, so there are no references to slots. The
                // pointer is not used again, because the directory is dropped next.
                unsafe { self.allocator.free(page.cast()) };
                task::cond_resched();
            }
        }
    }
}

/// How pages are allocated.
#[derive(Clone)]
struct PageAllocator {
    memcg: Arc<Memcg>,
    budget: &'static Budget,
}

impl PageAllocator {
    /// Allocates a page, charged to `memcg` and to the budget.
    ///
    /// Not with `GFP_ATOMIC`, which may exceed the limit of the cgroup and use up the last
    /// reserves. Without memory packets are still counted, in the row for all others.
    fn allocate(&self) -> Option<NonNull<u8>> {
        if !self.budget.take(PAGE_SIZE as u64) {
            return None;
        }
        let flags = GFP_NOWAIT | __GFP_NOWARN | __GFP_ACCOUNT;
        match self.memcg.charge(|| KBox::<Page>::new_uninit(flags)) {
            Ok(page) => NonNull::new(KBox::into_raw(page).cast()),
            Err(_) => {
                self.budget.give_back(PAGE_SIZE as u64);
                None
            }
        }
    }

    /// Frees a page.
    ///
    /// # Safety
    ///
    /// `page` must come from [`allocate`](Self::allocate), and must not be used afterwards.
    unsafe fn free(&self, page: NonNull<u8>) {
        self.budget.give_back(PAGE_SIZE as u64);
        // SAFETY: By the safety requirements the page comes from `allocate`, which has got it from
        // a `KBox` of this type, and it is not used afterwards.
        drop(unsafe { KBox::<MaybeUninit<Page>>::from_raw(page.as_ptr().cast()) });
    }
}

/// Kernel memory that is charged to a cgroup and to a budget.
pub(crate) struct KernelMemory(PageAllocator);

impl KernelMemory {
    /// Memory for arrays that grow in the packet path, in any context.
    pub(crate) fn for_packets(memcg: Arc<Memcg>, budget: &'static Budget) -> Self {
        Self(PageAllocator { memcg, budget })
    }
}

impl Memory for KernelMemory {
    type Slots<T: Slot> = PagedSlots<T>;
    type Error = Error;

    fn backoff(&self) -> u32 {
        1024
    }

    fn slots<T: Slot>(&self, limit: u32) -> Result<PagedSlots<T>> {
        PagedSlots::new(limit, self.0.clone())
    }
}
