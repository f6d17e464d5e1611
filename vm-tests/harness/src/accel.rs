// SPDX-License-Identifier: GPL-2.0-only
//! Chooses between KVM and TCG.

use std::fs::OpenOptions;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use fs_err as fs;

use crate::qemu::{QEMU, QEMU_VERSION, Setup};

/// Overrides the choice: `kvm` or `tcg`.
const VARIABLE: &str = "XT_TRAFFIC_ACCEL";

/// How QEMU executes the code of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// On the CPU.
    Kvm,
    /// By translation: works on every host, several times slower.
    Tcg,
}

/// The threads that run the CPUs of a virtual machine with TCG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One for each CPU.
    Each,
    /// One for each CPU, or one for all with a QEMU older than 8.1. Such a QEMU translates an
    /// instruction while another thread replaces it, and can run the old one later. A kernel
    /// replaces its own instructions when the first rule comes to a hook or the last one leaves it,
    /// and it stops with "int3" if a CPU runs an old one.
    /// <https://gitlab.com/qemu-project/qemu/-/commit/deba78709ae8ce103e2248413857747f804cd1ef>
    SafeForPatching,
}

impl Threads {
    fn argument(self) -> &'static str {
        let is_safe = || parse_version(&QEMU_VERSION).is_some_and(|version| version >= (8, 1));
        if self == Self::Each || is_safe() { "tcg,thread=multi" } else { "tcg,thread=single" }
    }
}

impl Accel {
    /// QEMU's arguments. The CPU model is the same on every host with TCG, and the host's with KVM.
    pub fn arguments(self, threads: Threads) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", threads.argument(), "-cpu", "max"],
        }
    }
}

/// Major and minor version in the output of `qemu-system-x86_64 --version`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("QEMU emulator version ")?.split(['.', ' ', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Text that identifies the CPU model of a virtual machine.
pub fn cpu(accel: Accel) -> String {
    match accel {
        Accel::Tcg => "max".into(),
        Accel::Kvm => {
            let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let fields = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
            let first = cpus.lines().take_while(|line| !line.is_empty());
            first.filter(|line| fields.iter().any(|field| line.starts_with(field))).collect()
        }
    }
}

/// KVM where it works, TCG elsewhere. The first call tests KVM; the process remembers the result.
///
/// # Errors
/// When the environment variable `XT_TRAFFIC_ACCEL` is neither `kvm` nor `tcg`.
pub fn best() -> Result<Accel> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        Ok(other) => bail!("{VARIABLE}={other}: expected kvm or tcg"),
        Err(_) => {}
    }
    static BEST: OnceLock<Accel> = OnceLock::new();
    Ok(*BEST.get_or_init(|| if kvm_works() { Accel::Kvm } else { Accel::Tcg }))
}

/// `/dev/kvm` can be opened on some hosts on which no guest runs: in containers on hosts without
/// the CPU feature, and in virtual machines whose hypervisor fails nested guests. So after the
/// cheap checks a guest is started.
fn kvm_works() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let supported = cpu.split_whitespace().any(|word| word == "vmx" || word == "svm");
    supported && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() && probe(Accel::Kvm).is_ok()
}

/// The probe writes this to QEMU's exit device; QEMU then exits with `2 * code + 1`.
const EXIT_CODE: u8 = 0x2a;
const EXIT_PORT: u8 = 0xf4;
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a guest whose firmware exits at once.
///
/// # Errors
/// When QEMU cannot run it.
pub fn probe(accel: Accel) -> Result<()> {
    let mut setup = Setup::new(&QEMU)?;
    let firmware = setup.folder().join("firmware");
    fs::write(&firmware, exit_firmware())?;
    let device = format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4");
    setup.command.args(["-machine", "pc", "-m", "16", "-device", &device]).args(accel.arguments(Threads::Each));
    setup.command.arg("-bios").arg(firmware);
    let status = setup.spawn()?.wait(PROBE_TIMEOUT)?;
    ensure!(status.code() == Some(i32::from(EXIT_CODE) * 2 + 1), "the probe ended with {status}");
    Ok(())
}

/// 64 KiB that end at 4 GiB. The CPU starts 16 bytes before the end.
fn exit_firmware() -> Vec<u8> {
    let mut rom = vec![0xf4; 64 << 10]; // hlt
    let start = rom.len() - 16;
    rom[start..start + 4].copy_from_slice(&[0xb0, EXIT_CODE, 0xe6, EXIT_PORT]); // mov al, code; out port, al
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_qemu_is_found() {
        let debian = "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022\n";
        assert_eq!(parse_version(debian), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.1.0\n"), Some((10, 1)));
        assert_eq!(parse_version("qemu-img version 7.2.19\n"), None);
    }
}
