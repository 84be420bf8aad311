//! The numbers that distances are finally measured by, as an index's quantization keeps them.
//!
//! | quantization | a row |
//! |---|---|
//! | none | `f32` as given |
//! | f16 | of length 1, as `f16`; its length apart, so that no number is too large |
//! | int8 | `i8`, times a step of its own: the largest number divided by 127 |

use bytemuck::Pod;
use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use lakehouse_contract::vectors::{Quantization, Shape};

use crate::{
    Error, Query, Result, Vectors, kernel,
    query::check,
    sections::{self, File, Name},
};

const NUMBERS: Name = *b"ann.kept";
const LENGTHS: Name = *b"ann.leng";
const STEPS: Name = *b"ann.step";

/// The kept numbers of a segment.
pub(crate) struct Kept {
    file: File,
    dimension: usize,
    quantization: Quantization,
}

impl Kept {
    /// Writes the numbers and lengths of all vectors. Checks each.
    pub(crate) fn write(shape: &Shape, vectors: &dyn Vectors, to: &mut sections::Writer) -> Result<()> {
        let mut vector = vec![0.0; shape.dimension as usize];
        let mut lengths = Vec::with_capacity(vectors.len() as usize);
        let mut steps = Vec::new();
        let mut halves = vec![f16::ZERO; vector.len()];
        let mut eighths = vec![0_i8; vector.len()];
        let mut section = to.section(NUMBERS)?;
        for row in 0..vectors.len() {
            vectors.get(row, &mut vector);
            let length = check(shape, &vector).map_err(|error| Error::Vector { row, error })?;
            lengths.push(length);
            match shape.quantization {
                Quantization::None => section.put_all(&vector)?,
                Quantization::F16 => {
                    if length > 0.0 {
                        for number in &mut vector {
                            *number /= length;
                        }
                    }
                    halves.convert_from_f32_slice(&vector);
                    section.put_all::<u16>(halves.reinterpret_cast())?;
                }
                Quantization::Int8 => {
                    steps.push(into_eighths(&vector, &mut eighths));
                    section.put_all(&eighths)?;
                }
            }
        }
        to.put_section(LENGTHS, bytemuck::cast_slice(&lengths))?;
        to.put_section(STEPS, bytemuck::cast_slice(&steps))
    }

    /// Finds the sections and checks their sizes.
    pub(crate) fn open(shape: &Shape, rows: u32, file: &File) -> Result<Self> {
        let kept = Self {
            file: file.clone(),
            dimension: shape.dimension as usize,
            quantization: shape.quantization,
        };
        let (rows, wide) = (rows as usize, rows as usize * kept.dimension);
        let (numbers, steps) = match kept.quantization {
            Quantization::None => (kept.numbers::<f32>()?.len(), 0),
            Quantization::F16 => (kept.numbers::<u16>()?.len(), 0),
            Quantization::Int8 => (kept.numbers::<i8>()?.len(), rows),
        };
        let lengths = file.numbers::<f32>(LENGTHS)?.len();
        if numbers != wide || lengths != rows || file.numbers::<f32>(STEPS)?.len() != steps {
            return Err(file.damaged(format!("its numbers are not those of {rows} vectors")));
        }
        Ok(kept)
    }

    /// A row's numbers: as given, but for what the quantization loses.
    pub(crate) fn read(&self, row: u32, into: &mut [f32]) {
        let (row, from) = (row as usize, row as usize * self.dimension);
        let sound = "sizes are checked in `open`";
        match self.quantization {
            Quantization::None => {
                into.copy_from_slice(&self.numbers().expect(sound)[from..from + self.dimension]);
            }
            Quantization::F16 => {
                let halves: &[u16] = &self.numbers().expect(sound)[from..from + self.dimension];
                halves.reinterpret_cast::<f16>().convert_to_f32_slice(into);
                let length = self.file.numbers::<f32>(LENGTHS).expect(sound)[row];
                for number in into {
                    *number *= length;
                }
            }
            Quantization::Int8 => {
                let eighths: &[i8] = &self.numbers().expect(sound)[from..from + self.dimension];
                let step = self.file.numbers::<f32>(STEPS).expect(sound)[row];
                for (number, &eighth) in into.iter_mut().zip(eighths) {
                    *number = f32::from(eighth) * step;
                }
            }
        }
    }

    /// How far a row is from the query, exactly for the numbers that are kept.
    pub(crate) fn distance(&self, query: &Query, row: u32, scratch: &mut Vec<f32>) -> f32 {
        scratch.resize(self.dimension, 0.0);
        self.read(row, scratch);
        query.distance(scratch, kernel::dot(scratch, scratch).sqrt())
    }

    fn numbers<T: Pod>(&self) -> Result<&[T]> {
        self.file.numbers(NUMBERS)
    }
}

/// The numbers in steps, each -127 to 127, and how large a step is.
#[expect(clippy::cast_possible_truncation, reason = "at most 127 by the choice of the step")]
fn into_eighths(numbers: &[f32], into: &mut [i8]) -> f32 {
    let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    for (eighth, number) in into.iter_mut().zip(numbers) {
        *eighth = (number / step).round_ties_even() as i8;
    }
    step
}
