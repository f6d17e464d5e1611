// SPDX-License-Identifier: GPL-2.0
//! Children that cannot outlive us: every captured child leads a process group of its own, which
//! the signal handler ends, so that Ctrl-C stops a whole `make` and the caller unwinds normally
//! (temporary folders are removed on the way out).

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// The exit status of a command that a signal interrupted (128 + SIGINT), as shells report it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// How long an interrupted child may take to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LIVE: Mutex<Vec<Leader>> = Mutex::new(Vec::new());

/// A running child, and whether it leads a process group.
#[derive(Clone, Copy, PartialEq)]
struct Leader {
    pid: Pid,
    group: bool,
}

impl Leader {
    fn signal(self, signal: Signal) {
        // It may have ended by itself in the meantime: that is what we want anyway.
        let _ = if self.group { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
    }
}

/// Says that the person at the keyboard stopped us.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Starts the thread that turns SIGINT, SIGTERM and SIGHUP into an orderly end. A second signal ends
/// the process at once.
pub fn handle_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch interruptions")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                signal_all(Signal::KILL);
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            signal_all(Signal::TERM);
            thread::spawn(|| {
                thread::sleep(GRACE);
                signal_all(Signal::KILL);
            });
        }
    });
    Ok(())
}

/// Whether a signal has asked us to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Ends long work in this process when a signal has asked for it.
pub fn check() -> Result<()> {
    if interrupted() {
        return Err(Interrupted.into());
    }
    Ok(())
}

fn live() -> MutexGuard<'static, Vec<Leader>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal_all(signal: Signal) {
    for leader in live().iter() {
        leader.signal(signal);
    }
}

/// A child that is killed, with its group, when the handle goes away before it ended.
pub struct Running {
    child: Child,
    leader: Leader,
    name: String,
}

impl Running {
    /// Starts `command` as the leader of a new process group, with nothing on standard input
    /// unless the caller has set it.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        Self::start(command, true)
    }

    fn start(mut command: Command, group: bool) -> Result<Self> {
        check()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let leader = Leader { pid: pid.expect("a child's process id is a positive pid_t"), group };
        live().push(leader);
        let running = Self { child, leader, name };
        // The signal may have come between the first look and the registration.
        check()?;
        Ok(running)
    }

    /// The child's standard output, when it was piped; once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the end. An interruption counts more than the status that it caused.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        check()?;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.leader.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        live().retain(|l| *l != self.leader);
    }
}

/// Runs `command` without standard input and hands every line of its output, standard output and
/// error in the order in which they were written, to `on_line`.
pub fn run_lines(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let (lines, writer) = pipe()?;
    let second = writer.try_clone().context("cannot clone a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let running = Running::spawn(command)?;
    each_line(lines, &mut on_line)?;
    running.wait()
}

/// Runs `command` in the foreground: it has the terminal, and gets the terminal's signals itself.
pub fn run_foreground(command: Command) -> Result<ExitStatus> {
    Running::start(command, false)?.wait()
}

/// A pipe whose ends no other child inherits.
pub fn pipe() -> Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    Ok((reader.into(), writer))
}

/// Reads lines until the last writer has gone; a carriage return also ends a line, and bytes that are
/// not UTF-8 are replaced.
pub fn each_line(reader: File, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read the output of a command")? > 0 {
        let text = String::from_utf8_lossy(&line);
        for part in text.trim_end().split('\r') {
            on_line(part);
        }
        line.clear();
    }
    Ok(())
}
