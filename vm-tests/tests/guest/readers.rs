// SPDX-License-Identifier: GPL-2.0-only
//! Readers when memory is short: reading fails, and nobody is killed for it.

use anyhow::{Context, Result, ensure};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, Running};
use vm_harness::replay::TABLES;
use vm_tests::pktgen::{generate, sum};
use vm_tests::{cells, cgroup, file_steps, guest_test};

/// The number of addresses. Their rows take 1.2 MB, a list of them as much.
const ADDRESSES: u64 = 12_000;
/// The bytes of a packet at the IP layer.
const BYTES: u64 = 100;
/// What a read prints that fails for lack of memory.
const NO_MEMORY: &str = "errno 12";
/// Memory that is enough for the rule, the rows, and two lists.
const ENOUGH: u32 = 1 << 23;

/// Makes a table in the cgroup, with a packet from each address.
fn make_table(guest: &mut Guest, options: &str) -> Result<()> {
    cgroup::add_rule(guest, &format!("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t {options}"), ENOUGH)?;
    send(guest)
}

/// Sends a packet from each address.
fn send(guest: &mut Guest) -> Result<()> {
    let last = format!("src_max 10.0.{}.{}", (ADDRESSES - 1) >> 8, (ADDRESSES - 1) & 255);
    let size = format!("pkt_size {}", BYTES + 14);
    generate(guest, 1, ADDRESSES, &[&size, "src_min 10.0.0.0", &last, "dst_min 192.0.2.1", "dst_max 192.0.2.1"])
}

/// Checks the rows of the table and the bytes in them.
fn check(guest: &mut Guest, rows: u64, bytes: u64) -> Result<()> {
    let (got, sums, others) = sum(guest, "t")?;
    let counted = sums.first().copied().unwrap_or(0);
    ensure!((got, counted) == (rows, bytes) && others.is_empty(), "{got} rows, {sums:?}, {others:?}");
    Ok(())
}

/// A process in the cgroup that sleeps. The OOM killer would choose it.
struct Idle(Running);

impl Idle {
    fn start(guest: &mut Guest) -> Result<Self> {
        Ok(Self(cgroup::start_idle(guest)?))
    }

    /// Checks that neither this process nor another was killed, and ends it.
    fn check(self, guest: &mut Guest) -> Result<()> {
        cgroup::check_nobody_was_killed(guest)?;
        cgroup::end_processes(guest)?;
        let status = guest.finish_command(self.0, COMMAND_TIMEOUT)?.status;
        ensure!(status == 128 + 15, "the process in the cgroup has ended with {status}");
        Ok(())
    }
}

/// The bytes in the complete rows of what a step of `/init file` has read.
fn bytes_in(output: &str) -> Result<u64> {
    let text = output.trim_matches('"').replace("\\t", "\t").replace("\\n", "\n");
    let (whole, _) = text.rsplit_once('\n').context("no complete line")?;
    whole.lines().skip(1).map(|row| Ok(cells(row)?.1[0])).sum()
}

// The list of what was delivered is charged to the cgroup of the rule. The readers are not in it.
guest_test!(without_memory_for_a_list_a_reader_that_clears_gets_enomem, |guest| {
    make_table(guest, "--clearonread")?;
    let idle = Idle::start(guest)?;
    let mut failed = 0;
    for spare in [0, 1 << 18, 1 << 19, 1 << 20, ENOUGH] {
        cgroup::set_limit(guest, spare)?;
        // The first bytes of the header: no row is delivered.
        let output = file_steps(guest, "t", &["read:2", "pread:0:2"])?;
        match output.iter().filter(|line| *line == NO_MEMORY).count() {
            0 => break,
            errors => ensure!(errors == 2, "{spare} bytes: {output:?}"),
        }
        failed += 1;
    }
    ensure!((2..5).contains(&failed), "{failed} reads have failed");

    // A reader has a part of the rows when there is no memory to begin again.
    let steps = "read:5000 touch:/tmp/part await:/tmp/full set:0 read:2 all:5000";
    let reader = guest.start(&format!("/init file {TABLES}/t {steps}"))?;
    guest.must("until test -e /tmp/part; do :; done")?;
    send(guest)?;
    cgroup::set_limit(guest, 0)?;
    guest.write("/tmp/full", b"")?;
    let output = guest.finish_command(reader, COMMAND_TIMEOUT)?.success("the reader")?;
    let lines: Vec<&str> = output.lines().collect();
    ensure!(lines[4..] == [NO_MEMORY; 2], "{:?}", &lines[1..]);
    let got = bytes_in(lines[0])?;
    ensure!(got > 0, "{}", lines[0]);
    idle.check(guest)?;

    cgroup::remove_limit(guest)?;
    check(guest, ADDRESSES, 2 * ADDRESSES * BYTES - got)?;
    check(guest, 0, 0)?;
});

guest_test!(a_reader_outside_of_the_cgroup_needs_none_of_its_memory, |guest| {
    make_table(guest, "")?;
    let idle = Idle::start(guest)?;
    const MORE: u64 = 1 << 12;
    cgroup::set_limit(guest, 0)?;
    let more = ["pkt_size 114", "src_min 10.1.0.0", "src_max 10.1.15.255", "dst_min 192.0.2.1", "dst_max 192.0.2.1"];
    generate(guest, 1, MORE, &more)?;
    for _ in 0..3 {
        let (rows, sums, others) = sum(guest, "t")?;
        ensure!(sums[0] == (ADDRESSES + MORE) * BYTES, "{rows} rows, {sums:?}");
        ensure!(rows < ADDRESSES + MORE && !others.is_empty(), "there was memory for {rows} rows");
    }
    idle.check(guest)?;
});

guest_test!(without_memory_for_a_list_a_reader_in_the_cgroup_gets_enomem, |guest| {
    make_table(guest, "")?;
    let idle = Idle::start(guest)?;
    let steps = "touch:/tmp/open await:/tmp/full read:2 pread:0:2";
    let reader = cgroup::start(guest, &format!("/init file {TABLES}/t {steps}"))?;
    guest.must("until test -e /tmp/open; do :; done")?;
    // Some memory for the program itself.
    cgroup::set_limit(guest, 1 << 17)?;
    guest.write("/tmp/full", b"")?;
    let output = guest.finish_command(reader, COMMAND_TIMEOUT)?.success("the reader")?;
    ensure!(output.lines().skip(2).eq([NO_MEMORY; 2]), "{output}");
    idle.check(guest)?;
    check(guest, ADDRESSES, ADDRESSES * BYTES)?;
});
