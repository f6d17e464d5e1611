// SPDX-License-Identifier: GPL-2.0
//! More of everything than there is room for. The packets come from the kernel's own generator, which hands them to
//! the receive path as if a port had received them: no harness is as fast.
//!
//! A kernel with all its debugging on takes two minutes for a million packets, one without takes five seconds. So the
//! long tests are ignored unless they are asked for: `XT_TRAFFIC_VM=target/vm/vm cargo test -p vm-tests --test vm --
//! --ignored limits::`.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Generator, Ipv4, mirrored};
use traffic_model::model::{self, Rule};
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::{Backend, TABLES};

use crate::files::stat;
use crate::support::{counters, counters6, in_guest, in_guest_briefly, iptables, row, table};

/// Where each CPU has room for so many rows of a table.
const ROWS: u64 = 1 << 20;

/// Generates packets on each CPU at once, each for a device of its own: UDP, addressed to another host, with the
/// given options in pktgen's words. `{cpu}` in an option is the CPU's number.
fn generate(guest: &mut Guest, cpus: u32, count: u64, options: &[&str]) -> Result<()> {
    let mut script = String::from("cd /proc/net/pktgen || exit 1\nset -e\necho reset >pgctrl\n");
    for cpu in 0..cpus {
        let count = format!("count {count}");
        let common = ["xmit_mode netif_receive", "clone_skb 0", "delay 0", "dst_mac 02:b0:b0:00:00:02", &count];
        script += &format!(
            "ip link show gen{cpu} >/dev/null 2>&1 || ip link add gen{cpu} type dummy\n\
             ip link set gen{cpu} promisc on up\necho add_device gen{cpu} >kpktgend_{cpu}\n"
        );
        for option in common.iter().chain(options) {
            script += &format!("echo '{}' >gen{cpu}\n", option.replace("{cpu}", &cpu.to_string()));
        }
    }
    script += "echo start >pgctrl\ngrep -h -E 'pkts-sofar|^Result' gen*\n";
    let output = guest.run(&script)?;
    ensure!(output.status == 0, "{}{}", output.stdout, output.stderr);
    // A packet that is dropped in the end is an error to pktgen, and all mirrored packets are.
    let done = output.stdout.matches(&format!("pkts-sofar: {count} ")).count();
    ensure!(done == cpus as usize, "{}", output.stdout);
    Ok(())
}

/// What `/init sum` says: the number of rows, the sums of all cells, the row `*`.
fn sum(guest: &mut Guest, file: &str) -> Result<(u64, Vec<u64>, Vec<u64>)> {
    let said = guest.must(&format!("/init sum {TABLES}/{file}"))?;
    // A table without a row has no sums.
    let numbers = |line: &str| line.trim().split('\t').map(|cell| Ok(cell.parse()?)).collect::<Result<Vec<u64>>>();
    let first = numbers(said.lines().next().context("no sums")?)?;
    Ok((first[0], first[1..].to_vec(), row(&said, "*")?))
}

#[test]
fn the_smallest_and_the_largest_hash() {
    let frame = |n: u16| {
        let [high, low] = n.to_be_bytes();
        mirrored(&Ipv4::new([10, high, low, 1], [192, 0, 2, 1]).udp((n, 53), b""))
    };
    in_guest(|guest| {
        for (name, size) in [("small", 1), ("large", 1 << 24)] {
            let rule = format!("--traffic --ipconn --portconn --net 10.0.0.0/8 --hashsize {size} --name {name}");
            iptables(guest, Backend::Nft, &format!("-A PROMISC -m traffic {rule}"))?;
        }
        guest.open_port(0)?;
        guest.send(0, (0..3000).map(frame))?;
        for file in ["", ".ipconn", ".portconn"] {
            let [small, large] = ["small", "large"].map(|name| table(guest, &format!("{name}{file}")));
            let rows = if file == ".portconn" { 1 } else { 3000 };
            let small = small?;
            ensure!(small.lines().count() == rows + 1, "{file}: {} lines", small.lines().count());
            ensure!(small == large?, "{file}: the size of the hash makes a difference");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs the vm kernel"]
fn a_million_packets() {
    const EACH: u64 = 500_000;
    in_guest_briefly(|guest| {
        iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --ipconn --net 10.0.0.0/8 --name t")?;
        let options =
            ["pkt_size 114", "src_min 10.0.0.1", "src_max 10.0.1.0", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
        generate(guest, 2, EACH, &options)?;
        let bytes = 2 * EACH * 100;
        let (rows, sums, others) = sum(guest, "t")?;
        ensure!(rows == 256 && others.is_empty(), "{rows} rows");
        ensure!(sums == [bytes, 0, 0, 0, bytes, 0, 0, 0], "{sums:?}");
        ensure!(counters(guest, Backend::Nft, "PROMISC")? == [(2 * EACH, bytes)]);
        Ok(())
    });
}

/// All kinds of frames, right and wrong, as fast as the harness sends them.
#[test]
#[ignore = "needs the vm kernel"]
fn a_million_frames_of_all_kinds() {
    const FRAMES: usize = 1_000_000;
    let v4 = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all";
    let v6 = "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6";
    let people: Vec<IpAddr> = (0..200).map(|n| if n % 2 == 0 { [10, 0, 0, n].into() } else { six(n) }).collect();
    let frames = || Generator::new(11, mac_of_port(0), people.clone()).take(FRAMES);
    in_guest_briefly(|guest| {
        iptables(guest, Backend::Nft, v4)?;
        iptables(guest, Backend::Nft, v6)?;
        guest.open_port(0)?;
        guest.send(0, frames())?;
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
        Ok(())
    });
}

/// Compares tables of connections with what the model expects, which forgets no flow and doesn't know when each frame
/// came. Sending so many takes longer than the silence that ends a UDP flow, so there can be more UDP connections. Of
/// TCP and OTHER there can be so many more as flows were forgotten, each at both its ends.
fn same_connections(file: &str, got: &str, want: &str, forgotten: u64) -> Result<()> {
    const REMEMBERED: [usize; 4] = [3, 4, 9, 10];
    const ICMP: [usize; 2] = [7, 8];
    ensure!(got.lines().count() == want.lines().count(), "{file}: other rows");
    let mut excess = 0;
    for (got, want) in got.lines().zip(want.lines()).skip(1) {
        let told = || format!("{file}: the kernel says\n{got}\nthe model says\n{want}");
        let (got, want) = (cells(got)?, cells(want)?);
        ensure!(got.0 == want.0 && ICMP.iter().all(|&column| got.1[column] == want.1[column]), told());
        for (column, (got, want)) in got.1.iter().zip(&want.1).enumerate() {
            let more = got.checked_sub(*want).with_context(told)?;
            excess += if REMEMBERED.contains(&column) { more } else { 0 };
        }
    }
    ensure!(excess <= 2 * forgotten, "{file}: {excess} more than expected, but only {forgotten} flows were forgotten");
    Ok(())
}

/// The label and the cells of a row, of which the first is 0 in place of the label.
fn cells(row: &str) -> Result<(&str, Vec<u64>)> {
    let (label, numbers) = row.split_once('\t').context("a row has cells")?;
    let numbers = numbers.split('\t').map(|cell| Ok(cell.parse()?));
    Ok((label, std::iter::once(Ok(0)).chain(numbers).collect::<Result<_>>()?))
}

fn six(host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into()
}

#[test]
#[ignore = "needs the vm kernel"]
fn more_addresses_than_rows() {
    // Each packet has two new addresses.
    const PACKETS: u64 = ROWS / 2 + 20_000;
    in_guest_briefly(|guest| {
        iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
        let options =
            ["pkt_size 60", "src_min 10.0.0.0", "src_max 10.63.255.255", "dst_min 10.64.0.0", "dst_max 10.127.255.255"];
        generate(guest, 1, PACKETS, &options)?;
        let bytes = PACKETS * 46;
        let (rows, sums, others) = sum(guest, "t")?;
        ensure!(rows == ROWS, "{rows} rows");
        ensure!(sums == [bytes, bytes, 0, 0, bytes, bytes, 0, 0], "{sums:?} instead of {bytes} each way");
        ensure!(others == [20_000 * 46, 20_000 * 46, 0, 0, 20_000 * 46, 20_000 * 46, 0, 0], "{others:?}");
        ensure!(counters(guest, Backend::Nft, "PROMISC")? == [(PACKETS, bytes)]);
        ensure!(stat(guest, "t.overflows")? == 40_000 && stat(guest, "overflows")? == 40_000);
        Ok(())
    });
}

#[test]
#[ignore = "needs the vm kernel"]
fn more_ipv6_addresses_than_rows() {
    const MORE: u64 = 20_000;
    const PACKETS: u64 = ROWS + MORE;
    in_guest_briefly(|guest| {
        iptables(guest, Backend::Nft, "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/64 --name t")?;
        // Every packet to another address, taken at random; none comes twice in practice.
        let (min, max) = ("dst6_min 2001:db8::", "dst6_max 2001:db8::ffff:ffff:ffff:ffff");
        generate(guest, 1, PACKETS, &["pkt_size 114", "src6 2001:db8:1::1", min, max])?;
        let (rows, sums, others) = sum(guest, "t")?;
        ensure!(rows == ROWS, "{rows} rows");
        ensure!(sums == [0, PACKETS * 100, 0, 0, 0, PACKETS * 100, 0, 0], "{sums:?}");
        ensure!(others == [0, MORE * 100, 0, 0, 0, MORE * 100, 0, 0], "{others:?}");
        ensure!(counters6(guest, Backend::Nft, "PROMISC")? == [(PACKETS, PACKETS * 100)]);
        ensure!(stat(guest, "t.overflows")? == MORE);
        Ok(())
    });
}

/// The addresses need more memory than the one who made the rule may have.
#[test]
fn short_memory_loses_nothing() {
    const PACKETS: u64 = 12_000;
    in_guest(|guest| {
        let group = "/sys/fs/cgroup/payer";
        guest.must(&format!(
            "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
             echo +memory >/sys/fs/cgroup/cgroup.subtree_control && mkdir {group}"
        ))?;
        let rule = "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t --clearonread";
        guest.must(&format!("echo $$ >{group}/cgroup.procs && {}", Backend::Nft.command(rule)))?;
        guest.must(&format!("echo $(($(cat {group}/memory.current) + 262144)) >{group}/memory.max"))?;
        let options =
            ["pkt_size 114", "src_min 10.0.0.0", "src_max 10.63.255.255", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
        generate(guest, 1, PACKETS, &options)?;
        let (bytes, overflows) = (PACKETS * 100, stat(guest, "t.overflows")?);
        ensure!((1..PACKETS).contains(&overflows), "{overflows} overflows");
        // Remembering what has been read takes memory too.
        guest.must(&format!("echo max >{group}/memory.max"))?;
        let (rows, sums, others) = sum(guest, "t")?;
        ensure!(rows == PACKETS - overflows, "{rows} rows and {overflows} overflows");
        ensure!(sums == [bytes, 0, 0, 0, bytes, 0, 0, 0], "{sums:?} instead of {bytes}");
        let left = overflows * 100;
        ensure!(others == [left, 0, 0, 0, left, 0, 0, 0], "{others:?} instead of {left}");
        // Reading clears the last row like all others.
        let (rows, _, others) = sum(guest, "t")?;
        ensure!(rows == 0 && others.is_empty(), "{rows} rows and {others:?} are left");
        Ok(())
    });
}
