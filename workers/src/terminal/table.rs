//! Tables of text: ruled for answers to a query, plain for lists of resources.
//!
//! Widths are those that a terminal gives the characters: two columns for `東`, none for a combining accent.

use std::borrow::Cow;

use console::{Style, measure_text_width, truncate_str};

use super::printable;

/// Below this a shortened column tells nothing any more; the line may then be longer than the terminal.
const NARROWEST: usize = 8;

/// A column of a ruled table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// What stands on top.
    pub(crate) name: String,
    /// Numbers stand right, so that their digits are in line.
    pub(crate) right: bool,
}

/// Where a ruled table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// The terminal's columns; without them nothing is shortened.
    pub(crate) width: Option<usize>,
    /// Whether NULL may be told from the text `NULL` by being dim.
    pub(crate) colours: bool,
}

impl Place {
    /// Standard output as it is: a terminal's width, colours unless `NO_COLOR` is set; neither for a pipe.
    pub(crate) fn stdout() -> Self {
        let term = console::Term::stdout();
        Self {
            width: term.size_checked().map(|(_, columns)| columns.into()),
            colours: term.is_term() && console::colors_enabled(),
        }
    }
}

/// A table with a rule below its header. `None` is NULL.
pub(crate) fn ruled(columns: &[Column], rows: &[Vec<Option<String>>], place: Place) -> String {
    let cells: Vec<Vec<Option<Cow<'_, str>>>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.as_deref().map(printable)).collect()).collect();
    let names: Vec<Cow<'_, str>> = columns.iter().map(|column| printable(&column.name)).collect();
    let mut widths: Vec<usize> = names.iter().map(|name| measure_text_width(name)).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(measure_text_width(cell.as_deref().unwrap_or(NULL)));
        }
    }
    if let Some(room) = place.width {
        shorten(&mut widths, room);
    }
    let dim = Style::new().dim().force_styling(place.colours);
    let mut out = String::new();
    for (i, (name, width)) in names.iter().zip(&widths).enumerate() {
        out.push_str(if i == 0 { " " } else { " | " });
        push_cell(&mut out, name, *width, false, i + 1 == columns.len());
    }
    out.push('\n');
    for (i, width) in widths.iter().enumerate() {
        out.push_str(if i == 0 { "-" } else { "-+-" });
        out.extend(std::iter::repeat_n('-', *width));
    }
    out.push_str("-\n");
    for row in &cells {
        for (i, ((cell, column), width)) in row.iter().zip(columns).zip(&widths).enumerate() {
            out.push_str(if i == 0 { " " } else { " | " });
            let last = i + 1 == columns.len();
            if let Some(text) = cell {
                push_cell(&mut out, text, *width, column.right, last);
            } else {
                let mut null = String::new();
                push_cell(&mut null, NULL, *width, column.right, last);
                out.push_str(&dim.apply_to(null).to_string());
            }
        }
        out.push('\n');
    }
    out
}

const NULL: &str = "NULL";

/// A table as kubectl prints it: three spaces between columns.
pub(crate) fn plain(header: &[String], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| measure_text_width(name)).collect();
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    let header: Vec<Cow<'_, str>> = header.iter().map(Cow::from).collect();
    let mut out = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            out.push_str(if i == 0 { "" } else { "   " });
            push_cell(&mut out, cell, *width, false, i + 1 == row.len());
        }
        out.push('\n');
    }
    out
}

/// Pads or shortens to `width`. The last cell of a line has no use for spaces behind it.
fn push_cell(out: &mut String, text: &str, width: usize, right: bool, last: bool) {
    let text = truncate_str(text, width, "…");
    let space = width.saturating_sub(measure_text_width(&text));
    if right {
        out.extend(std::iter::repeat_n(' ', space));
    }
    out.push_str(&text);
    if !right && !last {
        out.extend(std::iter::repeat_n(' ', space));
    }
}

/// Makes the widest columns narrower, all to the same width, until a line fits into `room`.
fn shorten(widths: &mut [usize], room: usize) {
    let room = room.saturating_sub(3 * widths.len());
    let widest = widths.iter().copied().max().unwrap_or(0).min(room);
    let fits = |cap: usize| widths.iter().map(|&width| width.min(cap)).sum::<usize>() <= room;
    let cap = (NARROWEST..=widest).rev().find(|&cap| fits(cap)).unwrap_or(NARROWEST);
    for width in widths {
        *width = (*width).min(cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_wide_characters_count_twice() {
        let rows = [row(&["東京", "9"]), row(&["Ōsaka", "10000"]), vec![None, None]];
        let expected =
            [" city  | n", "-------+-------", " 東京  |     9", " Ōsaka | 10000", " NULL  |  NULL", ""];
        assert_eq!(ruled(&[text("city"), number("n")], &rows, Place::default()), expected.join("\n"));
    }

    #[test]
    fn wide_columns_are_shortened_to_the_terminal_and_narrow_ones_are_kept() {
        let rows = [row(&["00501", &"long ".repeat(30)])];
        let shown = ruled(&[text("zip"), text("note")], &rows, Place { width: Some(40), colours: false });
        assert!(shown.lines().all(|line| measure_text_width(line) <= 40), "{shown}");
        assert!(shown.contains("00501 ") && shown.contains('…'), "{shown}");
    }

    #[test]
    fn a_pipe_gets_every_character_and_no_colour() {
        let rows = [vec![Some("x".repeat(500)), None]];
        let shown = ruled(&[text("a"), text("b")], &rows, Place::default());
        assert!(shown.contains(&"x".repeat(500)) && !shown.contains('\u{1b}'));
    }

    #[test]
    fn null_is_dim_where_colours_are_welcome() {
        let shown = ruled(&[text("a")], &[vec![None]], Place { width: None, colours: true });
        assert!(shown.contains("\u{1b}[2mNULL\u{1b}[0m"), "{shown:?}");
    }

    #[test]
    fn a_terminal_too_narrow_for_all_columns_still_shows_each() {
        let rows = [row(&["a-long-value", "b-long-value", "c-long-value"])];
        let columns = [text("one"), text("two"), text("three")];
        let shown = ruled(&columns, &rows, Place { width: Some(10), colours: false });
        assert!(shown.contains("a-long-…") && shown.contains("c-long-…"), "{shown}");
    }

    #[test]
    fn a_line_break_in_a_cell_breaks_no_line() {
        let shown = ruled(&[text("a")], &[row(&["one\ntwo"])], Place::default());
        assert_eq!(shown.lines().count(), 3, "{shown}");
    }

    #[test]
    fn lists_look_as_in_kubectl() {
        let header = ["NAME", "READY", "ROWS"].map(String::from);
        let rows = [["airports", "True", "3376"].map(String::from).to_vec()];
        assert_eq!(plain(&header, &rows), "NAME       READY   ROWS\nairports   True    3376\n");
    }

    fn text(name: &str) -> Column {
        Column { name: name.into(), right: false }
    }

    fn number(name: &str) -> Column {
        Column { name: name.into(), right: true }
    }

    fn row(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().map(|&cell| Some(cell.to_owned())).collect()
    }
}
