// SPDX-License-Identifier: GPL-2.0-only
//! Tools for tests inside the guest: `/init TOOL ARGUMENTS`.

mod bpf;
mod files;
mod kill;
mod netfilter;
mod play;
mod reader;
mod replace;
mod rows;
mod send_at;

use anyhow::{Result, bail};

/// Runs a tool.
pub fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bpf", "attach", device, program, map @ ..] => bpf::attach(device, program, map),
        ["bpf", "sum"] => bpf::sum(),
        ["send-at", device, scripts @ ..] => send_at::send_at(device, scripts),
        ["play", device, script] => play::play(device, script),
        ["read", path, pattern, stop, cpu] => reader::read(path, pattern, stop, cpu),
        ["read-bytes", path] => kill::read_bytes(path),
        ["sum", path] => rows::sum(path),
        ["replace", program, revision, bits] => replace::replace(program, revision, bits),
        ["replace-stale", program] => replace::replace_stale(program),
        ["hooks", family, hook] => netfilter::hooks(family, hook),
        ["chain", family, table, chain, hook] => netfilter::chain(family, table, chain, hook),
        ["extension", family, table, chain, kind, name, revision, parameters] => {
            netfilter::extension(family, table, chain, [kind, name, revision, parameters])
        }
        ["file", path, steps @ ..] => files::steps(path, steps),
        _ => bail!("unknown tool: {}", words.join(" ")),
    }
}
