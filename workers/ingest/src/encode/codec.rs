//! Compression, with memory that the encoders of a thread share.

use std::{cell::RefCell, rc::Rc};

use parquet::errors::{ParquetError, Result};
use zstd::{bulk::Compressor, zstd_safe::compress_bound};

use super::layout;

/// Compresses pages. Clones are the same compressor: a table may have thousands of columns.
#[derive(Clone)]
pub(crate) struct Codec {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    compressor: Compressor<'static>,
    compressed: Vec<u8>,
}

impl Codec {
    pub(crate) fn new() -> Self {
        let compressor = Compressor::new(layout::ZSTD_LEVEL).expect("every zstd has this level");
        Self { shared: Rc::new(RefCell::new(Shared { compressor, compressed: Vec::new() })) }
    }

    /// Hands `bytes` to `take` in compressed form.
    pub(super) fn compress<T>(&self, bytes: &[u8], take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let Shared { compressor, compressed } = &mut *self.shared.borrow_mut();
        compressed.clear();
        compressed.reserve(compress_bound(bytes.len()));
        compressor
            .compress_to_buffer(bytes, compressed)
            .map_err(|error| ParquetError::External(error.into()))?;
        Ok(take(compressed))
    }
}
