// SPDX-License-Identifier: GPL-2.0

//! Files under /proc/net that list something.
//!
//! C headers: `include/linux/proc_fs.h`, `include/linux/seq_file.h`

use super::netns::Net;
use core::{fmt, marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_result, to_result},
    ffi::{c_int, c_void},
    prelude::*,
    str::CStr,
    sync::Arc,
};

/// A folder in /proc/net of one namespace. It goes away when it is dropped.
///
/// # Invariants
///
/// The entry is ours, and all files in it hold a reference to this.
pub(crate) struct Dir(NonNull<bindings::proc_dir_entry>);

// SAFETY: procfs locks its entries; they belong to no thread.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes the folder `name`.
    pub(crate) fn new(net: &Net, name: &CStr) -> Result<Arc<Self>> {
        let net = net.as_ptr();
        // SAFETY: The namespace is valid and has its /proc/net. What `proc_net_mkdir` does.
        let entry = unsafe { bindings::_proc_mkdir(name.as_char_ptr(), 0, (*net).proc_net, net.cast(), true) };
        // INVARIANT: It was made just now.
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        Ok(Arc::new(Self(entry), GFP_KERNEL_ACCOUNT)?)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant; there are no files in it any more.
        unsafe { bindings::proc_remove(self.0.as_ptr()) };
    }
}

/// The content of a file: lines that are made while they are read.
pub(crate) trait Lines: Send + Sync + 'static {
    /// What a reader keeps from the beginning to the end: which lines there are.
    type Snapshot: Send;

    /// Called when reading begins. May sleep.
    fn snapshot(&self) -> Result<Self::Snapshot>;

    /// How many positions there are.
    fn positions(&self, snapshot: &Self::Snapshot) -> usize;

    /// Writes the lines at `position`, and says how many positions they take, at least one.
    ///
    /// It is called again for the same position if the reader's buffer was too small.
    fn show(&self, snapshot: &Self::Snapshot, position: usize, out: &mut impl fmt::Write) -> Result<usize, fmt::Error>;
}

/// A file in a [`Dir`]. It goes away when it is dropped; readers that have it open then get an
/// error.
///
/// # Invariants
///
/// The entry is ours, and its data points to `_lines`.
pub(crate) struct File<L: Lines> {
    entry: NonNull<bindings::proc_dir_entry>,
    _lines: Arc<L>,
    _dir: Arc<Dir>,
}

// SAFETY: procfs locks its entries; they belong to no thread.
unsafe impl<L: Lines> Send for File<L> {}
// SAFETY: As above.
unsafe impl<L: Lines> Sync for File<L> {}

impl<L: Lines> File<L> {
    /// Makes the file `name`, readable by root.
    pub(crate) fn new(dir: Arc<Dir>, name: &CStr, lines: Arc<L>) -> Result<Self> {
        // SAFETY: The folder lives as long as the file; the operations are static; the data live
        // until the file is removed.
        let entry = unsafe {
            bindings::proc_create_data(
                name.as_char_ptr(),
                0o440,
                dir.0.as_ptr(),
                Open::<L>::PROC_OPS,
                Arc::as_ptr(&lines).cast_mut().cast(),
            )
        };
        Ok(Self {
            // INVARIANT: It was made just now, with this data.
            entry: NonNull::new(entry).ok_or(ENOMEM)?,
            _lines: lines,
            _dir: dir,
        })
    }
}

impl<L: Lines> Drop for File<L> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. This waits for readers inside the file and releases it
        // for those that have it open, so the data are not used any more when it returns.
        unsafe { bindings::proc_remove(self.entry.as_ptr()) };
    }
}

/// What an open file holds.
struct Open<L: Lines> {
    /// Data of the procfs entry, valid while procfs calls us.
    lines: NonNull<L>,
    snapshot: Option<L::Snapshot>,
    /// Where the line that is shown next ends.
    next: usize,
    _lines: PhantomData<L>,
}

impl<L: Lines> Open<L> {
    const PROC_OPS: &'static bindings::proc_ops = &bindings::proc_ops {
        proc_open: Some(Self::open),
        proc_read_iter: Some(bindings::seq_read_iter),
        proc_lseek: Some(bindings::seq_lseek),
        proc_release: Some(Self::release),
        // SAFETY: No flags, and no other operations.
        ..unsafe { core::mem::zeroed() }
    };

    const SEQ_OPS: &'static bindings::seq_operations = &bindings::seq_operations {
        start: Some(Self::start),
        next: Some(Self::next),
        stop: Some(Self::stop),
        show: Some(Self::show),
    };

    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: The inode belongs to an entry that was made with `PROC_OPS` and data.
            let data = unsafe { (*inode).i_private };
            let open =
                Self { lines: NonNull::new(data.cast()).ok_or(ENOENT)?, snapshot: None, next: 0, _lines: PhantomData };
            let open = KBox::new(open, GFP_KERNEL_ACCOUNT)?;
            // SAFETY: The file is being opened, and the operations are static.
            to_result(unsafe { bindings::seq_open(file, Self::SEQ_OPS) })?;
            // SAFETY: `seq_open` has put a `seq_file` there.
            unsafe {
                let seq = (*file).private_data.cast::<bindings::seq_file>();
                (*seq).private = KBox::into_raw(open).cast();
            }
            Ok(0)
        })
    }

    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file was opened by `open`, and is released once.
        unsafe {
            let seq = (*file).private_data.cast::<bindings::seq_file>();
            drop(KBox::from_raw((*seq).private.cast::<Self>()));
            bindings::seq_release(inode, file)
        }
    }

    /// # Safety
    ///
    /// `seq` must be the one that procfs passes to an operation of a file opened by `open`, and
    /// the result must not outlive the call: the seq_file's lock is held so long.
    unsafe fn of<'a>(seq: *mut bindings::seq_file) -> (&'a mut Self, &'a L) {
        // SAFETY: `open` has put a `Self` there, of which only the holder of the lock takes
        // references. Its lines are valid while procfs calls.
        unsafe {
            let open = &mut *(*seq).private.cast::<Self>();
            let lines = open.lines.as_ref();
            (open, lines)
        }
    }

    /// The token for `position`: not null, and not an error pointer, which there would have to be
    /// 2^64 - 4096 positions for.
    fn token(&self, lines: &L, position: i64) -> *mut c_void {
        let count = self.snapshot.as_ref().map_or(0, |s| lines.positions(s));
        match usize::try_from(position) {
            Ok(position) if position < count => (position + 1) as *mut c_void,
            _ => core::ptr::null_mut(),
        }
    }

    unsafe extern "C" fn start(seq: *mut bindings::seq_file, pos: *mut i64) -> *mut c_void {
        // SAFETY: Called by seq_file.
        let (open, lines) = unsafe { Self::of(seq) };
        // SAFETY: `pos` is valid during the call.
        let position = unsafe { *pos };
        if position == 0 || open.snapshot.is_none() {
            match lines.snapshot() {
                Ok(snapshot) => open.snapshot = Some(snapshot),
                Err(error) => return error.to_ptr(),
            }
        }
        open.token(lines, position)
    }

    unsafe extern "C" fn next(seq: *mut bindings::seq_file, _token: *mut c_void, pos: *mut i64) -> *mut c_void {
        // SAFETY: Called by seq_file.
        let (open, lines) = unsafe { Self::of(seq) };
        // SAFETY: `pos` is valid during the call.
        unsafe { *pos = open.next as i64 };
        open.token(lines, open.next as i64)
    }

    unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _token: *mut c_void) {}

    unsafe extern "C" fn show(seq: *mut bindings::seq_file, token: *mut c_void) -> c_int {
        from_result(|| {
            // SAFETY: Called by seq_file.
            let (open, lines) = unsafe { Self::of(seq) };
            let position = (token as usize).wrapping_sub(1);
            let snapshot = open.snapshot.as_ref().ok_or(EINVAL)?;
            // A full buffer is no error here: seq_file sees it and calls again.
            let span = lines.show(snapshot, position, &mut SeqWriter(seq)).map_err(|_| EINVAL)?;
            open.next = position.saturating_add(span);
            Ok(0)
        })
    }
}

/// Writes to the buffer of a seq_file that is in `show`.
struct SeqWriter(*mut bindings::seq_file);

impl fmt::Write for SeqWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The seq_file is in `show` as long as the writer lives.
        unsafe { bindings::seq_write(self.0, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}
