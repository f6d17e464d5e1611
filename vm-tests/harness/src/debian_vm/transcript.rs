// SPDX-License-Identifier: GPL-2.0-only
//! The commands that the harness typed, with their output.

use std::fmt;

/// An entry of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The title of the entries that follow.
    Heading(String),
    /// An event outside the virtual machine.
    Remark(String),
    /// A command.
    Command {
        /// The command line.
        line: String,
        /// Its output; ends with a newline unless it is empty.
        output: String,
    },
}

/// Commands with their output, under headings.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    entries: Vec<Entry>,
}

impl Transcript {
    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.entries.push(Entry::Heading(text.to_owned()));
    }

    /// Adds a remark.
    pub fn remark(&mut self, text: &str) {
        self.entries.push(Entry::Remark(text.to_owned()));
    }

    pub(super) fn add_command(&mut self, line: &str) {
        self.entries.push(Entry::Command { line: line.to_owned(), output: String::new() });
    }

    /// Adds to the output of the last command.
    pub(super) fn add_output(&mut self, text: &str) {
        if let Some(Entry::Command { output, .. }) = self.entries.last_mut() {
            output.push_str(text);
            if !text.is_empty() && !text.ends_with('\n') {
                output.push('\n');
            }
        }
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            match entry {
                Entry::Heading(text) => write!(f, "\n== {text} ==\n\n")?,
                Entry::Remark(text) => writeln!(f, "[{text}]")?,
                Entry::Command { line, output } => write!(f, "# {}\n{output}", line.replace('\n', "\n> "))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_a_terminal() {
        let mut transcript = Transcript::default();
        transcript.heading("Try");
        transcript.add_command("cat <<E\nx\nE");
        transcript.add_output("x");
        transcript.remark("nothing happens");
        transcript.add_command("true");
        assert_eq!(transcript.to_string(), "\n== Try ==\n\n# cat <<E\n> x\n> E\nx\n[nothing happens]\n# true\n");
    }
}
