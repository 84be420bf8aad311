//! A message with the place in the statement that it is about, laid out as DuckDB does.

/// The most characters of a line that are shown.
const WIDTH: usize = 80;

/// `<kind> Error: <message>`, and the line with a caret below the byte at `position`.
pub(super) fn message(kind: &str, message: &str, sql: &str, position: Option<usize>) -> String {
    let Some(before) = position.and_then(|position| sql.get(..position)) else {
        return format!("{kind} Error: {message}");
    };
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[start..].chars().count();
    // Of a long line, the part around the place is shown.
    let skipped = column.saturating_sub(WIDTH / 2);
    let shown: String =
        sql[start..].chars().take_while(|c| !matches!(c, '\n' | '\r')).skip(skipped).take(WIDTH).collect();
    let label = format!("LINE {line}: {}", if skipped > 0 { "..." } else { "" });
    let indent = label.chars().count() + column - skipped;
    format!("{kind} Error: {message}\n\n{label}{shown}\n{:indent$}^", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_place() {
        let text = message("Parser", "syntax error at or near \"y\"", "select x\n  frm y", Some(15));
        assert_eq!(text, "Parser Error: syntax error at or near \"y\"\n\nLINE 2:   frm y\n              ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let sql = format!("select {}here", "1, ".repeat(100));
        let text = message("Parser", "m", &sql, Some(sql.len() - 4));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].starts_with("LINE 1: ...") && lines[2].ends_with("here"));
        assert_eq!(&lines[2][lines[3].len() - 1..], "here");
    }

    #[test]
    fn a_place_outside_the_text_is_left_out() {
        assert_eq!(message("Parser", "m", "é", Some(1)), "Parser Error: m");
        assert_eq!(message("Parser", "m", "x", None), "Parser Error: m");
    }
}
