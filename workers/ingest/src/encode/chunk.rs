//! The pages of a column chunk: presence, compression, headers, and what the footer says of them.

use bytes::Bytes;
use parquet::{
    basic::{Encoding, PageType},
    column::{
        page::{CompressedPage, Page, PageWriter},
        writer::ColumnCloseResult,
    },
    errors::Result,
    file::{
        metadata::{ColumnChunkMetaData, PageEncodingStats},
        statistics::Statistics,
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

use super::{Codec, hybrid, layout};

/// The finished bytes of a column chunk, and what the footer says of it.
pub(crate) struct EncodedColumn {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

/// Which of a page's rows have a value.
#[derive(Debug, Default)]
pub(super) struct Presence {
    rows: usize,
    nulls: usize,
    /// One level a row: 1 for a value, 0 for null. Empty as long as there are no nulls.
    levels: Vec<u8>,
}

impl Presence {
    #[inline]
    pub(super) fn value(&mut self) {
        self.rows += 1;
        if self.nulls > 0 {
            self.levels.push(1);
        }
    }

    #[inline]
    pub(super) fn null(&mut self) {
        if self.nulls == 0 {
            self.levels.resize(self.rows, 1);
        }
        self.levels.push(0);
        self.rows += 1;
        self.nulls += 1;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.nulls == 0 {
            hybrid::repeat(1, self.rows, 1, out);
        } else {
            hybrid::encode(&self.levels, 1, out);
        }
    }

    fn clear(&mut self) {
        self.levels.clear();
        (self.rows, self.nulls) = (0, 0);
    }
}

/// Collects the pages of one column chunk.
pub(super) struct Chunk {
    pages: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    rows: usize,
    nulls: usize,
    plain_pages: i32,
    dictionary_pages: i32,
    codec: Codec,
}

impl Chunk {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            pages: TrackedWrite::new(Vec::new()),
            uncompressed: 0,
            rows: 0,
            nulls: 0,
            plain_pages: 0,
            dictionary_pages: 0,
        }
    }

    /// Whether pages refer to the dictionary.
    pub(super) fn has_dictionary_pages(&self) -> bool {
        self.dictionary_pages > 0
    }

    /// Adds a page with the values of the rows that `presence` tells; clears `presence`.
    pub(super) fn add(&mut self, presence: &mut Presence, encoding: Encoding, values: &[u8]) -> Result<()> {
        let mut page = Vec::new();
        presence.encode(&mut page);
        let levels = page.len();
        let is_compressed = self.codec.compress(values, |compressed| {
            let smaller = compressed.len() < values.len();
            page.extend_from_slice(if smaller { compressed } else { values });
            smaller
        })?;
        let page = Page::DataPageV2 {
            buf: page.into(),
            num_values: narrow(presence.rows),
            encoding,
            num_nulls: narrow(presence.nulls),
            num_rows: narrow(presence.rows),
            def_levels_byte_len: narrow(levels),
            rep_levels_byte_len: 0,
            is_compressed,
            statistics: None,
        };
        let page = CompressedPage::new(page, levels + values.len());
        self.uncompressed += SerializedPageWriter::new(&mut self.pages).write_page(page)?.uncompressed_size;
        self.rows += presence.rows;
        self.nulls += presence.nulls;
        match encoding {
            Encoding::RLE_DICTIONARY => self.dictionary_pages += 1,
            _ => self.plain_pages += 1,
        }
        presence.clear();
        Ok(())
    }

    /// Ends the chunk. `dictionary` are the entries in plain encoding and their number, when pages refer to them.
    pub(super) fn finish(
        mut self,
        column: ColumnDescPtr,
        dictionary: Option<(&[u8], usize)>,
        statistics: impl FnOnce(u64) -> Statistics,
    ) -> Result<EncodedColumn> {
        let mut sink = TrackedWrite::new(Vec::new());
        if let Some((entries, count)) = dictionary {
            // A dictionary page has no flag for being left uncompressed.
            let page = Page::DictionaryPage {
                buf: self.codec.compress(entries, Bytes::copy_from_slice)?,
                num_values: narrow(count),
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let page = CompressedPage::new(page, entries.len());
            self.uncompressed += SerializedPageWriter::new(&mut sink).write_page(page)?.uncompressed_size;
        }
        let dictionary_bytes = sink.bytes_written();
        let pages = self.pages.into_inner()?;
        let bytes = if dictionary.is_some() {
            let mut bytes = sink.into_inner()?;
            bytes.extend_from_slice(&pages);
            bytes
        } else {
            pages
        };
        let page_stats = [
            (PageType::DICTIONARY_PAGE, Encoding::PLAIN, i32::from(dictionary.is_some())),
            (PageType::DATA_PAGE_V2, Encoding::RLE_DICTIONARY, self.dictionary_pages),
            (PageType::DATA_PAGE_V2, Encoding::PLAIN, self.plain_pages),
        ];
        let page_stats: Vec<PageEncodingStats> = page_stats
            .into_iter()
            .filter(|&(.., count)| count > 0)
            .map(|(page_type, encoding, count)| PageEncodingStats { page_type, encoding, count })
            .collect();
        let mut encodings: Vec<Encoding> = page_stats.iter().map(|stats| stats.encoding).collect();
        encodings.push(Encoding::RLE);
        let metadata = ColumnChunkMetaData::builder(column)
            .set_compression(layout::compression())
            .set_encodings(encodings)
            .set_page_encoding_stats(page_stats)
            .set_total_compressed_size(wide(bytes.len()))
            .set_total_uncompressed_size(wide(self.uncompressed))
            .set_num_values(wide(self.rows))
            .set_dictionary_page_offset(dictionary.map(|_| 0))
            .set_data_page_offset(wide(dictionary_bytes))
            .set_statistics(statistics(self.nulls as u64))
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok(EncodedColumn { bytes: bytes.into(), close })
    }
}

/// Numbers of a page fit 32 bits: its rows and bytes are far below that.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a page is far below 4 GiB")
}

fn wide(number: usize) -> i64 {
    i64::try_from(number).expect("a column chunk is far below 8 EiB")
}
