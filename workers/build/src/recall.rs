//! How much of what is nearest a search finds, on a sample of the index's own vectors.
//!
//! The exact neighbours come from comparing each sampled vector with every other one. A hit counts when it is as near as the last of
//! them: of equal distances, either is right.

use lakehouse_ann::Query;
use lakehouse_contract::vectors::{Metric, Shape};
use lakehouse_vector::{Finished, Segment};

use crate::{Error, on_thread};

/// Neighbours that are looked for, the vector itself among them.
const K: usize = 10;
/// The sample's bounds, and how many comparisons it may take.
const FEWEST: u64 = 20;
const MOST: u64 = 100;
const COMPARISONS: u64 = 10_000_000;
/// Distances that differ by less are equal: they are summed up in another order.
const EQUAL: f32 = 1e-5;

/// The recall of searches over segments that were just written; `None` for no vectors.
pub(crate) async fn check(
    segments: &[Finished],
    shape: &Shape,
    threads: usize,
) -> Result<Option<f64>, Error> {
    let (segments, shape) = (segments.to_vec(), shape.clone());
    let checked = on_thread(move || Ok(check_all(&segments, &shape, threads)));
    checked.await.map_err(|error| Error::Local { folder: std::path::PathBuf::new(), error })?
}

fn check_all(segments: &[Finished], shape: &Shape, threads: usize) -> Result<Option<f64>, Error> {
    let mut opened = Vec::with_capacity(segments.len());
    for segment in segments {
        opened.push(Segment::open(&segment.path, shape).map_err(|message| Error::Unsound { message })?);
    }
    let rows: u64 = opened.iter().map(|segment| u64::from(segment.rows())).sum();
    if rows == 0 {
        return Ok(None);
    }
    let queries = sample(&opened, shape, rows);
    let exact = exact(&opened, shape, &queries, threads);
    let (mut found, mut wanted) = (0, 0);
    for (query, exact) in queries.iter().zip(&exact) {
        let Some(last) = exact.last() else { continue };
        let (mut hits, mut near) = (Vec::new(), 0);
        for segment in &opened {
            segment.search(query, K, shape.hnsw.ef_search as usize, None, &mut hits);
            near += hits.iter().filter(|hit| hit.distance <= last + EQUAL * last.abs().max(1.0)).count();
        }
        found += near.min(exact.len());
        wanted += exact.len();
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok((wanted > 0).then(|| found as f64 / wanted as f64))
}

/// Vectors from all over the index, at equal steps.
fn sample(segments: &[Segment], shape: &Shape, rows: u64) -> Vec<Query> {
    let count = (COMPARISONS / rows).clamp(FEWEST, MOST).min(rows);
    let mut queries = Vec::new();
    for number in 0..count {
        let (mut first, place) = (0, number * rows / count);
        for segment in segments {
            let next = first + u64::from(segment.rows());
            if place < next {
                let row = u32::try_from(place - first).unwrap_or(0);
                queries.extend(Query::new(shape, &segment.vector(row)).ok());
                break;
            }
            first = next;
        }
    }
    queries
}

/// The distances of the nearest to each query, nearest first.
fn exact(segments: &[Segment], shape: &Shape, queries: &[Query], threads: usize) -> Vec<Vec<f32>> {
    let part = queries.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = queries
            .chunks(part)
            .map(|queries| {
                scope.spawn(move || {
                    let mut nearest = vec![Vec::with_capacity(K + 1); queries.len()];
                    for segment in segments {
                        for row in 0..segment.rows() {
                            let vector = segment.vector(row);
                            let length = sum(&vector, &vector, |a, b| a * b).sqrt();
                            for (query, nearest) in queries.iter().zip(&mut nearest) {
                                keep(nearest, distance(shape.metric, query.numbers(), &vector, length));
                            }
                        }
                    }
                    nearest
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}

/// Keeps the smallest [`K`] in rising order.
fn keep(nearest: &mut Vec<f32>, distance: f32) {
    if nearest.len() == K && nearest.last().is_some_and(|last| distance >= *last) {
        return;
    }
    let place = nearest.partition_point(|known| *known <= distance);
    nearest.insert(place, distance);
    nearest.truncate(K);
}

/// By the metric, to a vector of this length; under cosine the query's is one.
fn distance(metric: Metric, query: &[f32], vector: &[f32], length: f32) -> f32 {
    match metric {
        Metric::Cosine => 1.0 - sum(query, vector, |a, b| a * b) / length,
        Metric::Dot => -sum(query, vector, |a, b| a * b),
        Metric::Euclidean => sum(query, vector, |a, b| (a - b) * (a - b)).sqrt(),
    }
}

/// Several sums at once, so that the compiler can use wide registers.
fn sum(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += of(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| of(*a, *b)).sum();
    sums.iter().sum::<f32>() + rest
}
