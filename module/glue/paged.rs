// SPDX-License-Identifier: GPL-2.0

//! Arrays that grow page by page, in any context.

use super::{memcg::Memcg, task};
use crate::accounting::slots::{Memory, Slot, Slots};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};
use kernel::{
    alloc::{flags, Flags, KVVec},
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
};

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
pub(crate) struct PagedSlots<T: Slot> {
    directory: KVVec<AtomicPtr<Page>>,
    limit: u32,
    /// How many pages there are. Who makes slots counts them.
    pages: AtomicU32,
    source: Source,
    _slots: PhantomData<T>,
}

impl<T: Slot> PagedSlots<T> {
    const PER_PAGE: u32 = {
        assert!(PAGE_SIZE % size_of::<T>() == 0 && align_of::<T>() <= PAGE_SIZE);
        assert!(!core::mem::needs_drop::<T>());
        (PAGE_SIZE / size_of::<T>()) as u32
    };

    #[inline(never)]
    fn new(limit: u32, source: Source) -> Result<Self> {
        // Whole cache lines, so that nobody else's data share one with a small directory.
        let length = (limit.div_ceil(Self::PER_PAGE) as usize).next_multiple_of(8);
        let mut directory = KVVec::with_capacity(length, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..length {
            directory.push(AtomicPtr::default(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            directory,
            limit,
            pages: AtomicU32::new(0),
            source,
            _slots: PhantomData,
        })
    }

    /// A page full of slots, or nothing when memory is short or the payer has used up its share.
    #[cold]
    fn new_page(&self) -> Option<NonNull<Page>> {
        let page = self.source.allocate()?;
        for index in 0..Self::PER_PAGE as usize {
            // SAFETY: The page has place for so many, and nobody else has seen it.
            unsafe { page.cast::<T>().add(index).write(T::default()) };
        }
        Some(page)
    }
}

impl<T: Slot> Slots<T> for PagedSlots<T> {
    #[inline]
    fn get(&self, index: u32) -> Option<&T> {
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        // Pairs with the release in `make`: what is in the page is seen as it was made.
        let page = NonNull::new(page.load(Ordering::Acquire))?;
        // SAFETY: By the type's invariant the page is filled with slots, and `index` modulo their
        // number is one of them. The page lives as long as `self`.
        Some(unsafe {
            page.cast::<T>()
                .add((index % Self::PER_PAGE) as usize)
                .as_ref()
        })
    }

    fn make(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let page = self.directory.get((index / Self::PER_PAGE) as usize)?;
        if page.load(Ordering::Relaxed).is_null() {
            let new = self.new_page()?.as_ptr();
            // INVARIANT: The page is full of slots, and nothing but null is replaced.
            let published = page.compare_exchange(
                core::ptr::null_mut(),
                new,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match published {
                Ok(_) => self.pages.store(
                    self.pages.load(Ordering::Relaxed).wrapping_add(1),
                    Ordering::Relaxed,
                ),
                // SAFETY: From `into_raw`, and nobody else has seen it.
                Err(_) => drop(unsafe { KBox::from_raw(new) }),
            }
        }
        self.get(index)
    }

    fn memory(&self) -> usize {
        let pages = self.pages.load(Ordering::Relaxed) as usize;
        pages * PAGE_SIZE + self.directory.len() * size_of::<AtomicPtr<Page>>()
    }
}

impl<T: Slot> Drop for PagedSlots<T> {
    fn drop(&mut self) {
        for page in &mut self.directory {
            if let Some(page) = NonNull::new(*page.get_mut()) {
                // SAFETY: By the type's invariant. Slots need no drop (see `PER_PAGE`), and nobody
                // has a reference to one since `self` is borrowed mutably.
                drop(unsafe { KBox::from_raw(page.as_ptr()) });
                task::let_others_run();
            }
        }
    }
}

/// Where the pages come from, and who pays.
#[derive(Clone)]
struct Source {
    payer: Arc<Memcg>,
    flags: Flags,
}

impl Source {
    fn allocate(&self) -> Option<NonNull<Page>> {
        let _charge = self.payer.charge();
        let page = KBox::<Page>::new_uninit(self.flags | account()).ok()?;
        NonNull::new(KBox::into_raw(page).cast())
    }
}

/// The kernel's memory, charged to whoever made the table.
pub(crate) struct KernelMemory {
    source: Source,
    wait: u32,
}

impl KernelMemory {
    /// Memory for arrays that grow in the packet path.
    pub(crate) fn for_packets(payer: Arc<Memcg>) -> Self {
        // Not GFP_ATOMIC: that may exceed the payer's limit and take the last reserves. What finds
        // no memory is still counted, together with others.
        Self {
            source: Source {
                payer,
                flags: flags::GFP_NOWAIT | flags::__GFP_NOWARN,
            },
            wait: 1024,
        }
    }

    /// Memory for arrays that grow where sleeping is allowed.
    pub(crate) fn for_readers(payer: Arc<Memcg>) -> Self {
        Self {
            source: Source {
                payer,
                flags: GFP_KERNEL,
            },
            wait: 0,
        }
    }
}

impl Memory for KernelMemory {
    type Slots<T: Slot> = PagedSlots<T>;
    type Error = Error;

    fn backoff(&self) -> u32 {
        self.wait
    }

    fn slots<T: Slot>(&self, limit: u32) -> Result<PagedSlots<T>> {
        PagedSlots::new(limit, self.source.clone())
    }
}
