// SPDX-License-Identifier: GPL-2.0-only
//! Signs the kernel and the modules in finished packages for Secure Boot. The packages that are
//! built do not depend on the key, so they can be reproduced. The signed ones have another version.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::PackageBuilder;
use super::source::{Built, packages_in, publish, remove_old_builds};
use crate::builds::kernel::Kernel;
use crate::builds::root::BuildRoot;
use crate::builds::sandbox::Sandbox;
use crate::stamp::{Recipe, Stamp};
use crate::ui::Step;
use crate::workspace::{Workspace, file_name, keep};

/// What follows the version that was built in that of a signed package. dpkg sorts it directly
/// after that version. The time and the hash of the certificate follow, see [`suffix`].
const SIGNED: &str = "+signed";
/// The certificate in the form that mokutil(1) reads.
pub const CERTIFICATE: &str = "machine-owner.der";
/// Signs in the sandbox.
const SCRIPT: &str = include_str!("sign.sh");

/// The key of a machine's owner, who has enrolled its certificate in the firmware's variables. Only
/// the sandbox of the commands that sign sees the key.
/// <https://wiki.debian.org/SecureBoot#MOK_-_Machine_Owner_Key>
pub struct OwnerKey {
    key: PathBuf,
    certificate: PathBuf,
    /// The end of the versions of packages that are signed with it.
    suffix: String,
}

impl OwnerKey {
    /// Checks that the files are a key without a passphrase and its certificate, in PEM format.
    pub fn open(ws: &Workspace, root: &BuildRoot, key: &Path, certificate: &Path) -> Result<Self> {
        let [key_file, certificate_file] = [fs::canonicalize(key)?, fs::canonicalize(certificate)?];
        let mut owner_key = Self { key: key_file, certificate: certificate_file, suffix: String::new() };
        let mut step = ws.step("deb-key", "checking the key for Secure Boot")?;
        // shim accepts RSA keys only.
        let script = "openssl pkey -in /repo/key -passin pass: -pubout >/tmp/key
            openssl x509 -in /repo/certificate -noout -pubkey >/tmp/certificate
            openssl rsa -pubin -in /tmp/key -noout
            cmp /tmp/key /tmp/certificate
            openssl x509 -in /repo/certificate -noout -startdate -dateopt iso_8601 -fingerprint -sha256";
        let command = owner_key.sandbox(root.sandbox()).command("tmp", &["sh", "-euc", script]);
        let mut output = String::new();
        step.run_watching(command, |line| output += &format!("{line}\n")).with_context(|| {
            format!(
                "{} and {} are not an RSA key without a passphrase and its certificate, in PEM format",
                key.display(),
                certificate.display()
            )
        })?;
        step.finish();
        owner_key.suffix = suffix(&output).with_context(|| certificate.display().to_string())?;
        Ok(owner_key)
    }

    fn sandbox(&self, sandbox: Sandbox) -> Sandbox {
        sandbox.bind_ro(&self.key, "repo/key").bind_ro(&self.certificate, "repo/certificate")
    }
}

/// The end of the versions of packages that are signed with a certificate: its first day and time,
/// and the begin of its hash. So packages of a newer certificate are higher, and those of two
/// certificates never have the same version. `output` is what openssl prints about it.
fn suffix(output: &str) -> Result<String> {
    let value = |name: &str| output.lines().find_map(|line| Some(line.split_once(name)?.1));
    let begin: String =
        value("notBefore=").context("openssl did not print a date")?.chars().filter(char::is_ascii_digit).collect();
    let hash = value("Fingerprint=").context("openssl did not print a hash")?.replace(':', "").to_lowercase();
    ensure!(begin.len() == "YYYYMMDDhhmmss".len(), "not a date and a time: {begin}");
    let hash = hash.get(..8).with_context(|| format!("not a hash: {hash}"))?;
    Ok(format!("{SIGNED}{begin}.{hash}"))
}

/// Fails if the folder has packages that are signed for Secure Boot. An upgrade to unsigned ones
/// would install a kernel that the host does not boot.
pub fn require_unsigned(folder: &Path) -> Result<()> {
    let packages = if folder.exists() { packages_in(folder)? } else { Vec::new() };
    let signed = packages.iter().map(|file| file_name(file)).find(|name| name.contains(SIGNED));
    ensure!(
        signed.is_none(),
        "{} has packages that are signed for Secure Boot: use --secure-boot, or --replace-signed to replace them by \
         unsigned ones",
        folder.display()
    );
    Ok(())
}

/// Replaces the packages in the builder's folder by signed ones, if the builder has a key. Returns
/// the packages of the kernel and the module that are in the folder then.
pub fn sign(builder: &PackageBuilder<'_>, kernel: &Kernel, built: [Built; 2]) -> Result<Vec<PathBuf>> {
    let folder = builder.folder;
    let Some(key) = builder.extras.owner_key else {
        publish("machine-owner", &[], folder)?;
        return Ok(built.map(|built| built.files).concat());
    };
    let mut recipe = Recipe::new("signed 2")
        .text("root", builder.package_root.stamp().as_str())
        .text("script", SCRIPT)
        .file(&key.certificate)?;
    for built in &built {
        recipe = recipe.text("packages", built.stamp.as_str());
    }
    let signed = Signing { builder, kernel, key, built: &built }.cached(&recipe.stamp())?;
    publish("machine-owner", &[signed.join(CERTIFICATE)], folder)?;
    let mut files = Vec::new();
    for built in &built {
        let names: Vec<_> = built.files.iter().map(|file| package_name(file)).collect();
        let mut packages = packages_in(&signed)?;
        packages.retain(|file| names.contains(&package_name(file)));
        ensure!(packages.len() == names.len(), "{} has packages that were not signed", built.name);
        files.extend(publish(&built.name, &packages, folder)?);
    }
    Ok(files)
}

struct Signing<'a> {
    builder: &'a PackageBuilder<'a>,
    kernel: &'a Kernel,
    key: &'a OwnerKey,
    built: &'a [Built],
}

impl Signing<'_> {
    /// The folder in the cache with the signed packages. It does not contain the key.
    fn cached(&self, stamp: &Stamp) -> Result<PathBuf> {
        let ws = self.builder.ws;
        let all = ws.cache().join("deb").join(format!("{}-signed", self.built[0].name));
        let folder = all.join(stamp.short());
        if !folder.exists() {
            remove_old_builds(&all)?;
            let mut step = ws.step("deb-sign", "signing the kernel and the modules")?;
            let out = ws.temporary()?;
            self.sign(&mut step, out.path())?;
            keep(&out.keep(), &folder)?;
            step.finish();
        }
        Ok(folder)
    }

    fn sign(&self, step: &mut Step, out: &Path) -> Result<()> {
        let versions: Vec<_> = self.built.iter().map(|built| built.version.as_str()).collect();
        let sandbox = self.key.sandbox(self.builder.package_root.sandbox().bind_rw(out, "out"));
        let sandbox = sandbox.bind_ro(&self.kernel.objects, "build");
        let run = |step: &mut Step, from: &Path, action: &str, names: &[String]| {
            let mut words = vec!["sh", "-c", SCRIPT, "sign.sh", action];
            words.extend(names.iter().map(String::as_str));
            step.run(sandbox.clone().bind_ro(from, "src").command("out", &words))
        };
        for built in self.built {
            let names: Vec<_> = packages_in(&built.folder)?.iter().map(|file| file_name(file)).collect();
            run(step, &built.folder, "unpack", &names)?;
            for name in &names {
                let control = out.join("unpacked").join(name).join("DEBIAN/control");
                let text = fs::read_to_string(&control)?;
                let time = fs::metadata(&control)?.modified()?;
                fs::write(&control, signed_control(&text, &built.name, &versions, &self.key.suffix)?)?;
                fs::File::options().write(true).open(&control)?.set_modified(time)?;
            }
            run(step, &built.folder, "pack", &names)?;
        }
        let output = format!("/out/{CERTIFICATE}");
        let words = ["openssl", "x509", "-in", "/repo/certificate", "-outform", "DER", "-out", &output];
        step.run(sandbox.command("out", &words))
    }
}

/// The name of the binary package in a file: `NAME_VERSION_ARCHITECTURE.deb`.
fn package_name(file: &Path) -> String {
    let name = file_name(file);
    name.split_once('_').map_or(name.clone(), |(package, _)| package.to_owned())
}

/// The control file of a signed package. Its version, and the same versions in relations to other
/// signed packages, have the suffix. The field `Source` has the version of the source package:
/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#source>
fn signed_control(control: &str, source: &str, versions: &[&str], suffix: &str) -> Result<String> {
    let version = control.lines().find_map(|line| line.strip_prefix("Version: ")).context("no field Version")?;
    ensure!(versions.contains(&version), "the version {version} is not one of {}", versions.join(" "));
    let mut text = String::new();
    for line in control.lines() {
        if line.starts_with("Source: ") {
            continue;
        }
        if line.starts_with("Version: ") {
            text += &format!("Source: {source} ({version})\nVersion: {version}{suffix}\n");
            continue;
        }
        let relation =
            |line: String, version: &&str| line.replace(&format!("(= {version})"), &format!("(= {version}{suffix})"));
        text += &versions.iter().fold(line.to_owned(), relation);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn a_key_must_be_rsa_without_a_passphrase_and_fit_its_certificate() {
        let ws = Workspace::open().unwrap();
        let root = BuildRoot::prepare_for_packages(&ws).unwrap();
        let folder = ws.temporary().unwrap();
        let script = "for name in good other curve; do
                case $name in curve) kind='ec -pkeyopt ec_paramgen_curve:P-256' ;; *) kind=rsa:2048 ;; esac
                openssl req -new -x509 -nodes -subj /CN=$name -keyout $name.key -out $name.pem -newkey $kind
            done
            openssl pkey -in good.key -aes256 -passout pass:secret -out locked.key";
        let mut step = ws.step("test-keys", "making keys").unwrap();
        step.run(root.sandbox().bind_rw(folder.path(), "out").command("out", &["sh", "-euc", script])).unwrap();
        let open = |key: &str, certificate: &str| {
            OwnerKey::open(&ws, &root, &folder.path().join(key), &folder.path().join(certificate))
        };
        let suffixes =
            ["good", "other"].map(|name| open(&format!("{name}.key"), &format!("{name}.pem")).unwrap().suffix);
        assert_ne!(suffixes[0], suffixes[1]);
        for (key, certificate) in [
            ("good.key", "other.pem"),
            ("locked.key", "good.pem"),
            ("curve.key", "curve.pem"),
            ("good.pem", "good.key"),
        ] {
            let error = open(key, certificate).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains("are not an RSA key without a passphrase"), "{key} {certificate}: {error}");
        }
    }

    /// What openssl prints about a certificate.
    fn about(begin: &str, hash: &str) -> String {
        format!("notBefore={begin}\nsha256 Fingerprint={hash}\n")
    }

    #[test]
    fn the_packages_of_a_newer_certificate_are_higher() {
        let built = "6.12.118-promisc.3";
        let versions = [
            about("2026-11-28 21:32:06Z", "E3:A8:84:3E:FD:B3"),
            about("2026-11-28 21:32:06Z", "E3:A8:84:3F:FD:B3"),
            about("2027-01-02 00:00:00Z", "01:A8:84:3E:FD:B3"),
        ]
        .map(|output| format!("{built}{}", suffix(&output).unwrap()));
        assert_eq!(versions[0], "6.12.118-promisc.3+signed20261128213206.e3a8843e");
        let [first, other, newer] = versions.each_ref().map(String::as_str);
        assert_ne!(first, other);
        let rising =
            [built, "6.12.118-promisc.3+signed", first, newer, "6.12.118-promisc.3.dirty", "6.12.118-promisc.4"];
        for pair in rising.windows(2) {
            let compare = ["--compare-versions", pair[0], "lt", pair[1]];
            assert!(Command::new("dpkg").args(compare).status().unwrap().success(), "{pair:?}");
        }
    }

    #[test]
    fn a_certificate_without_date_or_hash_is_refused() {
        let error = |output: &str| suffix(output).unwrap_err().to_string();
        assert_eq!(error("notBefore=Nov 28\nsha256 Fingerprint=E3"), "not a date and a time: 28");
        assert_eq!(error(&about("2026-11-28 21:32:06Z", "E3")), "not a hash: e3");
        assert_eq!(error("sha256 Fingerprint=E3"), "openssl did not print a date");
        assert_eq!(error("notBefore=2026"), "openssl did not print a hash");
    }

    #[test]
    fn unsigned_packages_do_not_replace_signed_ones() {
        let folder = tempfile::tempdir().unwrap();
        require_unsigned(&folder.path().join("none")).unwrap();
        fs::write(folder.path().join("linux-image-6_6-promisc.3_amd64.deb"), "").unwrap();
        require_unsigned(folder.path()).unwrap();
        fs::write(folder.path().join("linux-image-6_6-promisc.3+signed20261128213206.e3a8843e_amd64.deb"), "").unwrap();
        let error = require_unsigned(folder.path()).unwrap_err().to_string();
        assert!(error.contains("signed for Secure Boot: use --secure-boot, or --replace-signed"), "{error}");
    }

    #[test]
    fn a_signed_package_depends_on_signed_packages() {
        let control = "Package: xt-traffic-modules-6\nSource: xt-traffic-vm\nVersion: 0.2.0+4\n\
                       Depends: linux-image-6 (= 6-promisc3), x (= 6-promisc30), y (= 0.2.0+4)\nDescription: d\n text\n";
        assert_eq!(
            signed_control(control, "xt-traffic-vm", &["6-promisc3", "0.2.0+4"], "+signed1").unwrap(),
            "Package: xt-traffic-modules-6\nSource: xt-traffic-vm (0.2.0+4)\nVersion: 0.2.0+4+signed1\n\
             Depends: linux-image-6 (= 6-promisc3+signed1), x (= 6-promisc30), y (= 0.2.0+4+signed1)\nDescription: d\n text\n"
        );
    }

    #[test]
    fn a_package_of_another_version_is_not_signed() {
        let error = signed_control("Package: x\nVersion: 2\n", "x", &["1"], "+signed1").unwrap_err().to_string();
        assert_eq!(error, "the version 2 is not one of 1");
    }

    #[test]
    fn the_name_of_a_package_is_in_its_file_name() {
        assert_eq!(package_name(Path::new("/x/linux-image-6_6-promisc3+signed_amd64.deb")), "linux-image-6");
    }
}
