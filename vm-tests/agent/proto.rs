// SPDX-License-Identifier: GPL-2.0
//! How the host and the guest's agent talk: messages of byte strings over a virtio-serial port.
//!
//! A message is a little-endian `u32` count of fields, then for each field its length as a little-endian
//! `u32` and its bytes. The first field is a word that says what the message is; numbers travel as decimal
//! text. Host and agent build from this one file.

use std::io::{self, Read, Write};

/// Upper bound of one message, so that a torn stream is an error and not an allocation of 4 GiB.
const MAX_MESSAGE: usize = 256 << 20;

/// Writes one message. The whole message leaves in one `write`, which is one buffer on the port.
///
/// # Errors
/// What the writer says; `InvalidInput` for a message that does not fit the format.
pub fn write_message(to: &mut impl Write, fields: &[&[u8]]) -> io::Result<()> {
    let length = |n: usize| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut message = length(fields.len())?.to_le_bytes().to_vec();
    for field in fields {
        message.extend_from_slice(&length(field.len())?.to_le_bytes());
        message.extend_from_slice(field);
    }
    to.write_all(&message)?;
    to.flush()
}

/// Reads one message.
///
/// # Errors
/// What the reader says: `UnexpectedEof` when the other end is gone. `InvalidData` for a length that no
/// message has.
pub fn read_message(from: &mut impl Read) -> io::Result<Vec<Vec<u8>>> {
    let mut left = MAX_MESSAGE;
    let count = read_length(from, &mut left)?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let length = read_length(from, &mut left)?;
        let mut field = vec![0; length];
        from.read_exact(&mut field)?;
        left -= length;
        fields.push(field);
    }
    Ok(fields)
}

/// A `u32` that bounds what follows it, checked against what a message may still hold.
fn read_length(from: &mut impl Read, left: &mut usize) -> io::Result<usize> {
    let mut word = [0; 4];
    from.read_exact(&mut word)?;
    let length = u32::from_le_bytes(word) as usize;
    if length > *left {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}
