// SPDX-License-Identifier: GPL-2.0-only
//! The order of Debian versions:
//! <https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>

use std::cmp::Ordering;

/// Compares two versions as dpkg does.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((a_epoch, a), (b_epoch, b)) = (epoch(a), epoch(b));
    let ((a_upstream, a_revision), (b_upstream, b_revision)) = (revision(a), revision(b));
    let text = |a: &str, b: &str| compare_part(a.as_bytes(), b.as_bytes());
    a_epoch.cmp(&b_epoch).then_with(|| text(a_upstream, b_upstream)).then_with(|| text(a_revision, b_revision))
}

fn epoch(version: &str) -> (u32, &str) {
    version.split_once(':').and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest))).unwrap_or((0, version))
}

fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares the parts without digits and the numbers in turn.
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (a_text, b_text) =
            (take(&mut a, |byte| !byte.is_ascii_digit()), take(&mut b, |byte| !byte.is_ascii_digit()));
        let length = a_text.len().max(b_text.len());
        let rank = |text: &[u8], at: usize| text.get(at).map_or(0, |byte| weight(*byte));
        let text = (0..length).map(|at| rank(a_text, at).cmp(&rank(b_text, at))).find(|order| order.is_ne());
        let (a_number, b_number) = (take(&mut a, u8::is_ascii_digit), take(&mut b, u8::is_ascii_digit));
        let [a_number, b_number] = [a_number, b_number].map(without_zeros);
        let number = a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number));
        let order = text.unwrap_or(number);
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the first bytes for which `wanted` is true.
fn take<'a>(bytes: &mut &'a [u8], wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = bytes.iter().position(|byte| !wanted(byte)).unwrap_or(bytes.len());
    let (taken, rest) = bytes.split_at(end);
    *bytes = rest;
    taken
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}

/// A tilde sorts before the end of a part, letters after it, and all else after the letters.
fn weight(byte: u8) -> i32 {
    match byte {
        b'~' => -1,
        letter if letter.is_ascii_alphabetic() => letter.into(),
        other => i32::from(other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "1.0~rc1-1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0a",
            "1.0+x",
            "1.0.1",
            "1.9-1",
            "1.10-1",
            "6.12.99-1",
            "6.12.111-1",
            "6.12.118-1~bpo13+1",
            "6.12.118-1",
            "6.12.118-1+deb13u1",
            "6.12.118-2",
            "7.3.4-1",
            "1:0.1",
        ];
        for (at, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.01-1", "1.1-1"), Ordering::Equal);
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
    }
}
