// SPDX-License-Identifier: GPL-2.0
//! kmemleak: what the kernel has allocated and nothing refers to any more.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Clock, Guest};

/// kmemleak does not report what was allocated less than five seconds before a scan.
const LEAK_AGE: Duration = Duration::from_millis(5500);
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

impl Guest {
    fn has_kmemleak(&mut self) -> Result<bool> {
        Ok(self.run(&format!("test -e {KMEMLEAK}"))?.status == 0)
    }

    /// kmemleak's own scans would come at odd times.
    pub(super) fn stop_leak_scans(&mut self) -> Result<()> {
        if self.has_kmemleak()? { self.write(KMEMLEAK, b"scan=off") } else { Ok(()) }
    }

    /// An object is reported when it is found unreferenced, unchanged since the scan before, and old enough. So
    /// the first scan runs now, the second when everything that the test made has the age.
    pub(super) fn check_leaks(&mut self) -> Result<()> {
        if !self.has_kmemleak()? {
            return Ok(());
        }
        let youngest = self.last_change;
        self.write(KMEMLEAK, b"scan")?;
        match self.clock {
            // The kernel's clock is the only thing that moves meanwhile.
            Clock::Real => std::thread::sleep((youngest + LEAK_AGE).saturating_duration_since(Instant::now())),
            Clock::Virtual => self.pass_time(LEAK_AGE)?,
        }
        self.write(KMEMLEAK, b"scan")?;
        let report = self.read_text(KMEMLEAK)?;
        ensure!(report.is_empty(), "the kernel leaks memory:\n{report}");
        Ok(())
    }
}
