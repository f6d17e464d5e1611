// SPDX-License-Identifier: GPL-2.0-only
//! QEMU's arguments for a guest. Boots guests, saves their state, resumes from it.

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::Guest;
use super::config::Config;
use super::saved_state::SavedState;
use crate::command::COMMAND_TIMEOUT;
use crate::poll;
use crate::qemu::{MACHINE, QEMU, QEMU_VERSION, Qmp, Setup, escape, spawn};

/// Increase it when guests start in another way, so that older saved states are not used.
const FORMAT: u32 = 4;

/// The kernel's command line. A quiet console saves time, as each character is an exit from the
/// guest. An oops is printed all the same. It becomes a panic, which ends QEMU. With `norandmaps`,
/// all processes of a program have the same addresses. So TCG translates the program once, which
/// saves a third of the time of short commands. See
/// <https://docs.kernel.org/admin-guide/kernel-parameters.html>.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic log_buf_len=4M nokaslr norandmaps \
                            mitigations=off random.trust_cpu=on no_timer_check";

/// Passes the file with the devices' state to the shell that QEMU starts: a path in an environment
/// variable needs no quoting.
const STATE_VARIABLE: &str = "XT_VM_DEVICES";
const STATE_OUT: &str = "exec:exec cat >\"$XT_VM_DEVICES\"";
const STATE_IN: &str = "exec:exec cat <\"$XT_VM_DEVICES\"";

/// How a guest starts.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Boots with its memory in a file, so that its state can be saved.
    Boot(&'a SavedState),
    /// Resumes from a saved state.
    Resume(&'a SavedState),
}

/// Prepares QEMU for a guest.
pub(super) fn setup(config: &Config, start: Start) -> Result<Setup> {
    let mut setup = hardware(config)?;
    // With `share=on` the guest writes to the file, with `share=off` its changes are private.
    let (state, share) = match start {
        Start::Boot(state) => {
            boot_kernel(&mut setup, config, COMMAND_LINE)?;
            (state, "on")
        }
        Start::Resume(state) => {
            setup.command.args(["-incoming", "defer"]);
            (state, "off")
        }
    };
    let (size, path) = (config.memory_mib, escape(&state.memory()));
    let memory = format!("memory-backend-file,id=memory,size={size}M,mem-path={path},share={share}");
    setup.command.args(["-machine", &format!("{MACHINE},memory-backend=memory"), "-object", &memory]);
    setup.command.env(STATE_VARIABLE, state.devices());
    // The large MTU makes the driver offer buffers for frames of 64 KiB.
    (0..config.ports).try_for_each(|n| setup.add_port(n, ",host_mtu=65535"))?;
    Ok(setup)
}

/// Runs a guest with the terminal as its console, until its shell ends.
///
/// # Errors
/// When QEMU cannot be started or fails.
pub fn shell(config: &Config) -> Result<()> {
    let mut setup = hardware(config)?;
    setup.command.args(["-machine", MACHINE, "-serial", "mon:stdio"]);
    boot_kernel(&mut setup, config, &format!("{COMMAND_LINE} agent.shell"))?;
    let status = spawn(setup.command)?.wait()?;
    ensure!(status.success(), "QEMU failed ({status})");
    Ok(())
}

fn hardware(config: &Config) -> Result<Setup> {
    let mut setup = Setup::new(&QEMU)?;
    let Config { cpus, memory_mib, clock, threads, .. } = config;
    // MP tables have one processor for each socket, and guests' kernels have no ACPI.
    setup.command.args(["-no-reboot", "-smp", &format!("{cpus},sockets={cpus}"), "-m", &format!("{memory_mib}M")]);
    setup.command.args(clock.arguments(*threads)?);
    Ok(setup)
}

fn boot_kernel(setup: &mut Setup, config: &Config, line: &str) -> Result<()> {
    let initramfs = setup.folder().join("initramfs");
    config.artifacts.write_initramfs(&initramfs)?;
    let command = setup.command.arg("-kernel").arg(&config.artifacts.kernel);
    command.arg("-initrd").arg(initramfs).args(["-append", line]);
    Ok(())
}

/// Stops the guest and writes the state of its devices to a file. The memory is in its file
/// already.
pub(super) fn save(guest: &mut Guest) -> Result<()> {
    guest.stop_leak_scans()?;
    let qmp = &mut guest.qemu.qmp;
    exclude_memory(qmp)?;
    qmp.command("migrate", &json!({ "uri": STATE_OUT }))?;
    poll(COMMAND_TIMEOUT, "QEMU to save the guest", || {
        let answer = qmp.command("query-migrate", &json!({}))?;
        match answer["status"].as_str() {
            Some("completed") => Ok(Some(())),
            Some("failed" | "cancelled") => bail!("QEMU cannot save the guest: {answer}"),
            _ => Ok(None),
        }
    })
}

/// Loads the state of the devices.
pub(super) fn resume(qmp: &mut Qmp) -> Result<()> {
    exclude_memory(qmp)?;
    // Otherwise frames that announce the guest's addresses leave the ports.
    qmp.command("migrate-set-parameters", &json!({ "announce-rounds": 0 }))?;
    qmp.command("migrate-incoming", &json!({ "uri": STATE_IN })).map(drop)
}

/// Excludes the memory from the saved state: both QEMUs map the same file.
fn exclude_memory(qmp: &mut Qmp) -> Result<()> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.command("migrate-set-capabilities", &json!({ "capabilities": [capability] })).map(drop)
}

/// Text that changes when the saved state of a guest would change.
pub(super) fn identity(config: &Config) -> Result<String> {
    let Config { artifacts, cpus, ports, memory_mib, clock, threads } = config;
    Ok(format!(
        "format {FORMAT}\n{}{}{}\n{}\n{MACHINE} {COMMAND_LINE}\n{cpus} CPUs, {ports} ports, {memory_mib} MiB\n",
        artifacts.identity()?,
        *QEMU_VERSION,
        clock.arguments(*threads)?.join(" "),
        clock.cpu()?,
    ))
}
