// SPDX-License-Identifier: GPL-2.0-only
//! The host's end of a network port: each datagram is one frame.
//!
//! No frame is lost on the way. A Unix datagram socket blocks its sender while the receiver's queue
//! is full. QEMU reads a frame after the virtual machine's receive ring has taken the one before;
//! it does not read while the ring is full or the port is down. QEMU does drop the frames that the
//! port's address filter refuses, so the port must be promiscuous before the first frame
//! ([`crate::guest::Guest::open_port`]).

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use traffic_model::frames::Mac;

/// The longest frame that QEMU's network backends accept (`NET_BUFSIZE`): 64 KiB and a page. QEMU
/// truncates longer ones.
pub const MAX_FRAME: usize = 4096 + 65_536;

/// The shortest frame that the virtio-net driver accepts. It counts shorter ones as length errors.
const MIN_FRAME: usize = 14;

/// A virtual machine that accepts no frame for this time hangs.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// More than the kernel's default, for fewer context switches between us and QEMU.
const SEND_BUFFER: usize = 1 << 20;

/// The hardware address of port `n`. It is locally administered, so no real device has it.
pub fn mac_of_port(n: usize) -> Mac {
    [0x02, 0x78, 0x74, 0x74, 0x72, n as u8]
}

/// Sends frames to one port. Clones send to the same port, from any thread.
#[derive(Clone, Debug)]
pub struct Sender {
    socket: Arc<UnixDatagram>,
    /// The numbers that [`Sender::sent`] returns.
    counts: Arc<[AtomicU64; 2]>,
}

impl Sender {
    /// Sends one frame. Blocks while the virtual machine processes earlier frames.
    ///
    /// # Errors
    /// When the frame is empty or longer than [`MAX_FRAME`], and when the virtual machine has ended
    /// or accepts no more frames.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        check_length(frame)?;
        match self.socket.send(frame) {
            Ok(sent) => ensure!(sent == frame.len(), "only {sent} of the frame's {} bytes were sent", frame.len()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("the port has accepted no frame for {} seconds", SEND_TIMEOUT.as_secs())
            }
            Err(error) => return Err(error).context("cannot send a frame"),
        }
        self.counts[0].fetch_add(1, Ordering::SeqCst);
        self.counts[1].fetch_add((frame.len() < MIN_FRAME).into(), Ordering::SeqCst);
        Ok(())
    }

    /// Sends frames in order.
    ///
    /// # Errors
    /// As [`Sender::send`], with the number of the frame.
    pub fn send_all<F: AsRef<[u8]>>(&self, frames: impl IntoIterator<Item = F>) -> Result<()> {
        frames
            .into_iter()
            .enumerate()
            .try_for_each(|(n, frame)| self.send(frame.as_ref()).with_context(|| format!("frame {}", n + 1)))
    }

    /// How many frames have been sent to this port, and how many of them are too short for its
    /// driver.
    pub(crate) fn sent(&self) -> [u64; 2] {
        self.counts.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

/// Checks that a frame can be sent.
///
/// # Errors
/// When the frame is empty or longer than [`MAX_FRAME`].
pub fn check_length(frame: &[u8]) -> Result<()> {
    ensure!(!frame.is_empty(), "an empty frame cannot be sent");
    let length = frame.len();
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes is too long: the port accepts at most {MAX_FRAME}");
    Ok(())
}

/// The host's end of a port.
pub(crate) struct Port {
    pub(crate) sender: Sender,
    /// The name of the port in the virtual machine.
    pub(crate) device: String,
    /// The network namespace of the port in the guest; empty for the initial one.
    pub(crate) netns: String,
    /// QEMU's socket.
    peer: PathBuf,
    received: Receiver<Vec<u8>>,
}

impl Port {
    /// Binds our socket at `path`. [`Port::connect`] connects to QEMU's at `peer` when QEMU runs.
    pub(super) fn bind(path: &Path, peer: PathBuf, device: String) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| path.display().to_string())?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        let sender = Sender { socket: Arc::new(socket), counts: Arc::default() };
        let received = receive(Arc::clone(&sender.socket));
        Ok(Self { sender, device, netns: String::new(), peer, received })
    }

    pub(super) fn connect(&self) -> Result<()> {
        self.sender.socket.connect(&self.peer).with_context(|| self.peer.display().to_string())
    }

    /// The frames that the virtual machine has sent out of this port since the last call.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        self.received.try_iter().collect()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Ends the receiver's blocking read.
        drop(self.sender.socket.shutdown(Shutdown::Both));
    }
}

/// Receives frames in a thread, so that the virtual machine's transmit queue never fills up.
fn receive(socket: Arc<UnixDatagram>) -> Receiver<Vec<u8>> {
    let (to, received) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_FRAME];
        while let Ok(length @ 1..) = socket.recv(&mut buffer) {
            // An error means that the port was dropped.
            drop(to.send(buffer[..length].to_vec()));
        }
    });
    received
}
