// SPDX-License-Identifier: GPL-2.0

//! Data that each CPU has for itself.

use super::compat::{
    cpu::nr_cpu_ids,
    types::NotThreadSafe, //
};
use kernel::{
    ffi::c_uint,
    prelude::*, //
};

extern "C" {
    fn xt_traffic_cpu_is_online(cpu: c_uint) -> bool;
}

#[cfg(CONFIG_PREEMPT_RT)]
compile_error!("with PREEMPT_RT, tasks can preempt each other while bottom halves are disabled");

/// One `T` for each possible CPU.
///
/// Every CPU may look at the `T` of every other. Only the CPU itself gets its `T` from
/// [`local`](Self::local), and while it uses it, nothing else on this CPU does so.
pub(crate) struct PerCpu<T>(KVVec<CacheLines<T>>);

/// Keeps the data of two CPUs out of one cache line.
#[repr(align(64))]
struct CacheLines<T>(T);

impl<T> PerCpu<T> {
    /// Makes a `T` for each possible CPU. `init` fills in that of a CPU where it stays.
    #[inline(never)]
    pub(crate) fn new(mut init: impl FnMut(u32, &mut T) -> Result) -> Result<Self>
    where
        T: Default,
    {
        let count = nr_cpu_ids() as usize;
        let mut all = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            all.push(CacheLines(T::default()), GFP_KERNEL_ACCOUNT)?;
        }
        (0..)
            .zip(all.iter_mut())
            .try_for_each(|(cpu, own)| init(cpu, &mut own.0))?;
        Ok(Self(all))
    }

    /// Returns the `T` of the CPU that this runs on.
    #[inline]
    pub(crate) fn local<'a>(&'a self, cpu: &'a ThisCpu) -> Option<&'a T> {
        self.get(cpu.number)
    }

    /// Returns the `T` of any CPU.
    #[inline]
    pub(crate) fn get(&self, cpu: u32) -> Option<&T> {
        self.0.get(cpu as usize).map(|own| &own.0)
    }

    /// Returns all of them, in the order of the CPUs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|own| &own.0)
    }

    /// Returns those of the CPUs that are online. A CPU can come online or go offline meanwhile.
    pub(crate) fn online(&self) -> impl Iterator<Item = &T> {
        // SAFETY: There is an item for each number below `nr_cpu_ids`, so the function gets no
        // other number. It only reads a bit.
        let is_online = |cpu| unsafe { xt_traffic_cpu_is_online(cpu) };
        (0..)
            .zip(self.iter())
            .filter(move |(cpu, _)| is_online(*cpu))
            .map(|(_, own)| own)
    }
}

/// The number of the CPU that this runs on.
///
/// Hooks run in softirq, or in process context for packets that a task of this host sends. With
/// bottom halves disabled neither preempts the other, and neither moves to another CPU. Hooks never
/// run in hard interrupts.
///
/// # Invariants
///
/// The code that has the value runs on CPU `number`, with bottom halves disabled.
pub(crate) struct ThisCpu {
    number: u32,
    _not_send: NotThreadSafe,
}

impl ThisCpu {
    /// Takes `number` for the number of this CPU.
    ///
    /// # Safety
    ///
    /// This must run on CPU `number` with bottom halves disabled. They must stay disabled until the
    /// value is dropped.
    #[inline]
    pub(super) unsafe fn assume(number: u32) -> Self {
        // INVARIANT: The safety requirements say the same, and the value cannot be sent elsewhere.
        Self {
            number,
            _not_send: NotThreadSafe,
        }
    }
}
