// SPDX-License-Identifier: GPL-2.0

//! Whatever user space sends is refused, or is a rule that prints as one.

use crate::{comparison::Modelled, support::check};
use proptest::{array::uniform32, prelude::*, sample::select};
use xt_traffic_accounting::{
    abi::{XtTrafficMtinfo, MAX_HASH_SIZE},
    accounting::{
        network::Internal,
        params::{Params, Refusal},
    },
};

/// CPUs of the accounting: enough of them to bound the rows of each.
const CPUS: u32 = 100;

/// A family with parameters.
trait Ruled: Modelled {
    /// Reads what `Display` has written.
    fn read(text: &str) -> Self;
}

impl Ruled for u32 {
    fn read(text: &str) -> Self {
        text.parse::<core::net::Ipv4Addr>().unwrap().into()
    }
}

impl Ruled for u128 {
    fn read(text: &str) -> Self {
        text.parse::<core::net::Ipv6Addr>().unwrap().into()
    }
}

fn field<A: Ruled>(address: A) -> [u8; 16] {
    let mut field = [0; 16];
    let [low, high] = address.to_words();
    let wide = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    let size = A::BITS as usize / 8;
    field[..size].copy_from_slice(&wide[16 - size..]);
    field
}

fn padded(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn name() -> impl Strategy<Value = [u8; 32]> {
    let letters = select(b"abzABZ059_-".to_vec());
    proptest::collection::vec(letters, 1..32)
        .prop_map(|name| padded(core::str::from_utf8(&name).unwrap()))
}

/// A rule that is right in everything.
fn good<A: Ruled>() -> impl Strategy<Value = XtTrafficMtinfo> {
    let hash_size = prop_oneof![Just(0), Just(1), Just(MAX_HASH_SIZE), 0..=MAX_HASH_SIZE];
    let rest = (name(), 1..8u8, 0..3u8, 0..2u8, hash_size);
    (any::<[u8; 16]>(), 0..=A::BITS, rest).prop_map(
        |(base, length, (name, count, internal, clear_on_read, hash_size))| XtTrafficMtinfo {
            netbase: field(A::address(base) & A::mask(length)),
            netmask: field(A::mask(length)),
            name,
            count,
            internal,
            clear_on_read,
            reserved: 0,
            hash_size,
        },
    )
}

/// A rule of which one part may be anything.
fn perhaps_bad<A: Ruled>() -> impl Strategy<Value = XtTrafficMtinfo> {
    (good::<A>(), 0..9u8, uniform32(any::<u8>()), any::<u32>()).prop_map(
        |(mut info, part, bytes, number)| {
            let (byte, place) = (bytes[0], usize::from(bytes[1]) % 16);
            match part {
                0 => info.netbase[place] ^= byte,
                1 => info.netmask[place] ^= byte,
                2 => info.name = bytes,
                // The neighbours of what is allowed, and what a path or a line must not have.
                3 => info.name[place] = b"./:@[`{ ,^\n\0\xe9"[usize::from(byte) % 13],
                4 => info.count = byte,
                5 => info.internal = byte % 6,
                6 => info.clear_on_read = byte % 4,
                7 => info.reserved = byte % 4,
                _ => info.hash_size = number % (2 * MAX_HASH_SIZE),
            }
            info
        },
    )
}

fn has_good_name(info: &XtTrafficMtinfo) -> bool {
    let text = String::from_utf8_lossy(&info.name);
    let name = text.trim_end_matches('\0');
    let good = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-');
    (1..=31).contains(&name.len()) && name.chars().all(good)
}

fn has_good_network<A: Ruled>(info: &XtTrafficMtinfo) -> bool {
    (0..=A::BITS).any(|length| {
        let mask = field(A::mask(length));
        let inside = info
            .netbase
            .iter()
            .zip(mask)
            .all(|(base, mask)| base & !mask == 0);
        info.netmask == mask && inside
    })
}

/// The parts of a rule that are wrong, by the contract.
fn faults<A: Ruled>(info: &XtTrafficMtinfo) -> Vec<Refusal> {
    let checks = [
        (has_good_name(info), Refusal::Name),
        (has_good_network::<A>(info), Refusal::Network),
        ((1..8).contains(&info.count), Refusal::Count),
        (info.internal <= 2, Refusal::Internal),
        (info.clear_on_read <= 1, Refusal::ClearOnRead),
        (info.hash_size <= 1 << 24, Refusal::HashSize),
        (info.reserved == 0, Refusal::Reserved),
    ];
    checks
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, refusal)| refusal)
        .collect()
}

/// Reads the options that a rule prints. Its name is not among them.
fn parse<A: Ruled>(text: &str, name: [u8; 32]) -> XtTrafficMtinfo {
    let mut info = XtTrafficMtinfo {
        netbase: [0; 16],
        netmask: [0; 16],
        name,
        count: 0,
        internal: 0,
        clear_on_read: 0,
        reserved: 0,
        hash_size: 0,
    };
    let (mut words, mut inverted) = (text.split(' '), false);
    while let Some(word) = words.next() {
        match word {
            "--traffic" => info.count |= 1,
            "--ipconn" => info.count |= 2,
            "--portconn" => info.count |= 4,
            "--net" => {
                let (base, length) = words.next().unwrap().split_once('/').unwrap();
                info.netbase = field(A::read(base));
                info.netmask = field(A::mask(length.parse().unwrap()));
            }
            "--hashsize" => info.hash_size = words.next().unwrap().parse().unwrap(),
            "--clearonread" => info.clear_on_read = 1,
            "!" => inverted = true,
            "--nointernal" => info.internal = if inverted { 2 } else { 1 },
            word => panic!("what is {word:?} in {text:?}?"),
        }
    }
    info
}

fn checked<A: Ruled>(info: XtTrafficMtinfo) {
    let faults = faults::<A>(&info);
    let params = match Params::<A>::from_info(&info, CPUS) {
        Ok(params) => params,
        Err(refusal) => return assert!(faults.contains(&refusal), "{refusal:?}, but {faults:?}"),
    };
    assert_eq!(faults, []);
    assert_eq!(padded(params.name.as_str()), info.name);
    assert_eq!(params.clear_on_read, info.clear_on_read == 1);
    let internal = [Internal::Any, Internal::Exclude, Internal::Only][usize::from(info.internal)];
    assert_eq!(params.network.internal(), internal);
    let again = parse::<A>(&params.to_string(), info.name);
    assert_eq!(Params::from_info(&again, CPUS), Ok(params), "{params}");
    let bits = [
        params.counts.traffic,
        params.counts.ipconn,
        params.counts.portconn,
    ];
    assert_eq!(
        bits.map(u8::from),
        [info.count & 1, info.count >> 1 & 1, info.count >> 2]
    );
    assert_eq!((again.netbase, again.netmask), (info.netbase, info.netmask));
    sizes(&info, &params);
}

/// A table has a bound, and never more rows than there are addresses.
fn sizes<A: Ruled>(info: &XtTrafficMtinfo, params: &Params<A>) {
    let size = params.sizes.addresses;
    let all = u128::from(size.rows * CPUS);
    assert!(all <= 1 << 25);
    assert_eq!(
        u128::from(params.delivered(CPUS).rows),
        all.min(params.network.size())
    );
    assert!(u128::from(size.rows) <= params.network.size() && size.rows >= 1);
    assert!(
        size.rows <= (1 << 20).max(info.hash_size.next_power_of_two())
            && size.buckets <= MAX_HASH_SIZE
    );
    if info.hash_size != 0 {
        assert!(
            size.buckets.is_power_of_two()
                && (info.hash_size..2 * info.hash_size).contains(&size.buckets)
        );
    }
}

/// Nothing but what is wrong is refused, and what is taken restores to itself.
#[test]
fn rules_are_refused_or_print() {
    check(1500, perhaps_bad::<u32>(), checked::<u32>);
    check(1500, perhaps_bad::<u128>(), checked::<u128>);
    check(400, good::<u32>(), |info| {
        assert_eq!(faults::<u32>(&info), [])
    });
}

/// No bytes at all make it panic.
#[test]
fn any_bytes_are_refused_or_print() {
    let bytes = (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        uniform32(any::<u8>()),
        any::<[u8; 4]>(),
        any::<u32>(),
    );
    check(
        500,
        bytes,
        |(netbase, netmask, name, [count, internal, clear_on_read, reserved], hash_size)| {
            let info = XtTrafficMtinfo {
                netbase,
                netmask,
                name,
                count,
                internal,
                clear_on_read,
                reserved,
                hash_size,
            };
            checked::<u32>(info);
            checked::<u128>(info);
        },
    );
}
