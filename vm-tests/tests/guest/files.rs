// SPDX-License-Identifier: GPL-2.0-only
//! Permissions of the files, and system calls on them.

use anyhow::{Result, ensure};
use traffic_model::frames::{Ip, SYN, mirrored};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{file_steps, guest_test, iptables, stat, table};

const RULE: &str = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/16 --name";
const PARAMETERS: &str = "/sys/module/xt_traffic/parameters";
const FILES: [&str; 3] = ["t", "t.ipconn", "t.portconn"];

/// A table whose three files have 400 rows each.
fn many_rows(guest: &mut Guest) -> Result<()> {
    iptables(guest, Backend::Nft, &format!("{RULE} t"))?;
    guest.open_port(0)?;
    let frame = |n: u16| {
        let [high, low] = (n * 7).to_be_bytes();
        mirrored(&Ip::new([10, 0, high, low], [192, 0, 2, 1]).tcp((1000, 100 + n), n.into(), SYN, b""))
    };
    guest.send(0, (0..400).map(frame))
}

/// Mode, owner, group and name of each file.
fn modes(guest: &mut Guest) -> Result<String> {
    guest.must(&format!("cd {TABLES} && stat -c '%a %u %g %n' *"))
}

guest_test!(each_way_to_read_returns_the_same_text, |guest| {
    many_rows(guest)?;
    for file in FILES {
        let whole = format!("{:?}", table(guest, file)?);
        ensure!(whole.len() > 8192, "{file} is too short for this test");
        for steps in [
            "all:1",
            "all:7",
            "all:4096",
            "all:4097",
            "all:1000000",
            // For each piece the kernel generates the text up to it again, so single bytes take
            // a minute.
            "preads:61",
            "preads:1000",
            "sendfile",
            "splice",
        ] {
            ensure!(file_steps(guest, file, &[steps])? == [whole.as_str()], "{file}, {steps}");
        }
        let cat = guest.must(&format!("/usr/bin/busybox cat {TABLES}/{file}"))?;
        ensure!(format!("{cat:?}") == whole, "{file}: cat");
    }
});

guest_test!(seeking_and_polling, |guest| {
    many_rows(guest)?;
    let text = table(guest, "t")?;
    let piece = |from: usize, to: usize| format!("{:?}", &text[from..to]);
    let steps =
        ["poll", "read:10", "cur:10", "read:10", "set:5", "read:4", "end:0", "read:3", "pread:9000:20", "read:3"];
    let output = file_steps(guest, "t", &steps)?;
    ensure!(u16::from_str_radix(&output[0], 16)? & 1 == 1, "POLLIN is not set: {output:?}");
    let wanted = [
        piece(0, 10),
        "20".into(),
        piece(20, 30),
        "5".into(),
        piece(5, 9),
        // The end of the file is unknown.
        "errno 22".into(),
        piece(9, 12),
        piece(9000, 9020),
        piece(12, 15),
    ];
    ensure!(output[1..] == wanted, "{output:#?} instead of {wanted:#?}");
    let beyond = file_steps(guest, "t", &["set:10000000", "read:10", "set:0", "read:2", "read:0"])?;
    ensure!(beyond == ["10000000", "\"\"", "0", "\"IP\"", "\"\""], "{beyond:?}");
});

guest_test!(bad_addresses_and_writes_are_refused, |guest| {
    many_rows(guest)?;
    for file in FILES.into_iter().chain([".stats"]) {
        let path = format!("{TABLES}/{file}");
        ensure!(file_steps(guest, file, &["bad:100", "read:3"])?[0] == "errno 14", "{file}: a bad address");
        for how in [">", ">>", "1<>"] {
            ensure!(guest.run(&format!("echo x {how} {path}"))?.status != 0, "{file} was opened with {how}");
        }
        ensure!(guest.run(&format!("rm {path}"))?.status != 0, "{file} was removed");
    }
    ensure!(file_steps(guest, "none", &["read:1"])? == ["errno 2"]);
});

guest_test!(reading_a_file_of_a_deleted_rule_fails, |guest| {
    many_rows(guest)?;
    let mut readers = Vec::new();
    for file in FILES {
        let steps = format!("read:10 touch:/tmp/{file} await:/tmp/gone read:10 pread:0:10 set:0 read:10");
        readers.push(guest.start(&format!("/init file {TABLES}/{file} {steps}"))?);
        guest.must(&format!("until test -e /tmp/{file}; do :; done"))?;
    }
    iptables(guest, Backend::Nft, "-F PROMISC")?;
    for file in FILES {
        ensure!(file_steps(guest, file, &["read:1"])? == ["errno 2"], "{file} still exists");
    }
    guest.write("/tmp/gone", b"")?;
    for reader in readers {
        let output = guest.finish_command(reader, COMMAND_TIMEOUT)?.success("the reader")?;
        let lines: Vec<&str> = output.lines().collect();
        ensure!(lines[3..5] == ["errno 5", "errno 5"] && lines[6] == "errno 5", "{lines:?}");
    }
});

guest_test!(modes_and_owners, |guest| {
    iptables(guest, Backend::Nft, &format!("{RULE} a"))?;
    ensure!(modes(guest)? == "440 0 0 a\n440 0 0 a.ipconn\n440 0 0 a.portconn\n", "the default");
    guest.must(&format!("cd {PARAMETERS} && echo 0444 >proc_mode && echo 7 >proc_uid && echo 8 >proc_gid"))?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name b")?;
    let text = modes(guest)?;
    ensure!(text.ends_with("444 7 8 b\n") && text.starts_with("440 0 0 a\n"), "existing and new files:\n{text}");
    for bad in ["0", "0644", "0666", "0111", "01440", "-1", "word", "0440x"] {
        let output = guest.run(&format!("echo {bad} >{PARAMETERS}/proc_mode"))?;
        ensure!(output.status != 0, "proc_mode accepts {bad}");
    }
    ensure!(guest.must(&format!("cat {PARAMETERS}/proc_mode"))? == "0444\n", "a refused value changes proc_mode");
});

guest_test!(parameters_at_load_time, |guest| {
    guest.must("rmmod xt_traffic")?;
    let load = "insmod /lib/modules/xt_traffic.ko";
    for bad in ["proc_mode=0640", "proc_mode=x", "proc_uid=-2"] {
        ensure!(guest.run(&format!("{load} {bad}"))?.status != 0, "{bad} was accepted");
    }
    guest.must(&format!("{load} proc_mode=0400 proc_uid=3 proc_gid=4"))?;
    iptables(guest, Backend::Legacy, &format!("{RULE} t"))?;
    ensure!(modes(guest)? == "400 3 4 t\n400 3 4 t.ipconn\n400 3 4 t.portconn\n", "{}", modes(guest)?);
});

guest_test!(stats_list_tables_rows_and_memory, |guest| {
    let keys =
        |text: &str| text.lines().map(|line| line.split(' ').next().unwrap_or("").to_owned()).collect::<Vec<_>>();
    let sums = [
        "tables",
        "rows",
        "memory",
        "memory_used",
        "memory_bound",
        "overflows",
        "recycled",
        "forgotten_flows",
        "unremembered",
    ];
    let empty = table(guest, ".stats")?;
    ensure!(keys(&empty) == sums, "{empty}");
    ensure!(empty.lines().all(|line| line.ends_with(" 0") || line.starts_with("memory_bound ")), "{empty}");
    many_rows(guest)?;
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name B")?;
    let text = table(guest, ".stats")?;
    let of = |file: &str| ["rows", "memory", "overflows", "recycled"].map(|key| format!("{file}.{key}"));
    let generation = |name: &str| vec![format!("{name}.generation")];
    let mut wanted = [sums.map(str::to_owned).to_vec(), generation("B"), of("B").to_vec(), generation("t")].concat();
    FILES.iter().for_each(|file| wanted.extend(of(file)));
    wanted.extend(["memory", "forgotten", "unremembered"].map(|key| format!("t.flows.{key}")));
    ensure!(keys(&text) == wanted, "{text}");
    for (key, wanted) in [("tables", 2), ("rows", 1200), ("t.rows", 400), ("t.portconn.rows", 400), ("overflows", 0)] {
        ensure!(stat(guest, key)? == wanted, "{key} is not {wanted}:\n{text}");
    }
    let [memory, used, bound] = ["memory", "memory_used", "memory_bound"].map(|key| stat(guest, key));
    let (memory, used, bound) = (memory?, used?, bound?);
    // The memory of the tables includes their directories, which packets do not allocate.
    ensure!(1200 * 32 <= used && used <= memory && used <= bound, "{text}");
});

guest_test!(the_module_can_be_removed_while_a_file_of_a_deleted_rule_is_open, |guest| {
    many_rows(guest)?;
    let reader = guest.start(&format!("/init file {TABLES}/t read:5 touch:/tmp/open await:/tmp/gone read:5"))?;
    guest.must("until test -e /tmp/open; do :; done")?;
    iptables(guest, Backend::Nft, "-F PROMISC")?;
    guest.must("rmmod xt_traffic")?;
    guest.write("/tmp/gone", b"")?;
    let output = guest.finish_command(reader, COMMAND_TIMEOUT)?;
    ensure!(output.stdout.ends_with("errno 5\n"), "{output:?}");
});
