// SPDX-License-Identifier: GPL-2.0-only
//! A serial terminal: logs in, types commands, and separates their output.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command::Output;
use crate::terminal_text::plain;

/// The longest input line: the kernel's terminal buffer holds 4095 bytes (termios(3)).
const MAX_INPUT: usize = 4000;

/// The prompt of root's login shell.
const PROMPT: &str = "root@debian:~#";
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The first command: it turns off echo and output processing, and starts a shell without prompts
/// and line editing. The quotes make sure that an echo of the command does not contain [`READY`].
const START_SHELL: &str = "stty -echo -opost; exec env PS1= PS2= sh -c 'echo xt-\"\"ready; exec sh'\n";
const READY: &str = "xt-ready\n";

/// A terminal, with the output that is not processed yet.
pub(super) struct Terminal {
    stream: UnixStream,
    pending: Vec<u8>,
    commands: u32,
}

impl Terminal {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(LOGIN_TIMEOUT))?;
        Ok(Self { stream, pending: Vec::new(), commands: 0 })
    }

    /// Waits for the login prompt and logs in as root, who has no password.
    pub(super) fn log_in(&mut self, timeout: Duration) -> Result<()> {
        self.expect("login: ", timeout)?;
        self.write("root\n")?;
        self.expect(PROMPT, LOGIN_TIMEOUT).context("cannot log in as root")?;
        self.write(START_SHELL)?;
        self.expect(READY, LOGIN_TIMEOUT).context("cannot start a shell")?;
        Ok(())
    }

    /// Runs a command in a new shell. Its input is /dev/null and its output a pipe, so that
    /// programs do not ask questions, start a pager or draw.
    pub(super) fn run(&mut self, command: &str, timeout: Duration) -> Result<Output> {
        self.commands += 1;
        let [begin, end] = ["begin", "end"].map(|word| format!("xt-{}-{word}:", self.commands));
        self.write(&format!("{{ echo {begin}; bash -c {} </dev/null; echo {end}$?; }} 2>&1 | cat\n", quoted(command)))?;
        self.expect(&format!("{begin}\n"), timeout)?;
        let printed = self.expect(&end, timeout)?;
        let status = self.expect("\n", timeout)?;
        let status = String::from_utf8_lossy(&status);
        let status = status.parse().with_context(|| format!("not an exit status: {status:?}"))?;
        Ok(Output { status, stdout: plain(&printed), stderr: String::new() })
    }

    /// Types a command that ends the shell, without waiting for it.
    pub(super) fn send(&mut self, command: &str) -> Result<()> {
        self.write(&format!("{command} >/dev/null 2>&1\n"))
    }

    /// Discards the output up to now.
    pub(super) fn discard_output(&mut self) -> Result<()> {
        self.pending.clear();
        self.stream.set_nonblocking(true)?;
        // After an error or the end of file, the next read reports an error.
        while matches!(self.stream.read(&mut [0; 4096]), Ok(1..)) {}
        self.stream.set_nonblocking(false).context("the terminal")
    }

    fn write(&mut self, text: &str) -> Result<()> {
        ensure!(text.len() <= MAX_INPUT, "a command of {} bytes is too long", text.len());
        self.stream.write_all(text.as_bytes()).context("the terminal")
    }

    /// Reads until `mark` and returns the output before it.
    fn expect(&mut self, mark: &str, timeout: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut searched: usize = 0;
        loop {
            // Two reads can split the mark.
            let from = searched.saturating_sub(mark.len());
            if let Some(at) = self.pending[from..].windows(mark.len()).position(|bytes| bytes == mark.as_bytes()) {
                let rest = self.pending.split_off(from + at + mark.len());
                let mut before = std::mem::replace(&mut self.pending, rest);
                before.truncate(from + at);
                return Ok(before);
            }
            searched = self.pending.len();
            let left = deadline.saturating_duration_since(Instant::now());
            self.read_some(left)
                .with_context(|| format!("waiting for {mark:?} on the terminal{}", self.last_output()))?;
        }
    }

    fn read_some(&mut self, timeout: Duration) -> Result<()> {
        let mut buffer = [0; 1 << 14];
        self.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::Error::from(ErrorKind::UnexpectedEof)).context("QEMU has closed the terminal"),
            Ok(length) => {
                self.pending.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::from(ErrorKind::TimedOut)).context("timeout")
            }
            // SIGSTOP and SIGCONT interrupt a read with a timeout (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The last lines of the unprocessed output.
    fn last_output(&self) -> String {
        let text = plain(&self.pending);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        match &lines[lines.len().saturating_sub(30)..] {
            [] => ", which shows nothing".to_owned(),
            lines => format!(", which shows\n{}\n", lines.join("\n")),
        }
    }
}

/// Quotes a text as one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A terminal with a shell at its other end.
    fn terminal() -> (Terminal, std::process::Child) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shell = std::process::Command::new("sh")
            .stdin(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        (Terminal::new(ours).unwrap(), shell)
    }

    #[test]
    fn a_command_returns_its_output_and_status() {
        let (mut terminal, mut shell) = terminal();
        let mut run = |command: &str| terminal.run(command, LONG).unwrap();
        let output = |status, stdout: &str| Output { status, stdout: stdout.to_owned(), stderr: String::new() };
        assert_eq!(run("echo out; echo err >&2; exit 3"), output(3, "out\nerr\n"));
        assert_eq!(run("printf 'no end'"), output(0, "no end"));
        assert_eq!(run("true"), output(0, ""));
        assert_eq!(run("cat <<E\na 'b' \"c\" $((1 + 1))\nE"), output(0, "a 'b' \"c\" 2\n"));
        assert_eq!(run("cat"), output(0, ""));
        assert_eq!(run("seq 100000").stdout.lines().count(), 100_000);
        drop(terminal);
        shell.wait().unwrap();
    }

    #[test]
    fn a_timeout_shows_the_output_so_far() {
        let (mut terminal, mut shell) = terminal();
        let error = terminal.run("echo question?; sleep 5", Duration::from_millis(700)).unwrap_err();
        assert!(format!("{error:#}").contains("question?"), "{error:#}");
        assert!(error.is::<io::Error>());
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
