//! CSV, RFC 4180: from a file to blocks of whole records, and from a block to the places of its fields.

mod blocks;
mod header;
mod marks;
mod scan;

pub(crate) use blocks::{Block, Blocks};
pub(crate) use header::{Header, HeaderFault};
pub(crate) use scan::{Field, Index, Syntax, SyntaxKind, scan};

use crate::Error;

/// The longest record, in bytes. What is longer is an unclosed quote or no table.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Checks the delimiter.
pub(crate) fn delimiter(delimiter: char) -> Result<u8, Error> {
    match u8::try_from(delimiter) {
        Ok(byte) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r' | 0) => Ok(byte),
        _ => Err(Error::Spec(format!(
            "csv.delimiter {delimiter:?} cannot stand between fields; one ASCII character is needed that is not a quote or a line end"
        ))),
    }
}
