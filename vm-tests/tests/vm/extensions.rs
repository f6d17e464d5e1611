// SPDX-License-Identifier: GPL-2.0
//! Other extensions in the chain PROMISC.

use anyhow::ensure;

use crate::support::{BACKENDS, in_guest, iptables};

#[test]
fn extensions_that_work_in_one_back_end_work_in_the_other() {
    in_guest(|guest| {
        for backend in BACKENDS {
            iptables(guest, backend, "-A PROMISC -m mac --mac-source 02:00:00:00:00:01")?;
            let output = guest.run(&backend.command("-A PROMISC -j REJECT"))?;
            ensure!(output.status != 0, "{backend}: REJECT has nothing to answer from here");
        }
        Ok(())
    });
}
