// SPDX-License-Identifier: GPL-2.0
//! The machine code of the match, for those who count its instructions.

use anyhow::{Result, ensure};

use crate::{
    buildroot::BuildRoot,
    commands::{
        build_kernel::{self, Config, Options},
        build_module::{self, MODULE},
        setup,
    },
    process,
    workshop::Workshop,
};

/// What an IPv4 packet goes through. Names are those of the source, behind the crate's.
const FUNCTION: &str = "Registration<xt_traffic_main::rule::Rule<u32>>>::match_packet>:";

/// The code of the module for the kernel `vm`, with relocations.
pub fn of_match(ws: &Workshop) -> Result<String> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let kernel = build_kernel::build(ws, &root, &Options { config: Config::Vm, series: None })?;
    let module = build_module::build(ws, &root, &kernel)?;
    let folder = module.file.parent().expect("the module lies in a folder");
    let sandbox = root.sandbox().read(folder, "build");
    let words = ["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", "--demangle=rust", MODULE];
    let (mut within, mut code) = (false, String::new());
    let status = process::run_lines(sandbox.command("build", &words), |line| {
        // A function begins with its name and ends with an empty line.
        within = if line.is_empty() { false } else { within || line.ends_with(FUNCTION) };
        if within {
            code += line;
            code.push('\n');
        }
    })?;
    ensure!(status.success(), "objdump failed ({status})");
    ensure!(!code.is_empty(), "{MODULE} has no function {FUNCTION}");
    Ok(code)
}
