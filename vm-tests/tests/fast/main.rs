// SPDX-License-Identifier: GPL-2.0-only
//! Tests with millions of packets, in guests with a kernel without debug options. A million packets
//! take two minutes with all debug options, and five seconds without.

mod memory;
mod sweep;

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::Generator;
use traffic_model::model::{self, Rule};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::{Backend, TABLES};
use vm_tests::mirror::{MIRROR, expected_statistics, open_mirror, statistics};
use vm_tests::pktgen::{generate, parse_sum, sum};
use vm_tests::{cells, counters, guest_test, iptables, open_and_send, send_until_read, set_memory, stat, table};

/// The number of rows on each CPU for which a table of bytes has room after [`limit_rows`].
const ROWS: u64 = 1 << 17;

/// The largest number of bytes that a row of bytes takes.
const ROW: u64 = 102;
/// The bytes for each row in the list of what was delivered of an IPv4 table.
const LISTED: u64 = 112;

/// Sets the memory for all tables. The first one gets a third of it, for two CPUs. `each` is what a
/// row takes.
fn limit_rows(guest: &mut Guest, each: u64) -> Result<()> {
    set_memory(guest, &(ROWS * each * 3 * 2).to_string())
}

/// The number of rounds of a test. `XT_TRAFFIC_ROUNDS` changes it for longer runs.
fn rounds(few: u32) -> Result<u32> {
    env::var("XT_TRAFFIC_ROUNDS").map_or(Ok(few), |text| text.parse().context("XT_TRAFFIC_ROUNDS"))
}

guest_test!(a_million_packets, in_guest_briefly, |guest| {
    const EACH: u64 = 500_000;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --ipconn --net 10.0.0.0/8 --name t")?;
    let options = ["pkt_size 114", "src_min 10.0.0.1", "src_max 10.0.1.0", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
    generate(guest, 2, EACH, &options)?;
    let bytes = 2 * EACH * 100;
    let (rows, sums, others) = sum(guest, "t")?;
    ensure!(rows == 256 && others.is_empty(), "{rows} rows");
    ensure!(sums == [bytes, 0, 0, 0, bytes, 0, 0, 0], "{sums:?}");
    ensure!(counters(guest, "iptables", Backend::Nft, "PROMISC")? == [(2 * EACH, bytes)]);
});

guest_test!(a_million_valid_and_invalid_frames, in_guest_briefly, |guest| {
    const FRAMES: usize = 1_000_000;
    let v4 = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all";
    let v6 = "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6";
    let addresses: Vec<IpAddr> = (0..200).map(|n| if n % 2 == 0 { [10, 0, 0, n].into() } else { ipv6(n) }).collect();
    let frames = || Generator::new(11, mac_of_port(0), addresses.clone()).take(FRAMES);
    iptables(guest, Backend::Nft, v4)?;
    iptables(guest, Backend::Nft, v6)?;
    open_and_send(guest, 0, frames())?;
    for command in [v4, v6] {
        let (name, rule) = Rule::parse(command)?.context("a rule")?;
        for (file, want) in model::texts(&name, &rule, mac_of_port(0), frames()) {
            let got = table(guest, &file)?;
            match file.contains('.') {
                true => same_connections(&file, &got, &want, stat(guest, "forgotten_flows")?)?,
                false => model::same_table(&file, &got, &want)?,
            }
        }
    }
});

guest_test!(a_million_encapsulated_frames, in_guest_briefly, |guest| {
    const FRAMES: usize = 1_000_000;
    let addresses: Vec<IpAddr> = (0..200).map(|n| if n % 2 == 0 { [10, 0, 0, n].into() } else { ipv6(n) }).collect();
    let frames = || Generator::new(12, mac_of_port(0), addresses.clone()).encapsulated().take(FRAMES);
    let rules = [
        "iptables -A PROMISC -i mirror0 -m traffic --traffic --net 0.0.0.0/0 --name all",
        "ip6tables -A PROMISC -i mirror0 -m traffic --traffic --net ::/0 --name all6",
    ];
    for rule in rules {
        iptables(guest, Backend::Nft, rule)?;
    }
    open_mirror(guest)?;
    guest.send(0, frames())?;
    for (name, rule) in [("all", Rule::ALL_IPV4), ("all6", Rule::ALL_IPV6)] {
        for (file, want) in model::texts(name, &rule, MIRROR, frames()) {
            model::same_table(&file, &table(guest, &file)?, &want)?;
        }
    }
    let (got, want) = (statistics(guest, "mirror0")?, expected_statistics(frames(), false));
    ensure!(got == want, "the device counts\n{got:#?}\nthe model\n{want:#?}");
});

/// Compares tables of connections with the model's. The model forgets no flow and does not know the
/// arrival times. Sending takes longer than the timeout of a UDP flow, so the kernel can count more
/// UDP connections. For each forgotten flow it can count one more TCP or OTHER connection, at both
/// addresses.
fn same_connections(file: &str, got: &str, want: &str, forgotten: u64) -> Result<()> {
    const TCP_AND_OTHER: [usize; 4] = [2, 3, 8, 9];
    const ICMP: [usize; 2] = [6, 7];
    ensure!(got.lines().count() == want.lines().count(), "{file}: the number of rows differs");
    let mut excess = 0;
    for (got, want) in got.lines().zip(want.lines()).skip(1) {
        let difference = || format!("{file}: the kernel has\n{got}\nthe model has\n{want}");
        let (got, want) = (cells(got)?, cells(want)?);
        ensure!(got.0 == want.0 && ICMP.iter().all(|&column| got.1[column] == want.1[column]), difference());
        for (column, (got, want)) in got.1.iter().zip(&want.1).enumerate() {
            let more = got.checked_sub(*want).with_context(difference)?;
            excess += if TCP_AND_OTHER.contains(&column) { more } else { 0 };
        }
    }
    ensure!(excess <= 2 * forgotten, "{file}: {excess} more than expected, but only {forgotten} flows were forgotten");
    Ok(())
}

fn ipv6(host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into()
}

guest_test!(more_addresses_than_rows, in_guest_briefly, |guest| {
    // Each packet has two new addresses.
    const PACKETS: u64 = ROWS / 2 + 20_000;
    limit_rows(guest, ROW)?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
    let options =
        ["pkt_size 60", "src_min 10.0.0.0", "src_max 10.63.255.255", "dst_min 10.64.0.0", "dst_max 10.127.255.255"];
    generate(guest, 1, PACKETS, &options)?;
    let bytes = PACKETS * 46;
    let (rows, sums, others) = sum(guest, "t")?;
    ensure!(rows == ROWS, "{rows} rows");
    ensure!(sums == [bytes, bytes, 0, 0, bytes, bytes, 0, 0], "{sums:?} instead of {bytes} each way");
    ensure!(others == [20_000 * 46, 20_000 * 46, 0, 0, 20_000 * 46, 20_000 * 46, 0, 0], "{others:?}");
    ensure!(counters(guest, "iptables", Backend::Nft, "PROMISC")? == [(PACKETS, bytes)]);
    ensure!(stat(guest, "t.recycled")? == 40_000 && stat(guest, "recycled")? == 40_000);
    ensure!(stat(guest, "overflows")? == 0);
});

guest_test!(more_ipv6_addresses_than_rows, in_guest_briefly, |guest| {
    const MORE: u64 = 20_000;
    const PACKETS: u64 = ROWS + MORE;
    limit_rows(guest, ROW)?;
    iptables(guest, Backend::Nft, "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/64 --name t")?;
    // Random destinations, which practically never repeat.
    let (min, max) = ("dst6_min 2001:db8::", "dst6_max 2001:db8::ffff:ffff:ffff:ffff");
    generate(guest, 1, PACKETS, &["pkt_size 114", "src6 2001:db8:1::1", min, max])?;
    let (rows, sums, others) = sum(guest, "t")?;
    ensure!(rows == ROWS, "{rows} rows");
    ensure!(sums == [0, PACKETS * 100, 0, 0, 0, PACKETS * 100, 0, 0], "{sums:?}");
    ensure!(others == [0, MORE * 100, 0, 0, 0, MORE * 100, 0, 0], "{others:?}");
    ensure!(counters(guest, "ip6tables", Backend::Nft, "PROMISC")? == [(PACKETS, PACKETS * 100)]);
    ensure!(stat(guest, "t.recycled")? == MORE && stat(guest, "t.overflows")? == 0);
});

// What was delivered of a table that is cleared by reading is charged to the cgroup of its rows. So
// this table is not kept small by a cgroup.
guest_test!(readers_that_clear_a_full_table_get_each_byte_once, in_guest_briefly, |guest| {
    const SWEPT: u64 = 300_000;
    /// Other readers. `agent/tools/reader.rs` lists them.
    const READERS: [&str; 5] = ["page", "killed", "bytes", "pieces", "rewind"];
    /// Those that read a part of the table. The others have read all of it when they stop.
    const READERS_OF_PARTS: [&str; 2] = ["page", "killed"];
    limit_rows(guest, ROW + LISTED)?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t --clearonread")?;
    let common = ["pkt_size 114", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
    let fill = [&common[..], &["src_min 10.0.0.0", "src_max 10.1.255.255"]].concat();
    generate(guest, 1, ROWS, &fill)?;
    ensure!(stat(guest, "t.rows")? == ROWS && stat(guest, "t.recycled")? == 0);
    let whole = guest.start(&format!("while ! test -e /tmp/stop; do /init sum {TABLES}/t || exit; echo; done"))?;
    let mut readers = Vec::new();
    for pattern in READERS {
        let sum = "awk 'NR > 1 { bytes += $2 } END { printf \"%d\", bytes }'";
        readers.push(
            guest.start(&format!(
                "/init read {TABLES}/t {pattern} /tmp/stop 1 >/tmp/{pattern} && {sum} /tmp/{pattern}"
            ))?,
        );
    }
    // Each packet has an address that has no row: pktgen begins with the first address each time.
    // The delay leaves the readers CPU time.
    let sweep = |guest: &mut Guest, number: u32| {
        let first = u32::from(Ipv4Addr::new(10, 2, 0, 0)) + number * SWEPT as u32;
        let [first, last] = [first, first + SWEPT as u32 - 1].map(Ipv4Addr::from);
        ensure!(last.octets()[0] == 10, "no addresses are left for sweep {number}");
        let [min, max] = [format!("src_min {first}"), format!("src_max {last}")];
        generate(guest, 1, SWEPT, &[&common[..], &[&min, &max, "delay 40000"]].concat())
    };
    let sweeps = send_until_read(guest, &READERS_OF_PARTS, rounds(1)?, sweep)?;
    guest.write("/tmp/stop", b"")?;

    let mut bytes = 0;
    let output = guest.finish_command(whole, COMMAND_TIMEOUT)?.success("the reader")?;
    for read in output.split_terminator("\n\n") {
        bytes += parse_sum(read)?.1.first().copied().unwrap_or(0);
    }
    ensure!(bytes > 0, "nobody has read the whole table");
    for (pattern, reader) in READERS.iter().zip(readers) {
        let output = guest.finish_command(reader, COMMAND_TIMEOUT)?.success(pattern)?;
        let read: u64 = output.parse().with_context(|| format!("{pattern}: {output}"))?;
        ensure!(read > 0, "{pattern}: no rows");
        bytes += read;
    }
    let (_, sums, _) = sum(guest, "t")?;
    let left = sums.first().copied().unwrap_or(0);
    let swept = u64::from(sweeps) * SWEPT;
    let all = (ROWS + swept) * 100;
    ensure!(bytes + left == all, "{bytes} and {left} instead of {all}");
    let (recycled, overflows) = (stat(guest, "t.recycled")?, stat(guest, "t.overflows")?);
    ensure!(recycled == swept && overflows == 0, "{recycled} rows were recycled, {overflows} overflows");
});
