// SPDX-License-Identifier: GPL-2.0-only
//! Reads capture files: pcap (both byte orders, micro- or nanoseconds) and pcapng, gzipped or not.
//!
//! Formats: <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/> and
//! <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>.

mod link;
mod timeline;

pub use link::Unsendable;
pub use timeline::{LONGEST_PAUSE, Timeline};

use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use flate2::bufread::MultiGzDecoder;
use fs_err::File;
use pcap_parser::pcapng::OptionCode;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, InterfaceDescriptionBlock, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The longest pcapng block or pcap record in bytes. No capture program writes frames of this
/// length (libpcap's `MAXIMUM_SNAPLEN` is 256 KiB), so a longer one means a damaged file.
const MAX_BLOCK: usize = 1 << 20;

/// The pcapng block that the enhanced packet block has replaced.
const OBSOLETE_PACKET: u32 = 2;

/// The frames of one capture file, in file order.
#[derive(Debug, Default)]
pub struct Capture {
    records: Vec<Record>,
    /// Why the file is incomplete.
    incomplete: Option<&'static str>,
    /// The number of blocks of the type [`OBSOLETE_PACKET`].
    obsolete_packets: usize,
}

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was captured, in nanoseconds since 1970. Simple packet blocks of pcapng have no
    /// time.
    pub timestamp: Option<i128>,
    /// The frame, from the destination address on, or why there is none.
    pub frame: Result<Vec<u8>, Unsendable>,
    /// Whether the capture program has cut off its end.
    pub is_cut: bool,
}

/// An interface of the current pcapng section, or the only one of a pcap file.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: Linktype,
    /// The longest captured frame in bytes; 0 for no limit.
    snaplen: u32,
    /// The unit of timestamps, as pcapng's `if_tsresol` writes it.
    resolution: u8,
    /// What is added to timestamps, in seconds.
    offset: i64,
}

/// The parts of a file that the next block refers to.
#[derive(Debug, Default)]
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

impl Capture {
    /// Reads a whole file. Skips an incomplete last record. Prints warnings to standard error.
    ///
    /// # Errors
    /// When the file cannot be read, is not a capture, or is damaged in the middle.
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
        let (mut capture, mut section) = (Self::default(), Section::default());
        loop {
            let number = capture.records.len() + 1;
            match reader.next() {
                Ok((length, block)) => {
                    capture.add_block(&mut section, &block)?;
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

    /// All records, also those without a frame.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// As [`Capture::records`], without the rest of the capture.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The frames, from the destination address on.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().filter_map(|record| record.frame.as_deref().ok())
    }

    /// Warns of an incomplete file and of blocks that are not read.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(incomplete) = self.incomplete {
            warnings.push(format!("{incomplete}; the {} frames before it are used", self.records.len()));
        }
        if self.obsolete_packets > 0 {
            let count = self.obsolete_packets;
            warnings.push(format!("{count} frames are skipped: they are in the obsolete packet blocks of pcapng"));
        }
        warnings
    }

    /// Takes what matters from a block and ignores other kinds of block.
    fn add_block(&mut self, section: &mut Section, block: &PcapBlockOwned) -> Result<()> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => section.interfaces.push(Interface {
                // The upper bits hold the length of the frame check sequence.
                link_type: Linktype(header.network.0 & 0x03ff_ffff),
                // Programs have written 0, -1 and values smaller than the records that follow.
                snaplen: 0,
                resolution: if header.is_nanosecond_precision() { 9 } else { 6 },
                offset: 0,
            }),
            PcapBlockOwned::Legacy(record) => {
                let interface = section.interface(0)?;
                let (seconds, fraction) = (u64::from(record.ts_sec), u64::from(record.ts_usec));
                let timestamp = interface.timestamp(fraction) + i128::from(seconds) * SECOND;
                self.add_record(interface, Some(timestamp), record.data, record.origlen);
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                *section = Section { big_endian: header.big_endian(), interfaces: vec![] };
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => section.add_interface(interface),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = section.interface(packet.if_id)?;
                let timestamp = interface.timestamp(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                self.add_record(interface, Some(timestamp), packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                // It does not hold the captured length: the snap length limits it, and the rest is
                // padding.
                let (interface, data) = (section.interface(0)?, packet.packet_data());
                let length = match interface.snaplen {
                    0 => data.len(),
                    snaplen => data.len().min(snaplen as usize),
                };
                self.add_record(interface, None, &data[..length], packet.origlen);
            }
            PcapBlockOwned::NG(Block::Unknown(block)) => {
                self.obsolete_packets += usize::from(block.block_type == OBSOLETE_PACKET);
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    /// `original` is the length on the wire.
    fn add_record(&mut self, interface: Interface, timestamp: Option<i128>, captured: &[u8], original: u32) {
        let is_cut = captured.len() < original as usize;
        self.records.push(Record { timestamp, frame: link::ethernet(interface.link_type, captured), is_cut });
    }
}

impl Section {
    fn interface(&self, number: u32) -> Result<Interface> {
        let interface = self.interfaces.get(number as usize).copied();
        interface.with_context(|| format!("a frame names interface {number}, which is not described"))
    }

    fn add_interface(&mut self, block: &InterfaceDescriptionBlock) {
        // The parser reads the offset as little-endian in all sections.
        let offset = block.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| option.value().first_chunk());
        let read = if self.big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
        self.interfaces.push(Interface {
            link_type: block.linktype,
            snaplen: block.snaplen,
            resolution: block.if_tsresol,
            offset: offset.map_or(0, |bytes| read(*bytes)),
        });
    }
}

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;

impl Interface {
    /// A timestamp in nanoseconds since 1970. Units below 2^-64 or 10^-28 seconds give 0.
    fn timestamp(&self, units: u64) -> i128 {
        // At most 2^94.
        let scaled = i128::from(units) * SECOND;
        let exponent = u32::from(self.resolution & 0x7f);
        let nanoseconds = match self.resolution & 0x80 {
            0 => 10_i128.checked_pow(exponent).map_or(0, |unit| scaled / unit),
            _ => scaled.checked_shr(exponent).unwrap_or(0),
        };
        nanoseconds + i128::from(self.offset) * SECOND
    }
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
