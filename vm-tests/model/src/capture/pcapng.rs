// SPDX-License-Identifier: GPL-2.0
//! The newer format: blocks, in sections of either byte order, each with interfaces of its own.

use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pcap_parser::pcapng::{
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};
use pcap_parser::traits::PcapNGPacketBlock;

use super::{Capture, MAX_RECORD, require_ethernet};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The form before the enhanced packet block. Wireshark stopped writing it in 2010.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Type, length, the length again.
const FRAME_OF_BLOCK: usize = 12;

/// Whether a file that begins like this is a pcapng file.
pub(super) fn is_magic(bytes: [u8; 4]) -> bool {
    u32::from_le_bytes(bytes) == SECTION_HEADER
}

struct Interface {
    link_type: u32,
    /// 0: no limit.
    snaplen: u32,
}

/// The section that is being read.
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

impl Section {
    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// The interface that a frame came from. An interface of another link type is no harm until it has one.
    fn interface(&self, number: u32) -> Result<&Interface> {
        let interface = usize::try_from(number).ok().and_then(|number| self.interfaces.get(number));
        let interface = interface.with_context(|| format!("a frame of interface {number}, which is not described"))?;
        require_ethernet(&format!("interface {number}"), interface.link_type)?;
        Ok(interface)
    }
}

/// Finds the frames.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Capture> {
    let mut capture = Capture::default();
    let mut section = Section { big_endian: false, interfaces: Vec::new() };
    let mut position = 0;
    while position < bytes.len() {
        let rest = &bytes[position..];
        let what = || format!("the block at byte {position}");
        let (Some(kind), Some(length)) = (word(rest, 0), word(rest, 4)) else {
            capture.torn = Some(format!("the file ends within {}", what()));
            break;
        };
        // A section header's type reads the same in both byte orders; its length does not.
        let kind = section.u32(kind);
        if kind == SECTION_HEADER {
            section = Section { big_endian: is_big_endian(rest).with_context(what)?, interfaces: Vec::new() };
        }
        let length = section.u32(length) as usize;
        ensure!(length >= FRAME_OF_BLOCK, "{} claims to have {length} bytes", what());
        let Some(block) = rest.get(..length) else {
            capture.torn = Some(format!("the file ends within {}", what()));
            break;
        };
        read_block(&mut capture, &mut section, kind, block, position).with_context(what)?;
        position += length;
    }
    capture.bytes = bytes;
    Ok(capture)
}

/// Takes from a block what matters here; the other kinds of block are passed over unread.
fn read_block(capture: &mut Capture, section: &mut Section, kind: u32, block: &[u8], at: usize) -> Result<()> {
    let broken = |_| anyhow!("it is damaged");
    let big = section.big_endian;
    match kind {
        SECTION_HEADER => drop(parse_sectionheaderblock(block).map_err(broken)?),
        INTERFACE_DESCRIPTION => {
            let parse = if big { parse_interfacedescriptionblock_be } else { parse_interfacedescriptionblock_le };
            let (_, interface) = parse(block).map_err(broken)?;
            let link_type = interface.linktype.0 as u32;
            section.interfaces.push(Interface { link_type, snaplen: interface.snaplen });
        }
        ENHANCED_PACKET => {
            let parse = if big { parse_enhancedpacketblock_be } else { parse_enhancedpacketblock_le };
            let (_, packet) = parse(block).map_err(broken)?;
            section.interface(packet.if_id)?;
            let length = packet.packet_data().len();
            add(capture, at + 28..at + 28 + length, packet.origlen)?;
        }
        SIMPLE_PACKET => {
            let parse = if big { parse_simplepacketblock_be } else { parse_simplepacketblock_le };
            let (_, packet) = parse(block).map_err(broken)?;
            let mut length = packet.packet_data().len();
            match section.interface(0)?.snaplen {
                0 => {}
                snaplen => length = length.min(snaplen as usize),
            }
            add(capture, at + 12..at + 12 + length, packet.origlen)?;
        }
        PACKET => read_old_packet(capture, section, block, at)?,
        _ => {}
    }
    Ok(())
}

/// The obsolete packet block, which the parser does not know: interface and drop count (16 bits each), time
/// stamp, captured length, original length, data.
fn read_old_packet(capture: &mut Capture, section: &Section, block: &[u8], at: usize) -> Result<()> {
    let (Some(head), Some(captured), Some(original)) = (word(block, 8), word(block, 20), word(block, 24)) else {
        bail!("it is damaged");
    };
    section.interface(section.u16([head[0], head[1]]).into())?;
    let length = section.u32(captured) as usize;
    ensure!(length <= block.len().saturating_sub(28 + 4), "it is damaged");
    add(capture, at + 28..at + 28 + length, section.u32(original))
}

fn add(capture: &mut Capture, captured: Range<usize>, original: u32) -> Result<()> {
    ensure!(captured.len() <= MAX_RECORD, "it claims a frame of {} bytes", captured.len());
    capture.add(captured, original);
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The byte order of a section, from the magic number in its header.
fn is_big_endian(header: &[u8]) -> Result<bool> {
    match word(header, 8) {
        Some([0x1a, 0x2b, 0x3c, 0x4d]) => Ok(true),
        Some([0x4d, 0x3c, 0x2b, 0x1a]) => Ok(false),
        _ => bail!("it is no section header"),
    }
}
