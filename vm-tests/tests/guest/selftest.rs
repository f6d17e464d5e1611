// SPDX-License-Identifier: GPL-2.0-only
//! The tests of the hook PROMISC and of mirror devices that the kernel patches add to the kernel's
//! own tests:
//! <https://docs.kernel.org/dev-tools/kselftest.html>

use std::time::Duration;

use anyhow::{Result, ensure};
use vm_harness::guest::Guest;
use vm_tests::guest_test;

const FOLDER: &str = "/usr/tools/testing/selftests/net/netfilter";
const TIMEOUT: Duration = Duration::from_secs(1200);

/// Runs a test, which must pass and skip nothing.
fn run(guest: &mut Guest, script: &str) -> Result<()> {
    // busybox's readlink does not know -e, which the kernel's scripts use: there the path exists.
    guest.must("mkdir /tmp/tools")?;
    guest.write("/tmp/tools/readlink", b"#!/bin/sh\ntest \"$1\" = -e && shift\nexec busybox readlink -f \"$@\"\n")?;
    guest.must("chmod 755 /tmp/tools/readlink")?;
    let line = format!("cd {FOLDER} && PATH=/tmp/tools:$PATH bash ./{script} 2>&1");
    let output = guest.run_for(&line, TIMEOUT)?;
    ensure!(output.status == 0, "exit status {}:\n{}", output.status, output.stdout);
    ensure!(!output.stdout.contains("SKIP"), "skipped:\n{}", output.stdout);
    ensure!(output.stdout.lines().filter(|line| line.starts_with("PASS: ")).count() > 10, "{}", output.stdout);
    Ok(())
}

guest_test!(the_selftest_of_the_hook_passes_and_skips_nothing, |guest| {
    run(guest, "nf_promisc.sh")?;
});

guest_test!(the_selftest_of_mirror_devices_passes_and_skips_nothing, |guest| {
    run(guest, "nf_mirror.sh")?;
});
