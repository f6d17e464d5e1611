// SPDX-License-Identifier: GPL-2.0-only
//! The machine code of the packet path, for those who count its instructions, and what must not be in it.

use std::ptr;

use anyhow::{Result, ensure};

use crate::{
    builds::{
        kernel::{self, Choice},
        module::{self, MODULE},
        root::BuildRoot,
    },
    commands::setup,
    process,
    workspace::Workspace,
};

/// What x_tables calls for an IPv4 packet, and for one of IPv6.
const ENTRIES: [&str; 2] = ["xt_traffic_match_ipv4", "xt_traffic_match_ipv6"];
/// What packets may come to outside of the module. Panics, in particular, are not among it.
const OUTSIDE: [&str; 6] = [
    "__x86_return_thunk",
    "__local_bh_enable_ip",
    "skb_copy_bits",
    "memset",
    // A page of rows, and who pays for it.
    "rust_helper_krealloc_node_align",
    "rust_helper_set_active_memcg",
];
/// Where the compiler puts what it is told that packets rarely come to.
const COLD_SECTION: &str = ".text.unlikely.";

/// A function of the module.
#[derive(Debug)]
struct Function {
    name: String,
    section: String,
    address: u64,
    code: Vec<Instruction>,
}

/// A line of code, as objdump prints it.
#[derive(Debug)]
struct Instruction {
    text: String,
    /// What the linker is to put there.
    relocation: Option<String>,
}

impl Instruction {
    /// What it calls or jumps to, if that is outside of its function: a name, or a section and an offset.
    fn callee(&self) -> Option<&str> {
        if let Some(relocation) = &self.relocation {
            let (_, callee) = relocation.split_once("R_X86_64_PLT32\t")?;
            return Some(callee.strip_suffix("-0x4").unwrap_or(callee));
        }
        let (_, place) = self.text.split_once(" <")?;
        place.strip_suffix('>').filter(|name| !name.contains("+0x"))
    }

    fn mnemonic(&self) -> &str {
        let (_, instruction) = self.text.split_once(":\t").unwrap_or_default();
        instruction.split_whitespace().next().unwrap_or_default()
    }

    /// Does it lock the bus? An exchange with memory does so unasked.
    fn locks(&self) -> bool {
        self.mnemonic() == "lock" || self.mnemonic().starts_with("xchg") && self.text.contains('(')
    }

    fn divides(&self) -> bool {
        self.mnemonic().trim_start_matches('i').starts_with("div")
    }
}

impl Function {
    fn is_cold(&self) -> bool {
        self.section == COLD_SECTION
    }

    /// Is it what an instruction calls so? A function without a name for the linker is an offset in its section, from
    /// which the four bytes of the offset itself have been taken away.
    fn is(&self, callee: &str) -> bool {
        let offset = callee.strip_prefix(&self.section).and_then(|offset| offset.strip_prefix("+0x"));
        let address = offset.and_then(|offset| u64::from_str_radix(offset, 16).ok());
        self.name == callee || address.is_some_and(|address| address + 4 == self.address)
    }
}

/// The packet path of IPv4: what it goes through unless something rare happens.
pub fn of_match(ws: &Workspace, choice: &Choice) -> Result<String> {
    let functions = functions(&disassembly(ws, choice)?);
    let path = reachable(&functions, ENTRIES[0], false);
    ensure!(!path.is_empty(), "{MODULE} has no {}", ENTRIES[0]);
    let mut text = String::new();
    for function in path {
        let Function { address, name, code, .. } = function;
        text += &format!("{address:016x} <{name}>:\n");
        for Instruction { text: line, relocation } in code {
            text.extend([line, "\n"]);
            text.extend(relocation.iter().flat_map(|relocation| [relocation, "\n"]));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Fails if the packet path locks or divides, or if a packet can come to something that it must not come to, such as a
/// panic.
pub fn check(ws: &Workspace, choice: &Choice) -> Result<()> {
    let functions = functions(&disassembly(ws, choice)?);
    let troubles: Vec<_> = ENTRIES.into_iter().flat_map(|entry| troubles(&functions, entry)).collect();
    ensure!(troubles.is_empty(), "what must not be in the packet path:\n{}", troubles.join("\n"));
    Ok(())
}

fn troubles(functions: &[Function], entry: &str) -> Vec<String> {
    let path = reachable(functions, entry, false);
    if path.len() < 2 {
        return vec![format!("nothing: {entry} does not lead to it")];
    }
    let mut troubles = Vec::new();
    for function in reachable(functions, entry, true) {
        let Function { name, code, .. } = function;
        let often = path.iter().any(|known| ptr::eq(*known, function));
        let leaves = |callee: &str| !OUTSIDE.contains(&callee) && !functions.iter().any(|function| function.is(callee));
        let bad = |code: &&Instruction| code.callee().is_some_and(leaves) || often && (code.locks() || code.divides());
        let shown = |code: &Instruction| format!("{name}:{} {}", code.text, code.callee().unwrap_or_default());
        troubles.extend(code.iter().filter(bad).map(shown));
    }
    troubles
}

/// The code of the module for the kernel `vm`, with relocations.
fn disassembly(ws: &Workspace, choice: &Choice) -> Result<Vec<String>> {
    let _lock = setup::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    let kernel = kernel::build(ws, &root, choice)?;
    let module = module::build(ws, &root, &kernel)?;
    let folder = module.file.parent().expect("the module lies in a folder");
    let sandbox = root.sandbox().bind_ro(folder, "build");
    let words = ["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", "--demangle=rust", MODULE];
    let mut lines = Vec::new();
    let status = process::run_lines(sandbox.command("build", &words), |line| lines.push(line.to_owned()))?;
    ensure!(status.success(), "objdump failed ({status})");
    Ok(lines)
}

/// The functions in what objdump prints.
fn functions(lines: &[String]) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let mut section = "";
    for line in lines {
        if let Some(name) = line.strip_prefix("Disassembly of section ") {
            section = name.trim_end_matches(':');
        } else if let Some((address, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            let address = u64::from_str_radix(address, 16).unwrap_or_default();
            functions.push(Function { name: name.to_owned(), section: section.to_owned(), address, code: Vec::new() });
        } else if let Some(function) = functions.last_mut().filter(|_| !line.is_empty()) {
            match function.code.last_mut() {
                Some(last) if line.contains(": R_X86_64_") => last.relocation = Some(line.clone()),
                _ => function.code.push(Instruction { text: line.clone(), relocation: None }),
            }
        }
    }
    functions
}

/// A function and all of the module that it calls, directly or not; what packets rarely come to only if it is wanted.
fn reachable<'f>(functions: &'f [Function], entry: &'f str, cold: bool) -> Vec<&'f Function> {
    let (mut found, mut callees): (Vec<&Function>, _) = (Vec::new(), vec![entry]);
    while let Some(callee) = callees.pop() {
        let wanted = |function: &&Function| function.is(callee) && (cold || !function.is_cold());
        let Some(function) = functions.iter().find(wanted) else {
            continue;
        };
        if !found.iter().any(|known| ptr::eq(*known, function)) {
            found.push(function);
            callees.extend(function.code.iter().filter_map(Instruction::callee));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "
Disassembly of section .text:

0000000000000010 <<u32 as Family>::header>:
  10:\tendbr64
  14:\txchg   %ax,%ax
  16:\tret

0000000000000020 <entry>:
  20:\tendbr64
  24:\tje     30 <entry+0x10>
  26:\tcall   10 <<u32 as Family>::header>
  2b:\tcall   30 <entry+0x10>
\t\t\t2c: R_X86_64_PLT32\t.text.unlikely.+0x5c
  30:\tjmp    35 <entry+0x15>
\t\t\t31: R_X86_64_PLT32\tledger::count::<u32>-0x4

0000000000000040 <ledger::count::<u32>>:
  40:\tmov    %gs:0x0(%rip),%edx        # 48 <ledger::count::<u32>+0x8>
\t\t\t44: R_X86_64_PC32\tcpu_number-0x4
  48:\tINSTRUCTION

Disassembly of section .text.unlikely.:

0000000000000060 <remember>:
  60:\tidivq  (%rax)
  64:\tcall   69 <remember+0x9>
\t\t\t65: R_X86_64_PLT32\tskb_copy_bits-0x4
";

    fn code(instruction: &str) -> Vec<Function> {
        functions(&CODE.replace("INSTRUCTION", instruction).lines().map(str::to_owned).collect::<Vec<_>>())
    }

    fn names(functions: &[Function], cold: bool) -> Vec<&str> {
        reachable(functions, "entry", cold).iter().map(|function| function.name.as_str()).collect()
    }

    #[test]
    fn the_packet_path_is_followed() {
        let functions = code("ret");
        assert_eq!(names(&functions, false), ["entry", "ledger::count::<u32>", "<u32 as Family>::header"]);
        assert_eq!(names(&functions, true).len(), 4);
        assert!(troubles(&functions, "entry").is_empty(), "rare packets may divide");
        assert_eq!(troubles(&functions, "elsewhere").len(), 1);
    }

    #[test]
    fn what_must_not_be_there_is_found() {
        for bad in [
            "lock xadd %rax,(%rbx)",
            "xchg   %rax,(%rbx)",
            "div    %rcx",
            "idivl  (%rcx)",
            "call   4d <ledger::count::<u32>+0xd>\n\t\t\t49: R_X86_64_PLT32\tcore::panicking::panic_bounds_check-0x4",
            "call   4d <ledger::count::<u32>+0xd>\n\t\t\t49: R_X86_64_PLT32\tcore::slice::index::slice_end_index_len_fail-0x4",
        ] {
            assert_eq!(troubles(&code(bad), "entry").len(), 1, "{bad}");
        }
    }
}
