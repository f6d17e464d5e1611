// SPDX-License-Identifier: GPL-2.0-only
//! System calls with simpler arguments.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Restricts the calling thread to these CPUs.
pub fn run_on(cpus: impl IntoIterator<Item = usize>) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.into_iter().for_each(|cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// Waits until `file` is readable or the time is over. Returns poll's `revents`.
pub fn wait_for(file: &impl AsFd, timeout: Duration) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    poll(&mut fds, Some(&timeout.try_into().map_err(io::Error::other)?))?;
    Ok(fds[0].revents())
}

/// A packet socket on one interface. It receives packets of one EtherType; with 0 it receives none.
/// The packets include the Ethernet header if `kind` is `RAW`.
pub fn packet_socket(kind: SocketType, device: &str, ethertype: u16) -> Result<File> {
    let socket = socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, None)?;
    let address = libc::sockaddr_ll {
        sll_family: AddressFamily::PACKET.as_raw(),
        sll_protocol: ethertype.to_be(),
        sll_ifindex: name_to_index(&socket, device)?.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a valid sockaddr_ll of the given size during the call.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(socket.into())
}
