// SPDX-License-Identifier: GPL-2.0-only
//! Diffs for files in which other lines were added or removed: the hunks get the numbers of the
//! lines where their text is now, as with `git am`. libgit2 looks for a hunk at its line only.

use std::str;

/// The line numbers of a hunk: `@@ -OLD +NEW @@`. Each side is a start and a length.
struct Header<'a> {
    old: (usize, usize),
    new: (usize, usize),
    /// What follows the numbers.
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_prefix(b"@@ -")?;
        let end = line.windows(3).position(|window| window == b" @@")?;
        let (old, new) = str::from_utf8(&line[..end]).ok()?.split_once(" +")?;
        Some(Self { old: side(old)?, new: side(new)?, rest: &line[end..] })
    }

    /// The header of the same hunk with its old text at this line.
    fn moved_to(&self, start: usize) -> Vec<u8> {
        // Both sides move by the same number of lines.
        let new = self.new.0 + start - self.old.0;
        let numbers = format!("@@ -{start},{} +{new},{}", self.old.1, self.new.1);
        [numbers.as_bytes(), self.rest].concat()
    }
}

/// `START,LENGTH`, or `START` of one line.
fn side(text: &str) -> Option<(usize, usize)> {
    let (start, length) = text.split_once(',').unwrap_or((text, "1"));
    Some((start.parse().ok()?, length.parse().ok()?))
}

/// The diff with the line numbers for the present content of the files, which `content` returns for
/// a path. A hunk whose text is not in its file stays as it is, and so do new and binary files.
pub fn relocate(diff: &[u8], content: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<u8> {
    let lines: Vec<&[u8]> = diff.split_inclusive(|&byte| byte == b'\n').collect();
    let (mut file, mut result) = (Vec::new(), Vec::with_capacity(diff.len()));
    // The shift of the hunk before in the same file, and the first line after it.
    let (mut shift, mut after) = (0, 0);
    let mut at = 0;
    while let Some(&line) = lines.get(at) {
        at += 1;
        if let Some(path) = line.strip_prefix(b"--- a/") {
            let path = str::from_utf8(path).unwrap_or("").trim_end();
            (file, shift, after) = (content(path).unwrap_or_default(), 0, 0);
        }
        let Some(header) = Header::parse(line) else {
            result.extend_from_slice(line);
            continue;
        };
        let hunk = hunk(&lines[at..], &header);
        at += hunk.len();
        let text: Vec<&[u8]> = file.split_inclusive(|&byte| byte == b'\n').collect();
        let start = position(&text, &old_lines(hunk), after, header.old.0.saturating_add_signed(shift));
        if let Some(start) = start.filter(|_| header.old.0 > 0) {
            shift = start as isize - header.old.0 as isize;
            after = start + header.old.1 - 1;
            result.extend(header.moved_to(start));
        } else {
            result.extend_from_slice(line);
        }
        hunk.iter().for_each(|line| result.extend_from_slice(line));
    }
    result
}

/// The lines of the hunk at the begin of `lines`.
fn hunk<'a, 'b>(lines: &'b [&'a [u8]], header: &Header<'_>) -> &'b [&'a [u8]] {
    let (mut old, mut new) = (header.old.1, header.new.1);
    let end = lines.iter().position(|line| {
        let is_marker = line.starts_with(b"\\");
        if old == 0 && new == 0 && !is_marker {
            return true;
        }
        if !is_marker {
            old = old.saturating_sub(usize::from(!line.starts_with(b"+")));
            new = new.saturating_sub(usize::from(!line.starts_with(b"-")));
        }
        false
    });
    &lines[..end.unwrap_or(lines.len())]
}

/// The text that a hunk replaces.
fn old_lines<'a>(hunk: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let is_old = |line: &&&[u8]| line.starts_with(b" ") || line.starts_with(b"-");
    hunk.iter().filter(is_old).map(|line| &line[1..]).collect()
}

/// The number of the line at which `wanted` is in the text, counted from 1: the nearest to `near`
/// after the line `after`.
fn position(text: &[&[u8]], wanted: &[&[u8]], after: usize, near: usize) -> Option<usize> {
    let found = text.windows(wanted.len().max(1)).enumerate().filter(|(_, lines)| *lines == wanted);
    found.map(|(index, _)| index + 1).filter(|&start| start > after).min_by_key(|&start| start.abs_diff(near))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "diff --git a/x.c b/x.c\nindex 1..2 100644\n--- a/x.c\n+++ b/x.c\n\
        @@ -2,3 +2,4 @@ int f(void)\n {\n+\tone();\n \ttwo();\n }\n\
        @@ -12 +13 @@\n-last\n+end\n";

    /// The headers of the hunks for files with this content.
    fn headers(diff: &str, text: &str) -> Vec<String> {
        let moved = relocate(diff.as_bytes(), |path| (path == "x.c").then(|| text.as_bytes().to_vec()));
        let moved = String::from_utf8(moved).unwrap();
        let without = |text: &str| text.lines().filter(|line| !line.starts_with("@@")).collect::<Vec<_>>().join("\n");
        assert_eq!(without(&moved), without(diff));
        moved.lines().filter(|line| line.starts_with("@@")).map(str::to_owned).collect()
    }

    #[test]
    fn hunks_move_with_their_text() {
        let text = |before: usize, between: usize| {
            format!("{}{{\n\ttwo();\n}}\n{}last\n", "x\n".repeat(before), "y\n".repeat(between))
        };
        assert_eq!(headers(DIFF, &text(1, 7)), ["@@ -2,3 +2,4 @@ int f(void)", "@@ -12,1 +13,1 @@"]);
        assert_eq!(headers(DIFF, &text(0, 7)), ["@@ -1,3 +1,4 @@ int f(void)", "@@ -11,1 +12,1 @@"]);
        assert_eq!(headers(DIFF, &text(5, 9)), ["@@ -6,3 +6,4 @@ int f(void)", "@@ -18,1 +19,1 @@"]);
    }

    #[test]
    fn the_nearest_place_after_the_hunk_before_is_taken() {
        let block = "{\n\ttwo();\n}\n";
        let text = format!("last\n{block}{block}x\nlast\nx\nlast\n{}last\n", "x\n".repeat(30));
        // The second hunk is expected at line 12.
        assert_eq!(headers(DIFF, &text), ["@@ -2,3 +2,4 @@ int f(void)", "@@ -11,1 +12,1 @@"]);
        let text = format!("last\nx\nx\n{block}{}last\n", "x\n".repeat(90));
        assert_eq!(headers(DIFF, &text), ["@@ -4,3 +4,4 @@ int f(void)", "@@ -97,1 +98,1 @@"]);
    }

    #[test]
    fn hunks_without_their_text_and_new_files_stay() {
        assert_eq!(headers(DIFF, "{\n\tthree();\n}\n"), ["@@ -2,3 +2,4 @@ int f(void)", "@@ -12 +13 @@"]);
        let new = "diff --git a/y.c b/y.c\nnew file mode 100644\n--- /dev/null\n+++ b/y.c\n@@ -0,0 +1,2 @@\n+@@ -1 +1 @@\n+y\n";
        assert_eq!(relocate(new.as_bytes(), |_| Some(b"y\n".to_vec())), new.as_bytes());
    }

    #[test]
    fn text_that_looks_like_a_header_is_text() {
        let diff =
            "--- a/x.c\n+++ b/x.c\n@@ -5,2 +5,2 @@\n---- a/z\n+@@ -1 +1 @@\n same\n\\ No newline at end of file\n";
        let moved = relocate(diff.as_bytes(), |_| Some(b"x\n--- a/z\nsame\n".to_vec()));
        assert_eq!(String::from_utf8(moved).unwrap(), diff.replace("-5,2 +5,2", "-2,2 +2,2"));
    }
}
