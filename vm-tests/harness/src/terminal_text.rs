// SPDX-License-Identifier: GPL-2.0-only
//! The output of terminals as plain text.

use console::strip_ansi_codes;

/// Removes control sequences. A carriage return restarts the line, as on a screen.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = strip_ansi_codes(&text).replace(|char: char| char.is_control() && !"\t\n\r".contains(char), "");
    text.split_inclusive('\n').map(after_carriage_returns).collect()
}

/// The last text of a line that was overwritten.
fn after_carriage_returns(line: &str) -> String {
    let text = line.trim_end_matches(['\r', '\n']);
    let last = text.rsplit('\r').next().unwrap_or(text);
    last.to_owned() + if line.ends_with('\n') { "\n" } else { "" }
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
