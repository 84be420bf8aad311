//! Metadata of a segment by columns: small in the file, read where it lies, one exact bitmap for a condition.
//!
//! ```text
//! columns   all bytes of all columns
//! coldir    JSON: for each field, where in there its parts lie
//! ```
//! A column has a dictionary of its distinct values, sorted by kind and then by value, and a code for each row: the place in the
//! dictionary plus one, in as few bytes as fit, 0 for a row without the field. A field that few rows have lists its rows instead. A range
//! of values is a range of codes. Where there are few values, each has a bitmap of its rows; so has each text that stands in lists.

mod build;
mod read;

pub(crate) use build::Builder;
pub(crate) use read::Columns;

use lakehouse_ann::sections::Name;
use serde::{Deserialize, Serialize};

const BYTES: Name = *b"columns\0";
const DIRECTORY: Name = *b"coldir\0\0";

/// Columns with at most so many values keep a bitmap for each.
const MAX_BITMAPS: usize = 4096;
/// A field that fewer than one in so many rows have lists its rows.
const SPARSE: usize = 8;

/// A part of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    at: u64,
    len: u64,
}

/// Byte strings one behind the other, and where each ends (u64).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Strings {
    count: u32,
    ends: Span,
    bytes: Span,
}

/// Where a column's parts lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Directory {
    field: String,
    /// Booleans, numbers, texts and lists, in this order, each sorted.
    values: Strings,
    /// How many values of each [`crate::value::Kind`] there are.
    kinds: [u32; 4],
    /// Bytes of a code: 1, 2 or 4.
    width: u8,
    codes: Span,
    /// u32: the rows that have codes; absent when all rows have one.
    rows: Option<Span>,
    /// A bitmap for each value, where there are few.
    bitmaps: Option<Strings>,
    /// The texts that stand in lists, sorted.
    elements: Strings,
    /// A bitmap for each of them.
    element_rows: Strings,
}
