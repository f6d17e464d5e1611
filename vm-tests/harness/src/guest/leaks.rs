// SPDX-License-Identifier: GPL-2.0-only
//! Memory leaks in the kernel, found by kmemleak:
//! <https://docs.kernel.org/dev-tools/kmemleak.html>.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Clock, Guest};

/// kmemleak does not report objects that are younger than five seconds at a scan.
const LEAK_AGE: Duration = Duration::from_millis(5500);
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

impl Guest {
    fn has_kmemleak(&mut self) -> Result<bool> {
        Ok(self.run(&format!("test -e {KMEMLEAK}"))?.status == 0)
    }

    /// Stops kmemleak's periodic scans.
    pub(super) fn stop_leak_scans(&mut self) -> Result<()> {
        if self.has_kmemleak()? { self.write(KMEMLEAK, b"scan=off") } else { Ok(()) }
    }

    /// kmemleak reports an object that is unreferenced, unchanged since the scan before, and old
    /// enough. So the first scan runs now, and the second when all objects of the test are old
    /// enough.
    pub(super) fn check_leaks(&mut self) -> Result<()> {
        if !self.has_kmemleak()? {
            return Ok(());
        }
        let youngest = self.last_change;
        self.write(KMEMLEAK, b"scan")?;
        match self.clock {
            Clock::Real => std::thread::sleep((youngest + LEAK_AGE).saturating_duration_since(Instant::now())),
            Clock::Virtual => self.sleep(LEAK_AGE)?,
        }
        self.write(KMEMLEAK, b"scan")?;
        let report = self.read_text(KMEMLEAK)?;
        ensure!(report.is_empty(), "the kernel leaks memory:\n{report}");
        Ok(())
    }
}
