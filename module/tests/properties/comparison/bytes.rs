// SPDX-License-Identifier: GPL-2.0

//! Decodes scenarios from any bytes, for the fuzzer.
//!
//! The first byte selects the family. The rule follows: three bytes and an address (see
//! [`scenario`]). The rest are packets, each after two bytes that say how it arrives (see
//! [`arrival`]). A packet is either new, or an earlier one with one byte changed, in either
//! direction. Missing bytes at the end are zero, so every input is a scenario.

use super::{accounting::CLOCK, receive::repair, Arrival, Modelled, Scenario};
use xt_traffic_accounting::accounting::{flow::Ticks, network::Internal, params::Counts};

/// Times between packets: the lifetimes of flows, and those times plus or minus one tick.
const GAPS: [Ticks; 8] = {
    let second = CLOCK.ticks_per_second;
    [
        0,
        1,
        30 * second - 1,
        30 * second,
        120 * second,
        120 * second + 1,
        600 * second - 1,
        600 * second,
    ]
};

/// The largest number of packets. More of them do not reach other code.
const MAX_PACKETS: usize = 64;

// The first byte of an arrival: the index of the gap in the lowest three bits, then these flags and
// the number of the CPU.

/// The packet is an earlier one with one byte changed.
const AGAIN: u8 = 1 << 3;
/// The earlier packet is sent in the other direction.
const BACK: u8 = 1 << 4;
/// The shift of the two bits that are the number of the CPU.
const CPU: u32 = 5;
/// The lengths and checksums of the packet are not corrected.
const RAW: u8 = 1 << 7;

/// Decodes an input and checks its scenario.
pub fn check(input: &[u8]) {
    let mut input = Input(input);
    if input.byte() & 1 == 0 {
        scenario::<u32>(&mut input).check();
    } else {
        scenario::<u128>(&mut input).check();
    }
}

/// Encodes packets as an input. They arrive at the same time at one CPU after the other, and the
/// rule counts everything.
pub fn input_of<'a>(six: bool, packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut input = vec![u8::from(six), 7 << 2, 0, 0];
    input.extend(if six { &[0; 16][..] } else { &[0; 4] });
    for (number, packet) in packets.into_iter().enumerate() {
        let length = packet.len().min(0xffff) as u16;
        input.extend([RAW | (number as u8 & 3) << CPU, 0xff, 0xff]);
        input.extend(length.to_be_bytes());
        input.extend(&packet[..length.into()]);
    }
    input
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.padded(N)
    }

    /// Takes `count` bytes into the start of an array.
    fn padded<const N: usize>(&mut self, count: usize) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(count);
        array[..taken.len()].copy_from_slice(&taken);
        array
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

fn scenario<A: Modelled>(input: &mut Input<'_>) -> Scenario<A> {
    let [what, length, size] = input.array();
    let length = u32::from(length) % (A::BITS + 1);
    let base = input.padded(A::BITS as usize / 8);
    let mut scenario = Scenario {
        base: A::address(base) & A::mask(length),
        length,
        prefix: prefix(what >> 5 | (size & 0x38), length, A::BITS),
        internal: [
            Internal::Any,
            Internal::Exclude,
            Internal::Only,
            Internal::Any,
        ][usize::from(what & 3)],
        counts: counts(what >> 2),
        hash_size: 1 << (size & 7),
        cpus: usize::from(size >> 6) + 1,
        arrivals: vec![],
    };
    while !input.0.is_empty() && scenario.arrivals.len() < MAX_PACKETS {
        let next = arrival::<A>(input, &scenario.arrivals);
        scenario.arrivals.push(next);
    }
    scenario
}

/// Decodes the length of `--prefix`, which is not given if no bit is set: from `length` for 1 to
/// `bits` for 63.
fn prefix(number: u8, length: u32, bits: u32) -> Option<u32> {
    let steps = u32::from(number).checked_sub(1)?;
    Some(length + steps * (bits - length) / 62)
}

/// Decodes what to count: bytes if no bit is set.
fn counts(bits: u8) -> Counts {
    let any = bits & 7 != 0;
    Counts {
        traffic: bits & 1 != 0 || !any,
        ipconn: bits & 2 != 0,
        portconn: bits & 4 != 0,
    }
}

fn arrival<A: Modelled>(input: &mut Input<'_>, before: &[Arrival]) -> Arrival {
    let how = input.byte();
    let linear = usize::from(input.byte());
    let mut bytes = match before.len() {
        earlier @ 1.. if how & AGAIN != 0 => {
            let [which, place, change] = input.array();
            let bytes = &before[usize::from(which) % earlier].bytes;
            changed(
                if how & BACK == 0 {
                    bytes.clone()
                } else {
                    reversed::<A>(bytes)
                },
                place.into(),
                change,
            )
        }
        _ => new(input),
    };
    if how & RAW == 0 {
        bytes.resize(bytes.len().max(A::HEADER), 0);
        let version = if A::BITS == 32 { 0x40 } else { 0x60 };
        bytes[0] = version | bytes[0] & 0x0f;
        repair(&mut bytes);
    }
    Arrival {
        gap: GAPS[usize::from(how & 7)],
        cpu: usize::from(how >> CPU & 3),
        linear,
        bytes,
    }
}

fn new(input: &mut Input<'_>) -> Vec<u8> {
    let length = match input.byte() {
        0xff => u16::from_be_bytes(input.array()).into(),
        short => short.into(),
    };
    input.take(length)
}

/// A packet with some bits of one byte changed.
fn changed(mut bytes: Vec<u8>, place: usize, change: u8) -> Vec<u8> {
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= change;
    }
    bytes
}

/// A packet with source and destination swapped. The first four bytes after the fixed header are
/// swapped too, which are the ports if there are no options and extension headers.
fn reversed<A: Modelled>(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let address = A::BITS as usize / 8;
    for (end, size) in [(A::HEADER, address), (A::HEADER + 4, 2)] {
        if let Some(ends) = bytes.get_mut(end - 2 * size..end) {
            let (source, destination) = ends.split_at_mut(size);
            source.swap_with_slice(destination);
        }
    }
    bytes
}
