// SPDX-License-Identifier: GPL-2.0-only
//! System calls that std does not provide. This is the agent's only file with `unsafe` code.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn sched_setaffinity(pid: c_int, size: usize, mask: *const c_ulong) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn reboot(command: c_int) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, milliseconds: c_int) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const LinkAddress, length: u32) -> c_int;
    fn read(fd: c_int, to: *mut c_void, count: usize) -> isize;
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
    fn fork() -> c_int;
    fn pause() -> c_int;
    fn nice(by: c_int) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn sendfile(to: c_int, from: c_int, offset: *mut i64, count: usize) -> isize;
    fn splice(from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, count: usize, flags: c_uint) -> isize;
}

const SYS_FINIT_MODULE: c_long = 313; // x86-64
const CLONE_NEWNET: c_int = 0x4000_0000;
const RB_POWER_OFF: c_int = 0x4321_fedc;
const AF_PACKET: c_int = 17;
const SOCK_DGRAM: c_int = 2;
const SOCK_RAW: c_int = 3;
/// Also `O_CLOEXEC`.
const SOCK_CLOEXEC: c_int = 0o2_000_000;
pub const POLLIN: i16 = 1;
pub const POLLHUP: i16 = 0x10;
const EINTR: i32 = 4;
const SIGKILL: c_int = 9;
const PROT_READ_WRITE: c_int = 3;
const MAP_SHARED: c_int = 1;

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: i16,
    revents: i16,
}

/// `struct sockaddr_ll`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol_be: u16,
    ifindex: c_int,
    hatype: u16,
    pkttype: u8,
    halen: u8,
    addr: [u8; 8],
}

/// Converts the result -1 of a C function to the error in errno.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Mounts a pseudo file system of type `kind` on `target`.
pub fn mount_pseudo(kind: &str, target: &str) -> io::Result<()> {
    let (kind, target) = (CString::new(kind)?, CString::new(target)?);
    // SAFETY: all strings are NUL-terminated and outlive the call; these file systems take a null
    // `data`.
    check(unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) })?;
    Ok(())
}

/// Loads a kernel module.
pub fn insert_module(module: &File, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    // SAFETY: finit_module takes a file descriptor, a NUL-terminated string and flags; both outlive
    // the call.
    let result = unsafe { syscall(SYS_FINIT_MODULE, module.as_raw_fd(), parameters.as_ptr(), 0 as c_int) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for any child. Returns its id and its exit code, or 128 + the number of the signal that
/// killed it. `None` when there is no child.
pub fn wait_any() -> Option<(u32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid int during the call.
        let pid = unsafe { waitpid(-1, &mut status, 0) };
        if let Ok(pid) = u32::try_from(pid) {
            let signal = status & 0x7f;
            return Some((pid, if signal == 0 { (status >> 8) & 0xff } else { 128 + signal }));
        }
        if io::Error::last_os_error().raw_os_error() != Some(EINTR) {
            return None;
        }
    }
}

/// Kills a whole process group.
pub fn kill_group(leader: u32) {
    if let Ok(leader) = c_int::try_from(leader) {
        // SAFETY: kill takes numbers. It fails only when the group has ended.
        unsafe { kill(-leader, SIGKILL) };
    }
}

/// Restricts the calling thread to the CPUs of `mask` (bit 0 is CPU 0).
pub fn run_on(mask: u64) -> io::Result<()> {
    let mask: c_ulong = mask;
    // SAFETY: `mask` is a valid bit mask of the given size during the call.
    check(unsafe { sched_setaffinity(0, size_of::<c_ulong>(), &mask) })?;
    Ok(())
}

/// Moves the calling thread into a network namespace.
pub fn enter_netns(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes an open file descriptor and a number.
    check(unsafe { setns(namespace.as_raw_fd(), CLONE_NEWNET) })?;
    Ok(())
}

/// Waits until `file` is readable or the time is over. Returns poll's `revents`.
pub fn wait_for(file: &impl AsRawFd, timeout: Duration) -> io::Result<i16> {
    let mut fd = PollFd { fd: file.as_raw_fd(), events: POLLIN, revents: 0 };
    let milliseconds = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: `fd` is one valid pollfd during the call.
    check(unsafe { poll(&mut fd, 1, milliseconds) })?;
    Ok(fd.revents)
}

/// A packet socket for one EtherType on one interface.
pub fn packet_socket(ifindex: i32, ethertype: u16) -> io::Result<File> {
    link_socket(SOCK_DGRAM, ifindex, ethertype)
}

/// A packet socket that sends whole frames out of one interface and receives none.
pub fn frame_socket(ifindex: i32) -> io::Result<File> {
    link_socket(SOCK_RAW, ifindex, 0)
}

fn link_socket(kind: c_int, ifindex: i32, ethertype: u16) -> io::Result<File> {
    // SAFETY: socket takes numbers.
    let fd = check(unsafe { socket(AF_PACKET, kind | SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new, open and not owned elsewhere.
    let socket = unsafe { File::from_raw_fd(fd) };
    let address = LinkAddress {
        family: AF_PACKET as u16,
        protocol_be: ethertype.to_be(),
        ifindex,
        hatype: 0,
        pkttype: 0,
        halen: 6,
        addr: [0; 8],
    };
    // SAFETY: `address` is a valid sockaddr_ll of the given size during the call.
    check(unsafe { bind(fd, &address, size_of::<LinkAddress>() as u32) })?;
    Ok(socket)
}

/// Starts a process that reads byte by byte into a shared mapping of the first `room` bytes of
/// `memory`, so that the bytes survive the process. Then it waits to be killed. `memory` must have
/// that length, and the caller must be the only thread of its process.
pub fn start_reader(from: &File, memory: &File, room: usize) -> io::Result<u32> {
    // SAFETY: a new mapping at an address that the kernel chooses does not overlap memory in use.
    let mapped = unsafe { mmap(std::ptr::null_mut(), room, PROT_READ_WRITE, MAP_SHARED, memory.as_raw_fd(), 0) };
    // MAP_FAILED is -1.
    if mapped.addr() == usize::MAX {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: there is no other thread, so no lock stays locked in the new process.
    let pid = check(unsafe { fork() })?;
    if pid != 0 {
        // SAFETY: the mapping is ours, has `room` bytes, and nothing refers to it. The new process
        // has its own.
        check(unsafe { munmap(mapped, room) })?;
        return Ok(pid.unsigned_abs());
    }
    for at in 0..room {
        // SAFETY: the mapping has `room` bytes, nothing refers to them, and it stays as long as
        // this process.
        if unsafe { read(from.as_raw_fd(), mapped.byte_add(at), 1) } <= 0 {
            break;
        }
    }
    loop {
        // SAFETY: pause takes nothing.
        unsafe { pause() };
    }
}

/// Gives the process the lowest priority.
pub fn lower_priority() {
    // SAFETY: nice takes a number. (The result -1 can be a priority as well as an error.)
    unsafe { nice(19) };
}

/// Kills a child and waits for its end.
pub fn kill_child(pid: u32) -> io::Result<()> {
    let pid = c_int::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: kill takes numbers, and `status` is a valid int during the call.
    check(unsafe { kill(pid, SIGKILL) })?;
    // SAFETY: as above.
    check(unsafe { waitpid(pid, &mut status, 0) })?;
    Ok(())
}

/// `read` to address 16, which is never mapped.
pub fn read_to_bad_address(file: &File, count: usize) -> io::Result<usize> {
    // SAFETY: the kernel checks the address before it writes; the first page is never mapped.
    length(unsafe { read(file.as_raw_fd(), std::ptr::without_provenance_mut(16), count) })
}

/// The reading and the writing end of a pipe.
pub fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors during the call.
    check(unsafe { pipe2(fds.as_mut_ptr(), SOCK_CLOEXEC) })?;
    // SAFETY: the descriptors are new, open and not owned elsewhere.
    Ok(unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) })
}

/// `sendfile` from the file's position.
pub fn send_file(from: &File, to: &File, count: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are open; the null offset means the file's own position.
    length(unsafe { sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), count) })
}

/// `splice` from the file's position into a pipe.
pub fn splice_to(from: &File, pipe: &impl AsRawFd, count: usize) -> io::Result<usize> {
    let null = std::ptr::null_mut;
    // SAFETY: both descriptors are open; the null offsets mean the files' own positions.
    length(unsafe { splice(from.as_raw_fd(), null(), pipe.as_raw_fd(), null(), count, 0) })
}

/// Converts the byte count of a C function, or -1 to the error in errno.
fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Powers the system off.
pub fn power_off() -> io::Error {
    // SAFETY: reboot takes a number; it returns only when it failed.
    unsafe { reboot(RB_POWER_OFF) };
    io::Error::last_os_error()
}
