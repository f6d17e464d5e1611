// SPDX-License-Identifier: GPL-2.0
//! Whether guests can run on KVM here.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The QEMU that runs guests.
pub const QEMU: &str = "qemu-system-x86_64";

/// Forces a choice: `kvm` or `tcg`.
const VARIABLE: &str = "XT_TRAFFIC_ACCEL";

/// How QEMU executes the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// On the CPU itself.
    Kvm,
    /// Translated by QEMU: works everywhere, several times slower.
    Tcg,
}

impl Accel {
    /// QEMU's arguments for it. TCG's CPU is the same on every host, KVM's is the host's own.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// The guest's CPU, in words that change when it does.
pub fn cpu(accel: Accel) -> String {
    match accel {
        Accel::Tcg => "max".into(),
        Accel::Kvm => {
            let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let kinds = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
            let first = cpus.lines().take_while(|line| !line.is_empty());
            first.filter(|line| kinds.iter().any(|kind| line.starts_with(kind))).collect()
        }
    }
}

/// KVM where a guest really runs on it, TCG elsewhere. The first call tries it out; the process remembers.
///
/// # Errors
/// When the environment variable `XT_TRAFFIC_ACCEL` holds something else than `kvm` or `tcg`.
pub fn best() -> Result<Accel> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        Ok(other) => bail!("{VARIABLE}={other}: it can be kvm or tcg"),
        Err(_) => {}
    }
    static BEST: OnceLock<Accel> = OnceLock::new();
    Ok(*BEST.get_or_init(|| if kvm_works() { Accel::Kvm } else { Accel::Tcg }))
}

/// The device can exist and open, and yet nothing run: in a container on a host without the feature, or in a
/// virtual machine whose own hypervisor fails nested guests. So look at the cheap signs, then try.
fn kvm_works() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = cpu
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    able && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() && probe(Accel::Kvm).is_ok()
}

/// What the probe's guest writes to QEMU's exit device; QEMU then exits with `2 * code + 1`.
const EXIT_CODE: u8 = 0x2a;
const EXIT_PORT: u8 = 0xf4;
const PROBE_TIME: Duration = Duration::from_secs(20);

/// Runs a guest that does nothing but leave again: a firmware of three instructions at the reset vector.
fn probe(accel: Accel) -> Result<()> {
    let mut firmware = tempfile::NamedTempFile::new()?;
    write_firmware(firmware.as_file_mut())?;
    let mut qemu = Command::new(QEMU)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "16"])
        .args(accel.arguments())
        .args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4"), "-bios"])
        .arg(firmware.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {QEMU}"))?;
    let deadline = Instant::now() + PROBE_TIME;
    // Std has no wait with a time limit; a hundred looks a second cost nothing.
    let status = loop {
        if let Some(status) = qemu.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            qemu.kill()?;
            qemu.wait()?;
            bail!("the probe hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    ensure!(status.code() == Some(i32::from(EXIT_CODE) * 2 + 1), "the probe ended with {status}");
    Ok(())
}

/// 64 KiB that end at the top of the first 4 GiB; the CPU starts 16 bytes below that.
fn write_firmware(file: &mut File) -> Result<()> {
    let mut rom = vec![0xf4; 64 << 10]; // hlt
    let start = rom.len() - 16;
    rom[start..start + 4].copy_from_slice(&[0xb0, EXIT_CODE, 0xe6, EXIT_PORT]); // mov al, code; out port, al
    Ok(file.write_all(&rom)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_runs_where_guests_run() {
        probe(Accel::Tcg).unwrap();
    }
}
