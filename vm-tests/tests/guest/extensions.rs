// SPDX-License-Identifier: GPL-2.0-only
//! Other matches and targets in the chain PROMISC.

use anyhow::ensure;
use vm_tests::{BACKENDS, guest_test, iptables};

guest_test!(both_back_ends_accept_and_refuse_the_same_extensions, |guest| {
    for backend in BACKENDS {
        iptables(guest, backend, "-A PROMISC -m mac --mac-source 02:00:00:00:00:01")?;
        ensure!(guest.run(&backend.command("-A PROMISC -j REJECT"))?.status != 0, "{backend}: REJECT is accepted");
    }
});
