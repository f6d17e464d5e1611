// SPDX-License-Identifier: GPL-2.0-only
//! The virtual machine of the test of Secure Boot: firmware that knows the key of a machine's
//! owner, and a disk with Debian's signed boot loaders, our kernel and our module, signed and
//! unsigned. An ordinary VM has no such firmware.

use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;

use crate::builds::kernel::Choice;
use crate::builds::root::BuildRoot;
use crate::images::guest_root;
use crate::packages::signing::OwnerKey;
use crate::packages::{Extras, PackageBuilder};
use crate::stamp::{Recipe, write_atomically};
use crate::workspace::Workspace;

/// Makes the files in the sandbox.
const SCRIPT: &str = include_str!("make.sh");
/// The init of the initramfs.
const INIT: &str = include_str!("init.sh");
/// GRUB's configuration.
const GRUB: &str = include_str!("grub.cfg");
/// The files for the harness.
const PRODUCTS: [&str; 3] = ["code.fd", "vars.fd", "disk.img"];

/// Makes the folder for the test: `target/secure-boot/KERNEL`.
pub fn build(ws: &Workspace, choice: &Choice) -> Result<PathBuf> {
    let (build_root, package_root) = (&BuildRoot::prepare(ws)?, &BuildRoot::prepare_for_packages(ws)?);
    let folder = ws.target("secure-boot").join(choice.to_string());
    let [key, certificate] = test_key(ws, package_root)?;
    let owner_key = OwnerKey::open(ws, package_root, &key, &certificate)?;
    let packages = folder.join("packages");
    let mut recipe = Recipe::new("secure boot 1")
        .text("root", package_root.stamp().as_str())
        .list("scripts", &[SCRIPT, INIT, GRUB])
        .file(&certificate)?;
    let folders = ["unsigned", "signed"].map(|name| packages.join(name));
    let [unsigned, signed] = folders.each_ref().map(|folder| PackageBuilder {
        ws,
        build_root,
        package_root,
        folder,
        test_entries: 0,
        extras: Extras::default(),
    });
    let signed = PackageBuilder { extras: Extras { owner_key: Some(&owner_key), ..Extras::default() }, ..signed };
    for builder in [&unsigned, &signed] {
        recipe = builder.build(choice)?.iter().try_fold(recipe, |recipe, file| recipe.file(file))?;
    }
    let kernel = unsigned.kernel(choice)?;
    let guest = guest_root::prepare(ws)?;
    recipe.stamp().make(&folder.join("stamp"), &folder.join(PRODUCTS[2]), || {
        let mut step = ws.step("secure-boot", "making the disk of the Secure Boot test")?;
        let out = ws.temporary()?;
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = out.path().join(format!("input-{name}"));
            write_atomically(&path, text.as_bytes())?;
            Ok(path)
        };
        let (init, grub) = (file("init", INIT)?, file("grub.cfg", GRUB)?);
        let sandbox = package_root
            .sandbox()
            .bind_ro(&packages, "src")
            .bind_ro(&kernel.objects, "build")
            .bind_ro(&init, "repo/init")
            .bind_ro(&grub, "repo/grub.cfg")
            .bind_ro(&guest, "repo/guest.cpio")
            .bind_ro(&certificate, "repo/certificate")
            .bind_rw(out.path(), "out");
        step.run(sandbox.command("out", &["sh", "-c", SCRIPT]))?;
        for name in PRODUCTS {
            fs::copy(out.path().join(name), folder.join(name))?;
        }
        step.finish();
        Ok(())
    })?;
    Ok(folder)
}

/// The key of the test and its certificate. It is made once, so the signed packages stay the same.
fn test_key(ws: &Workspace, root: &BuildRoot) -> Result<[PathBuf; 2]> {
    let folder = ws.target("secure-boot").join("key");
    let files = ["key.pem", "certificate.pem"].map(|name| folder.join(name));
    if files.iter().all(|file| file.exists()) {
        return Ok(files);
    }
    fs::create_dir_all(&folder)?;
    let mut step = ws.step("secure-boot-key", "making a key for the Secure Boot test")?;
    let sandbox = root.sandbox().bind_rw(&folder, "out");
    let script = "openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj '/CN=test of Secure Boot' \
                  -keyout key.pem -out certificate.pem";
    step.run(sandbox.command("out", &["sh", "-euc", script]))?;
    step.finish();
    Ok(files)
}
