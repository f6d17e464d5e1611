// SPDX-License-Identifier: GPL-2.0-only
//! Mirror devices in a guest.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::guest::Guest;

/// The name of the mirror device.
pub const DEVICE: &str = "mirror0";

/// Adds a mirror device with the name [`DEVICE`] for `eth0` and brings it up.
///
/// # Errors
/// When the guest refuses it.
pub fn add_mirror(guest: &mut Guest) -> Result<()> {
    guest.must(&format!("ip link add link eth0 name {DEVICE} type mirror && ip link set {DEVICE} up")).map(drop)
}

/// The statistics of a mirror device that are not 0.
///
/// # Errors
/// When the guest refuses it.
pub fn statistics(guest: &mut Guest, device: &str) -> Result<BTreeMap<String, u64>> {
    let text = guest.must(&format!("ethtool -S {device}"))?;
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let numbers = lines.map(|(name, value)| Ok((name.to_owned(), value.parse().context("not a number")?)));
    Ok(numbers.collect::<Result<BTreeMap<_, _>>>()?.into_iter().filter(|(_, value)| *value != 0).collect())
}
