// SPDX-License-Identifier: GPL-2.0-only
//! `deb`: Debian packages of everything.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::pins::{IPTABLES, Notice};
use crate::builds::kernel::{self, Config};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::packages::repository::Signer;
use crate::packages::signing::{OwnerKey, require_unsigned};
use crate::packages::{Extras, PackageBuilder, require_deployable};
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    /// Sign the repository with this key of gpg, so that apt can check it
    #[arg(long, value_name = "KEYID")]
    sign: Option<String>,
    /// Sign the kernel and the modules with this key of the machine's owner, for Secure Boot: an
    /// RSA key without a passphrase and its certificate, in PEM format
    #[arg(long, num_args = 2, value_names = ["KEY", "CERTIFICATE"])]
    secure_boot: Option<Vec<PathBuf>>,
    /// Replace packages in target/deb that are signed for Secure Boot by unsigned ones
    #[arg(long, conflicts_with = "secure_boot")]
    replace_signed: bool,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.kernel.choose(ws, Config::Server)?;
    require_deployable(choice.config)?;
    let folder = &ws.target("deb");
    if options.secure_boot.is_none() && !options.replace_signed {
        require_unsigned(folder)?;
    }
    let signer = options.sign.as_deref().map(Signer::find).transpose()?;
    let _lock = host::require(ws)?;
    let (build_root, package_root) = (&BuildRoot::prepare(ws)?, &BuildRoot::prepare_for_packages(ws)?);
    let owner_key = match options.secure_boot.as_deref() {
        Some([key, certificate]) => Some(OwnerKey::open(ws, package_root, key, certificate)?),
        _ => None,
    };
    let notice = Notice::ask(ws.pins(), &[&choice.series, IPTABLES]);
    let extras = Extras { sources: true, signer: signer.as_ref(), owner_key: owner_key.as_ref() };
    for file in (PackageBuilder { ws, build_root, package_root, folder, test_entries: 0, extras }).build(&choice)? {
        eprintln!("{}", file.display());
    }
    notice.print();
    Ok(())
}
