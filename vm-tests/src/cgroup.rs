// SPDX-License-Identifier: GPL-2.0-only
//! A cgroup whose rules and readers have little memory. See
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>.

use anyhow::{Result, ensure};
use vm_harness::guest::{Guest, Running};
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
    set_limit(guest, bytes)
}

/// From now on, the cgroup can allocate about `bytes` more.
///
/// # Errors
/// When the guest refuses it.
pub fn set_limit(guest: &mut Guest, bytes: u32) -> Result<()> {
    guest.must(&format!("echo $(($(cat {GROUP}/memory.current) + {bytes})) >{GROUP}/memory.max")).map(drop)
}

/// Removes the limit of the cgroup.
///
/// # Errors
/// When the guest refuses it.
pub fn remove_limit(guest: &mut Guest) -> Result<()> {
    guest.must(&format!("echo max >{GROUP}/memory.max")).map(drop)
}

/// Starts a program in the cgroup.
///
/// # Errors
/// When it cannot be started.
pub fn start(guest: &mut Guest, program: &str) -> Result<Running> {
    guest.start(&format!("echo $$ >{GROUP}/cgroup.procs && exec {program}"))
}

/// Starts a process in the cgroup that sleeps. The OOM killer would choose it.
///
/// # Errors
/// When it cannot be started.
pub fn start_idle(guest: &mut Guest) -> Result<Running> {
    let process = start(guest, "sleep 1000")?;
    // Before it sleeps, it needs memory itself.
    let status = format!("/proc/$(cat {GROUP}/cgroup.procs)/status");
    guest.must(&format!("until grep -q '^Name:.sleep' {status} && grep -q '^State:.S' {status}; do :; done"))?;
    Ok(process)
}

/// Sends SIGTERM to the processes in the cgroup.
///
/// # Errors
/// When there is none.
pub fn end_processes(guest: &mut Guest) -> Result<()> {
    guest.must(&format!("kill $(cat {GROUP}/cgroup.procs)")).map(drop)
}

/// Checks that the OOM killer was not called for the cgroup, and that nobody was killed.
///
/// # Errors
/// When this is not so.
pub fn check_nobody_was_killed(guest: &mut Guest) -> Result<()> {
    crate::check_nobody_was_killed(guest)?;
    let events = guest.must(&format!("cat {GROUP}/memory.events"))?;
    for wanted in ["oom 0", "oom_kill 0"] {
        ensure!(events.lines().any(|line| line == wanted), "not {wanted}:\n{events}");
    }
    Ok(())
}
