// SPDX-License-Identifier: GPL-2.0-only
//! Progress output: one line per step, with a spinner or a bar on a terminal and plain lines
//! elsewhere. A log file contains the whole output of each step.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fs_err::{self as fs, File};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::process;

/// The number of output lines in an error, and of characters in such a line.
const EXCERPT: usize = 24;
const WIDTH: usize = 240;
/// The number of lines that an error shows from a line that looks like an error.
const AFTER_ERROR: usize = 6;
/// Shorter steps do not report their time.
const WORTH_REPORTING: Duration = Duration::from_secs(2);
/// The time between progress lines where there is no terminal.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The bars of all steps that run at the same time.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// One step of work with its log file. Begin one only if there is work to do: a warm run prints
/// nothing.
pub struct Step {
    title: String,
    bar: ProgressBar,
    log: File,
    log_path: PathBuf,
    started: Instant,
    last_report: Instant,
    excerpt: Excerpt,
    done: bool,
}

impl Step {
    /// Begins a step and creates an empty log at `log_path`.
    pub fn begin(log_path: &Path, title: impl Into<String>) -> Result<Self> {
        let title = title.into();
        if let Some(folder) = log_path.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::create(log_path)?;
        let bar = ProgressBar::no_length()
            .with_style(style("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}"))
            .with_prefix(title.clone());
        let bar = BARS.add(bar);
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
            last_report: now,
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

    /// Writes a line to the log and shows it next to the spinner.
    pub fn line(&mut self, line: &str) {
        // If the disk is full, the command itself fails with the better error.
        let _ = writeln!(self.log, "{line}");
        if line.trim().is_empty() {
            return;
        }
        self.bar.set_message(line.trim().to_owned());
        self.excerpt.add(line);
        if self.bar.is_hidden() && self.last_report.elapsed() > HEARTBEAT {
            self.last_report = Instant::now();
            let taken = HumanDuration(self.started.elapsed());
            eprintln!("    {}: {taken} so far, at: {}", self.title, line.trim());
        }
    }

    /// Runs a command and logs its output.
    ///
    /// # Errors
    /// If the exit status is not 0; the error shows the relevant lines of the output.
    pub fn run(&mut self, command: Command) -> Result<()> {
        self.run_counting(command, |_| false)
    }

    /// Like [`Step::run`]; the bar advances by one for each line for which `counts` is true.
    pub fn run_counting(&mut self, command: Command, counts: impl Fn(&str) -> bool) -> Result<()> {
        let bar = self.bar.clone();
        self.run_watching(command, |line| {
            if counts(line) {
                bar.inc(1);
            }
        })
    }

    /// Like [`Step::run`]; also calls `watch` for each line of the output.
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

    /// Logs all lines from `reader`.
    pub fn drain(&mut self, reader: std::fs::File) -> Result<()> {
        process::each_line(reader, &mut |line| self.line(line))
    }

    /// The log, for a command that writes to it directly.
    pub fn log(&self) -> Result<std::fs::File> {
        Ok(self.log.try_clone()?.into_parts().0)
    }

    /// Like [`Step::require`], for a command that has written to the log directly.
    pub fn require_logged(&mut self, status: ExitStatus, program: &str) -> Result<()> {
        let text = fs::read_to_string(&self.log_path).unwrap_or_default();
        text.lines().for_each(|line| self.excerpt.add(line));
        self.require(status, program)
    }

    /// Fails, with the relevant lines of the output, unless `status` is 0.
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

    /// Ends the step successfully. A step that is dropped without this call disappears.
    pub fn finish(mut self) {
        self.done = true;
        self.bar.finish_and_clear();
        if self.started.elapsed() >= WORTH_REPORTING {
            let taken = HumanDuration(self.started.elapsed());
            if self.bar.is_hidden() {
                eprintln!("    {}: done in {taken}", self.title);
            } else {
                BARS.suspend(|| eprintln!("✓ {} ({taken})", self.title));
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
    ProgressStyle::with_template(template).expect("the templates are constants")
}

/// A command line for the log.
fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// The name of the program, for errors; for a sandboxed command the program in the sandbox.
fn program_name(command: &Command) -> String {
    let inner = command.get_args().skip_while(|word| *word != "--").nth(1).filter(|_| command.get_program() == "bwrap");
    inner.unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

/// A command that failed, with the relevant lines of its output.
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

/// The lines of a command's output that explain a failure: the first lines that look like errors
/// and some lines after them, or the last lines if none looks like an error.
#[derive(Default)]
struct Excerpt {
    errors: Vec<String>,
    last: VecDeque<String>,
    wanted: usize,
}

impl Excerpt {
    fn add(&mut self, line: &str) {
        let line: String = line.chars().take(WIDTH).collect();
        if looks_like_error(&line) {
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

/// Whether a line looks like an error of a compiler, a linker, make, apt or the system.
fn looks_like_error(line: &str) -> bool {
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
    fn an_excerpt_shows_early_errors() {
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
    fn an_excerpt_without_errors_shows_the_end() {
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        assert_eq!(excerpt(&lines), lines[50 - EXCERPT..]);
    }

    #[test]
    fn the_error_of_a_command_names_its_output_and_log() {
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
