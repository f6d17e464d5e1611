// SPDX-License-Identifier: GPL-2.0
//! Reads capture files: pcap in both byte orders with micro- or nanoseconds, pcapng, either gzipped.

mod pcap;
mod pcapng;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;

/// `LINKTYPE_ETHERNET`, the only link type that a mirror port delivers.
const ETHERNET: u32 = 1;

/// What libpcap calls `MAXIMUM_SNAPLEN`: no capture program writes a larger record, so a length beyond it
/// comes from a broken file.
const MAX_RECORD: usize = 256 << 10;

/// The frames of one file, in its order.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
    shortened: usize,
    torn: Option<String>,
}

impl Capture {
    /// Reads a whole file. A last record that the file's end cuts off is left out; what was lost is told on
    /// standard error.
    ///
    /// # Errors
    /// When the file cannot be read, is no capture, is damaged in the middle, or holds frames of a link type
    /// that is not Ethernet.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let capture = Self::read(file).with_context(|| path.display().to_string())?;
        for warning in capture.warnings() {
            eprintln!("warning: {}: {warning}", path.display());
        }
        Ok(capture)
    }

    /// Reads a whole capture from anywhere.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn read(from: impl Read) -> Result<Self> {
        let (bytes, gzip_torn) = read_bytes(from)?;
        let mut capture = match bytes.first_chunk() {
            Some(magic) if pcapng::is_magic(*magic) => pcapng::parse(bytes)?,
            Some(magic) if pcap::is_magic(*magic) => pcap::parse(bytes)?,
            _ => bail!("this is neither a pcap nor a pcapng file"),
        };
        if gzip_torn {
            capture.torn.get_or_insert_with(|| "the compressed file ends too early".into());
        }
        Ok(capture)
    }

    /// The frames, from the destination address on, as they were captured.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames.iter().map(|range| &self.bytes[range.clone()])
    }

    /// What a person should know about the file: a torn end, frames that the capture program has shortened.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(torn) = &self.torn {
            warnings.push(format!("{torn}; the {} frames before it are used", self.frames.len()));
        }
        if self.shortened > 0 {
            let count = self.shortened;
            warnings.push(format!(
                "{count} frames were shortened when they were captured; a box drops IP packets that are not whole"
            ));
        }
        warnings
    }

    /// Notes a frame: `captured` is where its bytes are, `original` how many there were on the wire.
    fn add(&mut self, captured: Range<usize>, original: u32) {
        if captured.len() < original as usize {
            self.shortened += 1;
        }
        self.frames.push(captured);
    }
}

/// The file's bytes, unpacked if they are packed, and whether the packed stream broke off.
fn read_bytes(from: impl Read) -> Result<(Vec<u8>, bool)> {
    let mut from = BufReader::new(from);
    let mut start = Vec::new();
    from.by_ref().take(2).read_to_end(&mut start)?;
    let packed = start == [0x1f, 0x8b];
    let whole = start.as_slice().chain(from);
    let mut bytes = Vec::new();
    if !packed {
        BufReader::new(whole).read_to_end(&mut bytes)?;
        return Ok((bytes, false));
    }
    match MultiGzDecoder::new(BufReader::new(whole)).read_to_end(&mut bytes) {
        Ok(_) => Ok((bytes, false)),
        // What was unpacked so far has been appended.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok((bytes, true)),
        // Junk after the last member, as gzip itself ignores it.
        Err(error) if error.kind() == ErrorKind::InvalidInput && !bytes.is_empty() => Ok((bytes, false)),
        Err(error) => Err(error).context("cannot unpack the gzip file"),
    }
}

/// A link type number with its name, for error messages.
struct LinkType(u32);

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "NULL, BSD loopback",
            6 => "IEEE802_5, token ring",
            9 => "PPP",
            10 => "FDDI",
            12 | 14 | 101 => "RAW, bare IP packets",
            50 => "PPP_HDLC",
            51 => "PPP_ETHER, PPPoE",
            104 => "C_HDLC",
            105 => "IEEE802_11, wireless LAN",
            107 => "FRELAY, frame relay",
            108 => "LOOP, OpenBSD loopback",
            113 => "LINUX_SLL, Linux's `any` device",
            119 | 127 | 192 => "wireless LAN with a header of its own",
            147..=162 => "USER, private use",
            189 | 220 => "USB",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            249 => "USBPCAP",
            252 => "UPPER_PDU",
            253 => "NETLINK",
            276 => "LINUX_SLL2, Linux's `any` device",
            _ => return write!(f, "link type {}", self.0),
        };
        write!(f, "link type {} ({name})", self.0)
    }
}

/// Refuses everything but Ethernet. `whose` says which file or interface it is.
fn require_ethernet(whose: &str, link_type: u32) -> Result<()> {
    if link_type != ETHERNET {
        bail!("{whose} has {}; only Ethernet (link type 1) can be replayed", LinkType(link_type));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
