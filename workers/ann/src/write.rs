//! Writes the vector sections of a segment.

use bytemuck::{Pod, Zeroable};
use lakehouse_contract::vectors::{Metric, Quantization, Shape};

use crate::{
    Result,
    kept::Kept,
    sections::{File, Name, Writer},
};

const ABOUT: Name = *b"ann.info";

/// Vectors by row, from memory or from a file.
pub trait Vectors: Sync {
    /// How many there are.
    fn len(&self) -> u32;

    /// Reads a row; `into` has the index's dimension.
    fn get(&self, row: u32, into: &mut [f32]);

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the sections hold.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct About {
    rows: u32,
    dimension: u32,
    metric: u32,
    quantization: u32,
}

impl About {
    fn new(shape: &Shape, rows: u32) -> Self {
        let metric = match shape.metric {
            Metric::Cosine => 0,
            Metric::Euclidean => 1,
            Metric::Dot => 2,
        };
        let quantization = match shape.quantization {
            Quantization::None => 0,
            Quantization::F16 => 1,
            Quantization::Int8 => 2,
        };
        Self { rows, dimension: shape.dimension, metric, quantization }
    }

    /// How many rows a file has, which must be of this shape.
    pub(crate) fn rows(shape: &Shape, file: &File) -> Result<u32> {
        let &[found] = file.numbers::<Self>(ABOUT)? else {
            return Err(file.damaged("it does not say what its vectors are".into()));
        };
        if found != Self::new(shape, found.rows) {
            return Err(file.damaged(format!("its vectors are {found:?}, and those of the index {shape:?}")));
        }
        Ok(found.rows)
    }
}

/// Writes the sections that [`Segment`](crate::Segment) reads: the numbers as the shape's quantization keeps them.
///
/// Uses up to `threads` threads, and says now and then how many rows are done. Equal vectors in equal order give equal bytes, on
/// however many threads.
pub fn write(
    shape: &Shape,
    vectors: &dyn Vectors,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
    sections: &mut Writer,
) -> Result<()> {
    let _ = threads;
    sections.put_section(ABOUT, bytemuck::bytes_of(&About::new(shape, vectors.len())))?;
    Kept::write(shape, vectors, sections)?;
    progress(vectors.len().into());
    Ok(())
}
