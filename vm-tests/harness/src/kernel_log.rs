// SPDX-License-Identifier: GPL-2.0-only
//! Searches kernel logs for reports of bugs.

use anyhow::{Result, ensure};

/// Words in reports of bugs. The search is case-sensitive: the kernel is consistent, and other
/// spellings occur in harmless lines.
const ALARMS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "BUG ",
    "Oops",
    "Kernel panic",
    "Call Trace:",
    "general protection fault",
    "divide error",
    "unable to handle",
    "Unable to handle",
    "INFO: task",
    "INFO: rcu",
    "rcu_sched detected",
    "rcu_preempt detected",
    "suspicious RCU usage",
    "circular locking dependency",
    "recursive locking",
    "inconsistent lock state",
    "lock inversion",
    "unlock balance",
    "locks held",
    "held lock freed",
    "INFO: trying to register non-static key",
    "turning off the locking correctness validator",
    "INFO: lockdep",
    "ODEBUG:",
    "kmemleak",
    "unreferenced object",
    "sleeping function called",
    "scheduling while atomic",
    "soft lockup",
    "hard LOCKUP",
    "UBSAN",
    "KASAN",
    "KCSAN",
    "KFENCE",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "page allocation failure",
    "Bad page",
    "Bad rss-counter",
    "unregister_netdevice: waiting",
    "Out of memory",
    "rust_kernel: panicked",
    "panicked at",
    "segfault at",
    "traps: ",
];

/// Words in harmless lines that contain one of [`ALARMS`].
const HARMLESS: &[&str] = &[
    // kmemleak at boot, and after a scan without findings.
    "kmemleak: Kernel memory leak detector initialized",
    "kmemleak: Automatic memory scanning thread",
    // On a busy host, one CPU of a guest uses up the pool of debug objects while the other, which
    // refills it, does not run. The kernel then does without: debug_objects_oom() in
    // <https://github.com/torvalds/linux/blob/v6.12/lib/debugobjects.c>
    "ODEBUG: Out of memory. ODEBUG disabled",
    // The compile-time options that lockdep lists at boot.
    "... MAX_LOCK",
];

/// Checks a log: records of the agent (`<priority>[microseconds] text`), of dmesg, or a console.
///
/// # Errors
/// With the reports.
pub fn check(log: &str) -> Result<()> {
    let alarms = alarms(log);
    ensure!(alarms.is_empty(), "the kernel log is not clean:\n{}", alarms.join("\n\n"));
    Ok(())
}

/// The reports in a log, each with the lines around it.
fn alarms(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let mut alarms = Vec::new();
    let mut from = 0;
    while let Some(at) = lines[from..].iter().position(|line| is_alarm(line)) {
        let first = from + at;
        // The lines after the first one hold the details of a report.
        from = (first + 40).min(lines.len());
        alarms.push(lines[first.saturating_sub(2)..from].join("\n"));
    }
    alarms
}

fn is_alarm(line: &str) -> bool {
    ALARMS.iter().any(|alarm| line.contains(alarm)) && !HARMLESS.iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_include_the_lines_around_them() {
        let log = "<6>[1] before\n<4>[2] ------------[ cut here ]------------\n\
                   <4>[3] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 x+0x1/0x2\n<4>[4] Modules linked in:\n";
        let alarms = alarms(log);
        assert_eq!(alarms.len(), 1);
        assert!(alarms[0].starts_with("<6>[1] before") && alarms[0].ends_with("Modules linked in:"));
    }

    #[test]
    fn a_clean_log_has_no_reports() {
        let log = "<6>[1] kmemleak: Kernel memory leak detector initialized (mem pool available: 15800)\n\
                   <6>[2] kmemleak: Automatic memory scanning thread started\n\
                   <6>[3] Spectre V2 : Mitigation: Retpolines\n<5>[4] xt_traffic: loading out-of-tree module taints kernel.\n\
                   <6>[5] debug: unmapping init\n";
        assert_eq!(alarms(log), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_report_is_found() {
        for line in [
            "WARNING: possible circular locking dependency detected",
            "BUG: sleeping function called from invalid context at mm/slab.h:1",
            "INFO: task init:1 blocked for more than 120 seconds.",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "Oops: 0000 [#1] SMP",
        ] {
            assert_eq!(alarms(line).len(), 1, "{line}");
        }
    }
}
