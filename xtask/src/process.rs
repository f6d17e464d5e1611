// SPDX-License-Identifier: GPL-2.0-only
//! Child processes that end when xtask ends. Every child whose output is captured leads a process
//! group. The signal handler signals the groups, so Ctrl-C stops a whole `make`. The callers return
//! errors as usual and remove their temporary folders.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit status of a command that a signal interrupted (128 + SIGINT), as shells report it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Time for an interrupted child to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LIVE: Mutex<Vec<Leader>> = Mutex::new(Vec::new());

/// A running child, and whether it leads a process group.
#[derive(Clone, Copy, PartialEq)]
struct Leader {
    pid: Pid,
    group: bool,
    /// The thread that started it.
    thread: ThreadId,
}

impl Leader {
    fn signal(self, signal: Signal) {
        // An error means that the child has ended already.
        let _ = if self.group { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
    }
}

/// Starts the thread that handles SIGINT, SIGTERM and SIGHUP. The first signal asks the children to
/// end, and [`check`] fails from then on. A second signal ends the process at once.
pub fn handle_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
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

/// Whether a signal has asked xtask to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails after a signal. Long work in this process calls it regularly.
pub fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

fn live() -> MutexGuard<'static, Vec<Leader>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal_all(signal: Signal) {
    signal_children(signal, |_| true);
}

fn signal_children(signal: Signal, wanted: impl Fn(&Leader) -> bool) {
    live().iter().filter(|child| wanted(child)).for_each(|child| child.signal(signal));
}

/// Runs two closures in parallel. If one fails, the children of the other are terminated, and the
/// first error is returned.
pub fn both<A: Send, B>(
    first: impl FnOnce() -> Result<A> + Send,
    second: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    let failed = AtomicBool::new(false);
    let is_first_error = |is_error: bool| is_error && !failed.swap(true, Ordering::SeqCst);
    let here = thread::current().id();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let result = first();
            if is_first_error(result.is_err()) {
                signal_children(Signal::TERM, |child| child.thread == here);
            }
            result
        });
        let second = second();
        let second_failed_first = is_first_error(second.is_err());
        if second_failed_first {
            signal_children(Signal::TERM, |child| child.thread == first.thread().id());
        }
        let first = first.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (first, second) {
            (_, Err(error)) if second_failed_first => Err(error),
            (first, second) => Ok((first?, second?)),
        }
    })
}

/// A child process. Dropping the handle kills it and its group.
pub struct Running {
    child: Child,
    leader: Leader,
    name: String,
}

impl Running {
    /// Starts `command` as the leader of a new process group.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        Self::start(command, true)
    }

    fn start(mut command: Command, group: bool) -> Result<Self> {
        check()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let leader = Leader {
            pid: pid.expect("a child's process id is a positive pid_t"),
            group,
            thread: thread::current().id(),
        };
        live().push(leader);
        let running = Self { child, leader, name };
        // A signal between the first check and the registration has missed this child.
        check()?;
        Ok(running)
    }

    /// The child's standard output if it is piped and has not been taken.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the end. After a signal this is an error, whatever the child's exit status.
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

/// Runs `command` without standard input. Calls `on_line` for every line of standard output and
/// standard error, in the order in which they were written.
pub fn run_lines(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let (lines, writer) = pipe()?;
    let second = writer.try_clone().context("cannot clone a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let running = Running::spawn(command)?;
    each_line(lines, &mut on_line)?;
    running.wait()
}

/// Runs `command` in the foreground: it uses the terminal and receives its signals.
pub fn run_foreground(command: Command) -> Result<ExitStatus> {
    Running::start(command, false)?.wait()
}

/// A pipe that other children do not inherit.
pub fn pipe() -> Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    Ok((reader.into(), writer))
}

/// Reads lines until all writers have closed the pipe. A carriage return also ends a line. Bytes
/// that are not UTF-8 are replaced.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_results_are_returned() {
        assert_eq!(both(|| Ok(1), || Ok("two")).unwrap(), (1, "two"));
    }

    #[test]
    fn the_first_error_is_returned() {
        let late = |text: &'static str| {
            move || -> Result<()> {
                thread::sleep(Duration::from_millis(50));
                bail!(text)
            }
        };
        let early = |text: &'static str| move || -> Result<()> { bail!(text) };
        assert_eq!(both(early("first"), late("second")).unwrap_err().to_string(), "first");
        assert_eq!(both(late("first"), early("second")).unwrap_err().to_string(), "second");
        assert_eq!(both(early("first"), || Ok(())).unwrap_err().to_string(), "first");
        assert_eq!(both(|| Ok(()), early("second")).unwrap_err().to_string(), "second");
    }
}
