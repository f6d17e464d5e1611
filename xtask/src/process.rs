// SPDX-License-Identifier: GPL-2.0-only
//! Child processes that end when xtask ends. Every child whose output is captured leads a process
//! group. The signal handler signals the groups, so Ctrl-C stops a whole `make`. The callers return
//! errors as usual and remove their temporary folders.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
    ensure!(!interrupted(), "interrupted");
    Ok(())
}

fn live() -> MutexGuard<'static, Vec<Leader>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal_all(signal: Signal) {
    live().iter().for_each(|child| child.signal(signal));
}

/// Runs two closures in parallel. If one fails, all children are terminated, and the first error is
/// returned. So neither closure may call this function.
pub fn both<A: Send, B>(
    first: impl FnOnce() -> Result<A> + Send,
    second: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    both_or(first, second, || signal_all(Signal::TERM))
}

/// As [`both`]. If a closure fails, calls `stop` once, in place of terminating all children.
fn both_or<A: Send, B>(
    first: impl FnOnce() -> Result<A> + Send,
    second: impl FnOnce() -> Result<B>,
    stop: impl Fn() + Sync,
) -> Result<(A, B)> {
    let first_error = OnceLock::new();
    let fail = |error| {
        if first_error.set(error).is_ok() {
            stop();
        }
    };
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| first().map_err(fail).ok());
        let second = second().map_err(fail).ok();
        (first.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
    });
    let error = || first_error.into_inner().expect("a closure that fails sets the error");
    first.zip(second).ok_or_else(error)
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
        let leader = Leader { pid: pid.expect("a child's process id is a positive pid_t"), group };
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
/// standard error that is not empty, in the order in which they were written.
pub fn run_lines(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let (lines, writer) = pipe()?;
    let second = writer.try_clone().context("cannot clone a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let running = Running::spawn(command)?;
    each_line(lines, &mut on_line)?;
    running.wait()
}

/// Runs `command` in the foreground: it uses the terminal and receives its signals. Fails unless
/// its exit status is 0.
pub fn run_foreground(command: impl Into<Command>) -> Result<()> {
    let command = command.into();
    let words = describe(&command);
    let status = Running::start(command, false)?.wait()?;
    ensure!(status.success(), "failed ({status}): {words}");
    Ok(())
}

/// Runs `command` without standard input, and with the standard error of this process. Calls
/// `on_line` for each line of standard output. Fails unless its exit status is 0.
pub fn run_output_lines(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let words: String = describe(&command).chars().take(160).collect();
    let (lines, writer) = pipe()?;
    command.stdin(Stdio::null()).stdout(writer);
    let running = Running::spawn(command)?;
    for line in BufReader::new(lines).split(b'\n') {
        on_line(&String::from_utf8_lossy(&line.context("cannot read the output of a command")?));
    }
    let status = running.wait()?;
    ensure!(status.success(), "failed ({status}): {words}");
    Ok(())
}

/// A command line, for messages and logs.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A pipe that other children do not inherit.
pub fn pipe() -> Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    Ok((reader.into(), writer))
}

/// Reads lines until all writers have closed the pipe. Removes white space at the end of each line,
/// and skips lines that are then empty. A carriage return also ends a line. Bytes that are not
/// UTF-8 are replaced.
pub fn each_line(reader: File, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    let mut line = Vec::new();
    for byte in BufReader::new(reader).bytes().chain([Ok(b'\n')]) {
        match byte.context("cannot read the output of a command")? {
            b'\n' | b'\r' => {
                let text = String::from_utf8_lossy(&line);
                if !text.trim_end().is_empty() {
                    on_line(text.trim_end());
                }
                line.clear();
            }
            byte => line.push(byte),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::atomic::AtomicUsize;

    /// Runs both, and counts how often the children would be terminated. The children of other
    /// tests, which run at the same time, must not be.
    fn counted<A: Send, B>(
        first: impl FnOnce() -> Result<A> + Send,
        second: impl FnOnce() -> Result<B>,
    ) -> (Result<(A, B)>, usize) {
        let stops = AtomicUsize::new(0);
        let result = both_or(first, second, || _ = stops.fetch_add(1, Ordering::SeqCst));
        (result, stops.into_inner())
    }

    #[test]
    fn both_results_are_returned() {
        let (result, stops) = counted(|| Ok(1), || Ok("two"));
        assert_eq!((result.unwrap(), stops), ((1, "two"), 0));
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
        let error = |(result, stops): (Result<((), ())>, usize)| (result.unwrap_err().to_string(), stops);
        assert_eq!(error(counted(early("first"), late("second"))), ("first".to_owned(), 1));
        assert_eq!(error(counted(late("first"), early("second"))), ("second".to_owned(), 1));
        assert_eq!(error(counted(early("first"), || Ok(()))), ("first".to_owned(), 1));
        assert_eq!(error(counted(|| Ok(()), early("second"))), ("second".to_owned(), 1));
    }

    #[test]
    fn the_lines_of_a_command_are_passed_on() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let mut lines = Vec::new();
            let result = run_output_lines(command, |line| lines.push(line.to_owned()));
            (result.is_ok(), lines)
        };
        let lines = ["one", "", "two"].map(str::to_owned).to_vec();
        assert_eq!(run("printf 'one\\n\\ntwo'"), (true, lines));
        assert_eq!(run("echo one; exit 3"), (false, vec!["one".to_owned()]));
    }
}
