// SPDX-License-Identifier: GPL-2.0-only
//! The protocol between the host and the guest's agent: messages over a virtio-serial port.
//!
//! A message is the number of its fields as a little-endian `u32`, then for each field its length
//! as a little-endian `u32` and its bytes. The first field is the kind of message. Numbers are
//! decimal text.

use std::io::{self, Read, Write};

/// The longest message, so that a broken stream is an error and not an allocation of 4 GiB.
const MAX_MESSAGE: usize = 256 << 20;

/// Writes one message with one `write`, which is one buffer on the port.
///
/// # Errors
/// The writer's errors. `InvalidInput` for a message that is too long for the format.
pub fn write_message(to: &mut impl Write, fields: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let length = |n: usize| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut message = length(fields.len())?.to_le_bytes().to_vec();
    for field in fields.iter().map(AsRef::as_ref) {
        message.extend_from_slice(&length(field.len())?.to_le_bytes());
        message.extend_from_slice(field);
    }
    to.write_all(&message)?;
    to.flush()
}

/// Reads one message.
///
/// # Errors
/// The reader's errors: `UnexpectedEof` when the other end has closed. `InvalidData` for a message
/// that is too long.
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

/// Reads a length and checks it against the rest of the longest message.
fn read_length(from: &mut impl Read, left: &mut usize) -> io::Result<usize> {
    let mut word = [0; 4];
    from.read_exact(&mut word)?;
    let length = u32::from_le_bytes(word) as usize;
    if length > *left {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}
