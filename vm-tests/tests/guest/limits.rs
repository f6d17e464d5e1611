// SPDX-License-Identifier: GPL-2.0-only
//! The limits of tables: hash sizes and memory.

use anyhow::ensure;
use traffic_model::frames::{Ip, mirrored};
use traffic_model::model::File;
use vm_harness::replay::Backend;
use vm_tests::pktgen::{generate, sum};
use vm_tests::{cgroup, guest_test, iptables, open_and_send, row, set_memory, stat, table};

guest_test!(the_smallest_and_the_largest_hash_give_the_same_tables, |guest| {
    let frame = |n: u16| {
        let [high, low] = n.to_be_bytes();
        mirrored(&Ip::new([10, high, low, 1], [192, 0, 2, 1]).udp((n, 53), b""))
    };
    for (name, size) in [("small", 1), ("large", 1 << 24)] {
        let rule = format!("--traffic --ipconn --portconn --net 10.0.0.0/8 --hashsize {size} --name {name}");
        iptables(guest, Backend::Nft, &format!("-A PROMISC -m traffic {rule}"))?;
    }
    open_and_send(guest, 0, (0..3000).map(frame))?;
    for file in File::ALL {
        let [small, large] = ["small", "large"].map(|name| table(guest, &file.name(name)));
        let rows = if file == File::Portconn { 1 } else { 3000 };
        let small = small?;
        ensure!(small.lines().count() == rows + 1, "{file:?}: {} lines", small.lines().count());
        ensure!(small == large?, "{file:?}: the tables differ");
    }
});

// The addresses need more memory than the cgroup of the rule's creator may allocate.
guest_test!(without_memory_for_more_rows_their_bytes_are_counted_in_the_last_row, |guest| {
    const PACKETS: u64 = 12_000;
    let rule = "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t --clearonread";
    cgroup::add_rule(guest, rule, 1 << 18)?;
    let options =
        ["pkt_size 114", "src_min 10.0.0.0", "src_max 10.63.255.255", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
    generate(guest, 1, PACKETS, &options)?;
    // Each address sends one packet, so each row is idle.
    let (bytes, recycled, overflows) = (PACKETS * 100, stat(guest, "t.recycled")?, stat(guest, "t.overflows")?);
    ensure!((1..PACKETS).contains(&recycled), "{recycled} rows were recycled");
    ensure!(overflows == 0, "{overflows} overflows");
    // Clearing on read allocates memory too.
    cgroup::remove_limit(guest)?;
    let (rows, sums, others) = sum(guest, "t")?;
    ensure!(rows == PACKETS - recycled, "{rows} rows, and {recycled} were recycled");
    ensure!(sums == [bytes, 0, 0, 0, bytes, 0, 0, 0], "{sums:?} instead of {bytes}");
    let left = recycled * 100;
    ensure!(others == [left, 0, 0, 0, left, 0, 0, 0], "{others:?} instead of {left}");
    // Reading also clears the last row.
    let (rows, _, others) = sum(guest, "t")?;
    ensure!(rows == 0 && others.is_empty(), "{rows} rows and {others:?} remain");
});

guest_test!(a_rule_without_memory_for_the_first_rows_is_accepted, |guest| {
    const PAGES: u64 = 2 * 4096;
    set_memory(guest, &PAGES.to_string())?;
    let rule = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/8 --name t";
    iptables(guest, Backend::Nft, rule)?;
    let used = stat(guest, "memory_used")?;
    ensure!(used == PAGES, "{used} bytes are used");
    // Packets try again at once. The bound changes when it is read.
    set_memory(guest, "0")?;
    ensure!(stat(guest, "memory_bound")? > PAGES);
    open_and_send(guest, 0, [mirrored(&Ip::new([10, 0, 0, 1], [192, 0, 2, 1]).udp((1, 53), b""))])?;
    for (file, out) in [("t", 28), ("t.ipconn", 1)] {
        let cells = row(&table(guest, file)?, "10.0.0.1")?;
        ensure!(cells.first() == Some(&out), "{file}: {cells:?}");
    }
});
