//! Vectors for tests: made from a seed, so that a failure can be repeated.
#![allow(dead_code, reason = "each test file uses some of it")]

use lakehouse_ann::{
    Hit, Query, Segment, Vectors,
    sections::{File, Writer},
    write,
};
use lakehouse_contract::vectors::{Hnsw, Metric, Quantization, Shape};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;

pub(crate) const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Euclidean, Metric::Dot];
pub(crate) const QUANTIZATIONS: [Quantization; 3] =
    [Quantization::None, Quantization::F16, Quantization::Int8];

pub(crate) fn shape(dimension: u32, metric: Metric, quantization: Quantization) -> Shape {
    Shape { dimension, metric, hnsw: Hnsw::default(), quantization }
}

/// Rows in memory.
#[derive(Clone)]
pub(crate) struct Rows(pub(crate) Vec<Vec<f32>>);

impl Vectors for Rows {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn get(&self, row: u32, into: &mut [f32]) {
        into.copy_from_slice(&self.0[row as usize]);
    }
}

/// Points around `centres` points, which differ in a few directions only, as real embeddings do.
pub(crate) fn clustered(rows: usize, dimension: usize, centres: usize, seed: u64) -> Rows {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut normal = move || (0..6).map(|_| random.random_range(-1.0_f32..1.0)).sum::<f32>();
    let directions: Vec<Vec<f32>> = (0..12).map(|_| (0..dimension).map(|_| normal()).collect()).collect();
    let centres: Vec<Vec<f32>> = (0..centres).map(|_| (0..dimension).map(|_| normal()).collect()).collect();
    let rows = (0..rows).map(|row| {
        let mut point = centres[row % centres.len()].clone();
        for direction in &directions {
            let far = 0.3 * normal();
            for (number, direction) in point.iter_mut().zip(direction) {
                *number += far * direction;
            }
        }
        for number in &mut point {
            *number += 0.03 * normal();
        }
        point
    });
    Rows(rows.collect())
}

/// A segment of these rows, and the folder that its file lies in.
pub(crate) fn segment(shape: &Shape, rows: &Rows) -> (TempDir, Segment) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("segment");
    let mut writer = Writer::create(&path).unwrap();
    write(shape, rows, 2, &|_| {}, &mut writer).unwrap();
    writer.finish().unwrap();
    let file = File::open(&path).unwrap();
    (dir, Segment::open(shape, &file).unwrap())
}

/// The distance, straight from its definition and in 64 bits.
pub(crate) fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    match metric {
        Metric::Cosine => {
            let lengths: f64 =
                pairs().map(|(a, _)| a * a).sum::<f64>() * pairs().map(|(_, b)| b * b).sum::<f64>();
            1.0 - dot / lengths.sqrt()
        }
        Metric::Euclidean => pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        Metric::Dot => -dot,
    }
}

/// The `k` nearest of these rows by their definition.
pub(crate) fn nearest<V: AsRef<[f32]>>(
    metric: Metric,
    query: &[f32],
    rows: impl Iterator<Item = (u32, V)>,
    k: usize,
) -> Vec<(u32, f64)> {
    let mut all: Vec<_> = rows.map(|(row, vector)| (row, distance(metric, query, vector.as_ref()))).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

/// A segment's rows as it keeps them.
pub(crate) fn kept(segment: &Segment, dimension: u32) -> impl Iterator<Item = (u32, Vec<f32>)> {
    (0..segment.len()).map(move |row| {
        let mut vector = vec![0.0; dimension as usize];
        segment.vector(row, &mut vector);
        (row, vector)
    })
}

pub(crate) fn search(segment: &Segment, shape: &Shape, vector: &[f32], k: usize, ef: usize) -> Vec<Hit> {
    let mut hits = Vec::new();
    segment.search(&Query::new(shape, vector).unwrap(), k, ef, None, &mut hits);
    hits
}
