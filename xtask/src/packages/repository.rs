// SPDX-License-Identifier: GPL-2.0-only
//! The index that makes a folder of packages a repository for apt, and its signature.
//! <https://wiki.debian.org/DebianRepository/Format>

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::source;
use crate::builds::root::BuildRoot;
use crate::process;
use crate::stamp::{Recipe, remove_if_exists, write_atomically};
use crate::workspace::Workspace;

/// The files of a signature: the signed `Release`, and the signature alone for old programs.
const SIGNATURES: [&str; 2] = ["InRelease", "Release.gpg"];
/// The public key, for `Signed-By` in sources.list(5). apt expects `.asc` for this format.
pub const KEY_FILE: &str = "xt-traffic.asc";

/// Writes the index of binary packages, `Packages`, and of source packages, `Sources`, and
/// `Release` with their hashes, if the packages or the signer have changed. `Release` contains the
/// time, so an index that is written again differs.
pub fn index(ws: &Workspace, root: &BuildRoot, folder: &Path, signer: Option<&Signer>) -> Result<()> {
    let signed_by = signer.map_or("nobody", |signer| &signer.fingerprint);
    let recipe = Recipe::new("index 2").text("root", root.stamp().as_str()).text("signed by", signed_by);
    // A .dsc contains the hashes of the other files of its source package.
    let files = [source::packages_in(folder)?, source::descriptions_in(folder)?].concat();
    let recipe = files.iter().try_fold(recipe, |recipe, file| recipe.file(file))?;
    recipe.stamp().make(&folder.join(".index.stamp"), &folder.join("Release"), || {
        // No old signature may remain beside a new index.
        remove_signature(folder)?;
        let mut step = ws.step("deb-index", "indexing the packages")?;
        let sandbox = root.sandbox().bind_rw(folder, "out");
        // `apt-ftparchive release` lists every index file that it finds, also an old Release.
        let script = "rm -f Packages Sources Release
            apt-ftparchive packages . >.new; mv .new Packages
            apt-ftparchive sources . >.new; mv .new Sources
            apt-ftparchive -o APT::FTPArchive::Release::Label=xt_traffic release . >.new; mv .new Release";
        step.run(sandbox.command("out", &["sh", "-euc", script]))?;
        step.finish();
        let Some(signer) = signer else { return Ok(()) };
        let accepted = signer.sign(folder).and_then(|()| verify(ws, root, folder, signer));
        keep_if_accepted(folder, accepted)
    })
}

/// Removes the signature and the key.
fn remove_signature(folder: &Path) -> Result<()> {
    SIGNATURES.iter().chain([&KEY_FILE]).try_for_each(|name| remove_if_exists(&folder.join(name)))
}

/// Removes a signature that apt has not accepted: somebody could copy it to hosts.
fn keep_if_accepted(folder: &Path, accepted: Result<()>) -> Result<()> {
    accepted.or_else(|error| {
        remove_signature(folder).with_context(|| format!("{error:#}"))?;
        Err(error)
    })
}

/// The configuration of an apt that has no other repository than those in `/tmp/sources`.
const APT_CONF: &str = "\
Dir::Etc::SourceList \"/dev/null\";
Dir::Etc::SourceParts \"/tmp/sources\";
Dir::Etc::Parts \"/tmp/none\";
Dir::State \"/tmp/state\";
Dir::State::Status \"/dev/null\";
Dir::Cache \"/tmp/cache\";
APT::Sandbox::User \"root\";
APT::Update::Error-Mode \"any\";
";

/// Makes the folders of [`APT_CONF`], and reads the repository in `$2` as a host does. `$1` is the
/// configuration, and `$3` the field of the source that says how to trust it.
const APT_UPDATE: &str = "
    mkdir -p /tmp/sources /tmp/none /tmp/state/lists/partial /tmp/cache/archives/partial
    printf %s \"$1\" >/tmp/apt.conf
    printf '%s\\n' 'Types: deb deb-src' \"URIs: file:$2\" 'Suites: ./' \"$3\" >/tmp/sources/x.sources
    export APT_CONFIG=/tmp/apt.conf
    apt-get update";

/// Fails if apt does not accept the signed repository, for example because the key is weak or has
/// expired: gpg accepts keys that apt refuses. The output of apt says why.
fn verify(ws: &Workspace, root: &BuildRoot, folder: &Path, signer: &Signer) -> Result<()> {
    let mut step = ws.step("deb-verify", "checking the repository with apt")?;
    let words = ["sh", "-euc", APT_UPDATE, "-", APT_CONF, "/src", &format!("Signed-By: /src/{KEY_FILE}")];
    step.run(root.sandbox().bind_ro(folder, "src").command("tmp", &words))
        .with_context(|| format!("apt does not accept the signed repository (key {})", signer.fingerprint))?;
    step.finish();
    Ok(())
}

/// A secret key in the user's gpg on the host. gpg asks for its passphrase. The key itself does not
/// leave gpg.
pub struct Signer {
    fingerprint: String,
    /// gpg's folder, if it is not the user's.
    home: Option<PathBuf>,
}

impl Signer {
    /// Finds the secret key that `id` names: a fingerprint, a key id or an e-mail address.
    ///
    /// # Errors
    /// When gpg is not installed, or does not have exactly one such key that is valid.
    pub fn find(id: &str) -> Result<Self> {
        Self::find_in(None, id)
    }

    /// The only key of gpg's folder `home`. It is made without a passphrase if there is none.
    pub fn for_tests(home: &Path) -> Result<Self> {
        Self::with_algorithm(home, "ed25519")
    }

    fn with_algorithm(home: &Path, algorithm: &str) -> Result<Self> {
        const USER: &str = "test@xt-traffic.invalid";
        if !home.exists() {
            DirBuilder::new().mode(0o700).create(home)?;
            let mut make = gpg(Some(home));
            make.args(["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", USER, algorithm, "", "never"]);
            process::run_foreground(make)?;
        }
        Self::find_in(Some(home.to_owned()), USER)
    }

    fn find_in(home: Option<PathBuf>, id: &str) -> Result<Self> {
        let mut list = gpg(home.as_deref());
        list.args(["--batch", "--with-colons", "--list-secret-keys", "--", id]);
        let output = match list.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("gpg is missing: install the package gnupg to use --sign")
            }
            output => output.context("cannot start gpg")?,
        };
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "gpg has no secret key {id}: {}", problem.trim());
        let fingerprint = only_key(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("--sign {id}"))?;
        Ok(Self { fingerprint, home })
    }

    /// Signs `Release` in the folder, and writes the public key there.
    fn sign(&self, folder: &Path) -> Result<()> {
        let [whole, detached] = SIGNATURES;
        for (action, output) in [("--clear-sign", whole), ("--detach-sign", detached)] {
            let mut sign = gpg(self.home.as_deref());
            sign.args(["--yes", "--armor", "--digest-algo", "SHA512", "--local-user", &self.fingerprint]);
            sign.args(["--output", output, action, "Release"]).current_dir(folder);
            process::run_foreground(sign).context("gpg cannot sign the repository")?;
        }
        let mut export = gpg(self.home.as_deref());
        export.args(["--armor", "--export-options", "export-minimal", "--export", &self.fingerprint]);
        let output = export.output().context("cannot start gpg")?;
        ensure!(output.status.success() && !output.stdout.is_empty(), "gpg cannot export the public key");
        write_atomically(&folder.join(KEY_FILE), &output.stdout)?;
        self.home.as_deref().map_or(Ok(()), stop_agent)
    }
}

/// Ends the daemon that gpg has started for a folder other than the user's.
fn stop_agent(home: &Path) -> Result<()> {
    let mut stop = Command::new("gpgconf");
    stop.arg("--homedir").arg(home).args(["--kill", "gpg-agent"]);
    process::run_foreground(stop)
}

fn gpg(home: Option<&Path>) -> Command {
    let mut command = Command::new("gpg");
    if let Some(home) = home {
        command.arg("--homedir").arg(home);
    }
    command
}

/// The fingerprint of the only key in a list of `gpg --with-colons`.
/// <https://github.com/gpg/gnupg/blob/master/doc/DETAILS>
fn only_key(list: &str) -> Result<String> {
    let records: Vec<Vec<_>> = list.lines().map(|line| line.split(':').collect()).collect();
    let keys: Vec<_> = records.iter().enumerate().filter(|(_, fields)| fields[0] == "sec").collect();
    ensure!(keys.len() == 1, "this names {} secret keys, not one; use a fingerprint", keys.len());
    let (at, fields) = keys[0];
    match fields.get(1) {
        Some(&"e") => bail!("the key has expired"),
        Some(&"r" | &"d" | &"i") => bail!("the key is revoked, disabled or invalid"),
        _ => {}
    }
    let fingerprint = records[at..].iter().find(|fields| fields[0] == "fpr").and_then(|fields| fields.get(9));
    Ok((*fingerprint.context("gpg did not print the fingerprint")?).to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use anyhow::anyhow;
    use fs_err as fs;
    use tempfile::TempDir;

    use super::*;

    const FIRST: &str = "sec:u:255:22:1111111111111111:1:::u:::scESC:::+::ed25519:::0:\n\
                         fpr:::::::::AAAA1111111111111111:\nuid:u::::1::H::a <a@b.example>::::::::::0:\n\
                         ssb:u:255:18:2222222222222222:1::::::e:::+::cv25519::\nfpr:::::::::BBBB2222222222222222:\n";

    #[test]
    fn the_key_must_be_the_only_one_and_valid() {
        assert_eq!(only_key(FIRST).unwrap(), "AAAA1111111111111111");
        let error = only_key(&FIRST.repeat(2)).unwrap_err().to_string();
        assert_eq!(error, "this names 2 secret keys, not one; use a fingerprint");
        let error = only_key(&FIRST.replace("sec:u", "sec:e")).unwrap_err().to_string();
        assert_eq!(error, "the key has expired");
        let error = only_key(&FIRST.replace("sec:u", "sec:r")).unwrap_err().to_string();
        assert_eq!(error, "the key is revoked, disabled or invalid");
    }

    #[test]
    fn a_signature_that_is_not_accepted_does_not_remain() {
        let folder = tempfile::tempdir().unwrap();
        let signature = ["InRelease", "Release.gpg", KEY_FILE];
        for name in signature.iter().chain(&["Release"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        keep_if_accepted(folder.path(), Ok(())).unwrap();
        assert!(signature.iter().all(|name| folder.path().join(name).exists()));
        let error = keep_if_accepted(folder.path(), Err(anyhow!("a reason"))).unwrap_err();
        assert_eq!(error.to_string(), "a reason");
        assert!(!signature.iter().any(|name| folder.path().join(name).exists()));
        assert!(folder.path().join("Release").exists());
        // The reason is told, too, if the signature cannot be removed.
        fs::create_dir(folder.path().join("InRelease")).unwrap();
        let error = keep_if_accepted(folder.path(), Err(anyhow!("a reason"))).unwrap_err();
        assert!(format!("{error:#}").starts_with("a reason: failed to remove file"), "{error:#}");
    }

    /// A repository with one package and its source package.
    struct Fixture {
        ws: Workspace,
        root: BuildRoot,
        folder: TempDir,
    }

    /// Makes the packages.
    const PACKAGE: &str = "\
mkdir -p thing/debian/source
cd thing
echo '3.0 (native)' >debian/source/format
echo content >file
cat >debian/control <<END
Source: thing
Maintainer: A <a@b.example>

Package: thing
Architecture: all
Description: a thing
END
cat >debian/changelog <<END
thing (1) trixie; urgency=low

  * First.

 -- A <a@b.example>  Thu, 01 Jan 2026 00:00:00 +0000
END
dpkg-source --build .
mkdir -p debian/thing/DEBIAN
dpkg-gencontrol -pthing -Pdebian/thing
dpkg-deb --build debian/thing ..
rm -r ../thing";

    impl Fixture {
        fn new(signer: Option<&Signer>) -> Self {
            let ws = Workspace::open().unwrap();
            let root = BuildRoot::prepare_for_packages(&ws).unwrap();
            let fixture = Self { folder: ws.temporary().unwrap(), ws, root };
            fixture.run(PACKAGE).unwrap();
            index(&fixture.ws, &fixture.root, fixture.folder.path(), signer).unwrap();
            fixture
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Runs a script in the folder. Returns its output, as an error if it fails.
        fn run(&self, script: &str) -> Result<String, String> {
            self.run_words(&["sh", "-euc", script])
        }

        fn run_words(&self, words: &[&str]) -> Result<String, String> {
            let sandbox = self.root.sandbox().bind_rw(self.folder.path(), "out");
            let output = sandbox.command("out", words).stdin(Stdio::null()).output().unwrap();
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            if output.status.success() { Ok(text) } else { Err(text) }
        }

        /// Runs a command of a host on which the repository is the only source of packages.
        fn apt(&self, trust: &str, command: &str) -> Result<String, String> {
            let script = format!("{APT_UPDATE}\ncd /tmp\n{command}");
            self.run_words(&["sh", "-euc", &script, "-", APT_CONF, "/out", trust])
        }
    }

    fn signer(folder: &TempDir) -> Signer {
        Signer::for_tests(&folder.path().join("gpg")).unwrap()
    }

    /// The begin of the error if apt does not accept a repository.
    fn refusal(signer: &Signer) -> String {
        format!("apt does not accept the signed repository (key {}): ", signer.fingerprint)
    }

    const SIGNED_BY: &str = "Signed-By: /out/xt-traffic.asc";

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn apt_accepts_a_signed_repository_and_refuses_a_changed_one() {
        let home = tempfile::tempdir().unwrap();
        let signer = signer(&home);
        let fixture = Fixture::new(Some(&signer));
        fixture.apt(SIGNED_BY, "apt-cache show thing").unwrap();

        let packages = fs::read_to_string(fixture.path("Packages")).unwrap();
        fs::write(fixture.path("Packages"), packages.replace("a thing", "another")).unwrap();
        let is_explained = |error: &str| error.contains("Hash Sum mismatch") || error.contains("unexpected size");
        let error = fixture.apt(SIGNED_BY, "true").unwrap_err();
        assert!(is_explained(&error), "{error}");
        // The check at the end of a build does not blame the key for it.
        let error = verify(&fixture.ws, &fixture.root, fixture.folder.path(), &signer).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with(&refusal(&signer)) && is_explained(&error), "{error}");

        // An attacker can write the new hashes to Release, but cannot sign it.
        fs::write(fixture.path("Packages"), &packages).unwrap();
        let release = fs::read_to_string(fixture.path("InRelease")).unwrap();
        fs::write(fixture.path("InRelease"), release.replace("xt_traffic", "xt_traffix")).unwrap();
        let error = fixture.apt(SIGNED_BY, "true").unwrap_err();
        assert!(error.contains("not signed") || error.contains("Signature"), "{error}");
    }

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn a_key_that_apt_does_not_accept_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let weak = Signer::with_algorithm(&home.path().join("gpg"), "rsa1024").unwrap();
        let fixture = Fixture::new(None);
        let error = index(&fixture.ws, &fixture.root, fixture.folder.path(), Some(&weak)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with(&refusal(&weak)) && error.contains("RSA1024"), "{error}");
        assert!(fixture.path("Release").exists());
        for name in ["InRelease", "Release.gpg", KEY_FILE] {
            assert!(!fixture.path(name).exists(), "{name} remains");
        }
    }

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn apt_refuses_a_repository_that_another_key_has_signed() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [ours, other] = homes.each_ref().map(|home| Fixture::new(Some(&signer(home))));
        fs::copy(other.path(KEY_FILE), ours.path(".other.asc")).unwrap();
        let error = ours.apt("Signed-By: /out/.other.asc", "true").unwrap_err();
        assert!(error.contains("not signed"), "{error}");
    }

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn an_unsigned_repository_must_be_trusted_explicitly() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(Some(&signer(&home)));
        // The signature of the last index does not remain.
        index(&fixture.ws, &fixture.root, fixture.folder.path(), None).unwrap();
        assert!(!fixture.path("InRelease").exists() && !fixture.path(KEY_FILE).exists());
        let error = fixture.apt("", "true").unwrap_err();
        assert!(error.contains("not signed"), "{error}");
        fixture.apt("Trusted: yes", "apt-cache show thing").unwrap();
    }

    #[test]
    #[ignore = "needs the package root: `cargo xtask ci` runs it"]
    fn apt_get_source_unpacks_a_source_package() {
        let fixture = Fixture::new(None);
        let output = fixture.apt("Trusted: yes", "apt-get source thing; cat thing-1/file").unwrap();
        assert!(output.contains("content"), "{output}");
    }
}
