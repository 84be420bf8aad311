//! Walks that look for some of the rows only.
//!
//! Where a third of the rows or more are allowed, all are walked over and those allowed are collected. Where fewer are, a walk steps from allowed
//! to allowed, over others in between ([ACORN](https://arxiv.org/abs/2403.04871)), and scores no other. Both end when nothing
//! that is left is nearer than the farthest collected. Where very few are, a scan of them is faster, see [`scan_below`].

use std::cmp::Reverse;

use crate::{
    codes::Codes,
    graph::{Graph, Near, Scratch},
    simd::prefetch,
};

/// What a walk over two links at a time takes from one node at most.
const MOST_FRESH: usize = 64;

/// Up to so many matches are scanned. As measured, a walk takes as long as scoring √(200 · rows) of them; and where fewer than one of 32 is
/// allowed, two links lead to too few.
pub(crate) fn scan_below(rows: u32) -> u64 {
    let rows = u64::from(rows);
    (rows * 200).isqrt().max(rows / 32)
}

/// How a walk deals with rows that are not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    /// Walks over all.
    Through,
    /// Walks over two links where the first leads to a row that is not allowed.
    Over,
}

impl Steps {
    pub(crate) fn for_share(matches: u64, rows: u32) -> Self {
        if matches * 3 >= u64::from(rows) { Self::Through } else { Self::Over }
    }
}

impl Graph<'_> {
    /// Walks the base from `entry` to the nearest nodes that are allowed: `scratch.pool` has at most `ef` of them then.
    pub(crate) fn walk_allowed(
        &self,
        codes: &Codes<'_>,
        entry: u32,
        ef: usize,
        steps: Steps,
        allowed: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) {
        let Scratch { target, pool, met, fresh, dots, scores, ahead, .. } = scratch;
        pool.clear(ef);
        met.clear(self.base.nodes());
        ahead.clear();
        met.insert(entry);
        codes.scores(target, &[entry], dots, scores);
        let first = Near::new(scores[0], entry);
        ahead.push(Reverse(first));
        if allowed(entry) {
            pool.offer(first);
        }
        while let Some(Reverse(near)) = ahead.pop() {
            if !pool.takes(near) {
                break;
            }
            fresh.clear();
            let links = self.base.of(near.node()).filter(|&link| met.insert(link));
            match steps {
                Steps::Through => fresh.extend(links),
                Steps::Over => {
                    let mut over = [0; MOST_FRESH];
                    let mut others = 0;
                    for link in links {
                        if allowed(link) {
                            fresh.push(link);
                        } else if others < over.len() {
                            prefetch(self.base.places(link));
                            over[others] = link;
                            others += 1;
                        }
                    }
                    for &between in &over[..others] {
                        if fresh.len() >= MOST_FRESH {
                            break;
                        }
                        fresh.extend(self.base.of(between).filter(|&link| allowed(link) && met.insert(link)));
                    }
                }
            }
            codes.scores(target, fresh, dots, scores);
            for (&score, &node) in scores.iter().zip(&*fresh) {
                let near = Near::new(score, node);
                if pool.takes(near) {
                    ahead.push(Reverse(near));
                    if steps == Steps::Over || allowed(node) {
                        pool.offer(near);
                    }
                }
            }
        }
    }
}
