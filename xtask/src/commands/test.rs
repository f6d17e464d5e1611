// SPDX-License-Identifier: GPL-2.0
//! `test`: every test there is.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{
    commands::{build_libxt, setup, vm_test},
    process,
    workshop::Workshop,
};

/// Host tests first, as they take seconds; then the bindings; then the tests in QEMU.
pub fn run(ws: &Workshop) -> Result<()> {
    drop(setup::prepare(ws)?);
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let tests = cmd!(sh, "cargo test --quiet --workspace --exclude vm-tests");
    if !process::run_foreground(tests.into())?.success() {
        bail!("tests on the host failed");
    }
    build_libxt::check_bindings(ws)?;
    vm_test::run(ws, &vm_test::Options::default())
}
