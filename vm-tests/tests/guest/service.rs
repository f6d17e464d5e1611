// SPDX-License-Identifier: GPL-2.0-only
//! The program `xt-traffic` of the package: it applies a configuration to rules and ports, and
//! undoes it.

mod devices;
mod mistakes;
mod tunnels;
mod upgrade;

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{Ip, mirrored};
use vm_harness::command::Output;
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::{BACKENDS, frame, guest_test, iptables, row, table, table_files, text_after, under_traffic};

/// The files of the package with their paths in the system.
macro_rules! packaged {
    ($($path:literal),*) => { [$(($path, include_bytes!(concat!("../../../xtask/deb/xt-traffic/root", $path)).as_slice())),*] };
}

const PROGRAM: [(&str, &[u8]); 10] = packaged!(
    "/usr/sbin/xt-traffic",
    "/usr/share/xt-traffic/configuration.sh",
    "/usr/share/xt-traffic/devices.sh",
    "/usr/share/xt-traffic/kernels.sh",
    "/usr/share/xt-traffic/ports.sh",
    "/usr/share/xt-traffic/record.sh",
    "/usr/share/xt-traffic/rules.sh",
    "/usr/share/xt-traffic/status.sh",
    "/usr/share/xt-traffic/tunnels.sh",
    "/usr/share/xt-traffic/wanted.sh"
);
const PACKAGED_CONF: &str = include_str!("../../../xtask/deb/xt-traffic/root/etc/xt-traffic.conf");
const CONF: &str = "/etc/xt-traffic.conf";

/// Installs the program and a configuration.
fn install(guest: &mut Guest, conf: &str) -> Result<()> {
    guest.must("mkdir -p /usr/share/xt-traffic")?;
    for (path, content) in PROGRAM {
        guest.write(path, content)?;
    }
    // The guest has no util-linux. It needs no lock: only one process changes rules.
    guest.write("/usr/local/bin/flock", b"#!/bin/sh\n")?;
    guest.must("chmod 755 /usr/sbin/xt-traffic /usr/local/bin/flock")?;
    configure(guest, conf)
}

fn configure(guest: &mut Guest, conf: &str) -> Result<()> {
    guest.write(CONF, conf.as_bytes())
}

/// The output of the program and its exit status.
fn report(output: &Output) -> String {
    format!("{}{}exit status {}\n", output.stdout, output.stderr, output.status)
}

/// Runs the program. It must succeed without messages on standard error.
fn program(guest: &mut Guest, command: &str) -> Result<String> {
    let output = guest.run(&format!("xt-traffic {command}"))?;
    ensure!(output.status == 0 && output.stderr.is_empty(), "xt-traffic {command}: {}", report(&output));
    Ok(output.stdout)
}

/// All rules of both families, without their counters.
fn rules(guest: &mut Guest) -> Result<String> {
    guest.must("iptables -S; ip6tables -S")
}

/// The names of all network interfaces.
fn interfaces(guest: &mut Guest) -> Result<String> {
    guest.must("ls /sys/class/net")
}

/// Adds a program that runs instead of another one, for commands that [`with_wrappers`] makes. In
/// its text, `real` stands for the other program.
fn wrap(guest: &mut Guest, program: &str, script: &str) -> Result<()> {
    let real = format!("PATH=${{PATH#*:}} {program}");
    guest.must("mkdir -p /tmp/bin")?;
    guest
        .write(&format!("/tmp/bin/{program}"), format!("#!/bin/sh\n{}\n", script.replace("real", &real)).as_bytes())?;
    guest.must(&format!("chmod 755 /tmp/bin/{program}")).map(drop)
}

/// A command of the program that runs the programs of [`wrap`].
fn with_wrappers(command: &str) -> String {
    format!("PATH=/tmp/bin:$PATH xt-traffic {command}")
}

/// The number of commands after which the wrappers of [`kill_after_commands`] kill the program.
const LEFT: &str = "/tmp/left";

/// Makes wrappers that kill the program after some of the commands that change something.
fn kill_after_commands(guest: &mut Guest) -> Result<()> {
    let count = format!("read -r left <{LEFT} && echo $((left - 1)) >{LEFT} && [ $left -ne 1 ] || kill -KILL $PPID");
    for tool in ["ip", "ethtool", "iptables-nft", "iptables-nft-restore"] {
        wrap(guest, tool, &format!("real \"$@\"\nstatus=$?\n{count}\nexit $status"))?;
    }
    Ok(())
}

/// Runs the program until it has run some commands, and says whether it was killed.
fn run_for(guest: &mut Guest, command: &str, commands: usize) -> Result<bool> {
    guest.must(&format!("echo {commands} >{LEFT}"))?;
    let status = guest.run(&with_wrappers(command))?.status;
    // 128 and the number of SIGKILL.
    ensure!([0, 137].contains(&status), "xt-traffic {command}: exit status {status}");
    Ok(status != 0)
}

/// Starts the service, and waits until port 0 receives all frames.
fn start(guest: &mut Guest) -> Result<String> {
    let said = program(guest, "start")?;
    guest.await_promiscuous(0)?;
    Ok(said)
}

/// The settings of a port that the program changes.
fn port(guest: &mut Guest, name: &str) -> Result<String> {
    // The queueing discipline is omitted: an interface keeps it after it was up.
    let link = format!("ip -o link show dev {name} | sed 's/.*\\(<.*>\\) \\(mtu [0-9]*\\).*/\\1 \\2/'");
    guest.must(&format!("{link}; cat /proc/sys/net/ipv6/conf/{name}/disable_ipv6; ethtool -k {name} | grep gro-list"))
}

guest_test!(the_packaged_configuration_changes_nothing, in_guest_briefly, |guest| {
    install(guest, PACKAGED_CONF)?;
    let before = [rules(guest)?, port(guest, "eth0")?];
    ensure!(program(guest, "start")?.contains("nothing is counted"));
    ensure!([rules(guest)?, port(guest, "eth0")?] == before, "start changes rules or the port");
    // The examples are valid.
    let uncommented = |line: &str| ["#port", "#tunnel", "#table"].iter().any(|word| line.starts_with(word));
    let examples: String =
        PACKAGED_CONF.lines().filter(|line| uncommented(line)).map(|line| format!("{}\n", &line[1..])).collect();
    configure(guest, &examples)?;
    assert_snapshot!("check", program(guest, "check")?);
    ensure!([rules(guest)?, port(guest, "eth0")?] == before, "check changes rules or the port");
    program(guest, "stop")?;
});

guest_test!(frames_are_counted_from_start_to_stop, |guest| {
    let tables = "table RSN 10.0.0.0/8 --traffic\n\ttable RSN6\t2001:db8::/32 --traffic";
    install(guest, &format!("port eth0 mtu 9000 # and more\n{tables}"))?;
    iptables(guest, Backend::Nft, "-A PROMISC -s 10.0.0.9 -j DROP")?;
    iptables(guest, Backend::Nft, "-A PROMISC -i eth0 -m traffic --ipconn --net 10.0.0.0/8 --name other")?;
    guest.must("ethtool -K eth0 rx-gro-list on")?;
    let before = [rules(guest)?, port(guest, "eth0")?, table_files(guest)?, interfaces(guest)?];

    start(guest)?;
    assert_snapshot!("port", port(guest, "eth0")?);
    assert_snapshot!("rules", rules(guest)?);
    let ipv6 = Ip::between("2001:db8::1", "2001:db9::1").udp((1, 2), &[7; 72]);
    guest.send(0, [frame(1), mirrored(&ipv6)])?;
    program(guest, "start")?;
    assert_snapshot!("status", program(guest, "status")?);
    ensure!(table(guest, "RSN")? == text_after(1), "a second start changes the table");

    // Stop undoes what start did, independent of the current configuration.
    configure(guest, "table RSN 192.0.2.0/24 --traffic\nnonsense\n")?;
    program(guest, "stop")?;
    let after = [rules(guest)?, port(guest, "eth0")?, table_files(guest)?, interfaces(guest)?];
    ensure!(after == before, "{}", after.join("\n"));
    let records = guest.must("find /run/xt-traffic -type f")?;
    ensure!(records == "/run/xt-traffic/lock\n", "the record of the start still exists:\n{records}");
    let status = guest.run("xt-traffic status")?;
    ensure!(status.status == 3 && status.stderr.contains("not started"), "{}", report(&status));
});

guest_test!(a_reload_keeps_unchanged_tables, |guest| {
    let [stays, goes] = ["table stays 10.0.0.0/8 --traffic --nointernal", "table goes 10.0.0.0/8 --traffic"];
    install(guest, &format!("port eth0\n{stays}\n{goes}\ntable other 10.0.0.0/8 --traffic\n"))?;
    start(guest)?;
    guest.send(0, [frame(1)])?;

    let moved = "table stays 10.0.0.0/8 --nointernal --traffic";
    configure(guest, &format!("port eth1\nport eth0\ntable other 10.0.0.0/9 --traffic\n{moved}\n"))?;
    program(guest, "reload")?;
    ensure!(table_files(guest)? == "other\nstays\n", "{}", table_files(guest)?);
    ensure!(port(guest, "eth1")?.contains("NOARP,UP"), "the new port is not up");
    ensure!(interfaces(guest)?.contains("m-eth1\n"), "the new port has no mirror device");
    ensure!(table(guest, "stays")? == text_after(1), "an unchanged table has lost its counts");
    ensure!(table(guest, "other")? == text_after(0), "a table with another network has kept its counts");
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "stays")? == text_after(2) && table(guest, "other")? == text_after(1));

    // Another program flushes all rules.
    guest.must("iptables -F PROMISC")?;
    let missing = guest.run("xt-traffic status")?;
    ensure!(missing.status == 1 && missing.stdout.matches(": missing\n").count() == 4, "{}", report(&missing));
    program(guest, "reload")?;
    program(guest, "status")?;

    configure(guest, "# nothing\n")?;
    ensure!(program(guest, "reload")?.contains("nothing is counted"));
    ensure!(table_files(guest)?.is_empty() && !rules(guest)?.contains("-A"), "{}", rules(guest)?);
    ensure!(!interfaces(guest)?.contains("m-eth"), "the mirror devices still exist");
});

guest_test!(a_rule_that_fails_undoes_the_others, |guest| {
    // A rule of the other family has the name.
    iptables(guest, Backend::Nft, "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/32 --name taken")?;
    let fails = "port eth0\ntable new 10.0.0.0/8 --ipconn\ntable taken 10.0.0.0/8 --traffic\n";
    install(guest, fails)?;
    let before = [rules(guest)?, port(guest, "eth0")?];
    let refused = guest.run("xt-traffic start")?;
    ensure!(refused.status == 1, "{}", report(&refused));
    assert_snapshot!("failed_rule", refused.stderr);
    ensure!([rules(guest)?, port(guest, "eth0")?] == before, "start is not undone: {}", rules(guest)?);
    ensure!(guest.run("xt-traffic reload")?.status == 3, "the service is running");

    configure(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    guest.send(0, [frame(1)])?;
    let before = rules(guest)?;
    // A table with other parameters keeps its counts, too.
    configure(guest, &format!("{fails}table t 10.0.0.0/9 --traffic\n"))?;
    ensure!(guest.run("xt-traffic reload")?.status == 1);
    ensure!(rules(guest)? == before, "{}", rules(guest)?);
    ensure!(table(guest, "t")? == text_after(1), "the table has lost its counts");
    program(guest, "stop")?;
    ensure!(table_files(guest)? == "taken\n", "{}", table_files(guest)?);
});

guest_test!(a_changed_table_counts_each_packet_once, |guest| {
    for backend in BACKENDS {
        let alternative = format!(
            "rm -rf /tmp/bin && mkdir /tmp/bin && for family in iptables ip6tables; do \
             ln -s /usr/local/sbin/$family-{backend} /tmp/bin/$family; done"
        );
        guest.must(&alternative)?;
        let old = "-m traffic --traffic --net 10.0.0.0/8 --name t";
        let run = |command: &str| format!("PATH=/tmp/bin:$PATH xt-traffic {command}");
        install(guest, "port eth0\nport eth1\ntable t 10.0.0.0/8 --traffic\n")?;
        guest.must(&run("start"))?;
        guest.await_promiscuous(0)?;
        // This rule keeps the old table until it has been read.
        iptables(guest, backend, &format!("-A INPUT -i none {old}"))?;
        configure(guest, "port eth0\nport eth1\ntable t 10.0.0.0/9 --traffic --ipconn\n")?;
        let mut reloads = Vec::new();
        let sent = under_traffic(
            guest,
            |_| frame(1),
            |guest| {
                if reloads.len() == 2 {
                    return guest.must("sleep 0.1").map(drop);
                }
                reloads.push(guest.run(&run("reload"))?);
                Ok(())
            },
        )?;
        // The second one has nothing to change.
        for reload in &reloads {
            assert_snapshot!("two_tables", report(reload));
        }
        let status = guest.run(&run("status"))?;
        let line = "table  /proc/net/xt_traffic/t: other rules use this name";
        ensure!(status.status == 1 && status.stdout.contains(line), "{}", report(&status));
        let bytes = |text: String| row(&text, "10.0.0.1").map(|row| row.first().copied().unwrap_or(0));
        let before = bytes(table(guest, "t")?)?;
        iptables(guest, backend, &format!("-D INPUT -i none {old}"))?;
        guest.must("until test -e /proc/net/xt_traffic/t.ipconn; do :; done")?;
        let after = bytes(table(guest, "t")?)?;
        ensure!(before + after == 100 * sent, "{sent} frames were sent: {before} bytes before, {after} after");
        ensure!(after > 0, "the new table counts nothing");
        guest.must(&run("status"))?;
        guest.must(&run("stop"))?;
        ensure!(table_files(guest)?.is_empty(), "{}", table_files(guest)?);
    }
});

guest_test!(newer_kernels_and_iptables_are_reported, in_guest_briefly, |guest| {
    install(guest, "")?;
    ensure!(program(guest, "updates")?.is_empty());
    guest.must("mkdir -p /boot && cd /boot && touch vmlinuz-99.1-promisc.9 vmlinuz-99.1-promisc.10 vmlinuz-99.2")?;
    let running = guest.must("uname -r")?;
    let kernel = format!(
        "xt-traffic: kernel 99.1-promisc.10 is installed, but {} is running: reboot to use it\n",
        running.trim_end()
    );
    ensure!(program(guest, "updates")? == kernel);
    let menu = |image: &str| {
        format!("set default=\"0\"\nmenuentry 'Debian GNU/Linux' {{\n\tlinux\t/boot/vmlinuz-{image} ro\n}}\n")
    };
    guest.must("mkdir /boot/grub")?;
    guest.write("/boot/grub/grub.cfg", menu("99.1-promisc.10").as_bytes())?;
    ensure!(program(guest, "updates")? == kernel);
    guest.write("/boot/grub/grub.cfg", menu("99.2").as_bytes())?;
    let stock = "xt-traffic: the next boot uses kernel 99.2, which has no hook PROMISC and does not count\n";
    // Without GRUB's program, the menu means nothing.
    ensure!(program(guest, "updates")? == kernel);
    guest.must("ln -s /bin/true /usr/local/bin/update-grub")?;
    ensure!(program(guest, "updates")? == stock);
    // The administrator has chosen an older kernel with the hook.
    guest.write("/boot/grub/grub.cfg", menu("99.1-promisc.9").as_bytes())?;
    let older = format!(
        "xt-traffic: the next boot uses kernel 99.1-promisc.9, but {} is running, and 99.1-promisc.10 is the newest\n",
        running.trim_end()
    );
    ensure!(program(guest, "updates")? == older);
    guest.write("/boot/grub/grub.cfg", menu("99.1-promisc.10").as_bytes())?;
    guest.must("cd /boot && touch initrd.img-99.1-promisc.9")?;
    let unusable =
        "xt-traffic: kernel 99.1-promisc.10 has no initrd, or is not signed for Secure Boot: it is not used\n";
    let said = program(guest, "updates")?;
    ensure!(said.starts_with(unusable), "{said}");
    guest.must("rm -r /boot/* /usr/local/bin/update-grub")?;

    let [ours, debian] = ["1.8.11-2+0promisc1", "1.8.11-2+deb13u1"];
    let held = format!(
        "xt-traffic: Debian has iptables {debian}, which has no chain PROMISC: rebuild {ours} with its fixes\n"
    );
    let lacks = format!("xt-traffic: iptables {debian} has no chain PROMISC: install the one of xt_traffic\n");
    let of_first_release = "1.8.11-2+promisc1";
    let packages = ["iptables", "libip4tc2", "libip6tc2", "libxtables12"];
    let packages = packages.map(|package| format!("{package}='*+0promisc*'")).join(" ");
    let replace = format!(
        "xt-traffic: iptables {of_first_release} is of xt_traffic 0.2.0, and apt does not replace it: \
         run apt-get install --allow-downgrades {packages}\n"
    );
    // The installed version, the newest one, and the message.
    let cases = [
        (ours, ours, ""),
        (ours, debian, held.as_str()),
        (ours, "1.8.11-2+0promisc2", ""),
        (debian, debian, lacks.as_str()),
        (debian, ours, lacks.as_str()),
        ("(none)", debian, ""),
        (of_first_release, of_first_release, replace.as_str()),
        (of_first_release, debian, replace.as_str()),
    ];
    for (installed, newest, message) in cases {
        let mark = if installed == newest { " ***" } else { "    " };
        let policy = format!(
            "iptables:\n  Installed: {installed}\n  Candidate: {ours}\n  Version table:\n{mark} {newest} 500\n        \
             500 file:/srv ./ Packages\n *** {installed} 100\n"
        );
        guest.write("/usr/local/bin/apt-cache", format!("#!/bin/sh\ncat <<END\n{policy}END\n").as_bytes())?;
        guest.must("chmod 755 /usr/local/bin/apt-cache")?;
        let said = program(guest, "updates")?;
        ensure!(said == message, "{installed}, {newest}: {said}");
    }
});

guest_test!(a_table_can_change_its_family, |guest| {
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "start")?;
    configure(guest, "port eth0\ntable t 2001:db8::/32 --ipconn\n")?;
    program(guest, "reload")?;
    ensure!(table_files(guest)? == "t.ipconn\n", "{}", table_files(guest)?);
    // If that fails, the old table is made again.
    configure(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\ntable bad 2001:db8::/32 --traffic\n")?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name bad")?;
    let before = rules(guest)?;
    ensure!(guest.run("xt-traffic reload")?.status == 1);
    ensure!(rules(guest)? == before, "{}", rules(guest)?);
});

/// An iptables-nft-restore that fails when it is called for the second time.
const SECOND_FAILS: &str = "#!/bin/sh\necho >>/tmp/calls\n\
                            test $(wc -l </tmp/calls) != 2 || { echo cannot >&2; exit 4; }\n\
                            exec /usr/local/sbin/iptables-nft-restore \"$@\"\n";

guest_test!(a_table_that_cannot_be_changed_undoes_the_changes_of_others, |guest| {
    install(guest, "port eth0\ntable a 10.0.0.0/8 --traffic\ntable b 10.0.0.0/8 --traffic\n")?;
    program(guest, "start")?;
    let sorted = |rules: String| rules.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let before = sorted(rules(guest)?);
    configure(guest, "port eth0\ntable a 10.0.0.0/9 --traffic\ntable b 10.0.0.0/9 --traffic\n")?;
    guest.must("mkdir /tmp/bin")?;
    guest.write("/tmp/bin/iptables-nft-restore", SECOND_FAILS.as_bytes())?;
    guest.must("chmod 755 /tmp/bin/iptables-nft-restore")?;
    let failed = guest.run("PATH=/tmp/bin:$PATH xt-traffic reload")?;
    let message = "/etc/xt-traffic.conf:3: table b: cannot\nxt-traffic: restored the previous rules\n";
    ensure!(failed.status == 1 && failed.stderr.ends_with(message), "{}", report(&failed));
    ensure!(guest.must("wc -l </tmp/calls")? == "3\n");
    ensure!(sorted(rules(guest)?) == before, "{}", rules(guest)?);
    program(guest, "reload")?;
    ensure!(rules(guest)?.matches("10.0.0.0/9").count() == 2, "{}", rules(guest)?);
});

guest_test!(a_reload_with_the_other_back_end_moves_the_rules, |guest| {
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\ntable u 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    guest.send(0, [frame(1)])?;
    let alternative = "mkdir /tmp/bin && for family in iptables ip6tables; do \
                       ln -s /usr/local/sbin/$family-legacy /tmp/bin/$family; done";
    guest.must(alternative)?;
    guest.must("PATH=/tmp/bin:$PATH xt-traffic reload")?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(2), "{}", table(guest, "t")?);
    let count = |text: String| text.matches("--name").count();
    let counts = [Backend::Nft, Backend::Legacy].map(|backend| iptables(guest, backend, "-S").map(count));
    ensure!(matches!(counts, [Ok(0), Ok(2)]), "the numbers of rules in nft and legacy: {counts:?}");
    // Stop uses the same back end.
    program(guest, "stop")?;
    ensure!(count(iptables(guest, Backend::Legacy, "-S")?) == 0, "the rules still exist");
});

/// An ethtool for a device with LRO, which the guest does not have. It writes its arguments to a
/// file.
const ETHTOOL: &str = "#!/bin/sh\ncase $1 in -k) cat /tmp/features ;; *) echo $* >>/tmp/arguments ;; esac\n";

guest_test!(lro_is_switched_off, in_guest_briefly, |guest| {
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    guest.write("/usr/local/sbin/ethtool", ETHTOOL.as_bytes())?;
    guest.must("chmod 755 /usr/local/sbin/ethtool")?;
    guest.write("/tmp/features", b"Features for eth0:\nlarge-receive-offload: on\nrx-vlan-filter: on [fixed]\n")?;
    program(guest, "start")?;
    program(guest, "stop")?;
    let arguments = "-K eth0 lro off\n--set-priv-flags m-eth0 sliced off\n-K eth0 lro on\n";
    ensure!(guest.read_text("/tmp/arguments")? == arguments);
    // The service starts although counts will be wrong.
    guest.write("/tmp/features", b"Features for eth0:\nlarge-receive-offload: on [fixed]\n")?;
    let started = guest.run("xt-traffic start")?;
    ensure!(started.status == 0 && started.stderr.contains("eth0: LRO cannot be switched off"), "{}", report(&started));
    program(guest, "status")?;
});
