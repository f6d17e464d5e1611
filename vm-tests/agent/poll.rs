// SPDX-License-Identifier: GPL-2.0-only
//! Polling with a deadline.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const INTERVAL: Duration = Duration::from_millis(1);

/// Calls `attempt` until it returns a value, at least once.
///
/// # Errors
/// The error of `attempt`. After the timeout, an [`io::Error`] that names `what`.
pub fn poll<T>(timeout: Duration, what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(error).with_context(|| format!("waited {timeout:?} for {what}"));
        }
        std::thread::sleep(INTERVAL);
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
