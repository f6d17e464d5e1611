// SPDX-License-Identifier: GPL-2.0
//! The classic format: one header, then records.

use anyhow::{Result, anyhow, bail, ensure};
use pcap_parser::nom::{self, IResult};
use pcap_parser::pcap::{LegacyPcapBlock, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified};
use pcap_parser::{PcapError, PcapHeader, parse_pcap_header};

use super::{Capture, MAX_RECORD, require_ethernet};

/// Whether a file that begins like this is a pcap file.
pub(super) fn is_magic(bytes: [u8; 4]) -> bool {
    let magic = u32::from_le_bytes(bytes);
    matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 | 0xd4c3_b2a1 | 0x4d3c_b2a1)
}

type Parser = fn(&[u8]) -> IResult<&[u8], LegacyPcapBlock<'_>, PcapError<&[u8]>>;

/// Finds the frames. The snap length in the header is not looked at: programs have written 0, -1 and values
/// smaller than the records that follow, and each record tells its own length.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Capture> {
    let mut capture = Capture::default();
    let header = match parse_pcap_header(&bytes) {
        Ok((_, header)) => header,
        Err(nom::Err::Incomplete(_)) => bail!("the file ends within its header"),
        Err(_) => bail!("the file's header is damaged"),
    };
    // The field's upper bits tell of a frame check sequence; Wireshark and libpcap mask them too.
    require_ethernet("the file", header.network.0 as u32 & 0x03ff_ffff)?;
    let parser = parser_for(&header);
    let mut position = header.size();
    while position < bytes.len() {
        let rest = &bytes[position..];
        let number = capture.frames.len() + 1;
        match parser(rest) {
            Ok((after, record)) => {
                let end = bytes.len() - after.len();
                ensure!(record.data.len() <= MAX_RECORD, damaged(number, record.data.len()));
                capture.add(end - record.data.len()..end, record.origlen);
                position = end;
            }
            Err(nom::Err::Incomplete(nom::Needed::Size(missing))) => {
                let claimed = rest.len().saturating_add(missing.get());
                ensure!(claimed <= MAX_RECORD, damaged(number, claimed));
                capture.torn = Some(format!("the file ends within frame {number}"));
                break;
            }
            Err(_) => bail!("frame {number} is damaged"),
        }
    }
    capture.bytes = bytes;
    Ok(capture)
}

fn parser_for(header: &PcapHeader) -> Parser {
    if header.is_modified_format() {
        parse_pcap_frame_modified
    } else if header.is_bigendian() {
        parse_pcap_frame_be
    } else {
        parse_pcap_frame
    }
}

fn damaged(number: usize, length: usize) -> anyhow::Error {
    anyhow!("the file is damaged: frame {number} claims to have {length} bytes")
}
