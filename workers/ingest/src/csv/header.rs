//! The names of a file's columns, and the first look at whether it is CSV at all.

use std::collections::HashMap;

use super::{Block, Index, Syntax, scan};
use crate::error::{Fault, shown};

/// What the first record says.
#[derive(Debug)]
pub(crate) struct Header {
    /// The columns' names, in order.
    pub(crate) names: Vec<String>,
    /// Where the first row starts in the first block.
    pub(crate) rows_start: usize,
}

/// A header that cannot be read.
pub(crate) enum HeaderFault {
    /// The record is not CSV.
    Syntax(Syntax),
    /// The record is CSV but no header, or the file is no table.
    Other(Fault),
}

impl Header {
    /// Reads the first record of the first block. Without a header the columns are `column_1`, `column_2`, ….
    pub(crate) fn read(block: &Block, delimiter: u8, has_names: bool) -> Result<Self, HeaderFault> {
        if let Some(format) = other_format(&block.bytes) {
            return Err(HeaderFault::Other(Fault::whole(format!("this is no CSV: it looks like {format}"))));
        }
        let mut index = Index::default();
        let rows_start =
            scan(&block.bytes, delimiter, 0, usize::MAX, &mut index).map_err(HeaderFault::Syntax)?;
        if index.columns == 0 {
            return Err(HeaderFault::Other(Fault::whole("the file has nothing but empty lines")));
        }
        if !has_names {
            let names = (1..=index.columns).map(|number| format!("column_{number}")).collect();
            return Ok(Self { names, rows_start: 0 });
        }
        let mut scratch = Vec::new();
        let mut names = Vec::with_capacity(index.columns);
        let mut places: HashMap<String, usize> = HashMap::new();
        for (i, field) in index.fields.iter().enumerate() {
            let number = i + 1;
            let place = block.offset + field.start() as u64;
            let refuse = |message: String| Err(HeaderFault::Other(Fault::at(place, message)));
            let raw = field.value(&block.bytes, &mut scratch);
            let Ok(name) = std::str::from_utf8(raw) else {
                return Err(HeaderFault::Other(Fault::not_utf8(raw, place)));
            };
            if name.is_empty() {
                return refuse(format!("column {number} has no name in the header"));
            }
            if name.contains(['\0', '\u{1e}', '\u{1f}']) {
                let name = shown(raw);
                return refuse(format!("the name of column {number} holds a control character: `{name}`"));
            }
            if let Some(first) = places.insert(name.to_owned(), number) {
                let name = shown(raw);
                return refuse(format!("columns {first} and {number} are both named `{name}` in the header"));
            }
            names.push(name.to_owned());
        }
        Ok(Self { names, rows_start })
    }
}

/// What the bytes at the start of a file look like, when they are no text.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const LOOKED_AT: usize = 8192;
    const SIGNATURES: [(&[u8], &str); 11] = [
        (b"PAR1", "Parquet, which cannot be read yet; save it as CSV"),
        (b"\x1f\x8b", "gzip; decompress it first"),
        (b"\x28\xb5\x2f\xfd", "zstd; decompress it first"),
        (b"BZh", "bzip2; decompress it first"),
        (b"\xfd7zXZ\0", "xz; decompress it first"),
        (b"PK\x03\x04", "a zip archive or an Excel workbook (xlsx); unpack it, or save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook (xls); save the sheet as CSV"),
        (b"\xff\xfe", "UTF-16 (little endian); save it as UTF-8"),
        (b"\xfe\xff", "UTF-16 (big endian); save it as UTF-8"),
        (b"SQLite format 3\0", "an SQLite database; export the table as CSV"),
        (b"%PDF-", "a PDF document"),
    ];
    if let Some((_, format)) = SIGNATURES.iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return Some(format);
    }
    let head = &bytes[..bytes.len().min(LOOKED_AT)];
    head.contains(&0).then_some("a binary file: it holds NUL bytes")
}
