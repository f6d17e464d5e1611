// SPDX-License-Identifier: GPL-2.0-only
//! Replaces the table filter of `iptables-legacy` or `ip6tables-legacy` by a changed copy. Prints
//! `ok`, or `errno N`.
//!
//! `replace PROGRAM REVISION BITS` changes the matches `traffic`: their revision, and the byte
//! `shared_bits` of their parameters.
//!
//! `replace-stale PROGRAM` changes the policy of PROMISC to DROP. It asks for a wrong number of
//! counters, as if the table had changed since it was read.
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

/// The offset of `underflow[5]` in `struct ipt_getinfo`.
const UNDERFLOW: usize = NAME + 4 + 5 * 4;
/// The sizes of `struct ipt_entry` and of `struct ip6t_entry`.
const ENTRY: usize = 112;
const ENTRY6: usize = 168;
/// The offset of the verdict in `struct xt_standard_target`.
const VERDICT: usize = 32;
/// The verdict DROP in a table.
const DROP: i32 = -1;

pub fn replace(program: &str, revision: &str, bits: &str) -> Result<()> {
    let mut table = Table::read(program)?;
    change(&mut table.entries, revision.parse()?, bits.parse()?)?;
    table.replace(0)
}

pub fn replace_stale(program: &str) -> Result<()> {
    let mut table = Table::read(program)?;
    // Slot 0 carries the chain PROMISC. The underflow is the rule that stands for the policy.
    let entry = if program == "iptables" { ENTRY } else { ENTRY6 };
    let at = number(&table.info[UNDERFLOW..]) as usize + entry + VERDICT;
    table.entries[at..at + 4].copy_from_slice(&DROP.to_ne_bytes());
    table.replace(1)
}

/// A table filter as it was read.
struct Table {
    socket: OwnedFd,
    level: i32,
    /// `struct ipt_getinfo`
    info: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    fn read(program: &str) -> Result<Self> {
        let (family, level) = match program {
            "iptables" => (AddressFamily::INET, libc::SOL_IP),
            "ip6tables" => (AddressFamily::INET6, libc::SOL_IPV6),
            _ => bail!("unknown program {program}"),
        };
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
        let mut info = name(NAME + HOOKS + 8);
        get(&socket, level, GET_INFO, &mut info).context("GET_INFO")?;
        let size = number(&info[NAME + HOOKS + 4..]);
        let mut entries = name(ENTRIES + size as usize);
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        get(&socket, level, GET_ENTRIES, &mut entries).context("GET_ENTRIES")?;
        Ok(Self { socket, level, info, entries: entries.split_off(ENTRIES) })
    }

    /// Replaces the table. Asks for `more` counters than the table has.
    fn replace(&self, more: u32) -> Result<()> {
        let hooks = &self.info[NAME..NAME + HOOKS];
        let count = number(&self.info[NAME + HOOKS..]);
        let mut counters = vec![0u8; (count + more) as usize * COUNTERS];
        // `struct ipt_replace`.
        let mut table = name(NAME);
        table.extend_from_slice(&hooks[..4]);
        table.extend(count.to_ne_bytes());
        table.extend(u32::try_from(self.entries.len())?.to_ne_bytes());
        table.extend_from_slice(&hooks[4..]);
        table.extend((count + more).to_ne_bytes());
        table.extend(counters.as_mut_ptr().expose_provenance().to_ne_bytes());
        table.extend_from_slice(&self.entries);
        let (socket, length) = (self.socket.as_raw_fd(), table.len() as u32);
        // SAFETY: `table` is valid for its length. The pointer in it is to `counters`, which has
        // room for as many counters as the table says.
        let result = unsafe { libc::setsockopt(socket, self.level, SET_REPLACE, table.as_ptr().cast(), length) };
        match result {
            0 => println!("ok"),
            _ => println!("errno {}", io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
        Ok(())
    }
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
