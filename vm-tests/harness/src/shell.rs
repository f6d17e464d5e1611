// SPDX-License-Identifier: GPL-2.0
//! An interactive guest, for people.

use anyhow::Result;

use crate::artifacts::Artifacts;
use crate::guest::{self, Config};

/// Boots a guest with everything installed and gives its shell the terminal. Ends with the shell (`exit`, or
/// Ctrl-A X as in every QEMU).
///
/// # Errors
/// When QEMU cannot be started or fails.
pub fn shell(artifacts: Artifacts) -> Result<()> {
    guest::shell(&Config::new(artifacts))
}
