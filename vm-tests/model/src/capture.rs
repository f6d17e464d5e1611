// SPDX-License-Identifier: GPL-2.0-only
//! Reads capture files: pcap (both byte orders, micro- or nanoseconds) and pcapng, gzipped or not.
//!
//! Formats: <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/> and
//! <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>.

use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use flate2::bufread::MultiGzDecoder;
use fs_err::File;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The longest pcapng block or pcap record in bytes. No capture program writes frames of this
/// length (libpcap's `MAXIMUM_SNAPLEN` is 256 KiB), so a longer one means a damaged file.
const MAX_BLOCK: usize = 1 << 20;

/// The frames of one capture file, in file order.
#[derive(Debug, Default)]
pub struct Capture {
    frames: Vec<Vec<u8>>,
    truncated_frames: usize,
    /// Why the file is incomplete.
    incomplete: Option<&'static str>,
}

/// An interface of the current pcapng section: its link type, and its snap length (0: no limit).
type Interface = (Linktype, u32);

impl Capture {
    /// Reads a whole file. Skips an incomplete last record. Prints warnings to standard error.
    ///
    /// # Errors
    /// When the file cannot be read, is not a capture, is damaged in the middle, or holds frames
    /// with a link type other than Ethernet.
    pub fn open(path: &Path) -> Result<Self> {
        let capture = Self::read(File::open(path)?).with_context(|| path.display().to_string())?;
        for warning in capture.warnings() {
            eprintln!("warning: {}: {warning}", path.display());
        }
        Ok(capture)
    }

    /// Reads a whole capture from a stream.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn read(from: impl Read) -> Result<Self> {
        let (bytes, gzip_incomplete) = read_bytes(from)?;
        let mut reader = create_reader(MAX_BLOCK, bytes.as_slice()).map_err(|error| match error {
            PcapError::Incomplete(_) => anyhow!("the file ends within its header"),
            _ => anyhow!("this is neither a pcap nor a pcapng file"),
        })?;
        let (mut capture, mut interfaces) = (Self::default(), Vec::new());
        loop {
            let number = capture.frames.len() + 1;
            match reader.next() {
                Ok((length, block)) => {
                    capture.add_block(&mut interfaces, &block)?;
                    reader.consume(length);
                }
                Err(PcapError::Incomplete(_)) => reader.refill().map_err(|error| anyhow!("{error}"))?,
                Err(PcapError::Eof) => break,
                Err(PcapError::UnexpectedEof) => {
                    capture.incomplete = Some("the file ends within a record");
                    break;
                }
                Err(PcapError::BufferTooSmall) => {
                    bail!("the file is damaged: frame {number} is longer than {MAX_BLOCK} bytes")
                }
                Err(_) => bail!("the file is damaged at frame {number}"),
            }
        }
        if gzip_incomplete {
            capture.incomplete.get_or_insert("the compressed file ends too early");
        }
        Ok(capture)
    }

    /// The captured bytes of each frame, from the destination address on.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames.iter().map(Vec::as_slice)
    }

    /// Warns of an incomplete file and of truncated frames.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(incomplete) = self.incomplete {
            warnings.push(format!("{incomplete}; the {} frames before it are used", self.frames.len()));
        }
        if self.truncated_frames > 0 {
            let count = self.truncated_frames;
            warnings
                .push(format!("{count} frames were truncated by the capture program; a host drops truncated packets"));
        }
        warnings
    }

    /// Takes what matters from a block and ignores other kinds of block.
    fn add_block(&mut self, interfaces: &mut Vec<Interface>, block: &PcapBlockOwned) -> Result<()> {
        match block {
            // The upper bits hold the length of the frame check sequence.
            PcapBlockOwned::LegacyHeader(header) => {
                require_ethernet("the file", Linktype(header.network.0 & 0x03ff_ffff))?;
            }
            // The header's snap length is ignored: programs have written 0, -1 and values smaller
            // than the records that follow.
            PcapBlockOwned::Legacy(record) => self.add_frame(record.data, record.origlen),
            PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                interfaces.push((interface.linktype, interface.snaplen));
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                find_interface(interfaces, packet.if_id)?;
                self.add_frame(packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                // It does not hold the captured length: the snap length limits it, and the rest is
                // padding.
                let data = packet.packet_data();
                let length = match find_interface(interfaces, 0)? {
                    0 => data.len(),
                    snaplen => data.len().min(snaplen as usize),
                };
                self.add_frame(&data[..length], packet.origlen);
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    /// `original` is the length on the wire.
    fn add_frame(&mut self, captured: &[u8], original: u32) {
        self.truncated_frames += usize::from(captured.len() < original as usize);
        self.frames.push(captured.to_vec());
    }
}

/// The snap length of a frame's interface. Interfaces without frames may have any link type.
fn find_interface(interfaces: &[Interface], number: u32) -> Result<u32> {
    let interface = interfaces.get(number as usize);
    let &(link_type, snaplen) =
        interface.with_context(|| format!("a frame names interface {number}, which is not described"))?;
    require_ethernet(&format!("interface {number}"), link_type)?;
    Ok(snaplen)
}

fn require_ethernet(owner: &str, link_type: Linktype) -> Result<()> {
    if link_type != Linktype::ETHERNET {
        bail!("{owner} has link type {}; only Ethernet (link type 1) can be replayed", link_type.0);
    }
    Ok(())
}

/// The file's bytes, uncompressed, and whether the compressed stream is incomplete.
fn read_bytes(mut from: impl Read) -> Result<(Vec<u8>, bool)> {
    let mut file = Vec::new();
    from.read_to_end(&mut file)?;
    if !file.starts_with(&[0x1f, 0x8b]) {
        return Ok((file, false));
    }
    let mut bytes = Vec::new();
    match MultiGzDecoder::new(file.as_slice()).read_to_end(&mut bytes) {
        Ok(_) => Ok((bytes, false)),
        // `bytes` holds what was uncompressed before the error.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok((bytes, true)),
        // Garbage after the last member: gzip ignores it as well.
        Err(error) if error.kind() == ErrorKind::InvalidInput && !bytes.is_empty() => Ok((bytes, false)),
        Err(error) => Err(error).context("cannot uncompress the gzip file"),
    }
}

#[cfg(test)]
mod tests;
