// SPDX-License-Identifier: GPL-2.0-only
//! The tests that run in QEMU, and what they share.
//!
//! * `tests/guest` runs in guests with a kernel with debug options.
//! * `tests/fast` runs in guests with a kernel without debug options: it sends too many packets for
//!   the other kernel.
//! * `tests/deploy` runs in the Debian VM.
//! * `tests/secure_boot` runs in a virtual machine with Secure Boot.
//!
//! They need the feature `qemu` and images; `cargo xtask vm-test` builds the images and runs the
//! tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Ip, mirrored};
use traffic_model::model::{Expected, File, Rule};
use vm_harness::artifacts::Artifacts;
use vm_harness::command::Output;
use vm_harness::guest::{Config, Guest, Sender, mac_of_port};
use vm_harness::poll;
use vm_harness::replay::{Backend, TABLES};

pub mod cgroup;
pub mod mirror;
pub mod pktgen;
pub mod sweep;

/// Both back ends of iptables.
pub const BACKENDS: [Backend; 2] = [Backend::Nft, Backend::Legacy];

/// Boots a guest, runs a test in it, and checks the kernel log and memory leaks.
///
/// # Panics
/// When the test or a check fails.
pub fn in_guest(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot_as(Config::safe_for_patching);
    unwrap(test(&mut guest).and_then(|()| guest.finish()));
}

/// As [`in_guest`] without the check for memory leaks, which takes several seconds, and with a
/// thread for each CPU: for tests that hardly use the module, or do not change rules.
///
/// # Panics
/// When the test or the check fails.
pub fn in_guest_briefly(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot();
    unwrap(test(&mut guest).and_then(|()| guest.check_log()));
}

/// As [`in_guest`], with a clock that jumps when the guest is idle.
///
/// # Panics
/// When the test or a check fails.
pub fn in_virtual_time(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot_as(Config::with_virtual_clock);
    unwrap(test(&mut guest).and_then(|()| guest.finish()));
}

/// As [`in_guest_briefly`], with eight CPUs.
///
/// # Panics
/// When the test or the check fails.
pub fn in_guest_with_eight_cpus(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot_as(|artifacts| Config { cpus: 8, ..Config::new(artifacts) });
    unwrap(test(&mut guest).and_then(|()| guest.check_log()));
}

/// Boots a guest.
///
/// # Panics
/// When it does not boot.
pub fn boot() -> Guest {
    boot_as(Config::new)
}

fn boot_as(config: fn(Artifacts) -> Config) -> Guest {
    unwrap(Artifacts::from_environment().and_then(|artifacts| Guest::boot(&config(artifacts))))
}

/// Panics with the whole chain of an error.
///
/// # Panics
/// On an error.
pub fn unwrap<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs the patched iptables, which must succeed.
///
/// # Errors
/// When it fails.
pub fn iptables(guest: &mut Guest, backend: Backend, rule: &str) -> Result<String> {
    guest.must(&backend.command(rule))
}

/// As [`iptables`], with both back ends. `{backend}` in the rule stands for the back end's name.
///
/// # Errors
/// When it fails.
pub fn iptables_both(guest: &mut Guest, rule: &str) -> Result<()> {
    for backend in BACKENDS {
        iptables(guest, backend, &rule.replace("{backend}", &backend.to_string()))?;
    }
    Ok(())
}

/// Whether the kernel has refused a command of iptables: the exit status and the message are those
/// for an invalid rule.
pub fn refused(backend: Backend, output: &Output) -> bool {
    let (status, messages) = match backend {
        Backend::Nft => (4, ["failed (Invalid argument)", "failed (Operation not supported)"]),
        Backend::Legacy => (1, [": Invalid argument. Run `dmesg'", ": Operation not supported."]),
    };
    output.status == status && output.stdout.is_empty() && messages.iter().any(|text| output.stderr.contains(text))
}

/// The text of a file of a table.
///
/// # Errors
/// When it cannot be read.
pub fn table(guest: &mut Guest, name: &str) -> Result<String> {
    guest.read_text(&format!("{TABLES}/{name}"))
}

/// Sets the memory that all tables together may take. Guests are small, so tables have few rows.
///
/// # Errors
/// When the module refuses it.
pub fn set_memory(guest: &mut Guest, memory: &str) -> Result<()> {
    guest.must(&format!("echo {memory} >/sys/module/xt_traffic/parameters/memory")).map(drop)
}

/// The names of the tables' files, one per line.
///
/// # Errors
/// When the folder does not exist.
pub fn table_files(guest: &mut Guest) -> Result<String> {
    guest.must(&format!("ls {TABLES}"))
}

/// Opens a port and sends frames to it.
///
/// # Errors
/// When a frame is lost.
pub fn open_and_send<F: AsRef<[u8]>>(
    guest: &mut Guest,
    port: usize,
    frames: impl IntoIterator<Item = F>,
) -> Result<()> {
    guest.open_port(port)?;
    guest.send(port, frames)
}

/// Sends frames to ports 0 and 1 at the same time.
///
/// # Errors
/// When a frame is lost.
///
/// # Panics
/// When an iterator panics.
pub fn send_to_both<F: AsRef<[u8]>>(guest: &mut Guest, frames: [impl Iterator<Item = F> + Send; 2]) -> Result<()> {
    let senders = [guest.sender(0), guest.sender(1)];
    std::thread::scope(|scope| {
        let send = |(sender, frames)| scope.spawn(move || Sender::send_all(sender, frames));
        let threads: Vec<_> = senders.iter().zip(frames).map(send).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("sending does not panic"))
    })?;
    (0..2).try_for_each(|port| guest.await_frames(port))
}

/// Counts frames with both back ends at once, each in its own table. `options` follow `--traffic`,
/// without a name. Returns the text of the table.
///
/// # Errors
/// When the two tables differ, or the guest fails.
pub fn count<F: AsRef<[u8]>>(guest: &mut Guest, options: &str, frames: &[F]) -> Result<String> {
    count_in(guest, File::Traffic, &format!("--traffic {options}"), frames)
}

/// As [`count`], in any file of a table.
///
/// # Errors
/// As [`count`].
pub fn count_in<F: AsRef<[u8]>>(guest: &mut Guest, file: File, options: &str, frames: &[F]) -> Result<String> {
    iptables_both(guest, &format!("-A PROMISC -m traffic {options} --name {{backend}}"))?;
    open_and_send(guest, 0, frames)?;
    let [nft, legacy] = BACKENDS.map(|backend| table(guest, &file.name(&backend.to_string())));
    let (nft, legacy) = (nft?, legacy?);
    ensure!(nft == legacy, "nft counts\n{nft}and legacy counts\n{legacy}");
    Ok(nft)
}

/// Defines a test that runs in a guest. The body is a function that returns `anyhow::Result<()>`;
/// the macro adds `Ok(())` at its end.
///
/// * `guest_test!(name, |guest| { body })` calls [`in_guest`].
/// * `guest_test!(name, in_virtual_time, |guest| { body })` calls another function of this crate.
/// * `guest_test!(name, |guest, backend| { body })` defines the tests `name::nft` and
///   `name::legacy`, each in a guest of its own.
#[macro_export]
macro_rules! guest_test {
    ($name:ident, |$guest:ident| $body:block) => {
        $crate::guest_test!($name, in_guest, |$guest| $body);
    };
    ($name:ident, $runner:ident, |$guest:ident| $body:block) => {
        #[test]
        fn $name() {
            $crate::$runner(|$guest| {
                $body
                Ok(())
            });
        }
    };
    ($name:ident, |$guest:ident, $backend:ident| $body:block) => {
        fn $name($guest: &mut vm_harness::guest::Guest, $backend: vm_harness::replay::Backend) -> anyhow::Result<()> {
            $body
            Ok(())
        }

        mod $name {
            use vm_harness::replay::Backend;

            #[test]
            fn nft() {
                $crate::in_guest(|guest| super::$name(guest, Backend::Nft));
            }

            #[test]
            fn legacy() {
                $crate::in_guest(|guest| super::$name(guest, Backend::Legacy));
            }
        }
    };
}

/// The model's counts for frames that arrive at port 0.
pub fn expected<F: AsRef<[u8]>>(rule: &Rule, frames: &[F]) -> Expected {
    Expected::of(rule, mac_of_port(0), frames)
}

/// A frame with a UDP packet of 100 bytes from 10.0.0.`host` to 192.0.2.1.
pub fn frame(host: u8) -> Vec<u8> {
    mirrored(&Ip::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 72]))
}

/// The row of 10.0.0.`host` after a number of its [`frame`]s.
pub fn row_after(host: u8, frames: u64) -> String {
    let bytes = frames * 100;
    format!("10.0.0.{host}\t{bytes}\t0\t0\t0\t{bytes}\t0\t0\t0\n")
}

/// The table after a number of [`frame`]s of 10.0.0.1.
pub fn text_after(frames: u64) -> String {
    let row = if frames == 0 { String::new() } else { row_after(1, frames) };
    File::Traffic.header().to_owned() + &row
}

/// The packet and byte counters of a chain's rules. `program` is `iptables` or `ip6tables`.
///
/// # Errors
/// When iptables-save fails.
pub fn counters(guest: &mut Guest, program: &str, backend: Backend, chain: &str) -> Result<Vec<(u64, u64)>> {
    let saved = guest.must(&format!("/usr/local/sbin/{program}-{backend}-save -c -t filter"))?;
    let counters = saved.lines().filter_map(|line| {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        counters.split_once(':').filter(|_| rule.split(' ').next() == Some(chain))
    });
    counters.map(|(packets, bytes)| Ok((packets.parse()?, bytes.parse()?))).collect()
}

/// Checks the packet and byte counters of a chain's rules in both back ends.
///
/// # Errors
/// When they differ from `want`.
pub fn check_counters(guest: &mut Guest, program: &str, chain: &str, want: &[(u64, u64)]) -> Result<()> {
    for backend in BACKENDS {
        let got = counters(guest, program, backend, chain)?;
        ensure!(got == want, "{program}-{backend}: the counters of {chain} are {got:?} instead of {want:?}");
    }
    Ok(())
}

/// The number of the hook PROMISC, `NF_INET_PROMISC`.
pub const PROMISC: u32 = 6;

/// The functions on a hook of a family (`ip` or `ip6`), in the order in which they run. An empty
/// name is the initial network namespace.
///
/// # Errors
/// When the kernel does not list them.
pub fn hooks(guest: &mut Guest, netns: &str, family: &str, hook: u32) -> Result<Vec<String>> {
    let within = if netns.is_empty() { String::new() } else { format!("ip netns exec {netns} ") };
    let text = guest.must(&format!("{within}/init hooks {family} {hook}"))?;
    let functions =
        text.lines().map(|line| line.split_once(' ').context("no priority").map(|(_, name)| name.to_owned()));
    functions.collect()
}

/// A text without the lines that begin with `#`: in saved rules they hold the time.
pub fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// The module's messages in the kernel log.
///
/// # Errors
/// When the guest has ended.
pub fn module_messages(guest: &mut Guest) -> Result<Vec<String>> {
    let log = guest.kernel_log()?;
    Ok(log.lines().filter_map(|line| line.split_once("xt_traffic: ")).map(|(_, text)| text.to_owned()).collect())
}

/// Checks that no process was killed for lack of memory, and that the kernel log says nothing about
/// it.
///
/// # Errors
/// When this is not so.
pub fn check_nobody_was_killed(guest: &mut Guest) -> Result<()> {
    const REPORTS: [&str; 3] = ["oom-killer", "ut of memory", "allocation failure"];
    let log = guest.kernel_log()?;
    let report = log.lines().find(|line| REPORTS.iter().any(|words| line.contains(words)));
    ensure!(report.is_none(), "the kernel log has {report:?}");
    let killed = guest.must("grep oom_kill /proc/vmstat")?;
    ensure!(killed == "oom_kill 0\n", "{killed}");
    Ok(())
}

/// How long it may take until readers have read rows.
const READERS_TIMEOUT: Duration = Duration::from_secs(300);

/// Calls `send`, which sends frames, at least `least` times and until the commands `/init read`
/// with these patterns and the stop file `/tmp/stop` have read rows several times. Returns the
/// number of calls. `send` gets the number of calls before.
///
/// # Errors
/// When sending fails, or a reader has not read rows in time.
pub fn send_until_read(
    guest: &mut Guest,
    patterns: &[&str],
    least: u32,
    mut send: impl FnMut(&mut Guest, u32) -> Result<()>,
) -> Result<u32> {
    let mut calls = 0;
    poll(READERS_TIMEOUT, "the readers to have read rows", || {
        send(guest, calls)?;
        calls += 1;
        // `agent/tools/reader.rs` makes these files.
        let files = guest.must("ls /tmp")?;
        let is_ready = |pattern: &&str| files.lines().any(|file| file.strip_prefix("stop.") == Some(pattern));
        Ok((patterns.iter().all(is_ready) && calls >= least).then_some(calls))
    })
}

/// How many frames port `n` has dropped because they were for another host.
///
/// # Errors
/// When `ip` fails.
pub fn otherhost_dropped(guest: &mut Guest, n: usize) -> Result<u64> {
    let text = guest.must(&format!("ip -j -s -s link show dev eth{n}"))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let counters = links.pointer("/0/stats64/rx").with_context(|| format!("no counters in {text}"))?;
    // `ip` omits zeros.
    Ok(counters["otherhost"].as_u64().unwrap_or(0))
}

/// Enables forwarding from port 0 to 10.8.0.2 at port 1. `address` is the address of port 0.
///
/// # Errors
/// When the guest refuses it.
pub fn enable_forwarding(guest: &mut Guest, address: &str) -> Result<()> {
    guest.must("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    guest.open_port(1)?;
    guest.must("ip addr add 10.8.0.1/24 dev eth1 && ip neigh add 10.8.0.2 lladdr 02:02:02:02:02:02 dev eth1")?;
    guest.must(&format!("ip addr add {address} dev eth0")).map(drop)
}

/// Runs `change` repeatedly while frames arrive at port 0; `frame` makes the frame with a number.
/// Returns the number of frames.
///
/// # Errors
/// When a change fails or a frame is lost.
///
/// # Panics
/// When `frame` panics.
pub fn under_traffic(
    guest: &mut Guest,
    frame: impl Fn(u64) -> Vec<u8> + Sync,
    mut change: impl FnMut(&mut Guest) -> Result<()>,
) -> Result<u64> {
    const CHANGES: usize = 12;
    let mut left = CHANGES;
    under_traffic_while(guest, frame, |guest| {
        change(guest)?;
        left -= 1;
        Ok(left > 0)
    })
}

/// As [`under_traffic`], until `change` returns `false`.
///
/// # Errors
/// As [`under_traffic`].
///
/// # Panics
/// As [`under_traffic`].
pub fn under_traffic_while(
    guest: &mut Guest,
    frame: impl Fn(u64) -> Vec<u8> + Sync,
    mut change: impl FnMut(&mut Guest) -> Result<bool>,
) -> Result<u64> {
    /// Frames are sent in bursts with pauses: without pauses the guest's CPU has no time for the
    /// changes.
    const BURST: u64 = 16;
    const PAUSE: Duration = Duration::from_millis(4);
    let stop = AtomicBool::new(false);
    let sender = guest.sender(0);
    let flow = || -> Result<u64> {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            (sent..sent + BURST).try_for_each(|number| sender.send(&frame(number)))?;
            sent += BURST;
            std::thread::sleep(PAUSE);
        }
        Ok(sent)
    };
    let sent = std::thread::scope(|scope| {
        let flow = scope.spawn(flow);
        let changed = loop {
            match change(guest) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        stop.store(true, Ordering::Relaxed);
        let sent = flow.join().expect("the sender does not panic");
        changed.and(sent)
    })?;
    guest.await_frames(0)?;
    Ok(sent)
}

/// The first cell of a row and its numbers.
///
/// # Errors
/// When a cell is not a number.
pub fn cells(row: &str) -> Result<(&str, Vec<u64>)> {
    let (key, cells) = row.split_once('\t').with_context(|| format!("not a row: {row:?}"))?;
    let numbers = cells.split('\t').map(|cell| cell.parse().with_context(|| format!("not a number: {cell:?}")));
    Ok((key, numbers.collect::<Result<_>>()?))
}

/// The numbers in the row of a table that begins with `key`; empty if there is no such row.
///
/// # Errors
/// When a cell is not a number.
pub fn row(text: &str, key: &str) -> Result<Vec<u64>> {
    let row = text.lines().find(|line| line.split('\t').next() == Some(key));
    row.map_or(Ok(Vec::new()), |row| Ok(cells(row)?.1))
}

/// A number of `.stats`.
///
/// # Errors
/// When it does not have the key.
pub fn stat(guest: &mut Guest, key: &str) -> Result<u64> {
    let text = table(guest, ".stats")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {key} in\n{text}"))?.parse()?)
}

/// Opens a file of a table and performs steps (`agent/tools/files.rs` lists them). Returns one line
/// for each.
///
/// # Errors
/// When the tool fails.
pub fn file_steps(guest: &mut Guest, file: &str, steps: &[&str]) -> Result<Vec<String>> {
    let output = guest.must(&format!("/init file {TABLES}/{file} {}", steps.join(" ")))?;
    Ok(output.lines().map(str::to_owned).collect())
}
