// SPDX-License-Identifier: GPL-2.0
//! `build-libxt`: the iptables extension, and its bindings to libxtables.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    buildroot::BuildRoot,
    commands::{
        build_iptables::{self, Iptables},
        setup,
    },
    rust::{self, Crate, Product},
    stamp::write_atomically,
    workshop::Workshop,
};

/// The extension's file.
pub const LIBRARY: &str = "libxt_traffic.so";

/// What bindgen reads: the headers to include, and one argument a line.
const HEADER: &str = "libxt/bindings.h";
const ARGUMENTS: &str = "libxt/bindgen.args";
/// What it writes, which is committed.
const BINDINGS: &str = "libxt/src/bindings.rs";

/// What to do with the bindings.
#[derive(Args, Debug)]
pub struct Options {
    /// Make libxt/src/bindings.rs anew from the headers of the patched iptables
    #[arg(long)]
    pub bindings: bool,
}

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let iptables = build_iptables::build(ws, &root)?;
    if options.bindings {
        let bindings = generate(ws, &root, &iptables)?;
        let file = ws.repo().join(BINDINGS);
        write_atomically(&file, bindings.as_bytes())?;
        eprintln!("{}", file.display());
    }
    let library = build(ws, &root, &iptables)?;
    eprintln!("{}", library.file.display());
    Ok(())
}

/// Builds the extension when its source or libxtables has changed.
pub fn build(ws: &Workshop, root: &BuildRoot, iptables: &Iptables) -> Result<Product> {
    let libraries = iptables.installed.join("usr/local/lib");
    let library = Crate {
        name: "libxt",
        source: "libxt/src/lib.rs",
        output: LIBRARY,
        arguments: &["--crate-type=cdylib", "--crate-name=xt_traffic", "-Lnative=/build"],
        libraries: Some((&libraries, &iptables.stamp)),
    };
    rust::build(ws, root, &library)
}

/// An error when the committed bindings are not what bindgen makes of the headers.
pub fn check_bindings(ws: &Workshop) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let iptables = build_iptables::build(ws, &root)?;
    let made = generate(ws, &root, &iptables)?;
    let file = ws.repo().join(BINDINGS);
    let committed = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if made != committed {
        bail!("{BINDINGS} is not what bindgen makes: run `cargo xtask build-libxt --bindings`");
    }
    Ok(())
}

fn generate(ws: &Workshop, root: &BuildRoot, iptables: &Iptables) -> Result<String> {
    let arguments_file = ws.repo().join(ARGUMENTS);
    let arguments =
        fs::read_to_string(&arguments_file).with_context(|| format!("cannot read {}", arguments_file.display()))?;
    let out = ws.temporary()?;
    let mut step = ws.step("bindings", "making the bindings to libxtables")?;
    let sandbox = root
        .sandbox()
        .read(&iptables.source, "src")
        .read(&iptables.objects, "build")
        .read(ws.repo(), "repo")
        .write(out.path(), "out");
    let header = format!("/repo/{HEADER}");
    let mut words = vec!["bindgen", &header, "--output=/out/bindings.rs"];
    words.extend(arguments.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')));
    words.extend(["--", "-I/build/include", "-I/src/include"]);
    // Not in the repository: bindgen formats with the rustfmt.toml of where it stands.
    step.run(sandbox.command("out", &words))?;
    step.finish();
    let made: PathBuf = out.path().join("bindings.rs");
    fs::read_to_string(&made).with_context(|| format!("cannot read {}", made.display()))
}
