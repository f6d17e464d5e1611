// SPDX-License-Identifier: GPL-2.0

//! State that every network namespace has for itself.
//!
//! C header: `include/net/net_namespace.h`

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};
use kernel::{
    bindings,
    error::{from_result, to_result},
    ffi::{c_int, c_uint},
    prelude::*,
    sync::{Arc, ArcBorrow},
    types::{ForeignOwnable, Opaque},
};

/// A network namespace (`struct net`).
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

impl Net {
    /// # Safety
    ///
    /// `net` must be valid for `'a`.
    pub(crate) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // SAFETY: The caller promises it; `Net` is transparent.
        unsafe { &*net.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }
}

/// A namespace that cannot end while this lives.
///
/// # Invariants
///
/// The pointer holds a reference.
pub(crate) struct NetRef(NonNull<bindings::net>);

// SAFETY: Namespaces are reference counted and belong to no thread.
unsafe impl Send for NetRef {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl Sync for NetRef {}

impl NetRef {
    /// Takes a reference, unless the namespace is about to end.
    ///
    /// # Safety
    ///
    /// `net` must be null or point to a namespace whose memory has not been freed.
    pub(crate) unsafe fn get(net: *mut bindings::net) -> Option<Self> {
        let net = NonNull::new(net)?;
        // SAFETY: The caller promises it.
        // INVARIANT: The function returns null or a new reference.
        NonNull::new(unsafe { bindings::maybe_get_net(net.as_ptr()) }).map(Self)
    }
}

impl Drop for NetRef {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant.
        unsafe { bindings::put_net(self.0.as_ptr()) };
    }
}

/// What a module keeps per namespace.
pub(crate) trait PerNet: Send + Sync + Sized + 'static {
    /// Called when a namespace comes into being, and for those that exist already.
    fn new(net: &Net) -> Result<Arc<Self>>;

    /// Called when the namespace goes away. Rules in it may live a little longer, and with them
    /// references to this.
    fn exit(&self);
}

/// A static that gives each namespace its `T`, while it is registered.
///
/// # Invariants
///
/// While `id` is not zero, the slot `id` of every namespace that our callbacks have seen begin and
/// not end holds an `Arc<T>`, as a foreign pointer.
pub(crate) struct PerNetSlot<T> {
    taken: AtomicBool,
    ops: UnsafeCell<bindings::pernet_operations>,
    id: UnsafeCell<c_uint>,
    _state: PhantomData<T>,
}

// SAFETY: The operations are only touched by the registration, under the lock of the C side; the id
// is written once, by the registration, before anybody can have a namespace to ask for.
unsafe impl<T: PerNet> Sync for PerNetSlot<T> {}

/// The static that belongs to a type, so that the callbacks find it.
pub(crate) trait HasPerNetSlot: PerNet {
    /// The one static of this type.
    fn slot() -> &'static PerNetSlot<Self>;
}

impl<T: HasPerNetSlot> PerNetSlot<T> {
    /// A slot that is not registered yet.
    pub(crate) const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            // SAFETY: No callbacks, no id, no list links: all zero is valid.
            ops: UnsafeCell::new(unsafe { core::mem::zeroed() }),
            id: UnsafeCell::new(0),
            _state: PhantomData,
        }
    }

    /// Makes a `T` in all namespaces, now and in future, till the registration is dropped.
    pub(crate) fn register() -> Result<PerNetRegistration<T>> {
        let slot = T::slot();
        if slot.taken.swap(true, Ordering::Relaxed) {
            return Err(EBUSY);
        }
        let ops = slot.ops.get();
        // SAFETY: The slot is taken once in the life of the module, so nobody else is here.
        unsafe {
            (*ops).init = Some(Self::init);
            (*ops).exit = Some(Self::exit);
            (*ops).id = slot.id.get();
            (*ops).size = size_of::<*mut T>();
        }
        // SAFETY: `ops` is static and filled in.
        to_result(unsafe { bindings::register_pernet_subsys(ops) })?;
        Ok(PerNetRegistration(PhantomData))
    }

    /// The state of `net`, if it has one.
    pub(crate) fn get(net: &Net) -> Option<ArcBorrow<'_, T>> {
        let slot = Self::place(net)?;
        // SAFETY: By the type's invariant; `net` is borrowed, so it has not ended.
        unsafe {
            let state = *slot.as_ref();
            (!state.is_null()).then(|| Arc::<T>::borrow(state))
        }
    }

    /// Where a namespace keeps the pointer.
    fn place(net: &Net) -> Option<NonNull<*mut kernel::ffi::c_void>> {
        // SAFETY: See `Sync`: the id doesn't change once there is somebody to read it.
        let id = unsafe { *T::slot().id.get() };
        if id == 0 {
            return None;
        }
        // SAFETY: The namespace is valid, and `id` is registered.
        NonNull::new(unsafe { bindings::net_generic(net.as_ptr(), id) }.cast())
    }

    unsafe extern "C" fn init(net: *mut bindings::net) -> c_int {
        from_result(|| {
            // SAFETY: The C side passes a valid namespace.
            let net = unsafe { Net::from_raw(net) };
            let mut place = Self::place(net).ok_or(ENOENT)?;
            let state = T::new(net)?;
            // SAFETY: The place is ours, and as large as a pointer.
            // INVARIANT: It holds an `Arc<T>` now.
            unsafe { *place.as_mut() = state.into_foreign() };
            Ok(0)
        })
    }

    unsafe extern "C" fn exit(net: *mut bindings::net) {
        // SAFETY: The C side passes a valid namespace.
        let Some(mut place) = Self::place(unsafe { Net::from_raw(net) }) else {
            return;
        };
        // SAFETY: The place is ours. Nobody looks up the state of a namespace that ends.
        let state = unsafe { core::mem::replace(place.as_mut(), core::ptr::null_mut()) };
        if !state.is_null() {
            // SAFETY: By the type's invariant.
            let state = unsafe { Arc::<T>::from_foreign(state) };
            state.exit();
        }
    }
}

/// Ends the state in all namespaces when it is dropped.
pub(crate) struct PerNetRegistration<T: HasPerNetSlot>(PhantomData<T>);

impl<T: HasPerNetSlot> Drop for PerNetRegistration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered when this was made.
        unsafe { bindings::unregister_pernet_subsys(T::slot().ops.get()) };
    }
}
