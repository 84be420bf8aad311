//! From a block of whole records to the places of their fields.

use super::{MAX_RECORD_BYTES, marks::Marks};

/// Where a field's content lies in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    start: u32,
    /// Bytes, and the two flags.
    length: u32,
}

const QUOTED: u32 = 1 << 31;
const DOUBLED: u32 = 1 << 30;

impl Field {
    fn new(start: usize, end: usize, flags: u32) -> Self {
        let start = u32::try_from(start).expect("a block is far below 4 GiB");
        let length = u32::try_from(end).expect("a block is far below 4 GiB") - start;
        Self { start, length: length | flags }
    }

    /// The content's first byte in the block.
    #[inline]
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    /// Whether it stood in quotes.
    #[inline]
    pub(crate) fn quoted(self) -> bool {
        self.length & QUOTED != 0
    }

    /// The content as the block has it: without the quotes around it, with the doubled ones in it.
    #[inline]
    pub(crate) fn raw(self, block: &[u8]) -> &[u8] {
        let start = self.start();
        &block[start..start + (self.length & !(QUOTED | DOUBLED)) as usize]
    }

    /// The value; `scratch` holds it when doubled quotes had to go.
    #[inline]
    pub(crate) fn value<'a>(self, block: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let raw = self.raw(block);
        if self.length & DOUBLED == 0 {
            return raw;
        }
        scratch.clear();
        let mut rest = raw;
        while let Some(quote) = memchr::memchr(b'"', rest) {
            scratch.extend_from_slice(&rest[..=quote]);
            rest = &rest[quote + 2..];
        }
        scratch.extend_from_slice(rest);
        scratch
    }
}

/// The fields of some records, row after row.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: usize,
}

impl Index {
    pub(crate) fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    /// The fields of one column, from the first row on.
    #[inline]
    pub(crate) fn column(&self, column: usize) -> impl Iterator<Item = Field> {
        self.fields.chunks_exact(self.columns).map(move |record| record[column])
    }
}

/// A place where the text is not CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    /// The byte in the block.
    pub(crate) byte: usize,
    pub(crate) kind: SyntaxKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyntaxKind {
    /// The record that starts here has `found` fields.
    Ragged { found: usize },
    /// The record that starts here is longer than is allowed.
    TooLong,
    /// The quote here is not closed before the block ends.
    Unclosed,
    /// Here, right after a closing quote, stands something else than a delimiter or a line end.
    AfterQuote,
}

/// Finds the fields of the records from `from` on, until at least `bytes` are read or the block ends; returns where it stopped.
///
/// `index.columns` says how many fields a record has; 0 takes as many as the first record has and stops after it. Empty
/// lines are skipped, except in a table of one column, where they are empty values. On a fault, `index` holds the records before it.
pub(crate) fn scan(
    block: &[u8],
    delimiter: u8,
    from: usize,
    bytes: usize,
    index: &mut Index,
) -> Result<usize, Syntax> {
    index.fields.clear();
    let fields = &mut index.fields;
    let mut marks = Marks::new(block, delimiter, from);
    let mut record = from;
    let mut complete = 0;
    while record < block.len() && record - from < bytes {
        let end = match record_fields(block, delimiter, record, &mut marks, fields) {
            Ok(end) => end,
            Err(fault) => {
                fields.truncate(complete);
                return Err(fault);
            }
        };
        let found = fields.len() - complete;
        let next = after_line_end(block, end, &mut marks);
        let empty_line = end == record;
        if empty_line && index.columns != 1 {
            fields.truncate(complete);
        } else if index.columns == 0 {
            index.columns = found;
            return Ok(next);
        } else if found == index.columns && end - record <= MAX_RECORD_BYTES {
            complete = fields.len();
        } else {
            fields.truncate(complete);
            let too_long = end - record > MAX_RECORD_BYTES;
            let kind = if too_long { SyntaxKind::TooLong } else { SyntaxKind::Ragged { found } };
            return Err(Syntax { byte: record, kind });
        }
        record = next;
    }
    Ok(record)
}

/// Adds the fields of the record at `start`; returns where its line end stands, or the block's end.
#[inline]
fn record_fields(
    block: &[u8],
    delimiter: u8,
    start: usize,
    marks: &mut Marks,
    fields: &mut Vec<Field>,
) -> Result<usize, Syntax> {
    let mut start = start;
    loop {
        let end = if block.get(start) == Some(&b'"') {
            let (field, end) = quoted_field(block, delimiter, start, marks)?;
            fields.push(field);
            end
        } else {
            let mut end = marks.next();
            // A quote inside a field that does not start with one stands for itself.
            while block.get(end) == Some(&b'"') {
                end = marks.next();
            }
            fields.push(Field::new(start, end, 0));
            end
        };
        if block.get(end) != Some(&delimiter) {
            return Ok(end);
        }
        start = end + 1;
    }
}

/// The field whose opening quote stands at `open`, and the place right after its closing quote.
#[inline]
fn quoted_field(
    block: &[u8],
    delimiter: u8,
    open: usize,
    marks: &mut Marks,
) -> Result<(Field, usize), Syntax> {
    marks.next_quote();
    let mut flags = QUOTED;
    let close = loop {
        let quote = marks.next_quote();
        if quote == block.len() {
            return Err(Syntax { byte: open, kind: SyntaxKind::Unclosed });
        }
        if block.get(quote + 1) != Some(&b'"') {
            break quote;
        }
        marks.next_quote();
        flags |= DOUBLED;
    };
    let end = close + 1;
    match block.get(end) {
        None => {}
        Some(&byte) if byte == delimiter || matches!(byte, b'\n' | b'\r') => {
            marks.next();
        }
        Some(_) => return Err(Syntax { byte: end, kind: SyntaxKind::AfterQuote }),
    }
    Ok((Field::new(open + 1, close, flags), end))
}

/// The start of the record after the line end at `end`: LF, CR, or both as one.
#[inline]
fn after_line_end(block: &[u8], end: usize, marks: &mut Marks) -> usize {
    if block.get(end) == Some(&b'\r') && block.get(end + 1) == Some(&b'\n') {
        marks.next();
        end + 2
    } else {
        (end + 1).min(block.len())
    }
}
