// SPDX-License-Identifier: GPL-2.0

//! Data that each CPU has for itself.

use kernel::{alloc::KVVec, cpu::nr_cpu_ids, prelude::*, types::NotThreadSafe};

#[cfg(CONFIG_PREEMPT_RT)]
compile_error!("with PREEMPT_RT bottom halves off does not mean alone on the CPU");

/// How many CPUs there can be.
pub(crate) fn possible_cpus() -> u32 {
    nr_cpu_ids()
}

/// One `T` for every CPU.
///
/// Any CPU may look at all of them. The point is [`local`](Self::local): what is done with a `T` that comes
/// from there is not interleaved with anything else done with it in the same way.
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

    /// The `T` of the CPU that this runs on.
    #[inline]
    pub(crate) fn local<'a>(&'a self, cpu: &'a ThisCpu) -> Option<&'a T> {
        self.get(cpu.number)
    }

    /// The `T` of a CPU.
    #[inline]
    pub(crate) fn get(&self, cpu: u32) -> Option<&T> {
        self.0.get(cpu as usize).map(|own| &own.0)
    }

    /// All of them, with the CPU's number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..u32::MAX).zip(self.0.iter().map(|own| &own.0))
    }
}

/// The CPU that this runs on, with bottom halves off as long as the value lives.
///
/// A hook may run in softirq or, for packets that a task of this machine sends, in process
/// context. With bottom halves off neither is preempted by the other, nor moved to another
/// CPU. Hooks never run in hard interrupts.
pub(crate) struct ThisCpu {
    number: u32,
    _stays: NotThreadSafe,
}

impl ThisCpu {
    /// Vouches for it.
    ///
    /// # Safety
    ///
    /// This must run on CPU `number` with bottom halves off, and they must stay so until the value is dropped.
    #[inline]
    pub(crate) unsafe fn assume(number: u32) -> Self {
        Self {
            number,
            _stays: NotThreadSafe,
        }
    }
}
