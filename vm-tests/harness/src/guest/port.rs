// SPDX-License-Identifier: GPL-2.0
//! The cable to a guest's network port: one datagram, one frame.
//!
//! Nothing on this way drops a frame. A Unix datagram socket blocks its sender while the receiver's queue is
//! full. QEMU reads the next frame only after the guest's receive ring took the one before; while the ring is
//! full, or the port not up yet, it stops reading. What QEMU does drop is what the port's address filter
//! refuses, so the port must be promiscuous before the first frame ([`super::Guest::open_port`]).

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The longest frame that QEMU's network backends take (`NET_BUFSIZE`): 64 KiB and a page. It cuts longer ones.
pub const MAX_FRAME: usize = 4096 + 65_536;

/// The shortest frame that a virtio-net driver passes on. Shorter ones reach the guest, and count there as
/// length errors.
const MIN_FRAME: u64 = 14;

/// A guest that takes no frame for so long has come to a halt.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much may be on its way to QEMU. More than the kernel's default, for fewer switches between the two.
const SEND_BUFFER: usize = 1 << 20;

/// Sends frames to one port. Clones send to the same port, from any thread.
#[derive(Clone, Debug)]
pub struct Sender {
    socket: Arc<UnixDatagram>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    runts: AtomicU64,
}

impl Sender {
    /// Sends one frame, which blocks while the guest is busy with the ones before.
    ///
    /// # Errors
    /// For a frame that is empty or longer than [`MAX_FRAME`]; when the guest has died or takes no more frames.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        check_length(frame)?;
        match self.socket.send(frame) {
            Ok(sent) => ensure!(sent == frame.len(), "only {sent} of the frame's {} bytes were sent", frame.len()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("the guest has taken no frame for {} seconds", PATIENCE.as_secs())
            }
            Err(error) => return Err(error).context("cannot send a frame to the guest"),
        }
        self.counts.frames.fetch_add(1, Ordering::SeqCst);
        if (frame.len() as u64) < MIN_FRAME {
            self.counts.runts.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How many frames have been sent to this port, and how many of them are too short for the guest's driver.
    pub(crate) fn sent(&self) -> [u64; 2] {
        [self.counts.frames.load(Ordering::SeqCst), self.counts.runts.load(Ordering::SeqCst)]
    }
}

/// Refuses the frames that cannot be sent, with the reason.
///
/// # Errors
/// For a frame that is empty or longer than [`MAX_FRAME`].
pub fn check_length(frame: &[u8]) -> Result<()> {
    ensure!(!frame.is_empty(), "a frame without a single byte cannot be sent");
    let length = frame.len();
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes is too long: the guest's port takes at most {MAX_FRAME}");
    Ok(())
}

/// The host's end of the cable.
pub(crate) struct Port {
    pub(crate) sender: Sender,
    /// The guest's name for the port.
    pub(crate) device: String,
    /// The network namespace in the guest that the port is in; empty is the first one.
    pub(super) netns: String,
    from_guest: Arc<Mutex<Vec<Vec<u8>>>>,
    drain: Option<JoinHandle<()>>,
}

impl Port {
    /// Binds our end. QEMU's end does not exist yet; [`Port::connect`] follows when QEMU runs.
    pub(crate) fn bind(path: &Path, device: String) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| path.display().to_string())?;
        socket.set_write_timeout(Some(PATIENCE))?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        let sender = Sender { socket: Arc::new(socket), counts: Arc::default() };
        let from_guest = Arc::default();
        let drain = drain(Arc::clone(&sender.socket), Arc::clone(&from_guest))?;
        Ok(Self { sender, device, netns: String::new(), from_guest, drain: Some(drain) })
    }

    pub(crate) fn connect(&self, path: &Path) -> Result<()> {
        self.sender.socket.connect(path).with_context(|| path.display().to_string())
    }

    /// What the guest itself has sent out of the port so far.
    pub(super) fn sent_by_guest(&self) -> Vec<Vec<u8>> {
        self.from_guest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Wakes the draining thread, which then finds the end.
        let down = self.sender.socket.shutdown(Shutdown::Both);
        if let (Ok(()), Some(drain)) = (down, self.drain.take()) {
            drop(drain.join());
        }
    }
}

/// Takes what the guest sends, so that its transmit queue never fills up.
fn drain(socket: Arc<UnixDatagram>, kept: Arc<Mutex<Vec<Vec<u8>>>>) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("port".into());
    let thread = thread.spawn(move || {
        let mut buffer = vec![0; MAX_FRAME];
        while let Ok(length @ 1..) = socket.recv(&mut buffer) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(buffer[..length].to_vec());
        }
    });
    thread.context("cannot start a thread")
}
