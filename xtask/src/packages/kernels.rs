// SPDX-License-Identifier: GPL-2.0-only
//! Tests of how the package `xt-traffic` treats the installed kernels.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use tempfile::TempDir;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deb/xt-traffic/root/usr/share/xt-traffic");

/// The menu of GRUB in Debian 13, shortened.
const MENU: &str = r#"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="DEFAULT"
fi
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	echo	'Loading Linux 6.12.118-promisc.4 ...'
	linux	/boot/vmlinuz-6.12.118-promisc.4 root=/dev/vda1 ro
	initrd	/boot/initrd.img-6.12.118-promisc.4
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian GNU/Linux, with Linux 6.12.118-promisc.4' $menuentry_id_option 'gnulinux-four-1' {
		linux	/boot/vmlinuz-6.12.118-promisc.4 root=/dev/vda1 ro
	}
	menuentry 'Debian GNU/Linux, with Linux 6.12.119+deb13-amd64' $menuentry_id_option 'gnulinux-debian-1' {
		linux	/vmlinuz-6.12.119+deb13-amd64 root=/dev/vda1 ro
	}
}
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
		fwsetup
	}
fi
menuentry 'Another system' {
	linux	/boot/vmlinuz-5.10 root=/dev/vdb1
}
"#;

/// Runs a shell command as the programs of GRUB do: it ends at the first error.
fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn folder_with(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| fs::write(folder.path().join(file), "").unwrap());
    folder
}

/// GRUB's variable for the first entry, after it has read the administrator's `settings` and then
/// the package's file. The variable is relative to the folder with the kernels.
fn first_entry(boot: &Path, settings: &str) -> String {
    let boot = boot.to_str().unwrap();
    let fragment = fs::read_to_string(format!("{FOLDER}/grub.cfg")).unwrap();
    let [here, there] = ["/usr/share/xt-traffic", " /boot)"].map(|path| fragment.matches(path).count());
    assert_eq!((here, there), (1, 1), "{fragment}");
    let fragment = fragment.replace("/usr/share/xt-traffic", FOLDER).replace(" /boot)", &format!(" {boot})"));
    shell(&format!("{settings}\n{fragment}\nprintf %s \"${{GRUB_TOP_LEVEL-}}\"")).replace(&format!("{boot}/"), "")
}

#[test]
fn grub_prefers_the_newest_kernel_with_the_hook() {
    let boot = folder_with(&[
        "vmlinuz-6.12.119+deb13-amd64",
        "vmlinuz-6.12.118-promisc.9",
        "vmlinuz-6.12.118-promisc.10.dirty",
        "vmlinuz-6.12.118-promisc.10",
        "vmlinuz-6.12.118-promisc.11.old",
        "vmlinuz-6.12.118-promisc.11.dpkg-new",
    ]);
    assert_eq!(first_entry(boot.path(), ""), "vmlinuz-6.12.118-promisc.10.dirty");
    assert_eq!(first_entry(boot.path(), "GRUB_DEFAULT=0"), "vmlinuz-6.12.118-promisc.10.dirty");
    fs::write(boot.path().join("vmlinuz-6.12.118-promisc.10.dirty-vm"), "").unwrap();
    fs::write(boot.path().join("vmlinuz-6.12.118-promisc.11-vm"), "").unwrap();
    assert_eq!(first_entry(boot.path(), ""), "vmlinuz-6.12.118-promisc.11-vm");
}

// Making it can fail, for instance for lack of space.
#[test]
fn grub_does_not_prefer_a_kernel_without_its_initrd() {
    let boot = folder_with(&[
        "vmlinuz-6.12.118-promisc.9",
        "initrd.img-6.12.118-promisc.9",
        "vmlinuz-6.12.118-promisc.10",
        "initrd.img-6.12.119+deb13-amd64",
    ]);
    assert_eq!(first_entry(boot.path(), ""), "vmlinuz-6.12.118-promisc.9");
    fs::write(boot.path().join("initrd.img-6.12.118-promisc.10"), "").unwrap();
    assert_eq!(first_entry(boot.path(), ""), "vmlinuz-6.12.118-promisc.10");
}

#[test]
fn with_secure_boot_grub_prefers_a_signed_kernel() {
    let boot = folder_with(&["vmlinuz-6.12.118-promisc.9", "vmlinuz-6.12.118-promisc.10"]);
    let firmware = tempfile::tempdir().unwrap();
    let query = firmware.path().join("dpkg-query");
    fs::write(&query, "#!/bin/sh\ncase $3 in *.9) echo 6.12.118-promisc.9+signed1.2;; *) echo 6.12.118;; esac\n")
        .unwrap();
    fs::set_permissions(&query, PermissionsExt::from_mode(0o755)).unwrap();
    let folder = firmware.path().display();
    let settings = format!("EFIVARS={folder} PATH={folder}:$PATH");
    assert_eq!(first_entry(boot.path(), &settings), "vmlinuz-6.12.118-promisc.10");
    for (value, first) in [(0, "vmlinuz-6.12.118-promisc.10"), (1, "vmlinuz-6.12.118-promisc.9")] {
        let variable = firmware.path().join("SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        fs::write(variable, [6, 0, 0, 0, value]).unwrap();
        assert_eq!(first_entry(boot.path(), &settings), first, "{value}");
    }
    fs::remove_file(boot.path().join("vmlinuz-6.12.118-promisc.9")).unwrap();
    assert_eq!(first_entry(boot.path(), &settings), "");
}

#[test]
fn grub_keeps_its_order_without_such_a_kernel_and_with_settings_of_the_administrator() {
    let boot = folder_with(&["vmlinuz-6.12.119+deb13-amd64"]);
    assert_eq!(first_entry(boot.path(), "GRUB_DEFAULT=0"), "");
    assert_eq!(first_entry(&boot.path().join("none"), ""), "");
    fs::write(boot.path().join("vmlinuz-6.12.118-promisc.9"), "").unwrap();
    assert_eq!(first_entry(boot.path(), "GRUB_DEFAULT=saved"), "");
    assert_eq!(first_entry(boot.path(), "GRUB_DEFAULT='1>2'"), "");
    assert_eq!(first_entry(boot.path(), "GRUB_TOP_LEVEL=/mine"), "/mine");
}

#[test]
fn the_kernel_of_the_default_entry_is_found() {
    let (ours, debian) = ("/boot/vmlinuz-6.12.118-promisc.4", "/vmlinuz-6.12.119+deb13-amd64");
    let grub = tempfile::tempdir().unwrap();
    let folder = grub.path().to_str().unwrap();
    let found = || shell(&format!(". {FOLDER}/kernels.sh; default_image {folder}")).trim_end().to_owned();
    assert_eq!(found(), "");
    let title = "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.12.119+deb13-amd64";
    for (default, environment, kernel) in [
        ("0", "", ours),
        ("1>0", "", ours),
        ("1>1", "", debian),
        ("gnulinux-advanced-1>gnulinux-debian-1", "", debian),
        (title, "", debian),
        ("3", "", "/boot/vmlinuz-5.10"),
        ("Another system", "", "/boot/vmlinuz-5.10"),
        ("uefi-firmware", "", ""),
        // A menu, and entries that are not there.
        ("1", "", ours),
        ("1>7", "", ours),
        ("2>1", "", ""),
        ("Debian GNU/Linux, with Linux 6.12.118-promisc.3", "", ours),
        ("gnulinux-debian-1", "", ours),
        ("${saved_entry}", "saved_entry=gone>1\n", ours),
        ("${saved_entry}", "saved_entry=1>1\n", debian),
        ("${saved_entry}", "saved_entry=\n", ours),
        ("0", &format!("next_entry={title}\n"), debian),
        ("1>1", "next_entry=\n", debian),
    ] {
        fs::write(grub.path().join("grub.cfg"), MENU.replace("DEFAULT", default)).unwrap();
        fs::write(grub.path().join("grubenv"), format!("# GRUB Environment Block\n{environment}####")).unwrap();
        assert_eq!(found(), kernel, "{default} {environment}");
    }
}

#[test]
fn a_newer_kernel_of_debian_is_reported() {
    const RELEASE: &str = "6.12.118-promisc.4-vm";
    let programs = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let file = programs.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let said = |built_using: &str, source: &str, version: &str| {
        program("dpkg-query", &format!("[ \"$3\" = linux-image-{RELEASE} ] && printf %s '{built_using}'"));
        let table = format!("  Installed: (none)\\n  Version table:\\n     {version} 500\\n");
        program("apt-cache", &format!("[ \"$1 $2\" = 'policy {source}' ] && printf '{table}'"));
        shell(&format!(
            "set +e
            PATH={}:$PATH
            . {FOLDER}/status.sh
            say() {{ printf '%s\\n' \"$*\"; }}
            newest={RELEASE}
            say_if_source_is_old || true",
            programs.path().display()
        ))
    };
    let (series, built_using) = ("linux-source-6.12", "linux (= 6.12.118-1)");
    for newer in ["6.12.119-1", "6.12.118-1+deb13u1"] {
        assert_eq!(
            said(built_using, series, newer),
            format!("Debian has kernel {newer}, but {RELEASE} is made of 6.12.118-1: rebuild it with the fixes\n")
        );
    }
    assert_eq!(
        said(built_using, "linux-source-7.3", "7.3.4-1"),
        "apt knows no package linux-source-6.12: it cannot tell if Debian has a newer kernel than 6.12.118-1\n"
    );
    for (built_using, source, version) in
        [(built_using, series, "6.12.118-1"), (built_using, series, "6.12.99-1"), ("", series, "6.12.119-1")]
    {
        assert_eq!(said(built_using, source, version), "", "{built_using}, {source} {version}");
    }
}
