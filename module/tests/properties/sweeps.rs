// SPDX-License-Identifier: GPL-2.0

//! Sweeps of addresses that never come back, and hosts that change their addresses, over a long
//! time.

use crate::{comparison::accounting::CLOCK, support::few_under_miri, traffic::table};
use std::{collections::BTreeMap, env};
use xt_traffic_accounting::{
    accounting::{
        counters::Direction::Out,
        key::Key,
        table::{Size, Table},
    },
    host::{Collected, Heap},
};

const HZ: u64 = CLOCK.ticks_per_second;
const START: u64 = 1_000_000;
/// The number of rows of the table.
const ROWS: u32 = 1 << 16;
/// The number of hosts that talk.
const HOSTS: u32 = 1000;
/// Packets of the sweep in a second.
const RATE: u64 = 1_000_000;

/// The number of packets of a sweep.
fn packets() -> u64 {
    number("XT_TRAFFIC_SWEEP", 300_000)
}

/// The number in an environment variable. `few` if it is not set, because these tests are slow.
fn number(variable: &str, few: u32) -> u64 {
    let few = u64::from(few_under_miri(few));
    env::var(variable).map_or(few, |text| text.parse().expect(variable))
}

/// A table, and what was counted in it.
struct Counted<K> {
    table: Table<K, 3, Heap>,
    packets: u64,
}

impl<K: Key> Counted<K> {
    fn new(rows: u32) -> Self {
        Self {
            table: table(7, Size::hashed(rows)),
            packets: 0,
        }
    }

    fn count(&mut self, key: K, now: u64) {
        self.table.add(key, 0, Out, 1, now);
        self.packets += 1;
    }

    /// The counts of all rows. Panics if the sum over them and the row `*` is not exact.
    fn rows(&self) -> BTreeMap<K, u64> {
        let mut rows = Collected::default();
        let Ok(others) = self.table.read(&mut rows);
        let rows = rows
            .0
            .into_iter()
            .map(|row| (row.key, row.totals.total().0));
        let rows: BTreeMap<_, _> = rows.collect();
        assert_eq!(rows.values().sum::<u64>() + others.total().0, self.packets);
        rows
    }
}

/// Sweeps addresses that `swept` makes of random numbers, while hosts that `host` makes of their
/// numbers talk. Prints what happened.
fn sweep<K: Key>(name: &str, host: impl Fn(u32) -> K, swept: impl Fn(u64) -> K) {
    let mut counted = Counted::new(ROWS);
    let mut random = fastrand::Rng::with_seed(5);
    // Each host has talked twice before the sweep, and sends a packet a second during it.
    for now in [START, START + HZ] {
        (0..HOSTS).for_each(|n| counted.count(host(n), now));
    }
    let mut now = START;
    let mut said = 2;
    for n in 0..packets() {
        now = START + 2 * HZ + n * HZ / RATE;
        counted.count(swept(random.u64(..)), now);
        if n % (RATE / u64::from(HOSTS)) == 0 {
            let turn = (n / (RATE / u64::from(HOSTS))) as u32 % HOSTS;
            said += u64::from(turn == 0);
            counted.count(host(turn), now);
        }
        if n % (packets() / 4 + 1) == 0 {
            let rows = counted.rows();
            let lost = (0..HOSTS).filter(|n| !rows.contains_key(&host(*n))).count();
            assert_eq!(lost, 0, "hosts have lost their rows after {n} packets");
        }
    }
    let rows = counted.rows();
    assert!(
        rows[&host(0)] == said,
        "the first host has {} of {said}",
        rows[&host(0)]
    );
    // Hosts that begin after the sweep, and send a packet each tenth of a second, have rows.
    for tenth in 1..=10 {
        (HOSTS..2 * HOSTS).for_each(|n| counted.count(host(n), now + tenth * HZ / 10));
    }
    let rows = counted.rows();
    let new = (HOSTS..2 * HOSTS).filter(|n| rows.contains_key(&host(*n)));
    assert_eq!(new.count(), HOSTS as usize);
    let (recycled, overflows) = (counted.table.recycled(), counted.table.overflows());
    assert!(u64::from(ROWS) > packets() || recycled > 0);
    println!(
        "{name}: {} packets, {} rows, {recycled} recycled, {overflows} overflows, {} bytes",
        counted.packets,
        rows.len(),
        counted.table.memory()
    );
}

#[test]
fn hosts_that_talk_keep_their_rows_during_a_sweep_of_ipv6() {
    let base = 0x2001_0db8u128 << 96;
    sweep(
        "2001:db8::/32",
        |n| base | u128::from(n),
        |random| base | 1 << 95 | u128::from(random),
    );
}

#[test]
fn hosts_that_talk_keep_their_rows_during_a_sweep_of_ipv4() {
    sweep(
        "10.0.0.0/8",
        |n| 0x0a00_0000 | n,
        |random| 0x0a80_0000 | random as u32 & 0x7f_ffff,
    );
}

/// Hosts that take another address each day. A tenth of them talks all day long.
#[test]
fn each_day_the_busy_hosts_have_rows() {
    const HOSTS: u32 = 10_000;
    const BUSY: u32 = HOSTS / 10;
    let days = number("XT_TRAFFIC_DAYS", 20);
    let mut counted = Counted::<u128>::new(1 << 14);
    for day in 0..days {
        let address = |n: u32| u128::from(day) << 64 | u128::from(n);
        for hour in 0..24 {
            let now = START + (day * 24 + hour) * 3600 * HZ;
            // All hosts send two packets in an hour of their own, busy ones two in each.
            for n in 0..HOSTS {
                if n < BUSY || u64::from(n % 24) == hour {
                    counted.count(address(n), now + u64::from(n) * HZ / 100);
                    counted.count(address(n), now + u64::from(n) * HZ / 100 + HZ);
                }
            }
        }
        let rows = counted.rows();
        let busy = (0..BUSY)
            .filter(|n| rows.contains_key(&address(*n)))
            .count();
        assert!(
            busy == BUSY as usize,
            "day {day}: {busy} busy hosts have rows"
        );
    }
    println!(
        "{days} days: {} rows recycled, {} overflows, {} bytes",
        counted.table.recycled(),
        counted.table.overflows(),
        counted.table.memory()
    );
}
