// SPDX-License-Identifier: GPL-2.0

//! The interfaces of later kernels, for Linux 6.12.
//!
//! They are copies of what later kernels have, without what this module does not use.

pub(crate) mod cpu {
    use kernel::bindings;

    /// Returns the number of possible CPUs.
    #[inline]
    pub(crate) fn nr_cpu_ids() -> u32 {
        #[cfg(CONFIG_FORCE_NR_CPUS)]
        {
            bindings::NR_CPUS
        }

        #[cfg(not(CONFIG_FORCE_NR_CPUS))]
        // SAFETY: The kernel sets the variable during boot, and does not change it afterwards.
        unsafe {
            bindings::nr_cpu_ids
        }
    }
}

pub(crate) mod fs {
    use super::types::ForeignOwnable;
    use core::{
        marker::PhantomData,
        ptr::NonNull, //
    };
    use kernel::bindings;

    /// A read or a write that is in progress (`struct kiocb`).
    ///
    /// # Invariants
    ///
    /// For `'a`, `inner` is valid, and the private data of its file is a pointer from
    /// `T::into_foreign`.
    pub(crate) struct Kiocb<'a, T> {
        inner: NonNull<bindings::kiocb>,
        _borrowed: PhantomData<&'a T>,
    }

    impl<'a, T: ForeignOwnable> Kiocb<'a, T> {
        /// Wraps a raw pointer.
        ///
        /// # Safety
        ///
        /// For `'a`, `kiocb` must be valid and belong to the caller, and the private data of its
        /// file must be a pointer from `T::into_foreign`.
        pub(crate) unsafe fn from_raw(kiocb: *mut bindings::kiocb) -> Self {
            // INVARIANT: The safety requirements say the same.
            Self {
                // SAFETY: A valid pointer is not null.
                inner: unsafe { NonNull::new_unchecked(kiocb) },
                _borrowed: PhantomData,
            }
        }

        /// Returns the private data of the file.
        pub(crate) fn file(&self) -> T::Borrowed<'a> {
            // SAFETY: By the type invariants the pointer is valid.
            let file = unsafe { (*self.inner.as_ptr()).ki_filp };
            // SAFETY: A valid `kiocb` has a valid file.
            let private = unsafe { (*file).private_data };
            // SAFETY: By the type invariants this is a pointer from `T::into_foreign` for `'a`.
            unsafe { T::borrow(private) }
        }

        /// Returns the position in the file.
        pub(crate) fn ki_pos(&self) -> i64 {
            // SAFETY: By the type invariants the pointer is valid.
            unsafe { (*self.inner.as_ptr()).ki_pos }
        }

        /// Returns the position in the file, to change it.
        pub(crate) fn ki_pos_mut(&mut self) -> &mut i64 {
            // SAFETY: By the type invariants the pointer is valid, and `self` is borrowed mutably.
            unsafe { &mut (*self.inner.as_ptr()).ki_pos }
        }
    }
}

pub(crate) mod iov {
    use core::marker::PhantomData;
    use kernel::{
        bindings,
        types::Opaque, //
    };

    /// The memory that a read writes to (`struct iov_iter`).
    ///
    /// # Invariants
    ///
    /// It is a destination, and for `'data` writing to it is allowed.
    #[repr(transparent)]
    pub(crate) struct IovIterDest<'data> {
        iov: Opaque<bindings::iov_iter>,
        _destination: PhantomData<&'data mut [u8]>,
    }

    impl<'data> IovIterDest<'data> {
        /// Borrows an iterator.
        ///
        /// # Safety
        ///
        /// For `'iov`, `ptr` must be valid and belong to the caller. It must be a destination, and
        /// for `'data` writing to it must be allowed.
        pub(crate) unsafe fn from_raw<'iov>(ptr: *mut bindings::iov_iter) -> &'iov mut Self {
            // SAFETY: `ptr` is valid by the safety requirements, and the type is transparent.
            // INVARIANT: The safety requirements say the same.
            unsafe { &mut *ptr.cast() }
        }

        /// Returns the number of bytes that are left.
        pub(crate) fn len(&self) -> usize {
            // SAFETY: The iterator is valid, and `self` is borrowed, so nothing changes it.
            let fields = unsafe { &(*self.iov.get()).__bindgen_anon_1.__bindgen_anon_1 };
            // SAFETY: Both variants of the union have this field at the same offset.
            unsafe { fields.as_ref() }.count
        }

        /// Copies bytes to the memory. Returns how many were copied: fewer than all if the memory
        /// ends or cannot be written.
        pub(crate) fn copy_to_iter(&mut self, input: &[u8]) -> usize {
            // SAFETY: `input` is valid for its length. By the type invariants it is allowed to
            // write to the iterator.
            unsafe { bindings::_copy_to_iter(input.as_ptr().cast(), input.len(), self.iov.get()) }
        }
    }
}

pub(crate) mod prelude {
    pub(crate) use super::{
        module,
        sync::ArcExt as _,
        types::OpaqueExt as _,
        vec::VecExt as _, //
    };
    pub(crate) use kernel::prelude::*;
}

/// `module!` with a list of authors.
macro_rules! module {
    (
        type: $type:ident,
        name: $name:tt,
        authors: [$author:tt],
        description: $description:tt,
        license: $license:tt,
        alias: $alias:tt,
    ) => {
        kernel::macros::module! {
            type: $type,
            name: $name,
            author: $author,
            description: $description,
            license: $license,
            alias: $alias,
        }
    };
}
pub(crate) use module;

pub(crate) mod sync {
    use kernel::sync::Arc;

    /// Functions that [`Arc`] has in later kernels.
    pub(crate) trait ArcExt<T> {
        /// Returns a pointer to the value.
        fn as_ptr(this: &Self) -> *const T;
    }

    impl<T> ArcExt<T> for Arc<T> {
        fn as_ptr(this: &Self) -> *const T {
            let pointer = Arc::into_raw(this.clone());
            // SAFETY: The pointer comes from `into_raw`, and is taken back once. It stays valid
            // because of `this`.
            drop(unsafe { Arc::from_raw(pointer) });
            pointer
        }
    }
}

pub(crate) mod time {
    use kernel::bindings;

    /// A clock.
    pub(crate) trait ClockSource {
        /// Returns the time in nanoseconds, which is not negative.
        fn ktime_get() -> bindings::ktime_t;
    }

    /// The time since boot, with the time in suspend (`CLOCK_BOOTTIME`).
    pub(crate) struct BootTime;

    impl ClockSource for BootTime {
        fn ktime_get() -> bindings::ktime_t {
            // SAFETY: The function may be called in all contexts but NMIs, and this module has no
            // code for those.
            unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT) }
        }
    }
}

pub(crate) mod transmute {
    pub(crate) use kernel::types::FromBytes;
}

pub(crate) mod types {
    use core::marker::PhantomData;
    use kernel::{
        ffi::c_void,
        init::{
            pin_init_from_closure,
            PinInit, //
        },
        types::{
            self,
            Opaque, //
        },
    };

    /// Keeps a type from being sent to another thread, or shared with it.
    pub(crate) type NotThreadSafe = PhantomData<*mut ()>;
    /// The value of [`NotThreadSafe`].
    #[allow(non_upper_case_globals)]
    pub(crate) const NotThreadSafe: NotThreadSafe = PhantomData;

    /// A value that C code can keep a pointer to.
    pub(crate) trait ForeignOwnable: Sized {
        /// A borrowed value.
        type Borrowed<'a>;

        /// Turns the value into a pointer, which is not null.
        fn into_foreign(self) -> *mut c_void;

        /// Takes the value back.
        ///
        /// # Safety
        ///
        /// `pointer` must come from [`into_foreign`](Self::into_foreign), and must be neither taken
        /// back twice nor borrowed.
        unsafe fn from_foreign(pointer: *mut c_void) -> Self;

        /// Borrows the value.
        ///
        /// # Safety
        ///
        /// `pointer` must come from [`into_foreign`](Self::into_foreign), and must not be taken
        /// back before `'a` ends.
        unsafe fn borrow<'a>(pointer: *mut c_void) -> Self::Borrowed<'a>;
    }

    impl<T: types::ForeignOwnable> ForeignOwnable for T {
        type Borrowed<'a> = T::Borrowed<'a>;

        #[inline]
        fn into_foreign(self) -> *mut c_void {
            types::ForeignOwnable::into_foreign(self).cast_mut()
        }

        #[inline]
        unsafe fn from_foreign(pointer: *mut c_void) -> Self {
            // SAFETY: The safety requirements are the same.
            unsafe { types::ForeignOwnable::from_foreign(pointer) }
        }

        #[inline]
        unsafe fn borrow<'a>(pointer: *mut c_void) -> T::Borrowed<'a> {
            // SAFETY: The safety requirements are the same.
            unsafe { <T as types::ForeignOwnable>::borrow(pointer) }
        }
    }

    /// Functions that [`Opaque`] has in later kernels.
    pub(crate) trait OpaqueExt<T>: Sized {
        /// Makes an initializer from a function that fills in the value, and can fail.
        fn try_ffi_init<E>(init: impl FnOnce(*mut T) -> Result<(), E>) -> impl PinInit<Self, E>;
    }

    impl<T> OpaqueExt<T> for Opaque<T> {
        fn try_ffi_init<E>(init: impl FnOnce(*mut T) -> Result<(), E>) -> impl PinInit<Self, E> {
            // SAFETY: There is no memory that an `Opaque` needs initialized, so the closure
            // initializes it in any case. It does not move the value.
            unsafe { pin_init_from_closure::<_, E>(move |slot| init(Opaque::raw_get(slot))) }
        }
    }
}

mod vec {
    use core::ptr;
    use kernel::alloc::{
        Allocator,
        Vec, //
    };

    /// An element for which there was no room.
    pub(crate) struct PushError<T>(pub(crate) T);
    /// There is no element with the index.
    pub(crate) struct RemoveError;

    /// Functions that [`Vec`] has in later kernels.
    pub(crate) trait VecExt<T> {
        /// Appends an element if there is room for it.
        fn push_within_capacity(&mut self, element: T) -> Result<(), PushError<T>>;

        /// Removes an element.
        fn remove(&mut self, index: usize) -> Result<T, RemoveError>;

        /// Drops all elements but the first `length`.
        fn truncate(&mut self, length: usize);
    }

    impl<T, A: Allocator> VecExt<T> for Vec<T, A> {
        fn push_within_capacity(&mut self, element: T) -> Result<(), PushError<T>> {
            let Some(place) = self.spare_capacity_mut().first_mut() else {
                return Err(PushError(element));
            };
            place.write(element);
            // SAFETY: There was room for one more element, and it is initialized.
            unsafe { self.set_len(self.len() + 1) };
            Ok(())
        }

        fn remove(&mut self, index: usize) -> Result<T, RemoveError> {
            let elements = self.get_mut(index..).ok_or(RemoveError)?;
            if elements.is_empty() {
                return Err(RemoveError);
            }
            elements.rotate_left(1);
            let last = self.len() - 1;
            // SAFETY: `last` is below the length, so the pointer is valid, and so is the element.
            let element = unsafe { self.as_ptr().add(last).read() };
            // SAFETY: The elements before `last` are valid. The last one has been moved out.
            unsafe { self.set_len(last) };
            Ok(element)
        }

        fn truncate(&mut self, length: usize) {
            let Some(rest) = self.get_mut(length..) else {
                return;
            };
            let rest = ptr::from_mut(rest);
            // SAFETY: `length` is at most the present length, so the elements before it are valid.
            unsafe { self.set_len(length) };
            // SAFETY: The elements are valid, and no longer a part of the vector.
            unsafe { ptr::drop_in_place(rest) };
        }
    }
}
