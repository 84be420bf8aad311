//! Writes the vector sections of a segment.

use std::io;

use bytemuck::{Pod, Zeroable};
use half::f16;
use lakehouse_contract::vectors::{Metric, Quantization, Shape};
use rayon::{ThreadPoolBuilder, prelude::*};

use crate::{
    Error, Result, build,
    build::Built,
    codes::{Coded, Codes, Extremes, Frame},
    huge::Huge,
    kept,
    sections::{File, Name, Writer},
    simd::Simd,
};

pub(crate) const ABOUT: Name = *b"ann.info";
pub(crate) const MEAN: Name = *b"ann.mean";
pub(crate) const CODES: Name = *b"ann.code";
pub(crate) const TERMS: Name = *b"ann.term";
pub(crate) const BASE: Name = *b"ann.base";
pub(crate) const UPPER: Name = *b"ann.uppr";
pub(crate) const MEMBERS: Name = *b"ann.memb";
pub(crate) const SIZES: Name = *b"ann.size";
pub(crate) const SAME: Name = *b"ann.same";

/// Fewer rows than this are scanned as fast as a graph is walked.
const GRAPH_FROM: u32 = 10_000;
/// The mean is that of about so many rows.
const SAMPLED: u32 = 10_000;

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
    pub(crate) rows: u32,
    dimension: u32,
    metric: u32,
    quantization: u32,
    /// Places for links in the base; 0 without a graph.
    pub(crate) width: u32,
    error: f32,
    step: f32,
    length: f32,
}

impl About {
    fn new(shape: &Shape, rows: u32, width: u32, extremes: Extremes) -> Self {
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
        let Extremes { error, step, length } = extremes;
        Self { rows, dimension: shape.dimension, metric, quantization, width, error, step, length }
    }

    /// What a file has, which must be of this shape.
    pub(crate) fn read(shape: &Shape, file: &File) -> Result<Self> {
        let &[found] = file.numbers::<Self>(ABOUT)? else {
            return Err(file.damaged("it does not say what its vectors are".into()));
        };
        let wanted = Self::new(shape, found.rows, found.width, found.extremes());
        let same = |about: Self| (about.dimension, about.metric, about.quantization);
        if same(found) != same(wanted) {
            return Err(file.damaged(format!("its vectors are {found:?}, and those of the index {shape:?}")));
        }
        Ok(found)
    }

    pub(crate) fn extremes(&self) -> Extremes {
        Extremes { error: self.error, step: self.step, length: self.length }
    }
}

/// Writes the sections that [`Segment`](crate::Segment) reads: the numbers as the shape's quantization keeps them, codes, and a graph
/// where there are enough rows for one.
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
    let pool =
        ThreadPoolBuilder::new().num_threads(threads.max(1)).thread_name(|at| format!("ann-{at}")).build();
    let pool = pool.map_err(|error| Error::io(sections.path(), std::io::Error::other(error)))?;
    let lengths = kept::write(shape, vectors, sections)?;
    let Coding { frame, bytes, terms, extra, extremes } =
        pool.install(|| code(shape, vectors, &lengths)).map_err(|error| Error::io(sections.path(), error))?;
    let codes =
        Codes { simd: Simd::best(), stride: frame.stride(), bytes: &bytes, terms: &terms, extra: &extra };
    let built = if vectors.len() < GRAPH_FROM {
        Built::default()
    } else {
        let built = pool.install(|| build::build(&codes, &shape.hnsw, progress));
        built.map_err(|error| Error::io(sections.path(), error))?
    };
    let width = u32::try_from(built.width).expect("a few dozen");
    let about = About::new(shape, vectors.len(), width, extremes);
    sections.put_section(ABOUT, bytemuck::bytes_of(&about))?;
    sections.put_section(MEAN, bytemuck::cast_slice(&frame.mean))?;
    sections.put_section(TERMS, bytemuck::cast_slice(&terms))?;
    sections.put_section(CODES, &bytes)?;
    put_graph(&built, sections)?;
    progress(vectors.len().into());
    Ok(())
}

fn put_graph(built: &Built, sections: &mut Writer) -> Result<()> {
    let Built { width: _, base, upper, members, same } = built;
    sections.put_section(BASE, bytemuck::cast_slice(base))?;
    let sizes: Vec<u32> =
        upper.iter().map(|links| u32::try_from(links.len()).expect("fewer than rows")).collect();
    sections.put_section(SIZES, bytemuck::cast_slice(&sizes))?;
    let mut section = sections.section(UPPER)?;
    upper.iter().try_for_each(|links| section.put_all(links))?;
    sections.put_section(MEMBERS, bytemuck::cast_slice(members))?;
    sections.put_section(SAME, bytemuck::cast_slice(same))
}

/// All rows, coded.
struct Coding {
    frame: Frame,
    bytes: Huge<u8>,
    terms: Vec<[f32; 2]>,
    extra: Vec<f32>,
    extremes: Extremes,
}

fn code(shape: &Shape, vectors: &dyn Vectors, lengths: &[f32]) -> io::Result<Coding> {
    let frame = Frame { metric: shape.metric, mean: mean(shape, vectors, lengths) };
    let stride = frame.stride();
    let mut bytes = Huge::zeros(lengths.len() * stride)?;
    let coded: Vec<Coded> = bytes
        .par_chunks_mut(stride)
        .zip(0..vectors.len())
        .map_init(
            || Reader::new(shape, vectors, lengths),
            |reader, (into, row)| frame.row(reader.read(row), into),
        )
        .collect();
    let mut extremes = Extremes::default();
    for &coded in &coded {
        extremes.include(coded);
    }
    let terms = coded.iter().map(|&coded| frame.terms(coded)).collect();
    let longest = coded.iter().fold(0.0_f32, |longest, coded| longest.max(coded.square));
    let dot = shape.metric == Metric::Dot;
    let extra = coded.iter().filter(|_| dot).map(|coded| (longest - coded.square).sqrt()).collect();
    if shape.quantization == Quantization::Int8 {
        // The codes are what is kept, so they are off by nothing.
        extremes.error = 0.0;
    }
    Ok(Coding { frame, bytes, terms, extra, extremes })
}

fn mean(shape: &Shape, vectors: &dyn Vectors, lengths: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; shape.dimension as usize];
    let mut reader = Reader::new(shape, vectors, lengths);
    let rows = (0..vectors.len()).step_by((vectors.len() / SAMPLED).max(1) as usize);
    let count = rows.len().max(1) as f64;
    for row in rows {
        for (sum, &number) in sums.iter_mut().zip(reader.read(row)) {
            *sum += f64::from(number);
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "it only has to be near")]
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// Reads vectors as they are coded.
struct Reader<'v> {
    shape: &'v Shape,
    vectors: &'v dyn Vectors,
    lengths: &'v [f32],
    vector: Vec<f32>,
    halves: Vec<f16>,
}

impl<'v> Reader<'v> {
    fn new(shape: &'v Shape, vectors: &'v dyn Vectors, lengths: &'v [f32]) -> Self {
        let dimension = shape.dimension as usize;
        Self { shape, vectors, lengths, vector: vec![0.0; dimension], halves: vec![f16::ZERO; dimension] }
    }

    fn read(&mut self, row: u32) -> &[f32] {
        self.vectors.get(row, &mut self.vector);
        kept::settle(self.shape, &mut self.vector, self.lengths[row as usize], &mut self.halves);
        &self.vector
    }
}
