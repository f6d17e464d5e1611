// SPDX-License-Identifier: GPL-2.0

//! State that each network namespace has for itself, and its folder in `/proc/net`.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use super::{
    compat::types::ForeignOwnable,
    net::Net,
    procfs::{
        Dir,
        OwnedDir, //
    },
};
use crate::atomic::{
    AtomicBool,
    Ordering, //
};
use core::{
    cell::UnsafeCell,
    ffi::CStr,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// The state that a module has in each network namespace.
pub(crate) trait PerNet: Send + Sync + Sized + 'static {
    /// The name of the folder in `/proc/net`.
    const DIR: &'static CStr;

    /// Makes the state of namespace `net`. `dir` is its folder.
    ///
    /// The folder and all files in it are removed when the namespace ends. Rules can live a little
    /// longer, and so can references to the state.
    fn new(net: &Net, dir: Arc<Dir>) -> Result<Arc<Self>>;
}

/// The registration of a type, in a static, because the callbacks get no other context.
///
/// # Invariants
///
/// `taken` is true while there is a [`PerNetRegistration<T>`], and while one is made or dropped.
/// Only that code writes to `ops` and `id`, and only while no callback runs and no registration can
/// be borrowed.
pub(crate) struct PerNetSlot<T> {
    taken: AtomicBool,
    ops: Opaque<bindings::pernet_operations>,
    id: UnsafeCell<c_uint>,
    _state: PhantomData<T>,
}

// SAFETY: By the type invariants `ops` and `id` are not written while others read them. `T` itself
// is not in the slot.
unsafe impl<T> Sync for PerNetSlot<T> {}

/// A type with a slot. The macro [`pernet_slot!`] implements it.
///
/// # Safety
///
/// `slot` must always return the same static.
pub(crate) unsafe trait HasPerNetSlot: PerNet {
    /// Returns the slot.
    fn slot() -> &'static PerNetSlot<Self>;
}

/// Gives a type a slot.
macro_rules! pernet_slot {
    ($type:ty) => {
        const _: () = {
            use $crate::glue::pernet::{
                HasPerNetSlot,
                PerNetSlot, //
            };

            static SLOT: PerNetSlot<$type> = PerNetSlot::new();

            // SAFETY: There is one static, and the function returns no other.
            unsafe impl HasPerNetSlot for $type {
                fn slot() -> &'static PerNetSlot<Self> {
                    &SLOT
                }
            }
        };
    };
}
pub(crate) use pernet_slot;

impl<T> PerNetSlot<T> {
    /// Makes a slot that is not registered.
    pub(crate) const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            ops: Opaque::uninit(),
            id: UnsafeCell::new(0),
            _state: PhantomData,
        }
    }

    /// Returns where a namespace keeps the pointer to its state.
    ///
    /// # Safety
    ///
    /// The slot must be registered, and `net` must be valid.
    unsafe fn place(&self, net: *mut bindings::net) -> Option<NonNull<*mut c_void>> {
        // SAFETY: The id is valid for reads, and by the type invariants it is not written
        // concurrently: the C side has set it before it called the first callback.
        let id = unsafe { self.id.get().read() };
        // SAFETY: `net` is valid by the safety requirements. Namespaces have a pointer for each id
        // that is registered.
        let place = unsafe { bindings::net_generic(net, id) };
        NonNull::new(place.cast())
    }
}

/// What a namespace keeps. The fields are dropped in this order.
struct State<T> {
    data: Arc<T>,
    _dir: OwnedDir,
}

/// A registration of `T`: as long as it lives, each namespace has a `T`.
///
/// # Invariants
///
/// The slot of `T` is registered. The place of each namespace whose `init` callback has succeeded,
/// and whose `exit` callback has not begun, holds a pointer from `KBox<State<T>>::into_foreign`.
/// Everywhere else it is null.
pub(crate) struct PerNetRegistration<T: HasPerNetSlot>(PhantomData<T>);

impl<T: HasPerNetSlot> PerNetRegistration<T> {
    /// Makes a `T` in all present and future namespaces.
    ///
    /// Fails with [`EBUSY`] if there is a registration of `T`.
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    pub(crate) fn new() -> Result<Self> {
        let slot = T::slot();
        if slot.taken.swap(true, Ordering::Acquire) {
            return Err(EBUSY);
        }
        let ops = bindings::pernet_operations {
            init: Some(Self::init),
            exit: Some(Self::exit),
            id: slot.id.get(),
            size: size_of::<*mut c_void>(),
            ..Default::default()
        };
        // SAFETY: The pointer is valid for writes. `taken` was false, so by the invariants of the
        // slot there is no registration, and so nothing else that uses `ops`.
        unsafe { slot.ops.get().write(ops) };
        // SAFETY: `ops` is a static. It is filled in, and the C side does not have it yet. Its
        // callbacks are those of `T`, for this slot.
        if let Err(error) = to_result(unsafe { bindings::register_pernet_subsys(slot.ops.get()) }) {
            slot.taken.store(false, Ordering::Release);
            return Err(error);
        }
        // INVARIANT: The function has called `init` for all namespaces. It is called for new ones,
        // too.
        Ok(Self(PhantomData))
    }

    /// Returns the state of a namespace.
    ///
    /// `None` in a namespace that is being set up, before its state is made.
    pub(crate) fn get(&self, net: &Net) -> Option<Arc<T>> {
        // SAFETY: By the type invariants the slot is registered as long as `self` is borrowed.
        // `net` is borrowed, so it is valid.
        let place = unsafe { T::slot().place(net.as_ptr()) }?;
        // SAFETY: The place is valid for reads as long as the slot is registered. Nothing writes to
        // it concurrently: `init` has returned, because only the callbacks of a namespace that is
        // being set up can borrow it before; `exit` does not begin while `net` and `self` are
        // borrowed, because neither does the namespace end nor is the registration dropped.
        let state = unsafe { place.read() };
        if state.is_null() {
            return None;
        }
        // SAFETY: By the type invariants the pointer comes from `into_foreign`. `exit`, which takes
        // it back, does not begin while `net` and `self` are borrowed.
        let state: &State<T> = unsafe { KBox::borrow(state) };
        Some(state.data.clone())
    }

    /// # Safety
    ///
    /// `net` must be a namespace that is being set up, or that exists when the slot is registered.
    /// It must be called once for each namespace, by the C side, after `/proc/net` was made.
    unsafe extern "C" fn init(net: *mut bindings::net) -> c_int {
        from_result(|| {
            // SAFETY: The C side calls this function only while the slot is registered, and passes
            // a valid namespace by the safety requirements.
            let place = unsafe { T::slot().place(net) }.ok_or(ENOENT)?;
            // SAFETY: The namespace is valid by the safety requirements. Its exit callbacks are
            // called by the same code that calls this function, or later, so not before it returns.
            let net = unsafe { Net::from_raw(net) };
            // SAFETY: The namespace has its `/proc/net` by the safety requirements. `State`, or
            // this function if it fails, drops the folder. That is in `exit` at the latest, and so
            // before procfs takes away `/proc/net`: exit callbacks run in the reverse order.
            let dir = unsafe { OwnedDir::new(net, T::DIR) }?;
            let data = T::new(net, dir.share())?;
            let state = KBox::new(State { data, _dir: dir }, GFP_KERNEL_ACCOUNT)?;
            // SAFETY: The place is valid for writes. Nothing else uses it before `init` returns.
            // INVARIANT: `init` succeeds, and the place holds a pointer from `into_foreign`.
            unsafe { place.write(state.into_foreign()) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The C side must call this once for a namespace, after `init` has succeeded for it, and when
    /// nothing borrows both the namespace and the registration any more.
    unsafe extern "C" fn exit(net: *mut bindings::net) {
        // SAFETY: The C side calls this function only while the slot is registered, and passes a
        // valid namespace by the safety requirements.
        let Some(place) = (unsafe { T::slot().place(net) }) else {
            return;
        };
        // SAFETY: The place is valid for reads and writes. By the safety requirements `get` does
        // not read it now.
        // INVARIANT: `exit` has begun, and the place is null.
        let state = unsafe { place.replace(ptr::null_mut()) };
        // SAFETY: `init` has succeeded, so by the type invariants the pointer comes from
        // `into_foreign`. This is the only place that takes it back, once.
        let state = unsafe { KBox::<State<T>>::from_foreign(state) };
        drop(state);
    }
}

/// # Context
///
/// Process context. Might sleep.
impl<T: HasPerNetSlot> Drop for PerNetRegistration<T> {
    fn drop(&mut self) {
        let slot = T::slot();
        // SAFETY: By the type invariants the slot is registered. `self` is borrowed mutably, so
        // `get` does not run. The function calls `exit` for all namespaces and waits for it.
        unsafe { bindings::unregister_pernet_subsys(slot.ops.get()) };
        slot.taken.store(false, Ordering::Release);
    }
}
