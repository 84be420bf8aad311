//! Columns of text.

use parquet::{
    data_type::ByteArray,
    errors::Result,
    file::statistics::{Statistics, ValueStatistics},
    schema::types::ColumnDescPtr,
};

use super::{Codec, chunk::EncodedColumn, layout, values::Values};

/// Encodes a column chunk of text.
pub(crate) struct TextEncoder {
    values: Values,
    /// The lowest and the highest value so far, in the order of their bytes.
    range: Option<(Vec<u8>, Vec<u8>)>,
}

impl TextEncoder {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { values: Values::new(codec), range: None }
    }

    /// Adds a value, which is UTF-8.
    #[inline]
    pub(crate) fn value(&mut self, text: &[u8]) -> Result<()> {
        if !self.values.text(text)? {
            self.stretch(text);
        }
        Ok(())
    }

    /// Adds a null.
    pub(crate) fn null(&mut self) -> Result<()> {
        self.values.null()
    }

    #[inline]
    fn stretch(&mut self, text: &[u8]) {
        match &mut self.range {
            Some((lowest, _)) if text < lowest.as_slice() => text.clone_into(lowest),
            Some((_, highest)) if text > highest.as_slice() => text.clone_into(highest),
            Some(_) => {}
            None => self.range = Some((text.to_owned(), text.to_owned())),
        }
    }

    pub(crate) fn finish(self, column: ColumnDescPtr) -> Result<EncodedColumn> {
        let range = self.range;
        self.values.finish(column, |nulls| {
            let (lowest, highest) = range.unzip();
            let (lowest, lowest_is_exact) = lowest.map(at_most).unzip();
            let (highest, highest_is_exact) = highest.map(at_least).unzip();
            let statistics = ValueStatistics::new(
                lowest.map(ByteArray::from),
                highest.map(ByteArray::from),
                None,
                Some(nulls),
                false,
            );
            Statistics::ByteArray(
                statistics
                    .with_min_is_exact(lowest_is_exact.unwrap_or(false))
                    .with_max_is_exact(highest_is_exact.unwrap_or(false)),
            )
        })
    }
}

/// A short text that is not above `text`, and whether it is `text` itself.
fn at_most(text: Vec<u8>) -> (Vec<u8>, bool) {
    if text.len() <= layout::STATISTICS_BYTES { (text, true) } else { (cut(&text).to_owned(), false) }
}

/// A short text that is not below `text`, and whether it is `text` itself.
fn at_least(text: Vec<u8>) -> (Vec<u8>, bool) {
    if text.len() <= layout::STATISTICS_BYTES {
        return (text, true);
    }
    // The order of UTF-8 bytes is that of the characters, so one that is higher in its last character is higher.
    let mut start = String::from_utf8_lossy(cut(&text)).into_owned();
    while let Some(last) = start.pop() {
        let next = char::from_u32(u32::from(last) + 1);
        if let Some(next) = next {
            start.push(next);
            return (start.into_bytes(), false);
        }
    }
    (text, true)
}

/// The first characters of a text that fit among statistics.
fn cut(text: &[u8]) -> &[u8] {
    let mut end = layout::STATISTICS_BYTES;
    while text[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shortened_statistics_still_hold_every_value(text in "[aé日\u{7f}\u{d7ff}\u{10ffff}]{20,90}") {
            let text = text.into_bytes();
            let (lowest, _) = at_most(text.clone());
            let (highest, _) = at_least(text.clone());
            prop_assert!(lowest <= text && text <= highest);
            prop_assert!(std::str::from_utf8(&lowest).is_ok() && std::str::from_utf8(&highest).is_ok());
        }
    }
}
