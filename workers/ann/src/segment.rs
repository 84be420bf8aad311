//! An immutable segment: mapped, and searched by any number of threads at once.

use lakehouse_contract::vectors::Shape;
use roaring::RoaringBitmap;

use crate::{Hit, Query, Result, kept::Kept, sections::File, top::Top, write::About};

/// The vectors of a file that [`write`](crate::write) has made.
pub struct Segment {
    rows: u32,
    kept: Kept,
}

impl Segment {
    /// Opens the vector sections of a file. They must be of this shape; its graph parameters may differ.
    pub fn open(shape: &Shape, file: &File) -> Result<Self> {
        let rows = About::rows(shape, file)?;
        Ok(Self { rows, kept: Kept::open(shape, rows, file)? })
    }

    /// How many rows it has.
    pub fn len(&self) -> u32 {
        self.rows
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A row's numbers: as given, but for what the quantization loses.
    ///
    /// # Panics
    /// When there is no such row, or `into` has another dimension.
    pub fn vector(&self, row: u32, into: &mut [f32]) {
        self.kept.read(row, into);
    }

    /// Puts the nearest `k` rows into `out`, nearest first, instead of what is there; among those `allowed`, where that is given. These are
    /// exactly `k`, or as many as are allowed. `ef` is how many candidates are looked at: more find true neighbours more surely.
    /// Rows beyond the segment may be allowed, and mean nothing.
    pub fn search(
        &self,
        query: &Query,
        k: usize,
        _ef: usize,
        allowed: Option<&RoaringBitmap>,
        out: &mut Vec<Hit>,
    ) {
        let mut top = Top::new(k);
        let mut scratch = Vec::new();
        let mut look = |row| top.offer(Hit { row, distance: self.kept.distance(query, row, &mut scratch) });
        match allowed {
            Some(allowed) => allowed.iter().take_while(|&row| row < self.rows).for_each(&mut look),
            None => (0..self.rows).for_each(&mut look),
        }
        top.drain_into(out);
    }
}
