// SPDX-License-Identifier: GPL-2.0-only
//! Programs in eBPF: `bpf attach DEVICE PROGRAM [TYPE ENTRIES KEY COLUMNS]` and `bpf sum`, with
//! bpf(2): <https://man7.org/linux/man-pages/man2/bpf.2.html>
//!
//! The packages of a guest have no loader for such programs. This one needs little, because the
//! programs are simple. PROGRAM has the instructions of one program, and a program uses at most one
//! map. A key of the map has KEY bytes, and a value has COLUMNS 64-bit numbers on each CPU.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

// The numbers of <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>.
const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const MAP_GET_NEXT_ID: i32 = 12;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const MAP_LOOKUP_BATCH: i32 = 24;
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const LRU_PERCPU_HASH: u32 = 10;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;

/// The size of an instruction.
const INSTRUCTION: usize = 8;
/// The instruction that loads a 64-bit number. It takes the space of two:
/// <https://docs.kernel.org/bpf/standardization/instruction-set.html#bit-immediate-instructions>
const LOAD_64: u8 = 0x18;
/// The bits in its second byte which say that the number is the descriptor of a map.
const IS_MAP: u8 = 1 << 4;
/// The space for the messages of the verifier.
const LOG: usize = 1 << 20;
const LICENCE: &CStr = c"GPL";

/// The arguments of `MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
struct Map {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The start of what `OBJ_GET_INFO_BY_FD` says about a map.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The arguments of `PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The arguments of `PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// The arguments of `MAP_GET_NEXT_ID` and `MAP_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct Id {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The arguments of `OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The arguments of `MAP_LOOKUP_BATCH`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The system call. It returns a descriptor or 0.
///
/// # Safety
/// `A` is the structure of the command, and its addresses are those of memory that the command may
/// read or write, of the sizes that the structure says.
unsafe fn bpf<A>(command: i32, attributes: &mut A) -> io::Result<i32> {
    let size = size_of::<A>();
    // SAFETY: `attributes` has the given size, and the caller ensures that its addresses are valid.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Like [`bpf`], for a command that returns a new descriptor.
///
/// # Safety
/// As for [`bpf`].
unsafe fn bpf_fd<A>(command: i32, attributes: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller ensures what `bpf` requires, and that the descriptor is a new one.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(command, attributes)?)) }
}

/// A descriptor in a structure.
fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// An address in a structure, of memory that the kernel reads or writes.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// `bpf attach DEVICE PROGRAM [TYPE ENTRIES KEY COLUMNS]`: loads a program and attaches it to the
/// ingress of a device. The kernel keeps the program and its map as long as the device.
pub fn attach(device: &str, program: &str, map: &[&str]) -> Result<()> {
    let mut program = fs::read(program)?;
    let map = match map {
        [] => None,
        [kind, numbers @ ..] => Some(create(kind, numbers)?),
    };
    if let Some(map) = &map {
        refer(&mut program, number(map))?;
    }
    let program = load(&program)?;
    let index = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?.trim().parse()?;
    let mut attach = Attach {
        target_ifindex: index,
        attach_bpf_fd: number(&program),
        attach_type: TCX_INGRESS,
        ..Attach::default()
    };
    // SAFETY: `Attach` is the structure of PROG_ATTACH, and it has no addresses.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.context("cannot attach the program")?;
    Ok(())
}

fn create(kind: &str, numbers: &[&str]) -> Result<OwnedFd> {
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<u32>, _>>()?;
    let &[entries, key, columns] = &numbers[..] else {
        bail!("a map has a number of entries, the size of a key, and a number of columns")
    };
    let kind = match kind {
        "hash" => PERCPU_HASH,
        "lru" => LRU_PERCPU_HASH,
        "array" => PERCPU_ARRAY,
        _ => bail!("unknown type of map: {kind}"),
    };
    let mut map = Map { kind, key_size: key, value_size: columns * 8, max_entries: entries };
    // SAFETY: `Map` is the structure of MAP_CREATE, and it has no addresses.
    unsafe { bpf_fd(MAP_CREATE, &mut map) }.context("cannot create the map")
}

/// Puts the map into the instructions that load its address. The compiler leaves 0 there. It loads
/// the number 0 with shorter instructions.
fn refer(program: &mut [u8], map: u32) -> Result<()> {
    const ZERO: &[u8] = &[0; 4];
    let mut references = 0;
    for first in (0..program.len()).step_by(INSTRUCTION) {
        let [low, high] = [first + 4, first + INSTRUCTION + 4].map(|number| number..number + 4);
        let is_reference =
            program[first] == LOAD_64 && program.get(low.clone()) == Some(ZERO) && program.get(high) == Some(ZERO);
        if is_reference {
            program[first + 1] |= IS_MAP;
            program[low].copy_from_slice(&map.to_ne_bytes());
            references += 1;
        }
    }
    ensure!(references > 0, "the program does not use the map");
    Ok(())
}

fn load(program: &[u8]) -> Result<OwnedFd> {
    let mut log = vec![0u8; LOG];
    let mut attributes = Load {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: (program.len() / INSTRUCTION).try_into()?,
        insns: address(program.as_ptr()),
        license: address(LICENCE.as_ptr()),
        expected_attach_type: TCX_INGRESS,
        ..Load::default()
    };
    // SAFETY: `Load` is the structure of PROG_LOAD. `program` has `insn_cnt` instructions, and the
    // licence ends with a zero.
    let loaded = unsafe { bpf_fd(PROG_LOAD, &mut attributes) };
    let Err(error) = loaded else { return Ok(loaded?) };
    // Ask again for the reason.
    attributes.log_level = 1;
    attributes.log_size = LOG as u32;
    attributes.log_buf = address(log.as_mut_ptr());
    // SAFETY: as before, and the kernel may write `LOG` bytes to `log`.
    let _ = unsafe { bpf_fd(PROG_LOAD, &mut attributes) };
    let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
    Err(error).with_context(|| format!("cannot load the program: {log}"))
}

/// `bpf sum`: prints for the only map the number of its values that are not 0, and the sum of each
/// column over all values and CPUs.
pub fn sum() -> Result<()> {
    let mut id = Id::default();
    // SAFETY: `Id` is the structure of both commands, and it has no addresses.
    let map = unsafe {
        bpf(MAP_GET_NEXT_ID, &mut id).context("there is no map")?;
        bpf_fd(MAP_GET_FD_BY_ID, &mut Id { start_id: id.next_id, ..Id::default() })?
    };
    let mut about = MapInfo::default();
    let mut info = Info { bpf_fd: number(&map), info_len: size_of::<MapInfo>() as u32, info: address(&raw mut about) };
    // SAFETY: `Info` is the structure of the command, which writes at most `info_len` bytes to
    // `about`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut info)? };
    ensure!(about.value_size % 8 == 0, "a map of another program");
    let columns = about.value_size as usize / 8;
    let values = read(&map, &about, columns * possible_cpus()?)?;
    let mut sums = vec![0; columns];
    let mut rows = 0;
    for value in &values {
        rows += u64::from(value.iter().any(|number| *number != 0));
        value.chunks(columns).for_each(|cpu| sums.iter_mut().zip(cpu).for_each(|(sum, number)| *sum += number));
    }
    let sums: Vec<_> = sums.iter().map(u64::to_string).collect();
    println!("{rows} {}", sums.join(" "));
    Ok(())
}

/// All values of a map. Each has `length` numbers.
fn read(map: &OwnedFd, about: &MapInfo, length: usize) -> Result<Vec<Vec<u64>>> {
    let entries = about.max_entries as usize;
    let mut keys = vec![0u8; entries * about.key_size as usize];
    let mut values = vec![0u64; entries * length];
    let mut next = 0u64;
    let mut batch = Batch {
        out_batch: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: about.max_entries,
        map_fd: number(map),
        ..Batch::default()
    };
    // SAFETY: `Batch` is the structure of the command. `keys` and `values` have space for `count`
    // entries with the values of all CPUs. The position of the next batch has 4 bytes.
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) } {
        // The end of the map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => drop(other.context("cannot read the map")?),
    }
    Ok(values.chunks(length).take(batch.count as usize).map(<[u64]>::to_vec).collect())
}

/// The number of CPUs for which a map has values.
fn possible_cpus() -> Result<usize> {
    let range = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = range.trim().rsplit('-').next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| range.clone())? + 1)
}
