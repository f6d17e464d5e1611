// SPDX-License-Identifier: GPL-2.0-only
//! Polling with a deadline. (The harness has the same function, but this program uses std alone.)

use std::time::{Duration, Instant};

/// Calls `attempt` until it returns a value, at least once; `None` after the timeout.
pub fn poll<T, E>(
    timeout: Duration,
    interval: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + timeout;
    loop {
        let value = attempt()?;
        if value.is_some() || Instant::now() > deadline {
            return Ok(value);
        }
        std::thread::sleep(interval);
    }
}
