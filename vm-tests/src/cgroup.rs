// SPDX-License-Identifier: GPL-2.0-only
//! Rules whose tables have little memory. See
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>.

use anyhow::Result;
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;

/// What the rules allocate is charged to this cgroup.
const GROUP: &str = "/sys/fs/cgroup/creator";

/// Adds a rule from a new memory cgroup. From then on the rule can allocate about `bytes` more.
///
/// # Errors
/// When the guest refuses it.
pub fn add_rule(guest: &mut Guest, rule: &str, bytes: u32) -> Result<()> {
    guest.must(&format!(
        "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
         echo +memory >/sys/fs/cgroup/cgroup.subtree_control && mkdir {GROUP}"
    ))?;
    guest.must(&format!("echo $$ >{GROUP}/cgroup.procs && {}", Backend::Nft.command(rule)))?;
    guest.must(&format!("echo $(($(cat {GROUP}/memory.current) + {bytes})) >{GROUP}/memory.max")).map(drop)
}

/// Removes the limit of the cgroup.
///
/// # Errors
/// When the guest refuses it.
pub fn remove_limit(guest: &mut Guest) -> Result<()> {
    guest.must(&format!("echo max >{GROUP}/memory.max")).map(drop)
}
