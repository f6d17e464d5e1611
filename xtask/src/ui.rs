// SPDX-License-Identifier: GPL-2.0
//! What the person at the terminal sees: one line per step that takes time, with a spinner or a bar
//! on a terminal and plain lines elsewhere, and a log file that holds everything.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::process;

/// Lines of output that an error shows, and the characters of a line.
const EXCERPT: usize = 24;
const WIDTH: usize = 240;
/// Lines that are shown from one that looks like an error on.
const AFTER_ERROR: usize = 6;
/// Steps shorter than this leave no line behind.
const WORTH_TELLING: Duration = Duration::from_secs(2);
/// How often a step without a terminal says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// One step of work with its log file. Begin one only when there is something to do: a warm run
/// says nothing.
pub struct Step {
    title: String,
    bar: ProgressBar,
    log: File,
    log_path: PathBuf,
    started: Instant,
    last_said: Instant,
    excerpt: Excerpt,
    done: bool,
}

impl Step {
    /// Begins a step; `log_path` is emptied first, and its folder made.
    pub fn begin(log_path: &Path, title: impl Into<String>) -> Result<Self> {
        let title = title.into();
        if let Some(folder) = log_path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let log = File::create(log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(style("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}"))
            .with_prefix(title.clone());
        if bar.is_hidden() {
            eprintln!("==> {title}");
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let now = Instant::now();
        Ok(Self {
            title,
            bar,
            log,
            log_path: log_path.to_owned(),
            started: now,
            last_said: now,
            excerpt: Excerpt::default(),
            done: false,
        })
    }

    /// Turns the spinner into a bar of `total` units.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(style("{spinner} {prefix} [{elapsed}] {bar:24} {percent}% {wide_msg:.dim}"));
    }

    /// Turns the spinner into a bar of `total` bytes.
    pub fn set_total_bytes(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(style("{spinner} {prefix} [{elapsed}] {bar:24} {bytes}/{total_bytes} {wide_msg:.dim}"));
    }

    /// Moves the bar to `position`.
    pub fn set_position(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// The bar's position.
    pub fn position(&self) -> u64 {
        self.bar.position()
    }

    /// Writes a line to the log and shows it beside the spinner.
    pub fn line(&mut self, line: &str) {
        // A log that cannot be written (a full disk) must not hide the real error.
        let _ = writeln!(self.log, "{line}");
        if line.trim().is_empty() {
            return;
        }
        self.bar.set_message(line.trim().to_owned());
        self.excerpt.add(line);
        if self.bar.is_hidden() && self.last_said.elapsed() > HEARTBEAT {
            self.last_said = Instant::now();
            let taken = HumanDuration(self.started.elapsed());
            eprintln!("    {}: {taken} so far: {}", self.title, line.trim());
        }
    }

    /// Runs a command, logging its output; an error when it does not succeed.
    pub fn run(&mut self, command: Command) -> Result<()> {
        self.run_counting(command, |_| false)
    }

    /// Like [`Step::run`]; the bar moves by one for each line that `counts`.
    pub fn run_counting(&mut self, command: Command, counts: impl Fn(&str) -> bool) -> Result<()> {
        let bar = self.bar.clone();
        self.run_watching(command, |line| {
            if counts(line) {
                bar.inc(1);
            }
        })
    }

    /// Like [`Step::run`]; each line of the output is also given to `watch`.
    pub fn run_watching(&mut self, command: Command, mut watch: impl FnMut(&str)) -> Result<()> {
        let name = program_name(&command);
        let _ = writeln!(self.log, "$ {}", describe(&command));
        self.excerpt = Excerpt::default();
        let status = process::run_lines(command, |line| {
            watch(line);
            self.line(line);
        })?;
        self.require(status, &name)
    }

    /// Logs everything that `reader` yields until its writers have gone.
    pub fn drain(&mut self, reader: File) -> Result<()> {
        process::each_line(reader, &mut |line| self.line(line))
    }

    /// The log, for a command that writes to it directly.
    pub fn log(&self) -> Result<File> {
        self.log.try_clone().with_context(|| format!("cannot share {}", self.log_path.display()))
    }

    /// Like [`Step::require`], for a command that has written to the log directly.
    pub fn require_logged(&mut self, status: ExitStatus, program: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.log_path).unwrap_or_default();
        text.lines().for_each(|line| self.excerpt.add(line));
        self.require(status, program)
    }

    /// An error with the last lines of output when `status` says that `program` failed.
    pub fn require(&self, status: ExitStatus, program: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        bail!(CommandFailed {
            title: self.title.clone(),
            program: program.to_owned(),
            status,
            excerpt: self.excerpt.lines(),
            log: self.log_path.clone(),
        })
    }

    /// Ends the step well. Without this call its line is taken away.
    pub fn finish(mut self) {
        self.done = true;
        self.bar.finish_and_clear();
        if self.started.elapsed() >= WORTH_TELLING {
            let taken = HumanDuration(self.started.elapsed());
            if self.bar.is_hidden() {
                eprintln!("    done in {taken}");
            } else {
                eprintln!("✓ {} ({taken})", self.title);
            }
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.done {
            self.bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants of this file")
}

/// What the log shows of a command: the words, without the sandbox around them.
fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// The program that a person would name: what runs inside the sandbox rather than `bwrap`.
fn program_name(command: &Command) -> String {
    let inner = command.get_args().skip_while(|word| *word != "--").nth(1).filter(|_| command.get_program() == "bwrap");
    inner.unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

/// A command that failed, told with the lines of its output that matter.
#[derive(Debug)]
struct CommandFailed {
    title: String,
    program: String,
    status: ExitStatus,
    excerpt: Vec<String>,
    log: PathBuf,
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, program, .. } = self;
        write!(f, "{title}: {program} failed ({})", self.status)?;
        for line in &self.excerpt {
            write!(f, "\n    {line}")?;
        }
        write!(f, "\nfull log: {}", self.log.display())
    }
}

impl std::error::Error for CommandFailed {}

/// The lines of a command's output that explain a failure: the first that look like errors, with what
/// follows them, or else the last.
#[derive(Default)]
struct Excerpt {
    errors: Vec<String>,
    last: VecDeque<String>,
    wanted: usize,
}

impl Excerpt {
    fn add(&mut self, line: &str) {
        let line: String = line.chars().take(WIDTH).collect();
        if tells(&line) {
            self.wanted = AFTER_ERROR;
        }
        if self.wanted > 0 && self.errors.len() < EXCERPT {
            self.wanted -= 1;
            self.errors.push(line.clone());
        }
        if self.last.len() == EXCERPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        match self.errors.as_slice() {
            [] => self.last.iter().cloned().collect(),
            errors => errors.to_vec(),
        }
    }
}

/// Whether a line of output looks like an error: of a compiler, a linker, make, apt or the system.
fn tells(line: &str) -> bool {
    let words = ["error:", "error[", "fatal", "no space left", "undefined reference", ": not found", "***"];
    let lower = line.to_lowercase();
    line.starts_with("E: ") || words.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(lines: &[String]) -> Vec<String> {
        let mut excerpt = Excerpt::default();
        lines.iter().for_each(|line| excerpt.add(line));
        excerpt.lines()
    }

    #[test]
    fn excerpt_shows_the_errors_however_long_ago() {
        let mut lines: Vec<String> = (0..5000).map(|n| format!("  CC file{n}.o")).collect();
        lines[10] = "net/x.c:3:1: error: expected ';'".into();
        lines[4000] = "make: *** [Makefile:1: all] Error 2".into();
        let shown = excerpt(&lines);
        assert_eq!(shown[0], lines[10]);
        assert_eq!(shown[AFTER_ERROR], lines[4000]);
        assert_eq!(shown.len(), 2 * AFTER_ERROR);
        lines[20] = format!("gcc -Wl,--no-undefined {}", "x".repeat(1000));
        assert_eq!(excerpt(&lines), shown);
    }

    #[test]
    fn excerpt_without_an_error_is_the_end() {
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        assert_eq!(excerpt(&lines), lines[50 - EXCERPT..]);
    }

    #[test]
    fn a_failing_command_is_told_with_its_output_and_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut step = Step::begin(&folder.path().join("x.log"), "trying").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo before; echo 'error: it broke' >&2; exit 3"]);
        let error = step.run(command).unwrap_err().to_string();
        assert!(error.contains("trying: sh failed (exit status: 3)"), "{error}");
        assert!(error.contains("error: it broke"), "{error}");
        assert!(error.contains("x.log"), "{error}");
        assert!(!error.contains("before"), "{error}");
    }
}
