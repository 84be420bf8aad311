//! The numbers that distances are finally measured by, as an index's quantization keeps them.
//!
//! | quantization | a row |
//! |---|---|
//! | none | `f32` as given |
//! | f16 | of length 1, as `f16`, so that no number is too large |
//! | int8 | its codes, which the graph is walked by too |
//!
//! The length of a row as it was given lies apart.

use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use lakehouse_contract::vectors::{Metric, Quantization, Shape};

use crate::{
    Error, Query, Result, Vectors,
    codes::Codes,
    query::{bring_back, check},
    sections::{Column, File, Name, Writer},
};

const NUMBERS: Name = *b"ann.kept";
const LENGTHS: Name = *b"ann.leng";

/// The kept numbers of a segment.
pub(crate) struct Kept {
    metric: Metric,
    dimension: usize,
    numbers: Numbers,
    lengths: Column<f32>,
}

enum Numbers {
    Full(Column<f32>),
    Half(Column<u16>),
    Codes { mean: Vec<f32> },
}

/// Writes numbers and lengths of all vectors. Checks each.
pub(crate) fn write(shape: &Shape, vectors: &dyn Vectors, to: &mut Writer) -> Result<Vec<f32>> {
    let mut vector = vec![0.0; shape.dimension as usize];
    let mut halves = vec![f16::ZERO; vector.len()];
    let mut lengths = Vec::with_capacity(vectors.len() as usize);
    let mut section = to.section(NUMBERS)?;
    for row in 0..vectors.len() {
        vectors.get(row, &mut vector);
        let length = check(shape, &vector).map_err(|error| Error::Vector { row, error })?;
        lengths.push(length);
        match shape.quantization {
            Quantization::None => section.put_all(&vector)?,
            Quantization::F16 => {
                to_halves(&mut vector, length, &mut halves);
                section.put_all::<u16>(halves.reinterpret_cast())?;
            }
            Quantization::Int8 => {}
        }
    }
    to.put_section(LENGTHS, bytemuck::cast_slice(&lengths))?;
    Ok(lengths)
}

fn to_halves(vector: &mut [f32], length: f32, halves: &mut [f16]) {
    if length > 0.0 {
        for number in vector.iter_mut() {
            *number /= length;
        }
    }
    halves.convert_from_f32_slice(vector);
}

/// What is coded of a vector: what is kept of it, of length 1 under cosine.
pub(crate) fn settle(shape: &Shape, vector: &mut [f32], length: f32, halves: &mut [f16]) {
    let back = if shape.metric == Metric::Cosine { 1.0 } else { length };
    match shape.quantization {
        Quantization::F16 => {
            to_halves(vector, length, halves);
            halves.convert_to_f32_slice(vector);
            for number in vector {
                *number *= back;
            }
        }
        Quantization::None | Quantization::Int8 if shape.metric == Metric::Cosine => {
            for number in vector {
                *number /= length;
            }
        }
        Quantization::None | Quantization::Int8 => {}
    }
}

impl Kept {
    /// Finds the sections and checks their sizes.
    pub(crate) fn open(shape: &Shape, rows: u32, mean: &[f32], file: &File) -> Result<Self> {
        let dimension = shape.dimension as usize;
        let numbers = match shape.quantization {
            Quantization::None => Numbers::Full(file.column(NUMBERS, rows as usize * dimension)?),
            Quantization::F16 => Numbers::Half(file.column(NUMBERS, rows as usize * dimension)?),
            Quantization::Int8 => Numbers::Codes { mean: mean.to_vec() },
        };
        let lengths = file.column(LENGTHS, rows as usize)?;
        Ok(Self { metric: shape.metric, dimension, numbers, lengths })
    }

    /// A row's numbers: as given, but for what the quantization loses. They pass the door again.
    pub(crate) fn read(&self, codes: &Codes<'_>, row: u32, into: &mut [f32]) {
        self.read_shortened(codes, row, into);
        let length = self.lengths[row as usize];
        let short = match self.numbers {
            Numbers::Full(_) => false,
            Numbers::Half(_) => true,
            Numbers::Codes { .. } => self.metric == Metric::Cosine,
        };
        if short {
            for number in into.iter_mut() {
                *number *= length;
            }
        }
        if !matches!(self.numbers, Numbers::Full(_)) {
            bring_back(self.metric, into);
        }
    }

    /// How far a row is from the query, exactly for the numbers that are kept.
    pub(crate) fn distance(&self, codes: &Codes<'_>, query: &Query, row: u32, scratch: &mut Vec<f32>) -> f32 {
        let at = row as usize;
        if let Numbers::Full(numbers) = &self.numbers {
            let numbers = &numbers[at * self.dimension..][..self.dimension];
            return query.distance(codes.simd, numbers, self.lengths[at]);
        }
        scratch.resize(self.dimension, 0.0);
        self.read_shortened(codes, row, scratch);
        match self.metric {
            // What was of length 1 is so no more, after rounding.
            Metric::Cosine => query.distance(codes.simd, scratch, codes.simd.dot(scratch, scratch).sqrt()),
            Metric::Euclidean | Metric::Dot => {
                if let Numbers::Half(_) = self.numbers {
                    let length = self.lengths[at];
                    for number in scratch.iter_mut() {
                        *number *= length;
                    }
                }
                query.distance(codes.simd, scratch, 1.0)
            }
        }
    }

    /// A row's numbers as they lie there.
    fn read_shortened(&self, codes: &Codes<'_>, row: u32, into: &mut [f32]) {
        let from = row as usize * self.dimension;
        match &self.numbers {
            Numbers::Full(numbers) => into.copy_from_slice(&numbers[from..from + self.dimension]),
            Numbers::Half(numbers) => {
                numbers[from..from + self.dimension].reinterpret_cast::<f16>().convert_to_f32_slice(into);
            }
            Numbers::Codes { mean } => codes.read(row, mean, into),
        }
    }
}
