// SPDX-License-Identifier: GPL-2.0

//! Text files in `/proc/net`.
//!
//! They do not use `seq_file`, because that makes lines ahead of the reader and does not report
//! which of them the reader has got. [`Reader`] does.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h)

use super::{
    compat::{
        fs::Kiocb,
        iov::IovIterDest,
        prelude::*,
        types::ForeignOwnable, //
    },
    net::{
        Net,
        NetRef, //
    },
    params::Access,
};
use crate::accounting::delivery::{
    Lines,
    ReadError,
    Reader,
    Sink, //
};
use core::{
    ffi::CStr,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::from_result,
    ffi::c_int,
    new_mutex,
    str::CString,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
};

/// A folder in `/proc/net` of one namespace.
///
/// It can outlive its entry in procfs: the entry is removed, with all files in it, when the
/// [`OwnedDir`] is dropped.
///
/// # Invariants
///
/// While `entry` is locked and is not `None`: it is a folder that [`OwnedDir::new`] has made, with
/// `net` as its data, and it has not been removed. `net` is valid. The entry of each [`ShownFile`]
/// of this folder is in it.
#[pin_data]
pub(crate) struct Dir {
    net: NonNull<bindings::net>,
    #[pin]
    entry: Mutex<Option<NonNull<bindings::proc_dir_entry>>>,
}

// SAFETY: Any thread may use namespaces and entries of procfs, which have locks of their own. The
// pointers are used only under the lock, while they are valid by the type invariants.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

/// The owner of a [`Dir`]. Dropping it removes the folder and all files in it.
pub(super) struct OwnedDir(Arc<Dir>);

impl OwnedDir {
    /// Makes the folder `name`.
    ///
    /// # Safety
    ///
    /// `net` must have a `/proc/net`. The result must be dropped before that is removed, and before
    /// `net` becomes invalid.
    pub(super) unsafe fn new(net: &Net, name: &CStr) -> Result<Self> {
        let dir = Arc::pin_init(
            pin_init!(Dir {
                // SAFETY: A reference is not null.
                net: unsafe { NonNull::new_unchecked(net.as_ptr()) },
                // INVARIANT: There is no entry.
                entry <- new_mutex!(None, "procfs::Dir::entry"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: `net` is borrowed, so it is valid.
        let proc_net = unsafe { (*net.as_ptr()).proc_net };
        // SAFETY: The name is a C string. `proc_net` is a valid folder by the safety requirements.
        // These are the arguments that `proc_net_mkdir` passes.
        let entry = unsafe {
            bindings::_proc_mkdir(name.as_ptr().cast(), 0, proc_net, net.as_ptr().cast(), true)
        };
        // INVARIANT: The folder was made just now. It is removed, and `entry` is set to `None`,
        // when the result is dropped. By the safety requirements `net` is valid until then.
        *dir.entry.lock() = Some(NonNull::new(entry).ok_or(ENOMEM)?);
        Ok(Self(dir))
    }

    /// Returns another reference to the folder.
    pub(super) fn share(&self) -> Arc<Dir> {
        self.0.clone()
    }
}

/// # Context
///
/// Process context. Sleeps until no operation on the folder and the files in it is running.
impl Drop for OwnedDir {
    fn drop(&mut self) {
        let mut guard = self.0.entry.lock();
        // INVARIANT: There is no entry any more.
        if let Some(entry) = guard.take() {
            // SAFETY: By the invariants of `Dir` the folder is valid. Files in it are removed as
            // well, and this waits for their operations and releases those that are open. The lock
            // is held until then, so no `ShownFile` drops its content before.
            unsafe { bindings::proc_remove(entry.as_ptr()) };
        }
    }
}

/// The content of a file.
pub(crate) trait Content:
    Lines<Error = Error, Snapshot: Send, Claim: Send> + Send + Sync + 'static
{
    /// Makes the mutex of an open file, which is held while [`Lines`] are made. Each type of
    /// content has a lock class of its own.
    fn mutex(reader: Reader<Self>) -> impl PinInit<Mutex<Reader<Self>>>;
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fault => EFAULT,
            ReadError::LongLine => EINVAL,
        }
    }
}

/// A file that can be shown in a [`Dir`].
pub(crate) struct File<L: Content> {
    name: CString,
    content: Arc<L>,
    dir: Arc<Dir>,
}

/// A file in a [`Dir`]. Dropping it removes the file. Reads of open files then fail.
///
/// # Invariants
///
/// `entry` is a file in `dir` with the operations of [`Open<L>`]. Its data is the pointer to
/// `_content`. It was not removed, unless `dir` has no entry.
pub(crate) struct ShownFile<L: Content> {
    entry: NonNull<bindings::proc_dir_entry>,
    /// What the data of the entry points to.
    _content: Arc<L>,
    dir: Arc<Dir>,
}

// SAFETY: Any thread may use the content, which is `Send` and `Sync`, and entries of procfs, which
// have locks of their own.
unsafe impl<L: Content> Send for ShownFile<L> {}
// SAFETY: As above.
unsafe impl<L: Content> Sync for ShownFile<L> {}

impl<L: Content> File<L> {
    /// Makes a file that is not in the folder yet.
    pub(crate) fn new(dir: Arc<Dir>, name: CString, content: Arc<L>) -> Self {
        Self { name, content, dir }
    }

    /// Puts the file into the folder, which must have no file with this name. The module's
    /// parameters say who may read it.
    ///
    /// Fails with [`ENOENT`] if the folder has been removed, and with [`ENOMEM`] if there is no
    /// memory for the entry of procfs. Nothing else is allocated.
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    pub(crate) fn show(&self) -> Result<ShownFile<L>> {
        let Self { name, content, dir } = self;
        let access = Access::current();
        let guard = dir.entry.lock();
        let parent = (*guard).ok_or(ENOENT)?;
        // SAFETY: The name is a C string. By the invariants of `Dir` the folder is valid while the
        // lock is held. The operations are static. The content lives as long as the file: see
        // `ShownFile::drop`.
        let entry = unsafe {
            bindings::proc_create_data(
                name.as_char_ptr(),
                access.mode,
                parent.as_ptr(),
                Open::<L>::PROC_OPS,
                Arc::as_ptr(content).cast_mut().cast(),
            )
        };
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        // SAFETY: By the invariants of `Dir` the namespace is valid while the lock is held.
        let user_ns = unsafe { (*dir.net.as_ptr()).user_ns };
        // SAFETY: A namespace holds a reference to its user namespace as long as it is valid.
        let uid = unsafe { bindings::make_kuid(user_ns, access.uid) };
        // SAFETY: As above.
        let gid = unsafe { bindings::make_kgid(user_ns, access.gid) };
        // Without a mapping the root of the user namespace keeps the file.
        if uid.val != u32::MAX && gid.val != u32::MAX {
            // SAFETY: The file was made just now, and is removed only under the lock.
            unsafe { bindings::proc_set_user(entry.as_ptr(), uid, gid) };
        }
        drop(guard);
        // INVARIANT: The file was made just now, with these operations and this data. Only `drop`
        // and the owner of the folder remove it.
        Ok(ShownFile {
            entry,
            _content: content.clone(),
            dir: dir.clone(),
        })
    }

    /// Returns the content.
    pub(crate) fn content(&self) -> &L {
        &self.content
    }
}

/// # Context
///
/// Process context. Sleeps until no operation on the file is running.
impl<L: Content> Drop for ShownFile<L> {
    fn drop(&mut self) {
        let dir = self.dir.entry.lock();
        // Else the file has been removed with the folder.
        if dir.is_some() {
            // SAFETY: By the type invariants the file is valid, because the folder has an entry.
            // This waits for its operations and releases those that have it open. So nothing uses
            // the data when the function returns, and the content can be dropped.
            unsafe { bindings::proc_remove(self.entry.as_ptr()) };
        }
    }
}

/// An open file.
#[pin_data(PinnedDrop)]
struct Open<L: Content> {
    content: Arc<L>,
    /// Threads can share an open file.
    #[pin]
    reader: Mutex<Reader<L>>,
    /// An open file keeps its namespace, as with `seq_open_net`. Else the end of all namespaces
    /// would have to wait for a reader that has stopped. It is the last field to be dropped.
    _net: NetRef,
}

impl<L: Content> Open<L> {
    const PROC_OPS: &'static bindings::proc_ops = &bindings::proc_ops {
        proc_open: Some(Self::open),
        proc_read_iter: Some(Self::read_iter),
        proc_lseek: Some(Self::lseek),
        proc_release: Some(Self::release),
        // SAFETY: All zeros is a valid value for `bindings::proc_ops`: no flags and no functions.
        ..unsafe { core::mem::zeroed() }
    };

    /// # Safety
    ///
    /// procfs must call this, for a file that is being opened, whose entry [`File::<L>::show`]
    /// has made.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: The inode of a file that is being opened is valid. procfs has set the field
            // to the data of the entry.
            let content = unsafe { (*inode).i_private }.cast_const().cast::<L>();
            // SAFETY: `File::show` has passed a pointer from `Arc::as_ptr`. The `ShownFile` drops
            // its reference only when the entry has been removed, for which procfs waits until this
            // function returns. There is no `UniqueArc` of a value that is shared.
            let content = unsafe { ArcBorrow::from_raw(content) };
            // SAFETY: The inode is that of an entry of procfs, and procfs does not free the entry
            // and its folder before this function returns.
            let net = unsafe { bindings::proc_get_parent_data(inode) };
            let net = NonNull::new(net.cast()).ok_or(ENXIO)?;
            // SAFETY: The data of the folder is its namespace, by the invariants of `Dir`. That is
            // valid until the folder has been removed, for which procfs waits until this function
            // returns.
            let net = unsafe { NetRef::get(net) }.ok_or(ENXIO)?;
            let open = KBox::pin_init(
                pin_init!(Self {
                    content: content.into(),
                    reader <- L::mutex(Reader::default()),
                    _net: net,
                }),
                GFP_KERNEL_ACCOUNT,
            )?;
            // SAFETY: The file is valid, and while it is being opened nothing else uses the field.
            unsafe { (*file).private_data = open.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// procfs must call this, once for a file that [`open`](Self::open) has opened, as its last
    /// operation.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file is valid until it is released.
        let open = unsafe { (*file).private_data };
        // SAFETY: `open` has put a pointer from `into_foreign` there, and by the safety
        // requirements it is taken back once, when no other operation borrows it.
        let open = unsafe { Pin::<KBox<Self>>::from_foreign(open) };
        drop(open);
        0
    }

    /// # Safety
    ///
    /// procfs must call this, for a file that [`open`](Self::open) has opened and that is not
    /// released before this returns. `iter` must be valid for writing, and belong to this call.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS passes a valid `iocb`. `open` has set the file's private data to a
        // `Pin<KBox<Self>>`.
        let mut iocb = unsafe { Kiocb::<'_, Pin<KBox<Self>>>::from_raw(iocb) };
        // SAFETY: The VFS passes a valid `iter` for a read, by the safety requirements.
        let iter = unsafe { IovIterDest::from_raw(iter) };
        from_result(|| {
            let open = iocb.file();
            let offset = u64::try_from(iocb.ki_pos()).map_err(|_| EINVAL)?;
            let mut reader = open.reader.lock();
            let count = reader.read(&open.content, offset, &mut Destination(iter))?;
            *iocb.ki_pos_mut() += count as i64;
            Ok(count as isize)
        })
    }

    /// As in `seq_lseek`, there is no seeking from the end.
    ///
    /// # Safety
    ///
    /// procfs must call this, for a file that is open.
    unsafe extern "C" fn lseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: The file is valid. There is no reference to the field, because
        // `/proc/PID/fdinfo` reads it without a lock.
        let position = unsafe { &raw mut (*file).f_pos };
        let base = match whence as u32 {
            bindings::SEEK_SET => 0,
            // SAFETY: The pointer is valid, see above. The VFS holds the lock of the position if
            // the file is shared, so nothing writes to it concurrently.
            bindings::SEEK_CUR => unsafe { position.read() },
            _ => return EINVAL.to_errno().into(),
        };
        match base.checked_add(offset) {
            Some(target) if target >= 0 => {
                // SAFETY: The pointer is valid, see above. Concurrent readers are in C, and expect
                // a single store, which a volatile one is.
                unsafe { position.write_volatile(target) };
                target
            }
            _ => EINVAL.to_errno().into(),
        }
    }
}

#[pinned_drop]
impl<L: Content> PinnedDrop for Open<L> {
    fn drop(self: Pin<&mut Self>) {
        self.reader.lock().close(&self.content);
    }
}

/// The memory that a read writes to.
struct Destination<'a, 'data>(&'a mut IovIterDest<'data>);

impl Sink for Destination<'_, '_> {
    fn space(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.copy_to_iter(bytes)
    }
}
