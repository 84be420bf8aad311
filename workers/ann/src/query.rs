//! Vectors at the door: checked once, and normalised once where the metric asks for it.

use lakehouse_contract::vectors::{Metric, Shape};

use crate::{BadVector, simd::Simd};

/// Squares of longer ones come too near to the end of what 32 bits hold.
const LONGEST: f64 = 1e18;
/// Shorter ones have too few digits left in 32 bits to have a direction.
const SHORTEST: f64 = 1e-18;
/// So far within these limits, rounding to 32 bits does not lead out again.
const INSIDE: f64 = 1e-6;

/// Checks that an index of this shape can keep a vector, and gives its length (its Euclidean norm).
pub fn check(shape: &Shape, vector: &[f32]) -> Result<f32, BadVector> {
    if vector.len() != shape.dimension as usize {
        return Err(BadVector::Length { expected: shape.dimension, found: vector.len() });
    }
    let square: f64 = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if !square.is_finite() {
        let bad = vector.iter().position(|value| !value.is_finite());
        let index = bad.expect("squares of finite 32-bit numbers do not overflow 64 bits");
        return Err(BadVector::NotFinite { index, value: vector[index] });
    }
    let length = square.sqrt();
    if length > LONGEST {
        return Err(BadVector::TooLong);
    }
    if length < SHORTEST && shape.metric == Metric::Cosine {
        return Err(BadVector::Zero);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is at most 1e18, and precise enough")]
    Ok(length as f32)
}

/// Brings numbers that rounding has led a little beyond what [`check`] takes back within it, so that what is read can be written again.
pub(crate) fn bring_back(metric: Metric, numbers: &mut [f32]) {
    let square: f64 = numbers.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    let length = square.sqrt();
    let limit = if length > LONGEST {
        LONGEST * (1.0 - INSIDE)
    } else if metric == Metric::Cosine && length > 0.0 && length < SHORTEST {
        SHORTEST * (1.0 + INSIDE)
    } else {
        return;
    };
    for number in numbers {
        #[expect(clippy::cast_possible_truncation, reason = "`INSIDE` is more than what is cut")]
        let back = (f64::from(*number) * (limit / length)) as f32;
        *number = back;
    }
}

/// A vector to search for, in the form that distances are measured in.
#[derive(Clone, Debug)]
pub struct Query {
    metric: Metric,
    /// Of length 1 under cosine.
    numbers: Box<[f32]>,
}

impl Query {
    /// Checks a vector and prepares it.
    pub fn new(shape: &Shape, vector: &[f32]) -> Result<Self, BadVector> {
        let length = check(shape, vector)?;
        let mut numbers: Box<[f32]> = vector.into();
        if shape.metric == Metric::Cosine {
            for number in &mut numbers {
                *number /= length;
            }
        }
        Ok(Self { metric: shape.metric, numbers })
    }

    /// Its numbers.
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// The distance to a vector of this length, as [`Metric`] defines it.
    pub(crate) fn distance(&self, simd: Simd, vector: &[f32], length: f32) -> f32 {
        match self.metric {
            // Rounding may lead a little outside.
            Metric::Cosine => (1.0 - simd.dot(&self.numbers, vector) / length).clamp(0.0, 2.0),
            Metric::Euclidean => simd.square(&self.numbers, vector).sqrt(),
            Metric::Dot => -simd.dot(&self.numbers, vector),
        }
    }
}
