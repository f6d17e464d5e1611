// SPDX-License-Identifier: GPL-2.0-only
//! The memory that packets can make the module allocate.

use anyhow::{Context, Result, ensure};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::Guest;
use vm_harness::poll;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::pktgen::{generate, sum};
use vm_tests::{check_nobody_was_killed, guest_test, iptables, set_memory, stat};

use crate::rounds;

/// The CPUs of a guest, if nothing else is said.
const CPUS: u64 = 2;
/// The packets of a round, on all CPUs together.
const ROUND: u64 = 600_000;
/// The bytes of a packet at the IP layer.
const BYTES: u64 = 100;

/// Floods all three tables of both families on all CPUs. The destinations and ports are random, so
/// each packet has a new address and a new flow. Before there was a bound, a guest with 512 MiB
/// panicked after three million of them.
fn flood(guest: &mut Guest, cpus: u64) -> Result<()> {
    // The default.
    set_memory(guest, "0")?;
    for (program, net, name) in [("iptables", "0.0.0.0/0", "all"), ("ip6tables", "2001:db8::/32", "six")] {
        let rule = format!("{program} -A PROMISC -m traffic --traffic --ipconn --portconn --net {net} --name {name}");
        iptables(guest, Backend::Nft, &rule)?;
    }
    let total = guest.must("awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo")?.trim().parse::<u64>()?;
    let bound = stat(guest, "memory_bound")?;
    // The kernel rounds the number of pages down.
    ensure!((total / 17..=total / 16).contains(&bound), "the bound is {bound} of {total}");
    // A process that the kernel would kill first if memory was short.
    let innocent = guest.start("echo 1000 >/proc/self/oom_score_adj; echo $$ >/tmp/innocent; exec sleep infinity")?;
    let options = [
        &format!("pkt_size {}", BYTES + 14),
        "src6 2001:db8:2::1",
        "dst6_min 2001:db8:1::",
        "dst6_max 2001:db8:1::ffff:ffff:ffff:ffff",
        "flag UDPSRC_RND",
        "flag UDPDST_RND",
        "udp_src_min 1024",
        "udp_src_max 65535",
        "udp_dst_min 1",
        "udp_dst_max 65535",
    ];
    let rounds = u64::from(rounds(2)?);
    for round in 1..=rounds {
        generate(guest, cpus as u32, ROUND / cpus, &options)?;
        let used = stat(guest, "memory_used")?;
        let recycled = stat(guest, "six.recycled")?;
        eprintln!("{} packets: {used} of {bound} bytes, {recycled} rows recycled", round * ROUND);
        ensure!(used <= bound, "round {round}: {used} bytes are above {bound}");
    }
    let packets = rounds * ROUND;
    let (rows, sums, others) = sum(guest, "six")?;
    ensure!(sums[0] == packets * BYTES, "{sums:?} after {packets} packets");
    ensure!(rows > 1000 && !others.is_empty(), "{rows} rows");
    ensure!(stat(guest, "six.recycled")? > packets / 2);
    check_nobody_was_killed(guest)?;
    guest.must("kill $(cat /tmp/innocent)")?;
    ensure!(guest.finish_command(innocent, COMMAND_TIMEOUT)?.status == 128 + 15, "the process was killed");
    // What the tables took is given back.
    iptables(guest, Backend::Nft, "-F PROMISC")?;
    iptables(guest, Backend::Nft, "ip6tables -F PROMISC")?;
    guest
        .must("for n in $(seq 100); do grep -q '^memory_used 0$' /proc/net/xt_traffic/.stats && exit; sleep 0.1; done; exit 1")
        .map(drop)
}

guest_test!(a_flood_of_new_addresses_and_flows_takes_no_more_than_the_bound, |guest| {
    flood(guest, CPUS)?;
});

guest_test!(a_flood_on_eight_cpus_takes_no_more_than_the_bound, in_guest_with_eight_cpus, |guest| {
    flood(guest, 8)?;
});

// In bytes or per cent; a table that is made later gets less.
guest_test!(the_parameter_memory_changes_the_bound, in_guest_briefly, |guest| {
    let parameter = "/sys/module/xt_traffic/parameters/memory";
    for (text, bound) in [("4096K", 4 << 20), ("8388608", 8 << 20)] {
        set_memory(guest, text)?;
        ensure!(stat(guest, "memory_bound")? == bound, "{text}");
    }
    set_memory(guest, "10%")?;
    let tenth = stat(guest, "memory_bound")?;
    set_memory(guest, "0")?;
    let ratio = tenth as f64 / stat(guest, "memory_bound")? as f64;
    ensure!((1.59..1.61).contains(&ratio), "10% are {ratio} times the default");
    for text in ["101%", "x", "5M5", ""] {
        ensure!(guest.run(&format!("echo '{text}' >{parameter}"))?.status != 0, "{text:?} is accepted");
    }
    set_memory(guest, "1M")?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
    let options =
        ["pkt_size 114", "src_min 10.0.0.0", "src_max 10.63.255.255", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
    generate(guest, 1, 50_000, &options)?;
    let used = stat(guest, "memory_used")?;
    ensure!((1 << 16..=1 << 20).contains(&used), "{used} bytes are used");
    let (_, sums, _) = sum(guest, "t")?;
    ensure!(sums[0] == 50_000 * BYTES, "{sums:?}");
});

// Each reader needs a list of several megabytes. The bound is a sixteenth of 512 MiB.
guest_test!(readers_beyond_the_bound_get_enomem_and_nobody_is_killed, in_guest_briefly, |guest| {
    const READERS: usize = 200;
    set_memory(guest, "0")?;
    let rule = "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/32 --name t";
    iptables(guest, Backend::Nft, rule)?;
    let sweep = ["dst6_min 2001:db8::", "dst6_max 2001:db8::ffff:ffff:ffff:ffff"];
    generate(guest, CPUS as u32, 100_000, &[&["pkt_size 114", "src6 3fff::1"], &sweep[..]].concat())?;
    let rows = stat(guest, "t.rows")?;
    ensure!(rows > 50_000, "{rows} rows");
    let free = |guest: &mut Guest| -> Result<u64> {
        Ok(guest.must("awk '/^MemAvailable/ { print $2 * 1024 }' /proc/meminfo")?.trim().parse()?)
    };
    let before = free(guest)?;
    let reader = format!("/init file {TABLES}/t read:2 touch:/tmp/open.$n await:/tmp/end >/tmp/read.$n");
    let readers = guest.start(&format!("for n in $(seq {READERS}); do {reader} & done; wait"))?;
    poll(COMMAND_TIMEOUT, "all readers to have read", || {
        let ready = guest.must("ls /tmp | grep -c ^open || true")?;
        Ok((ready.trim() == READERS.to_string()).then_some(()))
    })?;
    let taken = before.saturating_sub(free(guest)?);
    let counts = guest.must("head -qn 1 /tmp/read.* | sort | uniq -c")?;
    guest.write("/tmp/end", b"")?;
    guest.finish_command(readers, COMMAND_TIMEOUT)?.success("the readers")?;
    eprintln!("{rows} rows, {taken} bytes taken, {counts}");
    check_nobody_was_killed(guest)?;
    let count = |what: &str| -> usize {
        let line = counts.lines().find_map(|line| line.trim().strip_suffix(what));
        line.map_or(0, |count| count.trim().parse().unwrap_or(0))
    };
    let (read, failed) = (count("\"IP\""), count("errno 12"));
    ensure!(read > 1 && failed > READERS / 2 && read + failed == READERS, "{counts}");
    // Lists are given back.
    let (_, sums, _) = sum(guest, "t")?;
    ensure!(sums[0] + sums[1] == CPUS * 100_000 * BYTES, "{sums:?}");
});

// A list of what was delivered lasts until the next one is complete.
guest_test!(full_tables_can_be_read_and_cleared_again_and_again, in_guest_briefly, |guest| {
    const PACKETS: u64 = 150_000;
    set_memory(guest, "0")?;
    for name in ["one", "two", "three"] {
        let rule = "-m traffic --traffic --net 2001:db8::/32 --clearonread --name";
        iptables(guest, Backend::Nft, &format!("ip6tables -A PROMISC {rule} {name}"))?;
    }
    let sweep = ["dst6_min 2001:db8::", "dst6_max 2001:db8::ffff:ffff:ffff:ffff"];
    for _ in 0..3 {
        generate(guest, CPUS as u32, PACKETS, &[&["pkt_size 114", "src6 3fff::1"], &sweep[..]].concat())?;
        for name in ["one", "two", "three"] {
            let rows = stat(guest, &format!("{name}.rows"))?;
            let (_, sums, _) = sum(guest, name).with_context(|| format!("{name} with {rows} rows"))?;
            ensure!(sums[0] + sums[1] == CPUS * PACKETS * BYTES, "{name}: {sums:?}");
        }
    }
});
