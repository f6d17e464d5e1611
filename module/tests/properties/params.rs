// SPDX-License-Identifier: GPL-2.0

//! Properties of rule parameters: they are refused if invalid, and otherwise print as the options
//! that they were made from.

use crate::{comparison::Modelled, support::check};
use core::net::IpAddr;
use proptest::{array::uniform32, collection::vec, option, prelude::*, sample::select};
use xt_traffic_accounting::{
    abi::{XtTrafficMtinfo, MAX_HASH_SIZE, PREFIX_REVISION, REVISIONS},
    accounting::{
        network::Internal,
        params::{Params, Refusal},
    },
};

/// The number of CPUs. It is large enough to limit the rows on each CPU.
const CPUS: u32 = 100;

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

fn field(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => padded(&address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Parses an address of this family.
fn address<A: Modelled>(text: &str) -> IpAddr {
    let address: IpAddr = text.parse().unwrap();
    assert_eq!(address.is_ipv6(), A::BITS == 128, "{text}");
    address
}

fn mask<A: Modelled>(length: u32) -> [u8; 16] {
    field(A::mask(length).ip())
}

fn name() -> impl Strategy<Value = [u8; 32]> {
    vec(select(b"abzABZ059_-".to_vec()), 1..32).prop_map(|name| padded(&name))
}

/// Any revision.
fn revision() -> impl Strategy<Value = u8> {
    select(REVISIONS.to_vec())
}

/// The parameters of a valid rule of revision 1. Half of the rules have no prefix, so they are also
/// valid in revision 0.
fn valid<A: Modelled>() -> impl Strategy<Value = XtTrafficMtinfo> {
    let hash_size = prop_oneof![Just(0), Just(1), Just(MAX_HASH_SIZE), 0..=MAX_HASH_SIZE];
    let rest = (name(), 1..8u8, 0..3u8, 0..2u8, hash_size);
    (any::<[u8; 16]>(), 0..=A::BITS, prefix::<A>(), rest).prop_map(
        |(base, length, prefix, (name, count, internal, clear_on_read, hash_size))| {
            XtTrafficMtinfo {
                netbase: field((A::address(base) & A::mask(length)).ip()),
                netmask: mask::<A>(length),
                name,
                count,
                internal,
                clear_on_read,
                shared_bits: prefix.map_or(0, |prefix| A::BITS - prefix.max(length)) as u8,
                hash_size,
            }
        },
    )
}

/// The length of `--prefix`, if it is given.
fn prefix<A: Modelled>() -> impl Strategy<Value = Option<u32>> {
    option::of(0..=A::BITS)
}

/// The parameters of a rule in which one field may be invalid.
fn perhaps_invalid<A: Modelled>() -> impl Strategy<Value = XtTrafficMtinfo> {
    (valid::<A>(), 0..9u8, uniform32(any::<u8>()), any::<u32>()).prop_map(
        |(mut info, part, bytes, number)| {
            let (byte, place) = (bytes[0], usize::from(bytes[1]) % 16);
            match part {
                0 => info.netbase[place] ^= byte,
                1 => info.netmask[place] ^= byte,
                2 => info.name = bytes,
                // Characters next to the valid ones, and those that are special in paths and lines.
                3 => info.name[place] = b"./:@[`{ ,^\n\0\xe9"[usize::from(byte) % 13],
                4 => info.count = byte,
                5 => info.internal = byte % 6,
                6 => info.clear_on_read = byte % 4,
                7 => info.shared_bits = byte,
                _ => info.hash_size = number % (2 * MAX_HASH_SIZE),
            }
            info
        },
    )
}

fn has_valid_name(info: &XtTrafficMtinfo) -> bool {
    let text = String::from_utf8_lossy(&info.name);
    let name = text.trim_end_matches('\0');
    let good = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-');
    (1..=31).contains(&name.len()) && name.chars().all(good)
}

fn has_valid_network<A: Modelled>(info: &XtTrafficMtinfo) -> bool {
    (0..=A::BITS).any(|length| {
        let mask = mask::<A>(length);
        let inside = info
            .netbase
            .iter()
            .zip(mask)
            .all(|(base, mask)| base & !mask == 0);
        info.netmask == mask && inside
    })
}

/// Whether the prefix is at least as long as the network's, or the network is not valid.
fn has_valid_prefix<A: Modelled>(info: &XtTrafficMtinfo) -> bool {
    let length: u32 = info.netmask.iter().map(|byte| byte.count_ones()).sum();
    !has_valid_network::<A>(info) || u32::from(info.shared_bits) + length <= A::BITS
}

/// The invalid fields of a rule, as they are documented.
fn faults<A: Modelled>(revision: u8, info: &XtTrafficMtinfo) -> Vec<Refusal> {
    let may_have_prefix = revision >= PREFIX_REVISION;
    let checks = [
        (has_valid_name(info), Refusal::Name),
        (has_valid_network::<A>(info), Refusal::Network),
        ((1..8).contains(&info.count), Refusal::Count),
        (info.internal <= 2, Refusal::Internal),
        (info.clear_on_read <= 1, Refusal::ClearOnRead),
        (info.hash_size <= 1 << 24, Refusal::HashSize),
        (may_have_prefix || info.shared_bits == 0, Refusal::Reserved),
        (has_valid_prefix::<A>(info), Refusal::Prefix),
    ];
    checks
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, refusal)| refusal)
        .collect()
}

/// Parses the options that [`Params`] prints. They do not include the name.
fn parse<A: Modelled>(text: &str, name: [u8; 32]) -> XtTrafficMtinfo {
    let mut info = XtTrafficMtinfo {
        netbase: [0; 16],
        netmask: [0; 16],
        name,
        count: 0,
        internal: 0,
        clear_on_read: 0,
        shared_bits: 0,
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
                info.netbase = field(address::<A>(base));
                info.netmask = mask::<A>(length.parse().unwrap());
            }
            "--prefix" => {
                let length: u8 = words.next().unwrap().parse().unwrap();
                info.shared_bits = A::BITS as u8 - length;
            }
            "--hashsize" => info.hash_size = words.next().unwrap().parse().unwrap(),
            "--clearonread" => info.clear_on_read = 1,
            "!" => inverted = true,
            "--nointernal" => info.internal = if inverted { 2 } else { 1 },
            word => panic!("unknown option {word:?} in {text:?}"),
        }
    }
    info
}

fn check_params<A: Modelled>((revision, info): (u8, XtTrafficMtinfo)) {
    let faults = faults::<A>(revision, &info);
    let params = match Params::<A>::from_info(revision, &info, CPUS) {
        Ok(params) => params,
        Err(refusal) => {
            return assert!(
                faults.contains(&refusal),
                "{refusal:?} is not one of {faults:?}"
            )
        }
    };
    assert_eq!(faults, []);
    assert_eq!(padded(params.name.as_str().as_bytes()), info.name);
    assert_eq!(params.clear_on_read, info.clear_on_read == 1);
    let internal = [Internal::Any, Internal::Exclude, Internal::Only][usize::from(info.internal)];
    assert_eq!(params.network.internal(), internal);
    let again = parse::<A>(&params.to_string(), info.name);
    assert_eq!(
        Params::from_info(revision, &again, CPUS),
        Ok(params),
        "{params}"
    );
    let newest = Params::from_info(PREFIX_REVISION, &info, CPUS);
    assert_eq!(newest, Ok(params), "the revisions differ");
    let prefix = (info.shared_bits != 0).then(|| A::BITS - u32::from(info.shared_bits));
    assert_eq!(params.network.prefix(), prefix);
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
    check_sizes(&info, &params);
}

/// The number of rows is bounded, and never above the number of addresses or of networks with the
/// length of the prefix.
fn check_sizes<A: Modelled>(info: &XtTrafficMtinfo, params: &Params<A>) {
    let size = params.sizes.addresses;
    let hash_size = params.sizes.hash_size;
    assert!(u128::from(size.rows * CPUS) <= 1 << 25);
    assert!(u128::from(size.rows) <= params.network.rows() && size.rows >= 1);
    assert!(
        size.rows <= (1 << 20).max(info.hash_size.next_power_of_two())
            && hash_size <= MAX_HASH_SIZE
    );
    if info.hash_size != 0 {
        assert!(
            hash_size.is_power_of_two()
                && (info.hash_size..2 * info.hash_size).contains(&hash_size)
        );
    }
}

/// A refusal names an invalid field. Valid parameters survive printing and parsing.
#[test]
fn rules_are_refused_if_and_only_if_invalid() {
    check(
        1500,
        (revision(), perhaps_invalid::<u32>()),
        check_params::<u32>,
    );
    check(
        1500,
        (revision(), perhaps_invalid::<u128>()),
        check_params::<u128>,
    );
    check(400, valid::<u32>(), |info| {
        assert_eq!(faults::<u32>(PREFIX_REVISION, &info), []);
    });
}

#[test]
fn any_bytes_are_refused_if_and_only_if_invalid() {
    let bytes = (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        uniform32(any::<u8>()),
        any::<[u8; 4]>(),
        (revision(), any::<u32>()),
    );
    check(
        500,
        bytes,
        |(netbase, netmask, name, [count, internal, clear_on_read, shared_bits], rest)| {
            let (revision, hash_size) = rest;
            let info = XtTrafficMtinfo {
                netbase,
                netmask,
                name,
                count,
                internal,
                clear_on_read,
                shared_bits,
                hash_size,
            };
            check_params::<u32>((revision, info));
            check_params::<u128>((revision, info));
        },
    );
}
