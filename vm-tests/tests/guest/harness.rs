// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the harness: it loses no frame and detects failures.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use traffic_model::frames::{Generator, Ip, mirrored};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{MAX_FRAME, mac_of_port};

use vm_harness::accel::{self, Accel};
use vm_tests::{boot, guest_test};

#[test]
fn the_kvm_probe_runs_with_tcg() {
    accel::probe(Accel::Tcg).unwrap();
}

guest_test!(fifty_thousand_frames_arrive, in_guest_briefly, |guest| {
    guest.open_port(0)?;
    let frame = mirrored(&Ip::new([10, 0, 0, 1], [10, 0, 0, 2]).udp((1, 2), &[7; 100]));
    // `send` fails when a frame is lost.
    guest.send(0, (0..50_000).map(|_| &frame))?;
});

guest_test!(frames_of_all_sizes_arrive, |guest| {
    guest.open_port(0)?;
    let frame = vec![2; MAX_FRAME];
    let sizes = [1, 13, 14, 15, 59, 60, 1514, 1515, 4096, 9018, 65_535, 65_549, 65_557, MAX_FRAME];
    for _ in 0..50 {
        guest.send(0, sizes.iter().map(|&size| &frame[..size]))?;
    }
    assert!(guest.sender(0).send(&[]).is_err());
    assert!(guest.sender(0).send(&vec![0; MAX_FRAME + 1]).is_err());
});

guest_test!(invalid_frames_arrive, in_guest_briefly, |guest| {
    for n in 0..2 {
        guest.open_port(n)?;
        let seed = n as u64;
        guest.send(n, Generator::new(seed, mac_of_port(n), vec![Ipv4Addr::new(10, 0, 0, 1)]).take(5000))?;
    }
});

guest_test!(a_frame_that_the_port_filters_is_detected, in_guest_briefly, |guest| {
    // Without promiscuous mode the device filters by address.
    guest.must("ip link set dev eth0 up")?;
    let error = format!("{:#}", guest.send(0, [mirrored(&[])]).unwrap_err());
    assert_eq!(error, "1 frames were sent to eth0, but it has received 0");
});

guest_test!(commands_return_output_and_status_and_have_a_timeout, in_guest_briefly, |guest| {
    let output = guest.run("echo out; echo err >&2; exit 3")?;
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
    assert_eq!(guest.run("kill -9 $$")?.status, 137);
    // A background process does not delay the end of the command.
    assert_eq!(guest.must("sleep 1000 & echo started")?, "started\n");
    let sleep = guest.start("echo soon; sleep 1000")?;
    // Long enough for the output of a busy guest.
    let error = guest.finish_command(sleep, Duration::from_secs(5)).unwrap_err();
    assert!(error.to_string().ends_with("its output: soon\n"), "{error}");
});

#[test]
fn the_end_of_a_guest_is_detected_at_once() {
    let mut guest = boot();
    let start = Instant::now();
    let error = format!("{:#}", guest.run("echo last words >/dev/console; reboot -f").unwrap_err());
    assert!(error.contains("last words"), "{error}");
    assert!(start.elapsed() < COMMAND_TIMEOUT, "{:?}", start.elapsed());
}
