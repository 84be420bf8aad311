//! The nearest of what is offered, exactly.

use std::{cmp::Ordering, collections::BinaryHeap};

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which row.
    pub row: u32,
    /// Its distance from the query by the index's metric; smaller is nearer.
    pub distance: f32,
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By distance; equally far ones by row, so that equal searches give equal answers.
impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.row.cmp(&other.row))
    }
}

/// Keeps the nearest `k`.
pub(crate) struct Top {
    k: usize,
    /// The farthest on top.
    heap: BinaryHeap<Hit>,
}

impl Top {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::with_capacity(k.min(1024)) }
    }

    pub(crate) fn offer(&mut self, hit: Hit) {
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && hit < *farthest
        {
            *farthest = hit;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// What is farther than this changes nothing any more.
    pub(crate) fn bound(&self) -> f32 {
        match self.heap.peek() {
            _ if self.heap.len() < self.k => f32::INFINITY,
            Some(farthest) => farthest.distance,
            None => f32::NEG_INFINITY,
        }
    }

    /// Puts them into `out`, nearest first, instead of what is there.
    pub(crate) fn drain_into(self, out: &mut Vec<Hit>) {
        out.clear();
        out.extend(self.heap);
        out.sort_unstable();
    }
}
