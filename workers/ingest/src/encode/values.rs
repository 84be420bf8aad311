//! The values of a column chunk on their way into pages.

use parquet::{basic::Encoding, errors::Result, file::statistics::Statistics, schema::types::ColumnDescPtr};

use super::{
    Codec,
    chunk::{Chunk, EncodedColumn, Presence},
    dictionary::{Dictionary, Found},
    hybrid, layout,
};

/// Takes values one by one, numbers them by a dictionary while that pays, and ends pages when they are full.
pub(crate) struct Values {
    chunk: Chunk,
    presence: Presence,
    /// There as long as a page refers to it or will.
    dictionary: Option<Dictionary>,
    /// Whether the open page is one of numbers.
    numbering: bool,
    numbers: Vec<u32>,
    plain: Vec<u8>,
    /// Values so far, without nulls.
    count: usize,
}

impl Values {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            chunk: Chunk::new(codec),
            presence: Presence::default(),
            dictionary: Some(Dictionary::new()),
            numbering: true,
            numbers: Vec::new(),
            plain: Vec::new(),
            count: 0,
        }
    }

    /// Adds a null.
    #[inline]
    pub(super) fn null(&mut self) -> Result<()> {
        self.presence.null();
        self.end_page_when_full()
    }

    /// Adds a text; whether it is certainly not new to the chunk.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) -> Result<bool> {
        self.presence.value();
        let known = if let Some(dictionary) = self.dictionary.as_mut().filter(|_| self.numbering) {
            let found = dictionary.text(text);
            self.number(found)?
        } else {
            self.plain.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            self.plain.extend_from_slice(text);
            false
        };
        self.end_page_when_full()?;
        Ok(known)
    }

    /// Adds a value of fixed size by its plain encoding; whether it is certainly not new to the chunk.
    #[inline]
    pub(super) fn fixed<const N: usize>(&mut self, value: [u8; N]) -> Result<bool> {
        self.presence.value();
        let known = if let Some(dictionary) = self.dictionary.as_mut().filter(|_| self.numbering) {
            let found = dictionary.fixed(value);
            self.number(found)?
        } else {
            self.plain.extend_from_slice(&value);
            false
        };
        self.end_page_when_full()?;
        Ok(known)
    }

    #[inline]
    fn number(&mut self, found: Found) -> Result<bool> {
        self.count += 1;
        let (number, known) = match found {
            Found::Old(number) => (number, true),
            Found::New(number) => (number, false),
        };
        self.numbers.push(number);
        let on_trial = layout::TRIALS.iter().any(|&(after, _)| self.count == after);
        if (!known || on_trial) && self.dictionary.as_ref().is_some_and(|d| d.is_a_loss(self.count)) {
            self.give_up_numbering()?;
        }
        Ok(known)
    }

    #[inline]
    fn end_page_when_full(&mut self) -> Result<()> {
        if self.presence.rows() >= layout::PAGE_ROWS || self.plain.len() >= layout::PAGE_BYTES {
            self.end_page()?;
        }
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let entries = self.dictionary.as_ref().map_or(0, Dictionary::len);
        // Without a single value there is nothing to refer to, and readers differ about empty dictionaries.
        if self.numbering && entries > 0 {
            let width = hybrid::width(u32::try_from(entries - 1).unwrap_or(u32::MAX));
            let mut page = vec![u8::try_from(width).unwrap_or(u8::MAX)];
            hybrid::encode(&self.numbers, width, &mut page);
            self.numbers.clear();
            self.chunk.add(&mut self.presence, Encoding::RLE_DICTIONARY, &page)
        } else {
            self.chunk.add(&mut self.presence, Encoding::PLAIN, &self.plain)?;
            self.plain.clear();
            Ok(())
        }
    }

    /// Goes on in plain encoding. Pages that are done keep their numbers; the open one is spelled out.
    fn give_up_numbering(&mut self) -> Result<()> {
        self.numbering = false;
        let Some(dictionary) = &self.dictionary else { return Ok(()) };
        for &number in &self.numbers {
            self.plain.extend_from_slice(dictionary.entry(number));
        }
        self.numbers.clear();
        if !self.chunk.has_dictionary_pages() {
            self.dictionary = None;
        }
        self.end_page_when_full()
    }

    /// Ends the chunk. `statistics` is told the number of nulls.
    pub(super) fn finish(
        mut self,
        column: ColumnDescPtr,
        statistics: impl FnOnce(u64) -> Statistics,
    ) -> Result<EncodedColumn> {
        let [.., (last_trial, _)] = layout::TRIALS;
        let too_few_met_again = self.dictionary.as_ref().is_some_and(|d| d.len() > self.count / 2);
        if self.numbering && self.count < last_trial && too_few_met_again {
            self.give_up_numbering()?;
        }
        if self.presence.rows() > 0 {
            self.end_page()?;
        }
        let dictionary = self.dictionary.as_ref().filter(|_| self.chunk.has_dictionary_pages());
        self.chunk.finish(column, dictionary.map(|d| (d.entries(), d.len())), statistics)
    }
}
