// SPDX-License-Identifier: GPL-2.0-only
//! Disassembles the module to print its packet path, and to check what the packet path must not
//! contain.

use std::ptr;

use anyhow::{Context, Result, ensure};

use crate::builds::kernel::{self, Choice};
use crate::builds::module;
use crate::builds::root::BuildRoot;
use crate::host;
use crate::process;
use crate::workspace::Workspace;

/// The functions that x_tables calls for each packet of IPv4 and of IPv6.
const ENTRIES: [&str; 2] = ["xt_traffic_match_ipv4", "xt_traffic_match_ipv6"];
/// The functions outside the module that the packet path may call. A panic is not among them.
const ALLOWED_CALLS: &[&str] = &[
    "__x86_return_thunk",
    "__local_bh_enable_ip",
    "skb_copy_bits",
    "memset",
    // These allocate a page of rows and charge it to a memory cgroup. The kernel crate of 6.12
    // calls krealloc() in the first of them.
    "<kernel::alloc::allocator::ReallocFunc>::call",
    "rust_helper_krealloc_node_align",
    "rust_helper_set_active_memcg",
];
/// All code of the module, before it is linked with `scripts/module.lds`. In 7.3 that script puts
/// rare code in the section of the other code.
const OBJECTS: &str = "xt_traffic.o";
/// The section in which the compiler puts code that it expects to run rarely.
const COLD_SECTION: &str = ".text.unlikely.";

/// A function of the module.
#[derive(Debug)]
struct Function {
    name: String,
    section: String,
    address: u64,
    /// The instructions as objdump prints them, each with its relocation in a second line.
    code: Vec<String>,
}

/// The function that an instruction calls or jumps to, unless that is its own function: a name, or
/// a section and an offset.
fn callee(instruction: &str) -> Option<&str> {
    if let Some((_, relocation)) = instruction.split_once(": R_X86_64_") {
        let callee = relocation.strip_prefix("PLT32\t")?;
        return Some(callee.strip_suffix("-0x4").unwrap_or(callee));
    }
    let (_, target) = instruction.split_once(" <")?;
    target.strip_suffix('>').filter(|name| !name.contains("+0x"))
}

/// Whether an instruction divides or locks the bus. `xchg` with memory locks it without a `lock`
/// prefix: <https://www.felixcloutier.com/x86/xchg>
fn locks_or_divides(instruction: &str) -> bool {
    let (_, text) = instruction.lines().next().and_then(|line| line.split_once(":\t")).unwrap_or_default();
    let is_exchange = text.starts_with("xchg") && text.contains('(');
    is_exchange || text.starts_with("lock") || text.trim_start_matches('i').starts_with("div")
}

impl Function {
    /// Whether `callee` names this function. A function without a symbol is named by its section
    /// and an offset. The offset is 4 less than the address, because a PC-relative relocation
    /// includes the size of its own field.
    fn is(&self, callee: &str) -> bool {
        let offset = callee.strip_prefix(&self.section).and_then(|offset| offset.strip_prefix("+0x"));
        let address = offset.and_then(|offset| u64::from_str_radix(offset, 16).ok());
        self.name == callee || address.is_some_and(|address| address + 4 == self.address)
    }
}

/// The code that an IPv4 packet runs through, without cold functions.
pub fn packet_path(ws: &Workspace, choice: &Choice) -> Result<String> {
    let functions = disassemble(ws, choice)?;
    let path = reachable(&functions, ENTRIES[0], false);
    ensure!(!path.is_empty(), "{OBJECTS} has no function {}", ENTRIES[0]);
    let print =
        |Function { address, name, code, .. }: &Function| format!("{address:016x} <{name}>:\n{}\n\n", code.join("\n"));
    Ok(path.into_iter().map(print).collect())
}

/// Checks the packet path.
///
/// # Errors
/// If the packet path can call a function that is not allowed, or if its frequent code contains a
/// lock or a division.
pub fn check(ws: &Workspace, choice: &Choice) -> Result<()> {
    let functions = disassemble(ws, choice)?;
    let violations: Vec<_> = ENTRIES.iter().flat_map(|entry| violations(&functions, entry)).collect();
    ensure!(violations.is_empty(), "forbidden in the packet path:\n{}", violations.join("\n"));
    Ok(())
}

/// The forbidden instructions that `entry` can reach, each with the name of its function.
fn violations(functions: &[Function], entry: &str) -> Vec<String> {
    let frequent = reachable(functions, entry, false);
    if frequent.len() < 2 {
        return vec![format!("{entry}: it does not exist, or it calls no function of the module")];
    }
    let mut violations = Vec::new();
    for function in reachable(functions, entry, true) {
        let Function { name, code, .. } = function;
        let is_frequent = frequent.iter().any(|other| ptr::eq(*other, function));
        let is_allowed =
            |callee: &str| ALLOWED_CALLS.contains(&callee) || functions.iter().any(|function| function.is(callee));
        for code in code {
            let instruction = code.lines().next().unwrap_or_default().trim();
            if let Some(callee) = callee(code).filter(|callee| !is_allowed(callee)) {
                violations.push(format!("{name}: {instruction} calls {callee}"));
            } else if is_frequent && locks_or_divides(code) {
                violations.push(format!("{name}: {instruction}"));
            }
        }
    }
    violations
}

/// Builds the module for a kernel and disassembles it.
fn disassemble(ws: &Workspace, choice: &Choice) -> Result<Vec<Function>> {
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    let kernel = kernel::build(ws, &root, choice)?;
    let module = module::build(ws, &root, &kernel)?;
    let folder = module.file.parent().context("the module has no parent folder")?;
    let sandbox = root.sandbox().bind_ro(folder, "build");
    let words = ["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", "--demangle=rust", OBJECTS];
    let mut lines = Vec::new();
    let status = process::run_lines(sandbox.command("build", &words), |line| lines.push(line.to_owned()))?;
    ensure!(status.success(), "objdump failed ({status})");
    Ok(parse(&lines))
}

/// Parses objdump's output.
fn parse(lines: &[String]) -> Vec<Function> {
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
                Some(last) if line.contains(": R_X86_64_") => *last += &format!("\n{line}"),
                _ => function.code.push(line.clone()),
            }
        }
    }
    functions
}

/// `entry` and all functions of the module that it calls, directly or not; cold ones only if
/// `cold`.
fn reachable<'f>(functions: &'f [Function], entry: &'f str, cold: bool) -> Vec<&'f Function> {
    let (mut found, mut callees): (Vec<&Function>, _) = (Vec::new(), vec![entry]);
    while let Some(name) = callees.pop() {
        let is_wanted = |function: &&Function| function.is(name) && (cold || function.section != COLD_SECTION);
        let function = functions.iter().find(is_wanted);
        if let Some(function) = function.filter(|function| !found.iter().any(|known| ptr::eq(*known, *function))) {
            found.push(function);
            callees.extend(function.code.iter().filter_map(|code| callee(code)));
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
\t\t\t31: R_X86_64_PLT32\tcpu_tables::count::<u32>-0x4

0000000000000040 <cpu_tables::count::<u32>>:
  40:\tmov    %gs:0x0(%rip),%edx        # 48 <cpu_tables::count::<u32>+0x8>
\t\t\t44: R_X86_64_PC32\tcpu_number-0x4
  48:\tINSTRUCTION

Disassembly of section .text.unlikely.:

0000000000000060 <remember>:
  60:\tidivq  (%rax)
  64:\tcall   69 <remember+0x9>
\t\t\t65: R_X86_64_PLT32\tskb_copy_bits-0x4
";

    fn code(instruction: &str) -> Vec<Function> {
        parse(&CODE.replace("INSTRUCTION", instruction).lines().map(str::to_owned).collect::<Vec<_>>())
    }

    fn names(functions: &[Function], cold: bool) -> Vec<&str> {
        reachable(functions, "entry", cold).iter().map(|function| function.name.as_str()).collect()
    }

    #[test]
    fn cold_functions_are_not_frequent() {
        let functions = code("ret");
        assert_eq!(names(&functions, false), ["entry", "cpu_tables::count::<u32>", "<u32 as Family>::header"]);
        assert_eq!(names(&functions, true).len(), 4);
        assert!(violations(&functions, "entry").is_empty(), "cold code may divide");
        assert_eq!(violations(&functions, "missing").len(), 1);
    }

    #[test]
    fn locks_divisions_and_panics_are_violations() {
        for bad in [
            "lock xadd %rax,(%rbx)",
            "xchg   %rax,(%rbx)",
            "div    %rcx",
            "idivl  (%rcx)",
            "call   4d <cpu_tables::count::<u32>+0xd>\n\t\t\t49: R_X86_64_PLT32\tcore::panicking::panic_bounds_check-0x4",
            "call   4d <cpu_tables::count::<u32>+0xd>\n\t\t\t49: R_X86_64_PLT32\tcore::slice::index::slice_end_index_len_fail-0x4",
        ] {
            let found = violations(&code(bad), "entry");
            let (instruction, relocation) = bad.split_once('\n').unwrap_or((bad, ""));
            let callee = relocation.split_once("PLT32\t").map_or("", |(_, callee)| callee);
            let calls = callee.strip_suffix("-0x4").map_or(String::new(), |callee| format!(" calls {callee}"));
            assert_eq!(found, [format!("cpu_tables::count::<u32>: 48:\t{instruction}{calls}")]);
        }
    }
}
