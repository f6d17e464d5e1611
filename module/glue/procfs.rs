// SPDX-License-Identifier: GPL-2.0

//! Files under /proc/net that list something.
//!
//! Not with `seq_file`: that makes many lines ahead of what it hands out, and does not tell which of
//! them arrived. [`Reader`] does.
//!
//! C header: `include/linux/proc_fs.h`

use super::{
    netns::{Net, NetRef},
    params::Access,
};
use crate::accounting::delivery::{Lines, Reader, Sink, ReadError};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_result,
    ffi::c_int,
    iov::IovIterDest,
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{Arc, Mutex},
};

/// A folder in /proc/net of one namespace. It goes away when it is dropped.
///
/// # Invariants
///
/// The entry is ours, its data are the namespace, and all files in it hold a reference to this. Whoever
/// drops the last reference holds the namespace: the exit function, or who destroys a rule in it. So the
/// namespace, and with it `users`, is there as long as this is.
pub(crate) struct Dir {
    entry: NonNull<bindings::proc_dir_entry>,
    /// The user namespace that the network namespace belongs to.
    users: NonNull<bindings::user_namespace>,
}

// SAFETY: procfs locks its entries; they belong to no thread, and neither do user namespaces.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes the folder `name`, for state of the namespace (see the invariants).
    pub(crate) fn new(net: &Net, name: &CStr) -> Result<Arc<Self>> {
        let net = net.as_ptr();
        // SAFETY: The namespace is valid.
        let users = NonNull::new(unsafe { (*net).user_ns }).ok_or(EINVAL)?;
        // SAFETY: The namespace is valid and has its /proc/net. What `proc_net_mkdir` does.
        let entry = unsafe {
            bindings::_proc_mkdir(name.as_char_ptr(), 0, (*net).proc_net, net.cast(), true)
        };
        // INVARIANT: It was made just now.
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        Ok(Arc::new(Self { entry, users }, GFP_KERNEL_ACCOUNT)?)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant; there are no files in it any more.
        unsafe { bindings::proc_remove(self.entry.as_ptr()) };
    }
}

/// What a file can hold.
pub(crate) trait Content:
    Lines<Error = Error, Snapshot: Send, Claim: Send> + Send + Sync + 'static
{
}

impl<L: Lines<Error = Error, Snapshot: Send, Claim: Send> + Send + Sync + 'static> Content for L {}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fault => EFAULT,
            ReadError::LongLine => EINVAL,
            ReadError::NoMemory => ENOMEM,
        }
    }
}

/// A file in a [`Dir`]. It goes away when it is dropped; readers that have it open then get an
/// error.
///
/// # Invariants
///
/// The entry is ours, and its data points to `content`, which is [`Content`]: any thread may use it.
pub(crate) struct File<L> {
    entry: NonNull<bindings::proc_dir_entry>,
    content: Arc<L>,
    _dir: Arc<Dir>,
}

// SAFETY: procfs locks its entries; they belong to no thread, and neither does the content by the
// type's invariant.
unsafe impl<L> Send for File<L> {}
// SAFETY: As above.
unsafe impl<L> Sync for File<L> {}

impl<L: Content> File<L> {
    /// Makes the file `name`, for those to read who are meant to.
    pub(crate) fn new(dir: Arc<Dir>, name: &CStr, content: Arc<L>) -> Result<Self> {
        let access = Access::current();
        // SAFETY: The folder lives as long as the file; the operations are static; the data live
        // until the file is removed.
        let entry = unsafe {
            bindings::proc_create_data(
                name.as_char_ptr(),
                access.mode,
                dir.entry.as_ptr(),
                Open::<L>::PROC_OPS,
                Arc::as_ptr(&content).cast_mut().cast(),
            )
        };
        // INVARIANT: It was made just now, with this data, which is `Content`.
        let file = Self {
            entry: NonNull::new(entry).ok_or(ENOMEM)?,
            content,
            _dir: dir,
        };
        file.set_owner(access);
        Ok(file)
    }

    /// Leaves the file to the root of the namespace if the owner is nobody there.
    fn set_owner(&self, Access { uid, gid, .. }: Access) {
        // SAFETY: By the invariants of the folder.
        let (uid, gid) = unsafe {
            let users = self._dir.users.as_ptr();
            (
                bindings::make_kuid(users, uid),
                bindings::make_kgid(users, gid),
            )
        };
        if uid.val != u32::MAX && gid.val != u32::MAX {
            // SAFETY: By the type's invariant.
            unsafe { bindings::proc_set_user(self.entry.as_ptr(), uid, gid) };
        }
    }

    /// What it holds.
    pub(crate) fn content(&self) -> &L {
        &self.content
    }
}

impl<L> Drop for File<L> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. This waits for readers inside the file and releases it
        // for those that have it open, so the data are not used any more when it returns.
        unsafe { bindings::proc_remove(self.entry.as_ptr()) };
    }
}

/// What an open file holds.
#[pin_data(PinnedDrop)]
struct Open<L: Content> {
    /// Data of the procfs entry. It is valid while procfs calls us, and procfs calls `release` once,
    /// at the latest when the entry is removed.
    lines: NonNull<L>,
    /// Threads can share an open file.
    #[pin]
    reader: Mutex<Reader<L>>,
    /// An open file keeps the namespace, as with `seq_open_net`: or the end of all namespaces
    /// would wait for a reader that doesn't go on. Dropped last.
    _net: NetRef,
}

impl<L: Content> Open<L> {
    const PROC_OPS: &'static bindings::proc_ops = &bindings::proc_ops {
        proc_open: Some(Self::open),
        proc_read_iter: Some(Self::read_iter),
        proc_lseek: Some(Self::lseek),
        proc_release: Some(Self::release),
        // SAFETY: No flags, and no other operations.
        ..unsafe { core::mem::zeroed() }
    };

    fn lines(&self) -> &L {
        // SAFETY: `self` is used only by functions that procfs calls.
        unsafe { self.lines.as_ref() }
    }

    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: The inode belongs to an entry that was made with `PROC_OPS` and data.
            let data = unsafe { (*inode).i_private };
            let lines = NonNull::new(data.cast()).ok_or(ENOENT)?;
            // SAFETY: By the invariants of the folder, of which procfs does not let go meanwhile.
            let net = unsafe { NetRef::get(bindings::proc_get_parent_data(inode).cast()) }
                .ok_or(ENXIO)?;
            let open = KBox::pin_init(
                pin_init!(Self {
                    lines,
                    reader <- new_mutex!(Reader::default(), "xt_traffic::procfs::Open::reader"),
                    _net: net,
                }),
                GFP_KERNEL_ACCOUNT,
            )?;
            // SAFETY: The file is being opened. The pointer goes back into a pinned box in `release`.
            unsafe {
                (*file).private_data = KBox::into_raw(Pin::into_inner_unchecked(open)).cast()
            };
            Ok(0)
        })
    }

    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file was opened by `open`, and is released once.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw((*file).private_data.cast::<Self>())) });
        0
    }

    /// # Safety
    ///
    /// `file` must be one that procfs passes to an operation after `open`, and the result must not
    /// outlive the call.
    unsafe fn of<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: `open` has put a `Self` there.
        unsafe { &*(*file).private_data.cast::<Self>() }
    }

    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        from_result(|| {
            // SAFETY: Called by procfs, with a file that is read from and a place for what is read.
            let (open, position, iter) = unsafe {
                (
                    Self::of((*iocb).ki_filp),
                    &mut (*iocb).ki_pos,
                    IovIterDest::from_raw(iter),
                )
            };
            let offset = u64::try_from(*position).map_err(|_| EINVAL)?;
            let count = open
                .reader
                .lock()
                .read(open.lines(), offset, &mut Destination(iter))?;
            *position += count as i64;
            Ok(count as isize)
        })
    }

    /// As with `seq_lseek`, there is no end to seek from.
    unsafe extern "C" fn lseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: The file is valid, and its position is locked if it is shared.
        let position = unsafe { &mut (*file).f_pos };
        let base = match whence as u32 {
            bindings::SEEK_SET => 0,
            bindings::SEEK_CUR => *position,
            _ => return EINVAL.to_errno().into(),
        };
        match base.checked_add(offset) {
            Some(target) if target >= 0 => {
                *position = target;
                target
            }
            _ => EINVAL.to_errno().into(),
        }
    }
}

#[pinned_drop]
impl<L: Content> PinnedDrop for Open<L> {
    fn drop(self: Pin<&mut Self>) {
        self.reader.lock().close(self.lines());
    }
}

/// The memory of a reader.
struct Destination<'a, 'data>(&'a mut IovIterDest<'data>);

impl Sink for Destination<'_, '_> {
    fn space(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.copy_to_iter(bytes)
    }
}
