// SPDX-License-Identifier: GPL-2.0-only
//! Tools for tests inside the guest: `/init TOOL ARGUMENTS`.

mod files;
mod kill;
mod play;
mod reader;
mod rows;

/// Runs a tool.
pub fn run(words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["play", device, script] => play::play(device, script),
        ["read", path, pattern, stop, cpu] => reader::read(path, pattern, stop, cpu),
        ["sum", path] => rows::sum(path),
        ["file", path, steps @ ..] => files::steps(path, steps),
        _ => Err(format!("unknown tool: {}", words.join(" "))),
    }
}
