// SPDX-License-Identifier: GPL-2.0
//! A serial terminal: logs in, types commands, and tells what each printed from everything else.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Output;
use super::console::plain;

/// The kernel keeps no more of a line that nobody has read yet.
const MAX_INPUT: usize = 4000;

/// What root's shell says after login.
const PROMPT: &str = "root@box:~#";
const LOGIN_TIME: Duration = Duration::from_secs(60);

/// What is typed first: a shell that neither edits its lines nor says a word by itself, and a line that neither
/// echoes nor changes what is printed. What it answers is written so that an echo of it is no answer.
const QUIET: &str = "stty -echo -opost; exec env PS1= PS2= sh -c 'echo xt-\"\"ready; exec sh'\n";
const READY: &str = "xt-ready\n";

/// A terminal's line, and what has come from it but is not dealt with yet.
pub(super) struct Terminal {
    stream: UnixStream,
    pending: Vec<u8>,
    commands: u32,
}

impl Terminal {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(LOGIN_TIME))?;
        Ok(Self { stream, pending: Vec::new(), commands: 0 })
    }

    /// Waits for the login prompt and logs in as root, who has no password.
    pub(super) fn log_in(&mut self, patience: Duration) -> Result<()> {
        self.expect("login: ", patience)?;
        self.write("root\n")?;
        self.expect(PROMPT, LOGIN_TIME).context("root cannot log in")?;
        self.write(QUIET)?;
        self.expect(READY, LOGIN_TIME).context("no shell")?;
        Ok(())
    }

    /// Runs a command in a shell of its own, with nothing to read, and its output in a pipe, so that no program asks
    /// questions, pages or draws.
    pub(super) fn run(&mut self, command: &str, patience: Duration) -> Result<Output> {
        self.commands += 1;
        let [begin, end] = ["begin", "end"].map(|word| format!("xt-{}-{word}:", self.commands));
        self.write(&format!("{{ echo {begin}; bash -c {} </dev/null; echo {end}$?; }} 2>&1 | cat\n", quoted(command)))?;
        self.expect(&format!("{begin}\n"), patience)?;
        let printed = self.expect(&end, patience)?;
        let status = self.expect("\n", patience)?;
        let status = String::from_utf8_lossy(&status);
        let status = status.parse().with_context(|| format!("an exit status of {status:?}"))?;
        Ok(Output { status, text: plain(&printed) })
    }

    /// Runs a command that nobody waits for, as the shell does not outlive it.
    pub(super) fn leave(&mut self, command: &str) -> Result<()> {
        self.write(&format!("{command} >/dev/null 2>&1\n"))
    }

    /// Forgets what was printed until now.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.pending.clear();
        self.stream.set_nonblocking(true)?;
        let drained = loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(1..) => {}
                Ok(0) => break Err(std::io::Error::from(ErrorKind::UnexpectedEof)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.stream.set_nonblocking(false)?;
        drained.context("the terminal's line")
    }

    fn write(&mut self, text: &str) -> Result<()> {
        ensure!(text.len() <= MAX_INPUT, "{} bytes are too long for a command", text.len());
        self.stream.write_all(text.as_bytes()).context("the terminal's line")
    }

    /// Reads until `mark` has come, and gives what came before it.
    fn expect(&mut self, mark: &str, patience: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut searched: usize = 0;
        loop {
            // The mark can lie across two readings.
            let from = searched.saturating_sub(mark.len());
            if let Some(at) = self.pending[from..].windows(mark.len()).position(|bytes| bytes == mark.as_bytes()) {
                let rest = self.pending.split_off(from + at + mark.len());
                let mut before = std::mem::replace(&mut self.pending, rest);
                before.truncate(from + at);
                return Ok(before);
            }
            searched = self.pending.len();
            let left = deadline.saturating_duration_since(Instant::now());
            self.read_some(left).with_context(|| format!("waiting for {mark:?} on the terminal{}", self.said()))?;
        }
    }

    fn read_some(&mut self, patience: Duration) -> Result<()> {
        let mut buffer = [0; 1 << 14];
        self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match self.stream.read(&mut buffer) {
            Ok(length @ 1..) => self.pending.extend_from_slice(&buffer[..length]),
            Ok(0) => return Err(std::io::Error::from(ErrorKind::UnexpectedEof)).context("QEMU has closed the line"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(std::io::Error::from(ErrorKind::TimedOut)).context("it does not come in time");
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The end of what came instead.
    fn said(&self) -> String {
        let text = plain(&self.pending);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        match &lines[lines.len().saturating_sub(30)..] {
            [] => ", which says nothing".to_owned(),
            lines => format!(", which says\n{}\n", lines.join("\n")),
        }
    }
}

/// A text as one word of a shell's command line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A terminal, and the shell at the other end of it.
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
    fn a_command_leaves_its_output_and_status() {
        let (mut terminal, mut shell) = terminal();
        let mut run = |command: &str| terminal.run(command, LONG).unwrap();
        let output = |status, text: &str| Output { status, text: text.to_owned() };
        assert_eq!(run("echo out; echo err >&2; exit 3"), output(3, "out\nerr\n"));
        assert_eq!(run("printf 'no end'"), output(0, "no end"));
        assert_eq!(run("true"), output(0, ""));
        assert_eq!(run("cat <<E\na 'b' \"c\" $((1 + 1))\nE"), output(0, "a 'b' \"c\" 2\n"));
        assert_eq!(run("cat"), output(0, ""));
        assert_eq!(run("seq 100000").text.lines().count(), 100_000);
        drop(terminal);
        shell.wait().unwrap();
    }

    #[test]
    fn a_command_that_does_not_end_is_told_with_what_it_said() {
        let (mut terminal, mut shell) = terminal();
        let error = terminal.run("echo question?; sleep 5", Duration::from_millis(700)).unwrap_err();
        assert!(format!("{error:#}").contains("question?"), "{error:#}");
        assert!(error.is::<std::io::Error>());
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
