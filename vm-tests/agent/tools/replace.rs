// SPDX-License-Identifier: GPL-2.0-only
//! `replace PROGRAM REVISION BITS`: replaces the table filter of `iptables-legacy` or
//! `ip6tables-legacy` by the same table, with other values in the matches `traffic`: their
//! revision, and the byte `shared_bits` of their parameters. Prints `ok`, or `errno N`.
//!
//! So tests can send to the kernel what this version of the extension does not send. The interface
//! is that of `ip_tables.h`; `ip6_tables.h` has the same numbers and layouts:
//! <https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git/tree/include/uapi/linux/netfilter_ipv4/ip_tables.h>

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// `IPT_SO_SET_REPLACE` and `IPT_SO_GET_INFO`.
const SET_REPLACE: i32 = 64;
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;

/// The size of the name of a table.
const NAME: usize = 32;
/// The size of the hook numbers, entries and underflows, which `struct ipt_getinfo` has after the
/// name: `valid_hooks`, `hook_entry[5]` and `underflow[5]`.
const HOOKS: usize = 4 + 2 * 5 * 4;
/// The offset of the entries in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// The size of `struct xt_counters`.
const COUNTERS: usize = 16;

/// The offsets of the revision and of the parameters in a match, from the start of its name.
const REVISION: usize = 29;
const PARAMETERS: usize = 30;
/// The offset of `shared_bits` in the parameters.
const SHARED_BITS: usize = 67;

pub fn replace(program: &str, revision: &str, bits: &str) -> Result<()> {
    let (family, level) = match program {
        "iptables" => (AddressFamily::INET, libc::SOL_IP),
        "ip6tables" => (AddressFamily::INET6, libc::SOL_IPV6),
        _ => bail!("unknown program {program}"),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = name(NAME + HOOKS + 8);
    get(&socket, level, GET_INFO, &mut info).context("GET_INFO")?;
    let hooks = &info[NAME..NAME + HOOKS];
    let [count, size] = [0, 4].map(|at| number(&info[NAME + HOOKS + at..]));
    let mut entries = name(ENTRIES + size as usize);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, GET_ENTRIES, &mut entries).context("GET_ENTRIES")?;
    change(&mut entries[ENTRIES..], revision.parse()?, bits.parse()?)?;

    let mut counters = vec![0u8; count as usize * COUNTERS];
    // `struct ipt_replace`.
    let mut table = name(NAME);
    table.extend_from_slice(&hooks[..4]);
    table.extend(count.to_ne_bytes());
    table.extend(size.to_ne_bytes());
    table.extend_from_slice(&hooks[4..]);
    table.extend(count.to_ne_bytes());
    table.extend(counters.as_mut_ptr().expose_provenance().to_ne_bytes());
    table.extend_from_slice(&entries[ENTRIES..]);
    // SAFETY: `table` is valid for its length. The pointer in it is to `counters`, which has room
    // for as many counters as the table says.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, SET_REPLACE, table.as_ptr().cast(), table.len() as u32) };
    match result {
        0 => println!("ok"),
        _ => println!("errno {}", io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
    Ok(())
}

/// The name of the table, and zeros.
fn name(length: usize) -> Vec<u8> {
    let mut bytes = b"filter".to_vec();
    bytes.resize(length, 0);
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes)
}

fn get(socket: &OwnedFd, level: i32, option: i32, bytes: &mut [u8]) -> Result<()> {
    let mut length = bytes.len() as u32;
    // SAFETY: `bytes` is valid for writes of `length` bytes, and `length` is valid for a write.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// Changes all matches `traffic` in the entries of a table.
fn change(entries: &mut [u8], revision: u8, bits: u8) -> Result<()> {
    const MATCH: &[u8; 8] = b"traffic\0";
    let found: Vec<usize> =
        entries.windows(MATCH.len()).enumerate().filter(|(_, name)| name == MATCH).map(|(at, _)| at).collect();
    ensure!(!found.is_empty(), "no rule has a match traffic");
    for at in found {
        entries[at + REVISION] = revision;
        entries[at + PARAMETERS + SHARED_BITS] = bits;
    }
    Ok(())
}
