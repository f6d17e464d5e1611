// SPDX-License-Identifier: GPL-2.0
//! What was typed at a machine and what it printed, for people.

use std::fmt;

/// Something in a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What the following is about.
    Heading(String),
    /// What the test has done to the machine from outside.
    Remark(String),
    /// A command, and what it printed.
    Command {
        /// As typed.
        line: String,
        /// What it printed; ends in a newline if it is not empty.
        printed: String,
    },
}

/// The commands that an administrator has typed, with what each printed, under headings.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    entries: Vec<Entry>,
}

impl Transcript {
    /// Begins a new part.
    pub fn heading(&mut self, text: &str) {
        self.entries.push(Entry::Heading(text.to_owned()));
    }

    /// Tells what happened that no command shows.
    pub fn remark(&mut self, text: &str) {
        self.entries.push(Entry::Remark(text.to_owned()));
    }

    pub(super) fn typed(&mut self, line: &str) {
        self.entries.push(Entry::Command { line: line.to_owned(), printed: String::new() });
    }

    /// What the last command printed.
    pub(super) fn printed(&mut self, text: &str) {
        if let Some(Entry::Command { printed, .. }) = self.entries.last_mut() {
            printed.push_str(text);
            if !text.is_empty() && !text.ends_with('\n') {
                printed.push('\n');
            }
        }
    }

    /// Everything so far.
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
                Entry::Command { line, printed } => write!(f, "# {}\n{printed}", line.replace('\n', "\n> "))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_terminal() {
        let mut transcript = Transcript::default();
        transcript.heading("Try");
        transcript.typed("cat <<E\nx\nE");
        transcript.printed("x");
        transcript.remark("nothing happens");
        transcript.typed("true");
        assert_eq!(transcript.to_string(), "\n== Try ==\n\n# cat <<E\n> x\n> E\nx\n[nothing happens]\n# true\n");
    }
}
