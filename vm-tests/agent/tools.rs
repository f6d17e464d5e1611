// SPDX-License-Identifier: GPL-2.0
//! What tests need inside the guest and no package has: `/init TOOL ARGUMENTS`.

mod files;
mod kill;
mod play;
mod reader;
mod rows;

/// Runs one of them.
pub fn run(words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["play", device, script] => play::play(device, script),
        ["read", path, habit, stop, cpu] => reader::read(path, habit, stop, cpu),
        ["sum", path] => rows::sum(path),
        ["file", path, steps @ ..] => files::steps(path, steps),
        _ => Err(format!("no such tool: {}", words.join(" "))),
    }
}
