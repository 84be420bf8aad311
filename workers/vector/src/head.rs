//! The vectors that came last, with ids and metadata, in memory.
//!
//! Rows are only ever added, by one writer at a time, and never move: readers hold no lock and see the rows that their snapshot names.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use lakehouse_ann as ann;
use lakehouse_contract::vectors::{Metadata, Shape};

use crate::value;

/// Rows of the first chunk; each further one has twice as many.
const FIRST: u64 = 64;
const CHUNKS: usize = 26;

/// A vector's row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Arc<str>,
    pub(crate) metadata: Metadata,
    /// One more than the number of the record of the log that wrote it.
    pub(crate) stamp: u64,
    /// The row of this id before, in the same head.
    earlier: Option<u32>,
}

/// Vectors in the order they came.
pub(crate) struct Head {
    vectors: ann::Head,
    rows: [OnceLock<Box<[OnceLock<Row>]>>; CHUNKS],
    /// The newest row of each id.
    ids: RwLock<HashMap<Arc<str>, u32>>,
    dimension: u32,
    /// What its rows take: vectors, ids and metadata.
    bytes: AtomicU64,
}

impl Head {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            vectors: ann::Head::new(shape),
            rows: [const { OnceLock::new() }; CHUNKS],
            ids: RwLock::default(),
            dimension: shape.dimension,
            bytes: AtomicU64::new(0),
        }
    }

    /// Adds a row. One writer at a time.
    pub(crate) fn push(
        &self,
        id: &str,
        vector: &[f32],
        metadata: Metadata,
        stamp: u64,
    ) -> Result<u32, ann::BadVector> {
        let id: Arc<str> = id.into();
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        let row = self.vectors.push(vector)?;
        let earlier = ids.insert(Arc::clone(&id), row);
        let bytes = id.len() + size_of_val(vector) + value::bytes_of(&metadata);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        let (chunk, at) = place(row);
        let chunk = self.rows[chunk].get_or_init(|| (0..FIRST << chunk).map(|_| OnceLock::new()).collect());
        let free = chunk[at].set(Row { id, metadata, stamp, earlier }).is_ok();
        assert!(free, "rows are numbered by the engine, each once");
        Ok(row)
    }

    pub(crate) fn len(&self) -> u32 {
        self.vectors.len()
    }

    /// About the bytes of its rows, also of those that are not alive.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// A row that a snapshot names.
    pub(crate) fn row(&self, row: u32) -> &Row {
        let (chunk, at) = place(row);
        self.rows[chunk]
            .get()
            .and_then(|chunk| chunk[at].get())
            .expect("a snapshot names rows that are there")
    }

    /// The newest of the first `len` rows that has this id.
    pub(crate) fn find(&self, id: &str, len: u32) -> Option<u32> {
        let newest = self.ids.read().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        std::iter::successors(newest, |row| self.row(*row).earlier).find(|row| *row < len)
    }

    pub(crate) fn vector(&self, row: u32) -> Vec<f32> {
        let mut numbers = vec![0.0; self.dimension as usize];
        self.vectors.vector(row, &mut numbers);
        numbers
    }

    pub(crate) fn vectors(&self) -> &ann::Head {
        &self.vectors
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("rows", &self.len()).finish_non_exhaustive()
    }
}

/// The chunk of a row, and where it lies in it: chunk c begins at row 64 · (2^c − 1).
fn place(row: u32) -> (usize, usize) {
    let shifted = u64::from(row) + FIRST;
    let chunk = shifted.ilog2() - FIRST.ilog2();
    let at = shifted - (FIRST << chunk);
    (chunk as usize, usize::try_from(at).expect("below the size of its chunk"))
}
