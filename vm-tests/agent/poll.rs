// SPDX-License-Identifier: GPL-2.0-only
//! Polling with a deadline.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The pause between two attempts.
pub const INTERVAL: Duration = Duration::from_millis(1);

/// Calls `attempt` until it returns a value, at least once.
///
/// # Errors
/// The error of `attempt`. After the timeout, an [`io::Error`] that names `what`.
pub fn poll<T>(timeout: Duration, what: &str, attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let value = poll_every(INTERVAL, timeout, attempt)?;
    value.ok_or_else(timed_out).with_context(|| format!("waited {timeout:?} for {what}"))
}

/// Calls `attempt` until it returns a value, at least once, with pauses of `interval`. Returns
/// `None` after the timeout.
///
/// # Errors
/// The error of `attempt`.
pub fn poll_every<T>(
    interval: Duration,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + timeout;
    loop {
        let value = attempt()?;
        if value.is_some() || Instant::now() > deadline {
            return Ok(value);
        }
        std::thread::sleep(interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value() {
        let mut numbers = 0..;
        let found = poll(Duration::from_secs(20), "a 3", || Ok(numbers.next().filter(|&number| number == 3)));
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_timeout_is_an_io_error() {
        let error = poll::<()>(Duration::ZERO, "nothing", || Ok(None)).unwrap_err();
        assert!(error.is::<io::Error>() && error.to_string() == "waited 0ns for nothing", "{error:#}");
    }
}
