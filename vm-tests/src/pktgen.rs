// SPDX-License-Identifier: GPL-2.0-only
//! Packets from the kernel's packet generator, which passes them to the receive path like received
//! ones. It is faster than frames from the host. See
//! <https://docs.kernel.org/networking/pktgen.html>.

use anyhow::{Context, Result, ensure};
use vm_harness::command::{COMMAND_TIMEOUT, Output};
use vm_harness::guest::{Guest, Running};
use vm_harness::replay::TABLES;

use crate::row;

/// The script of a [`Generating`] makes this file when it ends.
const DONE: &str = "/tmp/generated";

/// Generates `count` UDP packets to another host on each of `cpus` CPUs at once, each with its own
/// device. `options` are pktgen commands; `{cpu}` stands for the number of the CPU.
///
/// # Errors
/// When pktgen fails or generates another number of packets.
pub fn generate(guest: &mut Guest, cpus: u32, count: u64, options: &[&str]) -> Result<()> {
    start(guest, cpus, count, options)?.finish(guest)
}

/// As [`generate`], but does not wait until the packets are generated.
///
/// # Errors
/// When the guest has ended.
pub fn start(guest: &mut Guest, cpus: u32, count: u64, options: &[&str]) -> Result<Generating> {
    guest.must(&set_up(cpus, count, options))?;
    let run = "cd /proc/net/pktgen && echo start >pgctrl; grep -h -E 'pkts-sofar|^Result' gen*";
    let command = guest.start(&format!("trap 'touch {DONE}' EXIT\n{run}"))?;
    Ok(Generating { command, cpus, count })
}

/// The generation of packets in the background.
pub struct Generating {
    command: Running,
    cpus: u32,
    count: u64,
}

impl Generating {
    /// Returns whether pktgen has ended.
    ///
    /// # Errors
    /// When the guest has ended.
    pub fn has_ended(&self, guest: &mut Guest) -> Result<bool> {
        Ok(guest.run(&format!("test -e {DONE}"))?.status == 0)
    }

    /// Waits until all packets were generated.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn finish(self, guest: &mut Guest) -> Result<()> {
        let output = guest.finish_command(self.command, COMMAND_TIMEOUT)?;
        check(&output, self.cpus, self.count)
    }
}

/// The commands that set up pktgen.
fn set_up(cpus: u32, count: u64, options: &[&str]) -> String {
    let mut script = String::from("cd /proc/net/pktgen || exit 1\nset -e\necho reset >pgctrl\n");
    for cpu in 0..cpus {
        let count = format!("count {count}");
        let common = ["xmit_mode netif_receive", "clone_skb 0", "delay 0", "dst_mac 02:b0:b0:00:00:02", &count];
        script += &format!(
            "ip link show gen{cpu} >/dev/null 2>&1 || ip link add gen{cpu} type dummy\n\
             ip link set gen{cpu} promisc on up\necho add_device gen{cpu} >kpktgend_{cpu}\n"
        );
        for option in common.iter().chain(options) {
            script += &format!("echo '{}' >gen{cpu}\n", option.replace("{cpu}", &cpu.to_string()));
        }
    }
    script + &format!("rm -f {DONE}\n")
}

fn check(output: &Output, cpus: u32, count: u64) -> Result<()> {
    ensure!(output.status == 0, "{}{}", output.stdout, output.stderr);
    // pktgen counts dropped packets as errors, and the kernel drops all mirrored packets.
    let done = output.stdout.matches(&format!("pkts-sofar: {count} ")).count();
    ensure!(done == cpus as usize, "{}", output.stdout);
    Ok(())
}

/// Sums a table in the guest: the number of rows, the sums of all cells, the row `*`.
///
/// # Errors
/// When `/init sum` finds an invalid row.
pub fn sum(guest: &mut Guest, file: &str) -> Result<(u64, Vec<u64>, Vec<u64>)> {
    parse_sum(&guest.must(&format!("/init sum {TABLES}/{file}"))?)
}

/// The result of [`sum`] from the output of `/init sum`.
///
/// # Errors
/// When it is not such an output.
pub fn parse_sum(output: &str) -> Result<(u64, Vec<u64>, Vec<u64>)> {
    // A table without rows has no sums.
    let numbers = |line: &str| line.trim().split('\t').map(|cell| Ok(cell.parse()?)).collect::<Result<Vec<u64>>>();
    let first = numbers(output.lines().next().context("no sums")?)?;
    Ok((first[0], first[1..].to_vec(), row(output, "*")?))
}
