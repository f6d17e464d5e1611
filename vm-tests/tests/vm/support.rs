// SPDX-License-Identifier: GPL-2.0
//! What all tests begin and end with, and what many of them do in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use traffic_model::model::{Expected, Rule};
use vm_harness::artifacts::Artifacts;
use vm_harness::guest::{Config, Guest, mac_of_port};
use vm_harness::replay::{Backend, TABLES};

/// Both iptables.
pub const BACKENDS: [Backend; 2] = [Backend::Nft, Backend::Legacy];

/// Boots a guest, runs a test in it, and looks for what the test cannot see: trouble in the kernel's log, and
/// leaks.
pub fn in_guest(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot();
    test(&mut guest).unwrap_or_else(|error| panic!("{error:#}"));
    guest.finish().unwrap_or_else(|error| panic!("{error:#}"));
}

/// The same without looking for leaks, which takes several seconds: for tests of commands that never get as far
/// as the kernel.
pub fn in_guest_briefly(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let mut guest = boot();
    test(&mut guest).and_then(|()| guest.check_log()).unwrap_or_else(|error| panic!("{error:#}"));
}

/// A guest that nobody looks at in the end.
pub fn boot() -> Guest {
    let config = Artifacts::from_environment().map(Config::new);
    config.and_then(|config| Guest::boot(&config)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs the patched iptables, which must succeed.
pub fn iptables(guest: &mut Guest, backend: Backend, rule: &str) -> Result<String> {
    guest.must(&backend.command(rule))
}

/// The text of a table's file.
pub fn table(guest: &mut Guest, name: &str) -> Result<String> {
    guest.read_text(&format!("{TABLES}/{name}"))
}

/// Counts frames with both back ends at once, each in a table of its own. `options` is what follows
/// `--traffic`, without a name. Gives the table's text, which must be the same in both.
pub fn count<F: AsRef<[u8]>>(guest: &mut Guest, options: &str, frames: &[F]) -> Result<String> {
    for backend in BACKENDS {
        iptables(guest, backend, &format!("-A PROMISC -m traffic --traffic {options} --name {backend}"))?;
    }
    guest.open_port(0)?;
    guest.send(0, frames)?;
    let [nft, legacy] = [table(guest, "nft")?, table(guest, "legacy")?];
    ensure!(nft == legacy, "nft counts\n{nft}and legacy counts\n{legacy}");
    Ok(nft)
}

/// What the model says of frames that arrive at port 0.
pub fn expected<F: AsRef<[u8]>>(rule: &Rule, frames: &[F]) -> Expected {
    Expected::of(rule, mac_of_port(0), frames)
}

/// The packet and byte counters of a chain's rules, as the back end saves them.
pub fn counters(guest: &mut Guest, backend: Backend, chain: &str) -> Result<Vec<(u64, u64)>> {
    counters_of(guest, &format!("iptables-{backend}"), chain)
}

/// As [`counters`], of the IPv6 rules.
pub fn counters6(guest: &mut Guest, backend: Backend, chain: &str) -> Result<Vec<(u64, u64)>> {
    counters_of(guest, &format!("ip6tables-{backend}"), chain)
}

fn counters_of(guest: &mut Guest, tool: &str, chain: &str) -> Result<Vec<(u64, u64)>> {
    let saved = guest.must(&format!("/usr/local/sbin/{tool}-save -c -t filter"))?;
    let rules = saved.lines().filter_map(|line| {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        (rule.split(' ').next() == Some(chain)).then_some(counters)
    });
    rules
        .map(|counters| {
            let (packets, bytes) = counters.split_once(':').context("counters")?;
            Ok((packets.parse()?, bytes.parse()?))
        })
        .collect()
}

/// How many frames port `n` has dropped because they were for another host.
pub fn otherhost_dropped(guest: &mut Guest, n: usize) -> Result<u64> {
    let text = guest.must(&format!("ip -j -s -s link show dev eth{n}"))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let counters = links.pointer("/0/stats64/rx").with_context(|| format!("no counters in {text}"))?;
    // A zero is not printed.
    Ok(counters["otherhost"].as_u64().unwrap_or(0))
}

/// Runs `change` again and again while frames arrive at port 0 without an end; `frame` makes the one with a number.
/// Gives how many frames there were.
pub fn under_traffic(
    guest: &mut Guest,
    frame: impl Fn(u64) -> Vec<u8> + Sync,
    mut change: impl FnMut(&mut Guest) -> Result<()>,
) -> Result<u64> {
    const CHANGES: usize = 12;
    /// So many at once, and then a moment nothing: as fast as possible would leave the guest's CPU no time for the
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
        let changed = (0..CHANGES).try_for_each(|_| change(guest));
        stop.store(true, Ordering::Relaxed);
        let sent = flow.join().expect("the sender does not panic");
        changed.and(sent)
    })?;
    guest.await_frames(0)?;
    Ok(sent)
}

/// As [`in_guest`], with a clock that jumps when the guest has nothing to do.
pub fn in_virtual_time(test: impl FnOnce(&mut Guest) -> Result<()>) {
    let config = Artifacts::from_environment().map(Config::with_virtual_clock);
    let mut guest = config.and_then(|config| Guest::boot(&config)).unwrap_or_else(|error| panic!("{error:#}"));
    test(&mut guest).unwrap_or_else(|error| panic!("{error:#}"));
    guest.finish().unwrap_or_else(|error| panic!("{error:#}"));
}

/// The numbers in the row of a table that begins with `key`; none if there is no such row.
pub fn row(text: &str, key: &str) -> Result<Vec<u64>> {
    let cells = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
    let Some(cells) = cells else { return Ok(Vec::new()) };
    cells.split('\t').map(|cell| cell.parse().with_context(|| format!("no number: {cell:?}"))).collect()
}

/// Opens a file and does to it what the steps say (`agent/tools/files.rs` has the words); gives a line for each.
pub fn file_steps(guest: &mut Guest, path: &str, steps: &[&str]) -> Result<Vec<String>> {
    let said = guest.must(&format!("/init file {path} {}", steps.join(" ")))?;
    Ok(said.lines().map(str::to_owned).collect())
}
