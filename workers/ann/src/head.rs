//! The vectors that came last: they can be found as soon as they are pushed, by an exact scan.
//!
//! Rows lie in chunks that double in size and never move, so a reader needs no lock: it sees the rows there were when it began, and
//! never waits for a writer.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use lakehouse_contract::vectors::Shape;
use roaring::RoaringBitmap;

use crate::{BadVector, Hit, Query, check, simd::Simd, top::Top};

/// Rows of the first chunk.
const FIRST: u32 = 64;
/// So many chunks hold `u32::MAX` rows.
const CHUNKS: usize = 26;

type Chunk = Box<[OnceLock<Row>]>;

struct Row {
    numbers: Box<[f32]>,
    length: f32,
}

/// Vectors in memory, in the order they came.
pub struct Head {
    shape: Shape,
    chunks: [OnceLock<Chunk>; CHUNKS],
    len: AtomicU32,
    writer: Mutex<()>,
}

impl Head {
    /// An empty one.
    pub fn new(shape: &Shape) -> Self {
        let chunks = [const { OnceLock::new() }; CHUNKS];
        Self { shape: shape.clone(), chunks, len: AtomicU32::new(0), writer: Mutex::new(()) }
    }

    /// Adds a vector and gives its row; the search that begins next finds it.
    pub fn push(&self, vector: &[f32]) -> Result<u32, BadVector> {
        let length = check(&self.shape, vector)?;
        let made = Row { numbers: vector.into(), length };
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.len.load(Ordering::Relaxed);
        let (chunk, at) = place(row);
        let chunk = self.chunks[chunk].get_or_init(|| (0..FIRST << chunk).map(|_| OnceLock::new()).collect());
        let free = chunk[at].set(made).is_ok();
        assert!(free, "a row is written once, by who holds the turn");
        self.len
            .store(row.checked_add(1).expect("a head is made into a segment long before"), Ordering::Release);
        Ok(row)
    }

    /// How many rows it has.
    pub fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row's numbers as given.
    ///
    /// # Panics
    /// When there is no such row, or `into` has another dimension.
    pub fn vector(&self, row: u32, into: &mut [f32]) {
        into.copy_from_slice(&self.row(row).numbers);
    }

    /// Puts the nearest `k` rows into `out`, exactly and nearest first, instead of what is there; among those `allowed`, where that is given.
    pub fn search(&self, query: &Query, k: usize, allowed: Option<&RoaringBitmap>, out: &mut Vec<Hit>) {
        let (simd, mut top) = (Simd::best(), Top::new(k));
        let mut look = |row| {
            let Row { numbers, length } = self.row(row);
            top.offer(Hit { row, distance: query.distance(simd, numbers, *length) });
        };
        let len = self.len();
        match allowed {
            Some(allowed) => allowed.iter().take_while(|&row| row < len).for_each(&mut look),
            None => (0..len).for_each(&mut look),
        }
        top.drain_into(out);
    }

    fn row(&self, row: u32) -> &Row {
        let (chunk, at) = place(row);
        self.chunks[chunk].get().and_then(|chunk| chunk[at].get()).expect("the row is below `len`")
    }
}

/// A head is what a segment is written from.
impl crate::Vectors for Head {
    fn len(&self) -> u32 {
        self.len()
    }

    fn get(&self, row: u32, into: &mut [f32]) {
        self.vector(row, into);
    }
}

/// The chunk of a row, and where it lies in it: chunk c begins at row 64 · (2^c − 1).
fn place(row: u32) -> (usize, usize) {
    let shifted = u64::from(row) + u64::from(FIRST);
    let chunk = shifted.ilog2() - FIRST.ilog2();
    (
        chunk as usize,
        usize::try_from(shifted - (u64::from(FIRST) << chunk)).expect("below the size of its chunk"),
    )
}
