// SPDX-License-Identifier: GPL-2.0-only
//! Requests to netfilter that Debian's tools cannot make:
//!
//! * `hooks FAMILY HOOK` lists the functions on a hook, one per line: the priority and the name.
//! * `chain FAMILY TABLE CHAIN HOOK` makes a chain of type filter on a hook, and its table.
//! * `extension FAMILY TABLE CHAIN match|target NAME REVISION PARAMETERS` adds a rule for TCP with
//!   one extension of `x_tables`. The parameters are the bytes of its structure, in hexadecimal
//!   digits.
//!
//! The last two print `ok`, or `errno N`. `FAMILY` is one of nft's names of families.
//! <https://docs.kernel.org/userspace-api/netlink/intro.html>

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

use crate::sys;

// `linux/netlink.h`
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
// `linux/netfilter/nfnetlink.h`: the subsystem is the high byte of a message's type.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
const HOOKS: u16 = 12 << 8;
// `linux/netfilter/nf_tables.h`
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
// `linux/netfilter/nfnetlink_hook.h`
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_FUNCTION: u16 = 4;

/// The sizes of `struct nlmsghdr`, `struct nfgenmsg` and `struct nlattr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const ATTRIBUTE: usize = 4;

pub fn hooks(family: &str, hook: &str) -> Result<()> {
    let attributes = [number(HOOK_NUMBER, hook.parse()?)];
    let request = message(HOOKS, DUMP, family_number(family)?, 0, &attributes);
    for (_, message) in ask(&request)?.iter().filter(|(kind, _)| *kind == HOOKS) {
        let attributes = message.get(GENERIC..).context("a message is too short")?;
        let find = |kind| parts(attributes, ATTRIBUTE).into_iter().find(|part| part.0 == kind).map(|part| part.1);
        let priority = find(HOOK_PRIORITY).and_then(|value| value.first_chunk().copied()).map(i32::from_be_bytes);
        let function = String::from_utf8_lossy(find(HOOK_FUNCTION).unwrap_or_default());
        println!("{} {}", priority.context("no priority")?, function.trim_end_matches('\0'));
    }
    Ok(())
}

pub fn chain(family: &str, table: &str, chain: &str, hook: &str) -> Result<()> {
    let family = family_number(family)?;
    let hook = nested(4, &[number(1, hook.parse()?), number(2, 0)]);
    let chain = [text(1, table), text(3, chain), hook, text(7, "filter")];
    change(&[
        message(NEW_TABLE, ACK | CREATE, family, 0, &[text(1, table)]),
        message(NEW_CHAIN, ACK | CREATE, family, 0, &chain),
    ])
}

pub fn extension(family: &str, table: &str, chain: &str, extension: [&str; 4]) -> Result<()> {
    let [kind, name, revision, parameters] = extension;
    let data = nested(2, &[text(1, name), number(2, revision.parse()?), attribute(3, &bytes(parameters)?)]);
    let expressions = nested(4, &[nested(1, &[text(1, kind), data])]);
    // Some extensions require a rule for a protocol.
    let compat = nested(5, &[number(1, libc::IPPROTO_TCP as u32), number(2, 0)]);
    let rule = [text(1, table), text(2, chain), expressions, compat];
    change(&[message(NEW_RULE, ACK | CREATE | APPEND, family_number(family)?, 0, &rule)])
}

fn family_number(name: &str) -> Result<u8> {
    // `NFPROTO_*`
    let known = [("inet", 1), ("ip", 2), ("arp", 3), ("ip6", 10)];
    known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).context("unknown family")
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(std::str::from_utf8);
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

/// Sends messages to nf_tables as one transaction. Prints the first error, or `ok`.
fn change(messages: &[Vec<u8>]) -> Result<()> {
    let [begin, end] = [BATCH_BEGIN, BATCH_END].map(|kind| message(kind, 0, 0, NFTABLES, &[]));
    let answers = ask(&[&[begin], messages, &[end]].concat().concat())?;
    let errors: Vec<i32> =
        answers.iter().filter(|(kind, _)| *kind == ERROR).map(|(_, message)| error(message)).collect();
    ensure!(!errors.is_empty(), "nf_tables does not answer");
    match errors.iter().find(|error| **error != 0) {
        Some(error) => println!("errno {}", -error),
        None => println!("ok"),
    }
    Ok(())
}

/// Sends a request. Returns the type and the content of each message of the answer. The kernel has
/// answered a change when it returns from `send`; it ends a list with a message.
fn ask(request: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    let mut socket = File::from(socket);
    socket.write_all(request)?;
    let mut answers = Vec::new();
    while sys::wait_for(&socket, Duration::ZERO)?.contains(PollFlags::IN) {
        let mut buffer = vec![0; 1 << 16];
        let length = socket.read(&mut buffer)?;
        for (kind, content) in parts(&buffer[..length], HEADER) {
            if kind == DONE && error(content) != 0 {
                bail!("netfilter answers with errno {}", -error(content));
            }
            answers.push((kind, content.to_vec()));
        }
    }
    Ok(answers)
}

fn error(message: &[u8]) -> i32 {
    message.first_chunk().copied().map_or(0, i32::from_ne_bytes)
}

/// Splits messages or attributes, by the size of their header: the type without flags, and what
/// follows the header. The length of a message has 32 bits, but none is that long.
fn parts(mut bytes: &[u8], header: usize) -> Vec<(u16, &[u8])> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    let kind_at = if header == HEADER { 4 } else { 2 };
    let mut parts = Vec::new();
    while let (Some(length), Some(kind)) = (word(bytes, 0), word(bytes, kind_at)) {
        let length = usize::from(length);
        let Some(content) = bytes.get(header..length) else { break };
        parts.push((kind & !NESTED, content));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    parts
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut bytes = ((HEADER + GENERIC + attributes.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    // No sequence number and no port.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = ATTRIBUTE + value.len();
    let mut bytes = (length as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}
