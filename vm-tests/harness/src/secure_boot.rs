// SPDX-License-Identifier: GPL-2.0-only
//! A virtual machine whose firmware has Secure Boot on. It boots a disk and powers itself off.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::accel;
use crate::artifacts::folder_from_environment;
use crate::qemu::{MACHINE, QEMU, Setup, escape};
use crate::terminal_text::plain;

/// Names the folder for tests. `cargo xtask vm-test` sets it.
const FOLDER_VARIABLE: &str = "XT_TRAFFIC_SECURE_BOOT";

/// From the start of the firmware to the end, with TCG on a busy host.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Boots `disk.img` with the firmware `code.fd` and its variables `vars.fd`, in the folder that the
/// environment variable `XT_TRAFFIC_SECURE_BOOT` names. Returns what was on the console.
///
/// # Errors
/// When a file is missing, or the machine does not power itself off in time: with its console.
pub fn boot() -> Result<String> {
    let folder = folder_from_environment(FOLDER_VARIABLE)?;
    let mut setup = Setup::new(&QEMU)?;
    // The firmware writes to its variables.
    let vars = setup.folder().join("vars.fd");
    fs::copy(folder.join("vars.fd"), &vars).context("`cargo xtask vm-test` builds this file")?;
    let console = format!("file,id=console,path={}", escape(&setup.folder().join("console")));
    // Only code in system management mode can change the variables:
    // https://github.com/tianocore/edk2/blob/master/OvmfPkg/README
    let machine = format!("{MACHINE},smm=on");
    setup.command.args(["-machine", &machine, "-global", "driver=cfi.pflash01,property=secure,value=on"]);
    setup.command.args(flash(0, &folder.join("code.fd"), "readonly=on")).args(flash(1, &vars, "readonly=off"));
    let disk = format!("file={},format=raw,if=virtio,readonly=on", escape(&folder.join("disk.img")));
    setup.command.args(["-drive", &disk, "-m", "512M", "-smp", "1", "-no-reboot"]);
    setup.command.args(accel::best()?.arguments(accel::Threads::Each));
    setup.command.args(["-chardev", &console, "-serial", "chardev:console"]);
    let mut process = setup.spawn()?;
    match process.wait(TIMEOUT) {
        Ok(status) => {
            ensure!(status.success(), "QEMU failed ({status}); {}", process.post_mortem());
            Ok(plain(process.console().as_bytes()))
        }
        Err(error) => Err(error.context(process.post_mortem())),
    }
}

/// QEMU's arguments for a flash chip of the firmware.
fn flash(unit: usize, file: &Path, options: &str) -> [String; 2] {
    ["-drive".to_owned(), format!("if=pflash,unit={unit},format=raw,file={},{options}", escape(file))]
}
