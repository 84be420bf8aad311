//! Vectors in 8 bits a number, for looking at many of them quickly.
//!
//! The vectors' mean is taken off, which changes no distance and leaves smaller numbers. What remains is rounded to -127 to 127 steps; a
//! step is the row's largest number divided by 127. So a row stands for a point near its own, and the square of the distance of two such points is
//!
//! `|a|² + |b|² - 2 · step(a) · step(b) · ⟨codes(a), codes(b)⟩`
//!
//! which takes one inner product of small integers. Since both points are within a known error of the true ones, so is their distance
//! (triangle inequality): near rows are judged more finely than far ones.
//!
//! For inner products as a metric, the mean is taken off the rows only (`⟨q, x - m⟩` ranks as `⟨q, x⟩` does). Rows are linked as if each had one
//! more number, which makes all equally long: then the nearest by angle is the one with the largest inner product
//! ([Bachrach et al. 2014](https://doi.org/10.1145/2645710.2645741)). That number is 0 in queries.

use lakehouse_contract::vectors::Metric;

use crate::simd::{BLOCK, Block, Simd};

/// What is taken off a code that is kept, so that it has no sign.
const BIAS: u8 = 128;

/// How vectors of a segment become codes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) metric: Metric,
    pub(crate) mean: Vec<f32>,
}

/// What belongs to a row's codes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Coded {
    pub(crate) step: f32,
    /// The length of the point that the codes stand for, squared.
    pub(crate) square: f32,
    /// How far that point is from the true one.
    pub(crate) error: f32,
}

impl Frame {
    /// Bytes of a row.
    pub(crate) fn stride(&self) -> usize {
        self.mean.len().next_multiple_of(BLOCK)
    }

    /// Codes a row (of length 1 under cosine).
    pub(crate) fn row(&self, vector: &[f32], into: &mut [u8]) -> Coded {
        into.fill(BIAS);
        code(vector.iter().zip(&self.mean).map(|(number, mean)| number - mean), |at, code| {
            into[at] = code.cast_unsigned() ^ BIAS;
        })
    }

    /// What is kept of a row beside its codes.
    pub(crate) fn terms(&self, coded: Coded) -> [f32; 2] {
        [coded.step, if self.metric == Metric::Dot { 0.0 } else { coded.square }]
    }

    /// Codes a query (of length 1 under cosine).
    pub(crate) fn query(&self, vector: &[f32], target: &mut Target) {
        target.codes.clear();
        target.codes.resize(self.stride() / BLOCK, Block([0; BLOCK]));
        let shift = if self.metric == Metric::Dot { 0.0 } else { 1.0 };
        let numbers = vector.iter().zip(&self.mean).map(|(number, mean)| number - shift * mean);
        let blocks = &mut target.codes;
        let coded = code(numbers, |at, code| blocks[at / BLOCK].0[at % BLOCK] = code);
        target.complete(coded, 0.0);
    }
}

/// Rounds numbers to steps.
#[expect(clippy::cast_possible_truncation, reason = "at most 127 by the choice of the step")]
fn code(numbers: impl Iterator<Item = f32> + Clone, mut put: impl FnMut(usize, i8)) -> Coded {
    let largest = numbers.clone().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let step = largest / 127.0;
    // Numbers so small have no digits left to code: they stand for zeros.
    let step = if step < f32::MIN_POSITIVE { 1.0 } else { step };
    let (mut square, mut error) = (0.0, 0.0);
    for (at, number) in numbers.enumerate() {
        let code = (number / step).round_ties_even();
        put(at, code as i8);
        let off = number - code * step;
        square += code * code;
        error += off * off;
    }
    Coded { step, square: square * step * step, error: error.sqrt() }
}

/// What rows are compared with: a query, or another row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    codes: Vec<Block>,
    pub(crate) coded: Coded,
    /// What the rows' bias adds to an inner product.
    excess: i32,
    extra: f32,
}

impl Target {
    fn complete(&mut self, coded: Coded, extra: f32) {
        let sum: i32 =
            self.codes.iter().map(|block| block.0.iter().map(|&code| i32::from(code)).sum::<i32>()).sum();
        (self.coded, self.excess, self.extra) = (coded, sum * i32::from(BIAS), extra);
    }
}

/// The coded rows of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    pub(crate) simd: Simd,
    pub(crate) stride: usize,
    pub(crate) bytes: &'a [u8],
    /// Of each row the step, and what its length adds to a score: its square, or 0 where the metric is the inner product.
    pub(crate) terms: &'a [[f32; 2]],
    /// The number that makes rows equally long; only while rows are linked by inner products.
    pub(crate) extra: &'a [f32],
}

impl Codes<'_> {
    /// Makes a row the target.
    pub(crate) fn row(&self, row: u32, target: &mut Target) {
        let from = row as usize * self.stride;
        let codes = self.bytes[from..from + self.stride].as_chunks::<BLOCK>().0;
        target.codes.clear();
        target.codes.extend(codes.iter().map(|codes| Block(codes.map(|code| (code ^ BIAS).cast_signed()))));
        let [step, square] = self.terms[row as usize];
        let extra = self.extra.get(row as usize).copied().unwrap_or(0.0);
        target.complete(Coded { step, square, error: 0.0 }, extra);
    }

    /// The numbers of the point that a row's codes stand for.
    pub(crate) fn read(&self, row: u32, mean: &[f32], into: &mut [f32]) {
        let [step, _] = self.terms[row as usize];
        let codes = &self.bytes[row as usize * self.stride..][..self.stride];
        for ((number, mean), &code) in into.iter_mut().zip(mean).zip(codes) {
            *number = f32::from((code ^ BIAS).cast_signed()) * step + mean;
        }
    }

    /// How far rows are from the target: squares of distances, or what ranks as the inner product does.
    pub(crate) fn scores(&self, target: &Target, rows: &[u32], dots: &mut Vec<i32>, out: &mut Vec<f32>) {
        self.simd.dots(self.bytes, self.stride, &target.codes, rows, dots);
        out.clear();
        let twice = -2.0 * target.coded.step;
        out.extend(dots.iter().zip(rows).map(|(dot, &row)| {
            let [step, square] = self.terms[row as usize];
            target.coded.square + square + twice * step * (dot - target.excess) as f32
        }));
        if !self.extra.is_empty() {
            for (score, &row) in out.iter_mut().zip(rows) {
                *score -= 2.0 * target.extra * self.extra[row as usize];
            }
        }
    }
}

/// How near to its score the distance of a row must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margin {
    metric: Metric,
    /// By which the codes of a query and of any row can be off together.
    most: f32,
    /// By which they are off in one direction: the standard deviation.
    usual: f32,
    /// By which rounding can change a score.
    rounding: f32,
    /// What is to be taken off an inner product's score.
    shift: f32,
}

/// What is true of all rows of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Extremes {
    pub(crate) error: f32,
    pub(crate) step: f32,
    pub(crate) length: f32,
}

impl Extremes {
    pub(crate) fn include(&mut self, coded: Coded) {
        let Coded { step, square, error } = coded;
        self.error = self.error.max(error);
        self.step = self.step.max(step);
        self.length = self.length.max(square.sqrt() + error);
    }
}

impl Margin {
    /// Of a query among rows of these extremes.
    pub(crate) fn new(frame: &Frame, query: &[f32], target: &Target, rows: Extremes) -> Self {
        let Coded { step, square, error } = target.coded;
        let Extremes { error: row_error, step: row_step, length: row_length } = rows;
        let (most, usual, shift) = match frame.metric {
            Metric::Cosine | Metric::Euclidean => {
                (error + row_error, ((step * step + row_step * row_step) / 12.0).sqrt(), 0.0)
            }
            Metric::Dot => {
                let length = square.sqrt() + error;
                let usual = ((row_length * step).powi(2) + (length * row_step).powi(2)) / 12.0;
                let mean: f32 = query.iter().zip(&frame.mean).map(|(number, mean)| number * mean).sum();
                (error * row_length + length * row_error, usual.sqrt(), mean + square / 2.0)
            }
        };
        let rounding = 4e-6 * (square + row_length * row_length + shift.abs());
        Self { metric: frame.metric, most, usual, rounding, shift }
    }

    /// The least distance that a row of this score has for certain.
    pub(crate) fn surely(&self, score: f32) -> f32 {
        self.least(score, |_| self.most)
    }

    /// The least distance that a row of this score has but for one of some ten thousand: what rounding adds to all lengths, and four standard deviations.
    pub(crate) fn hardly(&self, score: f32) -> f32 {
        self.least(score, |far| (self.most * self.most / (2.0 * far) + 4.0 * self.usual).min(self.most))
    }

    fn least(&self, score: f32, off: impl Fn(f32) -> f32) -> f32 {
        let score = score - self.rounding;
        if self.metric == Metric::Dot {
            return score / 2.0 - self.shift - off(f32::INFINITY);
        }
        let far = score.max(0.0).sqrt();
        let far = (far - off(far)).max(0.0);
        if self.metric == Metric::Cosine { far * far / 2.0 } else { far }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_too_small_for_a_step_stand_for_zeros() {
        for number in [0.0, f32::from_bits(1), f32::MIN_POSITIVE] {
            let coded = code([number, -number].into_iter(), |_, code| assert_eq!(code, 0));
            assert!((coded.step - 1.0).abs() < f32::EPSILON && coded.square == 0.0, "{coded:?}");
            assert!(coded.error.is_finite());
        }
    }
}
