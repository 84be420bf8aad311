//! Small segments and heads answer exactly.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{METRICS, QUANTIZATIONS, clustered, kept, nearest, search, segment, shape};
use lakehouse_ann::{BadVector, Head, Hit, Query, check};
use lakehouse_contract::vectors::{Metric, Quantization};
use proptest::prelude::*;
use roaring::RoaringBitmap;

#[test]
fn a_small_segment_answers_exactly_by_every_metric_and_quantization() {
    for (metric, quantization) in
        METRICS.into_iter().flat_map(|metric| QUANTIZATIONS.map(|quantization| (metric, quantization)))
    {
        for dimension in [1, 7, 64, 100] {
            let rows = clustered(300, dimension as usize, 5, 1);
            let shape = shape(dimension, metric, quantization);
            let (_dir, segment) = segment(&shape, &rows);
            for query in clustered(20, dimension as usize, 5, 2).0 {
                let wanted = nearest(metric, &query, kept(&segment, dimension), 10);
                let found = search(&segment, &shape, &query, 10, 10);
                same(&found, &wanted, &format!("{metric:?} {quantization:?} {dimension}"));
            }
        }
    }
}

#[test]
fn what_is_kept_is_what_was_given_as_far_as_the_quantization_says() {
    for metric in METRICS {
        for (quantization, off) in QUANTIZATIONS.into_iter().zip([0.0, 0.001, 0.02]) {
            let rows = clustered(50, 40, 5, 3);
            let (_dir, segment) = segment(&shape(40, metric, quantization), &rows);
            for (row, vector) in kept(&segment, 40) {
                let given = &rows.0[row as usize];
                let length = given.iter().map(|number| number * number).sum::<f32>().sqrt();
                let worst = vector.iter().zip(given).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= off * length, "{metric:?} {quantization:?} {worst} of {length}");
            }
        }
    }
}

#[test]
fn what_the_door_takes_can_be_written_anew_as_often_as_one_likes() {
    for (metric, quantization) in
        METRICS.into_iter().flat_map(|metric| QUANTIZATIONS.map(|quantization| (metric, quantization)))
    {
        let shape = shape(24, metric, quantization);
        let mut rows = clustered(64, 24, 5, 6);
        // As long and as short as the door lets them be, side by side.
        for (row, vector) in rows.0.iter_mut().enumerate() {
            let length = if row % 2 == 0 { 1e18 } else { 1e-18 };
            let now = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
            #[expect(clippy::cast_possible_truncation, reason = "that is what the door sees")]
            let at = |by: f64| {
                vector.iter().map(|number| (f64::from(*number) / now * length * by) as f32).collect()
            };
            let by = if row % 2 == 0 { 1.0 - 1e-7 } else { 1.0 + 1e-7 };
            *vector = at(by);
            check(&shape, vector).unwrap();
        }
        for round in 0..4 {
            let (_dir, segment) = segment(&shape, &rows);
            rows.0 = kept(&segment, 24).map(|(_, vector)| vector).collect();
            for (row, vector) in rows.0.iter().enumerate() {
                let taken = check(&shape, vector);
                assert!(taken.is_ok(), "{metric:?} {quantization:?} row {row} after {round}: {taken:?}");
            }
        }
    }
}

#[test]
fn a_head_answers_exactly_and_at_once() {
    for metric in METRICS {
        let rows = clustered(900, 24, 5, 4);
        let shape = shape(24, metric, Quantization::None);
        let head = Head::new(&shape);
        for (row, vector) in rows.0.iter().enumerate() {
            assert_eq!(head.push(vector), Ok(u32::try_from(row).unwrap()));
            let all = || (0..).zip(&rows.0[..=row]);
            let mut found = Vec::new();
            head.search(&Query::new(&shape, vector).unwrap(), 5, None, &mut found);
            same(&found, &nearest(metric, vector, all(), 5), &format!("{metric:?} {row}"));
        }
    }
}

#[test]
fn a_head_is_read_while_it_is_written() {
    let rows = clustered(3_000, 16, 5, 5);
    let shape = shape(16, Metric::Euclidean, Quantization::None);
    let head = Head::new(&shape);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| scope.spawn(move_pushes(&head, &rows.0[writer * 1_500..(writer + 1) * 1_500])))
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let before = head.len();
            let mut found = Vec::new();
            head.search(&Query::new(&shape, &rows.0[0]).unwrap(), usize::MAX, None, &mut found);
            assert!(found.len() >= before as usize);
        }
    });
    assert_eq!(head.len(), 3_000);
}

fn move_pushes<'a>(head: &'a Head, rows: &'a [Vec<f32>]) -> impl FnOnce() + Send + 'a {
    move || {
        for row in rows {
            head.push(row).unwrap();
        }
    }
}

#[test]
fn bad_vectors_are_refused_with_what_is_wrong() {
    let cosine = shape(3, Metric::Cosine, Quantization::None);
    let euclidean = shape(3, Metric::Euclidean, Quantization::None);
    assert_eq!(check(&cosine, &[1.0, 2.0]), Err(BadVector::Length { expected: 3, found: 2 }));
    assert_eq!(check(&cosine, &[0.0; 3]), Err(BadVector::Zero));
    assert_eq!(check(&cosine, &[1e-30, 0.0, 0.0]), Err(BadVector::Zero));
    assert_eq!(check(&euclidean, &[0.0; 3]), Ok(0.0));
    assert_eq!(check(&euclidean, &[1e19, 0.0, 0.0]), Err(BadVector::TooLong));
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(check(&euclidean, &[1.0, value, 0.0]), Err(BadVector::NotFinite { index: 1, value }));
    }
    assert!(matches!(check(&cosine, &[1.0, 0.0, f32::NAN]), Err(BadVector::NotFinite { index: 2, .. })));
    assert_eq!(check(&cosine, &[3.0, 0.0, 4.0]), Ok(5.0));
    assert!(Query::new(&cosine, &[0.0; 3]).is_err());
    assert!(Head::new(&cosine).push(&[f32::NAN; 3]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn exactly_what_is_allowed_is_found(
        rows in 0_usize..200, allowed in proptest::collection::btree_set(0_u32..250, 0..120), k in 0_usize..40, seed: u64,
        metric in proptest::sample::select(METRICS.to_vec()), quantization in proptest::sample::select(QUANTIZATIONS.to_vec()),
    ) {
        let shape = shape(19, metric, quantization);
        let (_dir, segment) = segment(&shape, &clustered(rows, 19, 3, seed));
        let query = clustered(1, 19, 3, seed ^ 1).0.remove(0);
        let bitmap: RoaringBitmap = allowed.iter().copied().collect();
        let mut found = Vec::new();
        segment.search(&Query::new(&shape, &query).unwrap(), k, 1, Some(&bitmap), &mut found);
        let there = kept(&segment, 19).filter(|(row, _)| allowed.contains(row));
        same(&found, &nearest(metric, &query, there, k), "filtered");
    }
}

/// Equal rows, but for those that are equally far to six digits.
fn same(found: &[Hit], wanted: &[(u32, f64)], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (hit, (row, distance)) in found.iter().zip(wanted) {
        let near = (f64::from(hit.distance) - distance).abs() <= 2e-4 * (1.0 + distance.abs());
        assert!(near, "{what}: row {} at {}, not {row} at {distance}", hit.row, hit.distance);
    }
}
