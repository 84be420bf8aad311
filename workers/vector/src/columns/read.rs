//! Columns in a file.

use std::ops::{Bound, Range};

use lakehouse_ann::sections;
use lakehouse_contract::vectors::Metadata;
use roaring::{MultiOps, RoaringBitmap};
use serde_json::Value;

use super::{BYTES, DIRECTORY, Directory, Span, Strings};
use crate::{
    Result,
    filter::{Scalar, Test},
    value::{Kind, Kinds, Number},
};

/// The columns of an open segment. What they lead to lies in the file.
#[derive(Debug)]
pub(crate) struct Columns {
    rows: u32,
    /// In the order of their fields' names.
    columns: Vec<Directory>,
}

impl Columns {
    /// Reads the directory and checks that nothing in it leads outside.
    pub(crate) fn open(file: &sections::File, rows: u32) -> Result<Self, String> {
        let bytes = file.section(BYTES).map_err(|error| error.to_string())?;
        let directory = file.section(DIRECTORY).map_err(|error| error.to_string())?;
        let columns: Vec<Directory> = serde_json::from_slice(directory)
            .map_err(|error| format!("the directory of its columns cannot be read: {error}"))?;
        for column in &columns {
            if !is_sound(column, bytes, rows) {
                return Err(format!("the column `{}` does not fit together", column.field));
            }
        }
        Ok(Self { rows, columns })
    }

    /// The fields and the kinds of their values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, Kinds)> {
        self.columns.iter().map(|column| {
            let kinds = Kind::ALL.into_iter().filter(|kind| column.kinds[*kind as usize] > 0);
            (column.field.as_str(), kinds.fold(Kinds::default(), |all, kind| all.with(Kinds::of(kind))))
        })
    }

    /// What is kept with a row.
    pub(crate) fn metadata(&self, file: &sections::File, row: u32) -> Metadata {
        let bytes = bytes(file);
        let value = |directory: &Directory| {
            let column = Column { directory, bytes };
            let code = column.code(row)?;
            Some((directory.field.clone(), column.value(code)))
        };
        self.columns.iter().filter_map(value).collect()
    }

    /// The rows that pass a test, exactly. Rows without the field pass only its negative forms.
    pub(crate) fn select(&self, file: &sections::File, field: &str, test: &Test) -> RoaringBitmap {
        let found = self.columns.binary_search_by(|column| column.field.as_str().cmp(field));
        let positive = |test: &dyn Fn(&Column<'_>) -> RoaringBitmap| match found {
            Ok(at) => test(&Column { directory: &self.columns[at], bytes: bytes(file) }),
            Err(_) => RoaringBitmap::new(),
        };
        match test {
            Test::Exists(true) => positive(&|column| column.rows_of(0..column.directory.values.count)),
            Test::Exists(false) => self.all() - self.select(file, field, &Test::Exists(true)),
            Test::In(values) => positive(&|column| column.any_of(values)),
            Test::NotIn(values) => self.all() - positive(&|column| column.any_of(values)),
            Test::Between(low, high) => positive(&|column| column.rows_of(column.between(low, high))),
        }
    }

    fn all(&self) -> RoaringBitmap {
        (0..self.rows).collect()
    }
}

fn bytes(file: &sections::File) -> &[u8] {
    file.find(BYTES).unwrap_or_default()
}

fn is_sound(column: &Directory, bytes: &[u8], rows: u32) -> bool {
    let Directory { values, kinds, width, codes, rows: sparse, bitmaps, elements, element_rows, .. } = column;
    let fits = |span: &Span| span.at.checked_add(span.len).is_some_and(|end| end <= bytes.len() as u64);
    let strings = |strings: &Strings| {
        let sizes =
            fits(&strings.ends) && fits(&strings.bytes) && strings.ends.len == u64::from(strings.count) * 8;
        let ends = (0..strings.count).map(|at| end(bytes, strings, at));
        sizes
            && ends.is_sorted()
            && strings.count.checked_sub(1).is_none_or(|last| end(bytes, strings, last) <= strings.bytes.len)
    };
    let with_codes = sparse.map_or(u64::from(rows), |span| span.len / 4);
    let kinds: u64 = kinds.iter().map(|kind| u64::from(*kind)).sum();
    strings(values)
        && kinds == u64::from(values.count)
        && matches!(width, 1 | 2 | 4)
        && fits(codes)
        && codes.len == with_codes * u64::from(*width)
        && sparse.is_none_or(|span| fits(&span))
        && bitmaps.as_ref().is_none_or(|bitmaps| strings(bitmaps) && bitmaps.count == values.count)
        && strings(elements)
        && strings(element_rows)
        && elements.count == element_rows.count
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the section's length when it was opened"
)]
fn part(bytes: &[u8], span: Span) -> &[u8] {
    &bytes[span.at as usize..(span.at + span.len) as usize]
}

fn end(bytes: &[u8], strings: &Strings, at: u32) -> u64 {
    let at = at as usize * 8;
    u64::from_le_bytes(part(bytes, strings.ends)[at..at + 8].try_into().expect("eight bytes"))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the section's length when it was opened"
)]
fn string<'f>(bytes: &'f [u8], strings: &Strings, at: u32) -> &'f [u8] {
    let start = at.checked_sub(1).map_or(0, |before| end(bytes, strings, before));
    &part(bytes, strings.bytes)[start as usize..end(bytes, strings, at) as usize]
}

fn bitmap(bytes: &[u8], strings: &Strings, at: u32) -> RoaringBitmap {
    RoaringBitmap::deserialize_from(string(bytes, strings, at)).unwrap_or_default()
}

/// The first of `count` places whose string is not before what is looked for.
fn partition(count: Range<u32>, mut before: impl FnMut(u32) -> bool) -> u32 {
    let Range { mut start, mut end } = count;
    while start < end {
        let middle = start + (end - start) / 2;
        if before(middle) { start = middle + 1 } else { end = middle }
    }
    start
}

/// A column and its bytes.
struct Column<'f> {
    directory: &'f Directory,
    bytes: &'f [u8],
}

impl Column<'_> {
    /// The codes of a kind: places in the dictionary.
    fn codes_of(&self, kind: Kind) -> Range<u32> {
        let counts = &self.directory.kinds;
        let start = counts[..kind as usize].iter().sum();
        start..start + counts[kind as usize]
    }

    fn text(&self, code: u32) -> &str {
        std::str::from_utf8(string(self.bytes, &self.directory.values, code)).unwrap_or_default()
    }

    fn value(&self, code: u32) -> Value {
        let text = self.text(code);
        if self.codes_of(Kind::Text).contains(&code) {
            return Value::String(text.to_owned());
        }
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The place in the dictionary of a row's value.
    fn code(&self, row: u32) -> Option<u32> {
        let at = match self.directory.rows {
            None => row as usize,
            Some(rows) => {
                let rows = part(self.bytes, rows);
                let row_at = |at: u32| {
                    let at = at as usize * 4;
                    u32::from_le_bytes(rows[at..at + 4].try_into().expect("four bytes"))
                };
                let count = u32::try_from(rows.len() / 4).expect("a segment has at most a million rows");
                let at = partition(0..count, |at| row_at(at) < row);
                if at == count || row_at(at) != row {
                    return None;
                }
                at as usize
            }
        };
        let width = usize::from(self.directory.width);
        let mut code = [0; 4];
        code[..width].copy_from_slice(&part(self.bytes, self.directory.codes)[at * width..(at + 1) * width]);
        u32::from_le_bytes(code).checked_sub(1).filter(|code| *code < self.directory.values.count)
    }

    /// The rows whose codes lie in a range.
    fn rows_of(&self, wanted: Range<u32>) -> RoaringBitmap {
        if wanted.is_empty() {
            return RoaringBitmap::new();
        }
        if let Some(bitmaps) = &self.directory.bitmaps {
            return wanted.map(|code| bitmap(self.bytes, bitmaps, code)).union();
        }
        let codes = part(self.bytes, self.directory.codes);
        let wanted = wanted.start + 1..wanted.end + 1;
        let hits: Vec<u32> = match self.directory.width {
            1 => places(codes.iter().map(|code| u32::from(*code)), &wanted),
            2 => places(
                codes.chunks_exact(2).map(|code| u32::from(u16::from_le_bytes([code[0], code[1]]))),
                &wanted,
            ),
            _ => places(
                codes.chunks_exact(4).map(|code| u32::from_le_bytes(code.try_into().expect("four bytes"))),
                &wanted,
            ),
        };
        let Some(rows) = self.directory.rows else {
            return RoaringBitmap::from_sorted_iter(hits).unwrap_or_default();
        };
        let rows = part(self.bytes, rows);
        let row = |at: u32| u32::from_le_bytes(rows[at as usize * 4..][..4].try_into().expect("four bytes"));
        hits.into_iter().map(row).collect()
    }

    /// The rows with one of these values, or with a list that has one of these texts.
    fn any_of(&self, values: &[Scalar]) -> RoaringBitmap {
        let rows = values.iter().flat_map(|value| {
            let same = Bound::Included(value.clone());
            let listed = match value {
                Scalar::Text(text) => self.with_element(text),
                _ => None,
            };
            [Some(self.rows_of(self.between(&same, &same))), listed]
        });
        rows.flatten().union()
    }

    fn with_element(&self, text: &str) -> Option<RoaringBitmap> {
        let Directory { elements, element_rows, .. } = self.directory;
        let at = partition(0..elements.count, |at| string(self.bytes, elements, at) < text.as_bytes());
        let found = at < elements.count && string(self.bytes, elements, at) == text.as_bytes();
        found.then(|| bitmap(self.bytes, element_rows, at))
    }

    /// The places in the dictionary between two values of one kind.
    fn between(&self, low: &Bound<Scalar>, high: &Bound<Scalar>) -> Range<u32> {
        let (Bound::Included(one) | Bound::Excluded(one)) =
            (if matches!(low, Bound::Unbounded) { high } else { low })
        else {
            return 0..0;
        };
        let codes = self.codes_of(one.kind());
        let before = |limit: &Scalar, or_equal: bool| {
            partition(codes.clone(), |code| {
                let order = match limit {
                    Scalar::Number(number) => Number::parse(self.text(code)).cmp(number),
                    Scalar::Text(text) => self.text(code).cmp(text.as_str()),
                    Scalar::Bool(value) => (self.text(code) == "true").cmp(value),
                };
                order.is_lt() || (or_equal && order.is_eq())
            })
        };
        let start = match low {
            Bound::Unbounded => codes.start,
            Bound::Included(limit) => before(limit, false),
            Bound::Excluded(limit) => before(limit, true),
        };
        let end = match high {
            Bound::Unbounded => codes.end,
            Bound::Included(limit) => before(limit, true),
            Bound::Excluded(limit) => before(limit, false),
        };
        start..end.max(start)
    }
}

/// Where a number of the range stands.
fn places(codes: impl Iterator<Item = u32>, wanted: &Range<u32>) -> Vec<u32> {
    (0..).zip(codes).filter(|(_, code)| wanted.contains(code)).map(|(at, _)| at).collect()
}
