// SPDX-License-Identifier: GPL-2.0

//! Data that each CPU has for itself.

use kernel::{
    alloc::KVVec,
    bindings,
    cpu::{nr_cpu_ids, CpuId},
    prelude::*,
    types::NotThreadSafe,
};

#[cfg(CONFIG_PREEMPT_RT)]
compile_error!("with PREEMPT_RT bottom halves off does not mean alone on the CPU");

/// How many CPUs there can be.
pub(crate) fn possible_cpus() -> u32 {
    nr_cpu_ids()
}

/// One `T` for every CPU.
///
/// Any CPU may look at all of them. The point is [`with_local`](Self::with_local): what is done
/// in it is not interleaved with anything else done in it on the same `T`.
pub(crate) struct PerCpu<T>(KVVec<CacheLines<T>>);

/// Whole cache lines, so that a CPU shares none with its neighbour.
#[repr(align(64))]
struct CacheLines<T>(T);

impl<T> PerCpu<T> {
    /// Makes a `T` for every CPU that there can be. It gets its value where it is going to stay.
    #[inline(never)]
    pub(crate) fn new(mut init: impl FnMut(&mut T) -> Result) -> Result<Self>
    where
        T: Default,
    {
        let count = possible_cpus() as usize;
        let mut all = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            all.push(CacheLines(T::default()), GFP_KERNEL_ACCOUNT)?;
        }
        all.iter_mut().try_for_each(|own| init(&mut own.0))?;
        Ok(Self(all))
    }

    /// Calls `f` with this CPU's `T`, with bottom halves off.
    ///
    /// A hook may run in softirq or, for packets that a task of this machine sends, in process
    /// context. With bottom halves off neither is preempted by the other, nor moved to another
    /// CPU. Hooks never run in hard interrupts.
    #[inline]
    pub(crate) fn with_local<R>(&self, bottom_halves: BottomHalves, f: impl FnOnce(&T) -> R) -> Option<R> {
        let _guard = match bottom_halves {
            BottomHalves::Off(_) => None,
            BottomHalves::Unknown => Some(BhGuard::new()),
        };
        self.get(CpuId::current().as_u32()).map(f)
    }

    /// The `T` of a CPU.
    #[inline]
    pub(crate) fn get(&self, cpu: u32) -> Option<&T> {
        self.0.get(cpu as usize).map(|own| &own.0)
    }

    /// All of them, with the CPU's number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.0.iter().map(|own| &own.0))
    }
}

/// What is known about bottom halves on this CPU, as long as this lives.
pub(crate) enum BottomHalves {
    /// They are off already.
    Off(BhOff),
    /// Nothing.
    Unknown,
}

/// Shows that bottom halves are off. It stays where it was made.
pub(crate) struct BhOff(NotThreadSafe);

impl BhOff {
    /// Vouches for it.
    ///
    /// # Safety
    ///
    /// Bottom halves must be off, and stay so until the value is dropped.
    #[inline]
    pub(crate) unsafe fn assume() -> Self {
        Self(NotThreadSafe)
    }
}

/// Bottom halves are off, and the CPU stays the same, while this lives.
struct BhGuard(NotThreadSafe);

impl BhGuard {
    #[inline]
    fn new() -> Self {
        // SAFETY: Undone when the guard is dropped, in the same context since it is not `Send`.
        unsafe { bindings::local_bh_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for BhGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Pairs with the call in `new`.
        unsafe { bindings::local_bh_enable() };
    }
}
