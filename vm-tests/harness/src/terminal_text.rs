// SPDX-License-Identifier: GPL-2.0-only
//! The output of terminals as plain text.

/// Removes control sequences. A carriage return restarts the line, as on a screen.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = without_escapes(&String::from_utf8_lossy(bytes));
    text.split_inclusive('\n').map(after_carriage_returns).collect()
}

/// The last text of a line that was overwritten.
fn after_carriage_returns(line: &str) -> String {
    let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').next().unwrap_or(line);
    format!("{last}{end}")
}

fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => skip_sequence(&mut chars),
            '\t' | '\n' | '\r' => plain.push(char),
            char if char.is_control() => {}
            char => plain.push(char),
        }
    }
    plain
}

/// Skips the rest of an escape sequence: `[`, parameters and a letter, or one character (ECMA-48).
fn skip_sequence(chars: &mut std::str::Chars) {
    if chars.next() == Some('[') {
        chars.find(|char| ('@'..='~').contains(char));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_cursor_movements_are_removed() {
        assert_eq!(plain(b"\x1b[0;1;32mactive\x1b[0m\x1b7\x1b[6n\tx\n"), "active\tx\n");
    }

    #[test]
    fn the_last_text_of_an_overwritten_line_remains() {
        assert_eq!(plain(b"a 5%\ra 50%\ra done.\r\nb\r\n"), "a done.\nb\n");
        assert_eq!(plain(b"no end\rnew"), "new");
    }
}
