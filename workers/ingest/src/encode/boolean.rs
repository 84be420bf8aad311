//! Columns of booleans, a bit each.

use parquet::{basic::Encoding, errors::Result, file::statistics::Statistics, schema::types::ColumnDescPtr};

use super::{
    Codec,
    chunk::{Chunk, EncodedColumn, Presence},
    layout,
};

/// Encodes a column chunk of booleans.
pub(crate) struct BooleanEncoder {
    chunk: Chunk,
    presence: Presence,
    /// The open page's values, eight in a byte, the first in its lowest bit.
    bits: Vec<u8>,
    /// Values in the open page.
    values: usize,
    seen: [bool; 2],
}

impl BooleanEncoder {
    pub(crate) fn new(codec: Codec) -> Self {
        Self {
            chunk: Chunk::new(codec),
            presence: Presence::default(),
            bits: Vec::new(),
            values: 0,
            seen: [false; 2],
        }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn value(&mut self, value: bool) -> Result<()> {
        self.presence.value();
        self.seen[usize::from(value)] = true;
        let bit = self.values % 8;
        if bit == 0 {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(value) << bit;
        }
        self.values += 1;
        self.end_page_when_full()
    }

    /// Adds a null.
    pub(crate) fn null(&mut self) -> Result<()> {
        self.presence.null();
        self.end_page_when_full()
    }

    fn end_page_when_full(&mut self) -> Result<()> {
        if self.presence.rows() >= layout::PAGE_ROWS { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<()> {
        self.chunk.add(&mut self.presence, Encoding::PLAIN, &self.bits)?;
        self.bits.clear();
        self.values = 0;
        Ok(())
    }

    pub(crate) fn finish(mut self, column: ColumnDescPtr) -> Result<EncodedColumn> {
        if self.presence.rows() > 0 {
            self.end_page()?;
        }
        let [no, yes] = self.seen;
        let range = (no || yes).then_some((!no, yes));
        self.chunk.finish(column, None, |nulls| {
            let (lowest, highest) = range.unzip();
            Statistics::boolean(lowest, highest, None, Some(nulls), false)
        })
    }
}
