//! The graph of a segment, and walks through it: HNSW ([Malkov & Yashunin](https://arxiv.org/abs/1603.09320)), laid out flat.
//!
//! Every row is a node of the base. Every M-th of these, on average, is a member of the first upper layer too, every M-th of those of the
//! second, and so on. Members are numbered anew, those of the highest layer first, so that each layer is the beginning of the one below it and
//! has no need of a map. A node's links lie side by side, filled up with [`NONE`].

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use crate::{
    codes::{Codes, Target},
    simd::prefetch,
};

/// The end of a list that is not full.
pub(crate) const NONE: u32 = u32::MAX;

/// One layer's links.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// Places for links of a node.
    pub(crate) width: usize,
    pub(crate) links: &'a [u32],
}

impl<'a> Layer<'a> {
    pub(crate) fn nodes(&self) -> usize {
        self.links.len() / self.width
    }

    pub(crate) fn places(&self, node: u32) -> &'a [u32] {
        &self.links[node as usize * self.width..][..self.width]
    }

    pub(crate) fn of(&self, node: u32) -> impl Iterator<Item = u32> + use<'a> {
        self.places(node).iter().copied().take_while(|&link| link != NONE)
    }
}

/// All layers over their rows.
pub(crate) struct Graph<'a> {
    pub(crate) base: Layer<'a>,
    /// From the lowest.
    pub(crate) upper: Vec<Layer<'a>>,
    /// The row of each member of the upper layers.
    pub(crate) members: &'a [u32],
}

/// A node with its score as one number: nearer ones are smaller, and equally near ones are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Near(u64);

impl Near {
    const WALKED: u64 = 1;

    pub(crate) fn new(score: f32, node: u32) -> Self {
        let bits = score.to_bits();
        // Floats as integers of the same order: all bits of negative ones turned, the sign of positive ones.
        let rank = bits ^ ((bits.cast_signed() >> 31).cast_unsigned() | 0x8000_0000);
        Self(u64::from(rank) << 32 | u64::from(node) << 1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is taken")]
    pub(crate) fn node(self) -> u32 {
        self.0 as u32 >> 1
    }

    pub(crate) fn score(self) -> f32 {
        let rank = (self.0 >> 32) as u32;
        f32::from_bits(rank ^ (!(rank.cast_signed() >> 31).cast_unsigned() | 0x8000_0000))
    }

    fn walked(self) -> bool {
        self.0 & Self::WALKED != 0
    }
}

/// The nearest nodes that a walk has met, in order.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    most: usize,
    near: Vec<Near>,
}

impl Pool {
    pub(crate) fn clear(&mut self, most: usize) {
        self.most = most;
        self.near.clear();
    }

    pub(crate) fn nodes(&self) -> &[Near] {
        &self.near
    }

    /// Whether a node is among the nearest.
    #[inline]
    pub(crate) fn takes(&self, near: Near) -> bool {
        self.near.len() < self.most || self.near.last().is_some_and(|&last| near < last)
    }

    /// Takes a node if it is among the nearest, and says where it stands then.
    #[inline]
    pub(crate) fn offer(&mut self, near: Near) -> Option<usize> {
        if !self.takes(near) {
            return None;
        }
        if self.near.len() == self.most {
            self.near.pop();
        }
        let at = self.near.partition_point(|&other| other < near);
        self.near.insert(at, near);
        Some(at)
    }
}

/// Which nodes were met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    words: Vec<u64>,
}

impl Met {
    pub(crate) fn clear(&mut self, nodes: usize) {
        self.words.clear();
        self.words.resize(nodes.div_ceil(64), 0);
    }

    pub(crate) fn contains(&self, node: u32) -> bool {
        self.words[node as usize / 64] & 1 << (node % 64) != 0
    }

    /// Whether it is new.
    #[inline]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let (word, bit) = (&mut self.words[node as usize / 64], 1 << (node % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// What a walk needs, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) target: Target,
    pub(crate) pool: Pool,
    pub(crate) met: Met,
    pub(crate) fresh: Vec<u32>,
    pub(crate) rows: Vec<u32>,
    pub(crate) dots: Vec<i32>,
    pub(crate) scores: Vec<f32>,
    /// For choosing among candidates.
    pub(crate) other: Target,
    pub(crate) left: Vec<(f32, u32)>,
    /// For walks among allowed rows.
    pub(crate) ahead: BinaryHeap<Reverse<Near>>,
    pub(crate) allowed: Met,
    /// For looking at everything, and for measuring.
    pub(crate) scanned: Vec<Near>,
    pub(crate) numbers: Vec<f32>,
}

/// Lends this thread's scratch.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(work)
}

impl Graph<'_> {
    /// From the top to the layer above `layer`: the member there that a walk to the nearest ends at.
    pub(crate) fn descend(&self, codes: &Codes<'_>, layer: usize, scratch: &mut Scratch) -> u32 {
        let Scratch { target, rows, fresh, dots, scores, .. } = scratch;
        let mut at = 0;
        codes.scores(target, &self.members[..1], dots, scores);
        let mut best = Near::new(scores[0], 0);
        for upper in self.upper.iter().skip(layer).rev() {
            loop {
                fresh.clear();
                fresh.extend(upper.of(at));
                rows.clear();
                rows.extend(fresh.iter().map(|&member| self.members[member as usize]));
                codes.scores(target, rows, dots, scores);
                for (&score, &member) in scores.iter().zip(&*fresh) {
                    best = best.min(Near::new(score, member));
                }
                if best.node() == at {
                    break;
                }
                at = best.node();
            }
        }
        at
    }

    /// Walks a layer (0 is the base) from `entry` to the nearest nodes: `scratch.pool` has at most `ef` of them then, by the layer's own numbers.
    pub(crate) fn walk(&self, codes: &Codes<'_>, layer: usize, entry: u32, ef: usize, scratch: &mut Scratch) {
        let Scratch { target, pool, met, fresh, rows, dots, scores, .. } = scratch;
        let (links, members) = match layer {
            0 => (self.base, None),
            upper => (self.upper[upper - 1], Some(self.members)),
        };
        pool.clear(ef);
        met.clear(links.nodes());
        met.insert(entry);
        let row = members.map_or(entry, |members| members[entry as usize]);
        codes.scores(target, &[row], dots, scores);
        pool.offer(Near::new(scores[0], entry));
        let mut next = 0;
        while let Some(near) = pool.near.get_mut(next) {
            let node = near.node();
            near.0 |= Near::WALKED;
            if let Some(after) = pool.near.get(next + 1) {
                prefetch(links.places(after.node()));
            }
            fresh.clear();
            fresh.extend(links.of(node).filter(|&link| met.insert(link)));
            match members {
                None => codes.scores(target, fresh, dots, scores),
                Some(members) => {
                    rows.clear();
                    rows.extend(fresh.iter().map(|&member| members[member as usize]));
                    codes.scores(target, rows, dots, scores);
                }
            }
            let mut first = next + 1;
            for (&score, &node) in scores.iter().zip(&*fresh) {
                if let Some(at) = pool.offer(Near::new(score, node)) {
                    first = first.min(at);
                }
            }
            next = first;
            while pool.near.get(next).is_some_and(|near| near.walked()) {
                next += 1;
            }
        }
    }
}
