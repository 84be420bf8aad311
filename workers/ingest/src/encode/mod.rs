//! Typed values to Parquet column chunks.
//!
//! Receives the values of one column of one row group, in order; hands on the finished bytes of its column chunk. Page headers, the footer and
//! all other Thrift are the `parquet` crate's; the values' encoding is done here, because the way from a field's text to
//! its place in a page is what an ingest spends its time on.
//!
//! ```text
//! values ─► dictionary, while it pays ─► indices ─┐
//!        └► plain, otherwise ─────────────────────┴► pages ─► compression ─► column chunk
//! ```

mod boolean;
mod chunk;
mod codec;
mod dictionary;
mod fixed;
mod hybrid;
mod text;
mod values;

pub(crate) use boolean::BooleanEncoder;
pub(crate) use chunk::EncodedColumn;
pub(crate) use codec::Codec;
pub(crate) use fixed::FixedEncoder;
pub(crate) use text::TextEncoder;

/// How Parquet is laid out. Together with the rows it decides every byte of the output.
pub(crate) mod layout {
    use parquet::basic::{Compression, ZstdLevel};

    /// A page ends at this many rows.
    pub(crate) const PAGE_ROWS: usize = 1 << 17;
    /// A page of plain text ends with the value that brings it to this size.
    pub(crate) const PAGE_BYTES: usize = 1 << 20;
    /// When a dictionary must have proved itself: after so many values, at most so many may be distinct. The first look finds
    /// columns of unique values, the second one those that repeat too rarely.
    pub(crate) const TRIALS: [(usize, usize); 2] = [(1024, 960), (8192, 5120)];
    /// The most entries of a dictionary.
    pub(crate) const DICTIONARY_ENTRIES: usize = 1 << 15;
    /// The most bytes of a dictionary.
    pub(crate) const DICTIONARY_BYTES: usize = 1 << 20;
    /// The longest text among a column chunk's statistics, in bytes.
    pub(crate) const STATISTICS_BYTES: usize = 64;
    /// How hard zstd tries. Measured on a staffing table of 259 MiB: a quarter smaller than snappy, for a fifth more time
    /// of the processor over the whole conversion.
    pub(crate) const ZSTD_LEVEL: i32 = 1;

    /// The codec of every page. A zstd that packs otherwise would be another output version.
    pub(crate) fn compression() -> Compression {
        Compression::ZSTD(ZstdLevel::default())
    }
}
