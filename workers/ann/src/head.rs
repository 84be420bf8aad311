//! The vectors that came last: they can be found as soon as they are pushed, by an exact scan.
//!
//! A reader sees the rows there were when it began, and never waits for a writer. Whenever a block of rows is full its codes are put side by
//! side; a scan looks at those, and measures only the rows that by their codes may be among the nearest.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use lakehouse_contract::vectors::{Metric, Shape};
use roaring::RoaringBitmap;

use crate::{
    BadVector, Hit, Query, check,
    codes::{Codes, Extremes, Frame, Margin},
    graph::{Scratch, with_scratch},
    growing::Growing,
    simd::Simd,
    top::Top,
};

/// Rows of a block.
const BLOCK: u32 = 256;

struct Row {
    numbers: Box<[f32]>,
    length: f32,
}

/// Codes of a run of rows.
#[derive(Clone, Default)]
struct Block {
    bytes: Vec<u8>,
    terms: Vec<[f32; 2]>,
    extremes: Extremes,
}

/// Vectors in memory, in the order they came.
pub struct Head {
    shape: Shape,
    frame: Frame,
    simd: Simd,
    rows: Growing<Row>,
    /// Full ones.
    blocks: Growing<Block>,
    len: AtomicU32,
    /// The codes of the rows behind the last full block; who writes has it.
    filling: Mutex<Block>,
}

impl Head {
    /// An empty one.
    pub fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            // The mean of rows to come is not known.
            frame: Frame { metric: shape.metric, mean: vec![0.0; shape.dimension as usize] },
            simd: Simd::best(),
            rows: Growing::new(),
            blocks: Growing::new(),
            len: AtomicU32::new(0),
            filling: Mutex::default(),
        }
    }

    /// Adds a vector and gives its row; the search that begins next finds it.
    pub fn push(&self, vector: &[f32]) -> Result<u32, BadVector> {
        let length = check(&self.shape, vector)?;
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.len.load(Ordering::Relaxed);
        let after = row.checked_add(1).expect("a head is made into a segment long before");
        self.code(vector, length, &mut filling);
        self.rows.set(row as usize, Row { numbers: vector.into(), length });
        if after.is_multiple_of(BLOCK) {
            self.blocks.set((row / BLOCK) as usize, std::mem::take(&mut *filling));
        }
        self.len.store(after, Ordering::Release);
        Ok(row)
    }

    fn code(&self, vector: &[f32], length: f32, filling: &mut Block) {
        let from = filling.bytes.len();
        filling.bytes.resize(from + self.frame.stride(), 0);
        let coded = if self.shape.metric == Metric::Cosine {
            let short: Vec<f32> = vector.iter().map(|number| number / length).collect();
            self.frame.row(&short, &mut filling.bytes[from..])
        } else {
            self.frame.row(vector, &mut filling.bytes[from..])
        };
        filling.terms.push(self.frame.terms(coded));
        filling.extremes.include(coded);
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
        let len = self.len();
        let coded = len - len % BLOCK;
        let mut top = Top::new(k);
        with_scratch(|scratch| {
            self.frame.query(query.numbers(), &mut scratch.target);
            // Those without codes first: what they leave to be found is less.
            fill(&mut scratch.rows, coded..len, allowed);
            for &row in &scratch.rows {
                self.measure(query, row, &mut top);
            }
            for block in 0..coded / BLOCK {
                self.scan(query, block, allowed, &mut top, scratch);
            }
        });
        top.drain_into(out);
    }

    fn scan(
        &self,
        query: &Query,
        at: u32,
        allowed: Option<&RoaringBitmap>,
        top: &mut Top,
        scratch: &mut Scratch,
    ) {
        let Some(Block { bytes, terms, extremes }) = self.blocks.get(at as usize) else { return };
        let first = at * BLOCK;
        let Scratch { target, rows, dots, scores, .. } = scratch;
        fill(rows, first..first + BLOCK, allowed);
        for row in rows.iter_mut() {
            *row -= first;
        }
        let codes = Codes { simd: self.simd, stride: self.frame.stride(), bytes, terms, extra: &[] };
        codes.scores(target, rows, dots, scores);
        let margin = Margin::new(&self.frame, query.numbers(), target, *extremes);
        for (&score, &row) in scores.iter().zip(&*rows) {
            if margin.surely(score) <= top.bound() {
                self.measure(query, first + row, top);
            }
        }
    }

    fn measure(&self, query: &Query, row: u32, top: &mut Top) {
        let Row { numbers, length } = self.row(row);
        top.offer(Hit { row, distance: query.distance(self.simd, numbers, *length) });
    }

    fn row(&self, row: u32) -> &Row {
        self.rows.get(row as usize).expect("the row is below `len`")
    }
}

fn fill(rows: &mut Vec<u32>, range: std::ops::Range<u32>, allowed: Option<&RoaringBitmap>) {
    rows.clear();
    match allowed {
        Some(allowed) => rows.extend(allowed.range(range)),
        None => rows.extend(range),
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
