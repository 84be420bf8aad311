//! Segments that are large enough for a graph.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{collections::BTreeSet, fs, sync::LazyLock};

use common::{METRICS, QUANTIZATIONS, Rows, clustered, kept, nearest, search, segment, shape};
use lakehouse_ann::{
    Hit, Query, Segment,
    sections::{File, Writer},
    write,
};
use lakehouse_contract::vectors::{Metric, Quantization};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use roaring::RoaringBitmap;
use tempfile::TempDir;

const DIMENSION: u32 = 40;
const ROWS: usize = 12_000;

static CLUSTERED: LazyLock<Rows> = LazyLock::new(|| clustered(ROWS, DIMENSION as usize, 30, 1));

#[test]
fn neighbours_are_found_by_every_metric_and_quantization() {
    for (metric, quantization) in METRICS.map(|metric| (metric, Quantization::None)).into_iter().chain([
        (Metric::Cosine, Quantization::F16),
        (Metric::Cosine, Quantization::Int8),
        (Metric::Dot, Quantization::Int8),
    ]) {
        let shape = shape(DIMENSION, metric, quantization);
        let (_dir, segment) = segment(&shape, &CLUSTERED);
        let there: Vec<_> = kept(&segment, DIMENSION).collect();
        let queries = clustered(50, DIMENSION as usize, 30, 1).0;
        let recall = queries.iter().map(|query| {
            let wanted = nearest(metric, query, there.iter().map(|(row, vector)| (*row, vector)), 10);
            share_found(&search(&segment, &shape, query, 10, 64), &wanted)
        });
        let recall = recall.sum::<f64>() / 50.0;
        // The nearest by inner product lie at the edge of all, where links are few.
        let least = if metric == Metric::Dot { 0.96 } else { 0.98 };
        assert!(recall >= least, "{metric:?} {quantization:?}: {recall}");
    }
}

#[test]
fn every_vector_finds_itself() {
    for (metric, quantization) in
        [(Metric::Cosine, Quantization::F16), (Metric::Euclidean, Quantization::None)]
    {
        let shape = shape(DIMENSION, metric, quantization);
        let (_dir, segment) = segment(&shape, &CLUSTERED);
        for (row, vector) in (0..).zip(&CLUSTERED.0) {
            let found = search(&segment, &shape, vector, 10, 32);
            assert!(found.iter().any(|hit| hit.row == row), "row {row}");
        }
    }
}

#[test]
fn clusters_that_lie_far_apart_are_all_reached() {
    let mut rows = clustered(ROWS, DIMENSION as usize, 400, 2);
    for (at, row) in rows.0.iter_mut().enumerate() {
        let cluster = at % 400;
        // Sorted by cluster, tight, and far apart.
        row[cluster % 40] += 1_000.0 * (1.0 + (cluster / 40) as f32);
    }
    let shape = shape(DIMENSION, Metric::Euclidean, Quantization::None);
    let (_dir, segment) = segment(&shape, &rows);
    let found = |(row, vector): (u32, &Vec<f32>)| {
        search(&segment, &shape, vector, 10, 64).iter().any(|hit| hit.row == row)
    };
    assert_eq!((0..).zip(&rows.0).filter(|&pair| !found(pair)).count(), 0);
}

#[test]
fn equal_vectors_are_all_found() {
    let mut rows = clustered(ROWS, DIMENSION as usize, 30, 3);
    let twin = rows.0[7].clone();
    let mut twins: BTreeSet<u32> = BTreeSet::from([7]);
    let mut random = SmallRng::seed_from_u64(3);
    while twins.len() < 900 {
        let row = random.random_range(0..ROWS);
        rows.0[row] = twin.clone();
        twins.insert(u32::try_from(row).unwrap());
    }
    for quantization in QUANTIZATIONS {
        let shape = shape(DIMENSION, Metric::Cosine, quantization);
        let (_dir, segment) = segment(&shape, &rows);
        let found = search(&segment, &shape, &twin, 900, 64);
        assert_eq!(found.iter().map(|hit| hit.row).collect::<BTreeSet<_>>(), twins);
        let allowed: RoaringBitmap = (0..segment.len()).filter(|row| row % 3 == 0).collect();
        let mut among = Vec::new();
        segment.search(&Query::new(&shape, &twin).unwrap(), 100, 64, Some(&allowed), &mut among);
        assert_eq!(among.len(), 100);
        assert!(among.iter().all(|hit| twins.contains(&hit.row) && hit.row % 3 == 0));
    }
}

#[test]
fn nothing_but_equal_vectors_can_be_indexed() {
    let rows = Rows(vec![vec![1.0; 8]; ROWS]);
    let shape = shape(8, Metric::Cosine, Quantization::None);
    let (_dir, segment) = segment(&shape, &rows);
    assert_eq!(search(&segment, &shape, &[1.0; 8], 1_000, 64).len(), 1_000);
}

#[test]
fn filters_of_any_share_are_exact_and_find_neighbours() {
    let rows = clustered(20_000, DIMENSION as usize, 30, 4);
    let shape = shape(DIMENSION, Metric::Cosine, Quantization::None);
    let (_dir, segment) = segment(&shape, &rows);
    let queries = clustered(40, DIMENSION as usize, 30, 4).0;
    let mut random = SmallRng::seed_from_u64(4);
    for share in [0.0, 0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0] {
        let allowed: RoaringBitmap = (0..20_000).filter(|_| random.random_bool(share)).collect();
        let mut recall = 0.0;
        for query in &queries {
            let mut found = Vec::new();
            segment.search(&Query::new(&shape, query).unwrap(), 10, 64, Some(&allowed), &mut found);
            assert_eq!(found.len() as u64, allowed.len().min(10), "{share}");
            assert!(found.iter().all(|hit| allowed.contains(hit.row)), "{share}");
            let there = allowed.iter().map(|row| (row, &rows.0[row as usize]));
            recall += share_found(&found, &nearest(Metric::Cosine, query, there, 10)) / 40.0;
        }
        assert!(recall >= 0.95, "{share}: {recall}");
    }
}

#[test]
fn what_lies_far_from_the_query_is_found_when_nothing_else_is_allowed() {
    // A third of the rows, all of them around centres that the query is far from.
    let rows = clustered(20_000, DIMENSION as usize, 20, 5);
    let shape = shape(DIMENSION, Metric::Cosine, Quantization::None);
    let (_dir, segment) = segment(&shape, &rows);
    let allowed: RoaringBitmap = (0..20_000).filter(|row| row % 20 < 7).collect();
    let mut recall = 0.0;
    for query in clustered(40, DIMENSION as usize, 20, 5).0.iter().skip(7).take(13) {
        let mut found = Vec::new();
        segment.search(&Query::new(&shape, query).unwrap(), 10, 64, Some(&allowed), &mut found);
        let there = allowed.iter().map(|row| (row, &rows.0[row as usize]));
        recall += share_found(&found, &nearest(Metric::Cosine, query, there, 10)) / 13.0;
    }
    assert!(recall >= 0.9, "{recall}");
}

#[test]
fn threads_change_nothing() {
    let shape = shape(DIMENSION, Metric::Dot, Quantization::F16);
    let dir = TempDir::new().unwrap();
    let bytes = [1, 3].map(|threads| {
        let path = dir.path().join(threads.to_string());
        let mut writer = Writer::create(&path).unwrap();
        write(&shape, &*CLUSTERED, threads, &|_| {}, &mut writer).unwrap();
        writer.finish().unwrap();
        fs::read(path).unwrap()
    });
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn a_bad_vector_is_named_by_its_row() {
    let mut rows = clustered(100, 8, 3, 6);
    rows.0[41][3] = f32::NAN;
    let mut writer = Writer::create(TempDir::new().unwrap().path().join("file")).unwrap_or_else(|_| panic!());
    let shape = shape(8, Metric::Cosine, Quantization::None);
    let error = write(&shape, &rows, 1, &|_| {}, &mut writer).unwrap_err();
    assert_eq!(error.to_string(), "vector 41: number 3 is NaN");
}

#[test]
fn a_damaged_graph_is_refused_or_searched_but_never_fatal() {
    let shape = shape(4, Metric::Cosine, Quantization::Int8);
    let rows = clustered(10_000, 4, 10, 7);
    let (dir, _) = segment(&shape, &rows);
    let path = dir.path().join("segment");
    let whole = fs::read(&path).unwrap();
    let mut random = SmallRng::seed_from_u64(7);
    let other = dir.path().join("other");
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..20 {
            // Not the table: what it guards is tested elsewhere.
            let at = random.random_range(64..bytes.len() - 600);
            bytes[at] = random.random();
        }
        fs::write(&other, bytes).unwrap();
        let file = File::open(&other).unwrap();
        assert!(file.verify().is_err());
        if let Ok(segment) = Segment::open(&shape, &file) {
            for row in [0, 77, 9_999] {
                assert_eq!(search(&segment, &shape, &rows.0[row], 10, 32).len(), 10);
            }
        }
    }
}

#[test]
fn a_segment_of_another_shape_is_refused() {
    let (dir, _) = segment(&shape(8, Metric::Cosine, Quantization::None), &clustered(100, 8, 3, 8));
    let file = File::open(dir.path().join("segment")).unwrap();
    for other in [
        shape(9, Metric::Cosine, Quantization::None),
        shape(8, Metric::Dot, Quantization::None),
        shape(8, Metric::Cosine, Quantization::F16),
    ] {
        assert!(Segment::open(&other, &file).is_err());
    }
}

#[test]
fn rows_sorted_by_what_they_mean_are_linked_as_well_as_shuffled_ones() {
    let mut rows = clustered(ROWS, DIMENSION as usize, 30, 9);
    rows.0.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let sorted = recall(&rows);
    rows.0.shuffle(&mut SmallRng::seed_from_u64(9));
    let shuffled = recall(&rows);
    assert!((sorted - shuffled).abs() < 0.02, "{sorted} and {shuffled}");
}

fn recall(rows: &Rows) -> f64 {
    let shape = shape(DIMENSION, Metric::Cosine, Quantization::None);
    let (_dir, segment) = segment(&shape, rows);
    let there: Vec<_> = (0..).zip(rows.0.iter().cloned()).collect();
    let queries = clustered(50, DIMENSION as usize, 30, 9).0;
    let found = queries.iter().map(|query| {
        let wanted = nearest(Metric::Cosine, query, there.iter().map(|(row, vector)| (*row, vector)), 10);
        share_found(&search(&segment, &shape, query, 10, 32), &wanted)
    });
    found.sum::<f64>() / 50.0
}

/// The share of hits that are as near as the farthest that was wanted.
fn share_found(found: &[Hit], wanted: &[(u32, f64)]) -> f64 {
    let Some(&(_, farthest)) = wanted.last() else { return 1.0 };
    let near =
        found.iter().filter(|hit| f64::from(hit.distance) <= farthest + 1e-4 * farthest.abs().max(0.01));
    near.count() as f64 / wanted.len() as f64
}
