//! What commands show on a terminal: tables, bars of running work, and what to try next.
//!
//! Receives texts that may hold anything; hands on lines that cannot move a cursor, change a colour or ring a bell.

pub(crate) mod bar;
pub(crate) mod hint;
pub(crate) mod table;

use std::borrow::Cow;

/// The text with its control characters written out (`\n`, `\u{1b}`), so that data never speaks to the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    written_out(text, is_command)
}

/// The same, but for the line breaks and tabs of a text that is shown as it is.
pub(crate) fn flowing(text: &str) -> Cow<'_, str> {
    written_out(text, |c| is_command(c) && !matches!(c, '\n' | '\t'))
}

fn written_out(text: &str, is_meant: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_meant) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_meant(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Control characters, and the marks that make a terminal show text in another order than it is.
fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_command_the_terminal() {
        assert_eq!(printable("one\ntwo\tthree"), "one\\ntwo\\tthree");
        assert_eq!(printable("\u{1b}[2Jgone\u{7}"), "\\u{1b}[2Jgone\\u{7}");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(printable("plain – ünï 東京"), "plain – ünï 東京");
        assert_eq!(flowing("one\n\ttwo\u{1b}[2J\r"), "one\n\ttwo\\u{1b}[2J\\r");
    }
}
