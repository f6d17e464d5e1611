// SPDX-License-Identifier: GPL-2.0-only
//! Progress output: one line per step, with a spinner or a bar on a terminal and plain lines
//! elsewhere. A log file contains the output of each step, without empty lines.

use std::io::Write;
use std::path::Path;
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
/// The number of lines that an error shows from a line that looks like an error, with that line.
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
    bar: ProgressBar,
    log: File,
    last_report: Instant,
    /// The output of the last command, without empty lines.
    output: Vec<String>,
}

impl Step {
    /// Begins a step and creates an empty log at `log_path`.
    pub fn begin(log_path: &Path, title: impl Into<String>) -> Result<Self> {
        if let Some(folder) = log_path.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::create(log_path)?;
        let bar = ProgressBar::no_length()
            .with_style(style("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}"))
            .with_prefix(title.into());
        let bar = BARS.add(bar);
        if bar.is_hidden() {
            eprintln!("==> {}", bar.prefix());
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Ok(Self { bar, log, last_report: Instant::now(), output: Vec::new() })
    }

    /// Turns the spinner into a bar of `total` units.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(style("{spinner} {prefix} [{elapsed}] {bar:24} {percent}% {wide_msg:.dim}"));
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
        self.output.push(line.to_owned());
        self.show(line);
    }

    /// Shows a line next to the spinner. Without a terminal, prints one line a minute.
    pub fn show(&mut self, line: &str) {
        self.bar.set_message(line.trim().to_owned());
        if self.bar.is_hidden() && self.last_report.elapsed() > HEARTBEAT {
            self.last_report = Instant::now();
            let (title, taken) = (self.bar.prefix(), HumanDuration(self.bar.elapsed()));
            eprintln!("    {title}: {taken} so far, at: {}", line.trim());
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
        self.run_watching(command, |line| bar.inc(counts(line).into()))
    }

    /// Like [`Step::run`]; also calls `watch` for each line of the output.
    pub fn run_watching(&mut self, command: Command, mut watch: impl FnMut(&str)) -> Result<()> {
        let name = program_name(&command);
        let _ = writeln!(self.log, "$ {}", process::describe(&command));
        self.output.clear();
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

    /// Fails, with the relevant lines of the output, unless `status` is 0.
    pub fn require(&self, status: ExitStatus, program: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let lines: String = excerpt(&self.output).iter().map(|line| format!("\n    {line}")).collect();
        let (title, log) = (self.bar.prefix(), self.log.path().display());
        bail!("{title}: {program} failed ({status}){lines}\nfull log: {log}")
    }

    /// Ends the step successfully. A step that is dropped without this call disappears.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        if self.bar.elapsed() >= WORTH_REPORTING {
            let (title, taken) = (self.bar.prefix(), HumanDuration(self.bar.elapsed()));
            BARS.suspend(|| eprintln!("✓ {title} ({taken})"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}

/// The name of the program, for errors; for a sandboxed command the program in the sandbox.
fn program_name(command: &Command) -> String {
    let inner = command.get_args().skip_while(|word| *word != "--").nth(1).filter(|_| command.get_program() == "bwrap");
    inner.unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

/// The lines of a command's output that explain a failure: the first lines that look like errors
/// and some lines after them, or the last lines if none looks like an error.
fn excerpt(output: &[String]) -> Vec<String> {
    let near_error = |at: &usize| output[at.saturating_sub(AFTER_ERROR - 1)..=*at].iter().any(|l| looks_like_error(l));
    let mut lines: Vec<_> = (0..output.len()).filter(near_error).take(EXCERPT).map(|at| &output[at]).collect();
    if lines.is_empty() {
        lines.extend(&output[output.len().saturating_sub(EXCERPT)..]);
    }
    lines.iter().map(|line| line.chars().take(WIDTH).collect()).collect()
}

/// Whether a line looks like an error of a compiler, a linker, make, apt or the system.
fn looks_like_error(line: &str) -> bool {
    let words = ["error:", "error[", "fatal", "no space left", "undefined reference", ": not found", "***"];
    let lower = line.to_lowercase();
    line.starts_with("E: ") || line.starts_with("Err:") || words.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_excerpt_shows_why_apt_refuses_a_repository() {
        let key = "AA2E962E9137025E18A8EA6D98E506BE7F364A4E";
        let reason = format!(
            "  Sub-process /usr/bin/sqv returned an error code (1), error message is: Signing key on {key} is not \
             bound:            Policy rejected asymmetric algorithm   because: RSA1024 is not considered secure"
        );
        let lines = ["Get:1 file:/src ./ InRelease [596 B]", "Err:1 file:/src ./ InRelease", &reason, "E: not signed"];
        let shown = excerpt(&lines.map(str::to_owned));
        assert_eq!(shown[0], lines[1]);
        assert!(shown[1].contains("RSA1024"), "{shown:?}");
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
