// SPDX-License-Identifier: GPL-2.0
//! The system calls that std has no name for. This is the agent's only file with `unsafe` in it.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
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
}

const SYS_FINIT_MODULE: c_long = 313; // x86-64
const CLONE_NEWNET: c_int = 0x4000_0000;
const RB_POWER_OFF: c_int = 0x4321_fedc;
const AF_PACKET: c_int = 17;
const SOCK_DGRAM: c_int = 2;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
pub const POLLIN: i16 = 1;
pub const POLLHUP: i16 = 0x10;
const EINTR: i32 = 4;
const SIGKILL: c_int = 9;

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

/// A C function's -1 as the error that errno holds.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Mounts a pseudo file system of type `kind` on `target`.
pub fn mount_pseudo(kind: &str, target: &str) -> io::Result<()> {
    let (kind, target) = (CString::new(kind)?, CString::new(target)?);
    // SAFETY: all strings are NUL-terminated and outlive the call; these file systems take a null `data`.
    check(unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) })?;
    Ok(())
}

/// Loads a kernel module.
pub fn insert_module(module: &File, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    // SAFETY: finit_module takes a file descriptor, a NUL-terminated string and flags; both outlive the call.
    let result = unsafe { syscall(SYS_FINIT_MODULE, module.as_raw_fd(), parameters.as_ptr(), 0 as c_int) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for any child, and gives its id and its exit status as a shell would (128 + signal when killed).
/// `None`: there is no child now.
pub fn wait_any() -> Option<(u32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for an int during the call.
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
        // SAFETY: kill takes plain numbers. It can only fail because the group is gone, which is what is wanted.
        unsafe { kill(-leader, SIGKILL) };
    }
}

/// Lets the calling thread run on the CPUs of `mask` alone (bit 0 is CPU 0).
pub fn run_on(mask: u64) -> io::Result<()> {
    let mask: c_ulong = mask;
    // SAFETY: `mask` is a valid bit mask of the size that is given, during the call.
    check(unsafe { sched_setaffinity(0, size_of::<c_ulong>(), &mask) })?;
    Ok(())
}

/// Moves the calling thread into a network namespace.
pub fn enter_netns(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes an open file descriptor and a number.
    check(unsafe { setns(namespace.as_raw_fd(), CLONE_NEWNET) })?;
    Ok(())
}

/// Waits until `file` has something for us, or until `patience` is over; gives poll's `revents`.
pub fn wait_for(file: &impl AsRawFd, patience: Duration) -> io::Result<i16> {
    let mut fd = PollFd { fd: file.as_raw_fd(), events: POLLIN, revents: 0 };
    let milliseconds = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: `fd` is one valid pollfd during the call.
    check(unsafe { poll(&mut fd, 1, milliseconds) })?;
    Ok(fd.revents)
}

/// A packet socket for one EtherType on one interface. Reading and writing are those of a file.
pub fn packet_socket(ifindex: i32, ethertype: u16) -> io::Result<File> {
    // SAFETY: socket takes plain numbers.
    let fd = check(unsafe { socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new, open and nobody else's.
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
    // SAFETY: `address` is a valid sockaddr_ll of the size that is given, during the call.
    check(unsafe { bind(fd, &address, size_of::<LinkAddress>() as u32) })?;
    Ok(socket)
}

/// Switches the machine off.
pub fn power_off() -> io::Error {
    // SAFETY: reboot takes a number; it returns only when it failed.
    unsafe { reboot(RB_POWER_OFF) };
    io::Error::last_os_error()
}
