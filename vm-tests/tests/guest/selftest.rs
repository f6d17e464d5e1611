// SPDX-License-Identifier: GPL-2.0-only
//! The test of the hook PROMISC that the kernel patches add to the kernel's own tests:
//! <https://docs.kernel.org/dev-tools/kselftest.html>

use std::time::Duration;

use anyhow::ensure;
use vm_tests::guest_test;

const FOLDER: &str = "/usr/tools/testing/selftests/net/netfilter";
const TIMEOUT: Duration = Duration::from_secs(1200);

guest_test!(the_selftest_of_the_kernel_passes_and_skips_nothing, |guest| {
    // busybox's readlink does not know -e, which the kernel's scripts use: there the path exists.
    guest.must("mkdir /tmp/tools")?;
    guest.write("/tmp/tools/readlink", b"#!/bin/sh\ntest \"$1\" = -e && shift\nexec busybox readlink -f \"$@\"\n")?;
    guest.must("chmod 755 /tmp/tools/readlink")?;
    let line = format!("cd {FOLDER} && PATH=/tmp/tools:$PATH bash ./nf_promisc.sh 2>&1");
    let output = guest.run_for(&line, TIMEOUT)?;
    ensure!(output.status == 0, "exit status {}:\n{}", output.status, output.stdout);
    ensure!(!output.stdout.contains("SKIP"), "skipped:\n{}", output.stdout);
    ensure!(output.stdout.lines().filter(|line| line.starts_with("PASS: ")).count() > 10, "{}", output.stdout);
});
