//! Memory that DuckDB does not count. A process of its own, for the peak that is measured is the process's.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![cfg(target_os = "linux")]

mod support;

use std::fs;

use lakehouse_query::Settings;
use serde_json::json;
use support::{Lake, settings};

/// Each makes gigabytes in one call of a function, or from batch to batch.
const HUNGRY: [&str; 5] = [
    "SELECT max(length(s)) FROM (SELECT repeat('x', 100000000 + i) AS s FROM range(1000) t(i))",
    "SELECT lpad('x', 10000000 + i::INT, 'y') FROM range(1000) t(i)",
    "SELECT max(length(s || s || s || s)) FROM (SELECT repeat('x', 100000 + i) AS s FROM range(100000) t(i))",
    "SELECT sum(len(list_resize([i], 10000000))) FROM range(1000) t(i)",
    "SELECT repeat('x', 400000000 + i) FROM range(100) t(i)",
];

#[tokio::test]
async fn what_duckdb_does_not_count_is_bounded_too() {
    const LIMIT: u64 = 256 << 20;
    let lake = Lake::with_workers(Settings { memory_limit: LIMIT, ..settings() }).await;
    for _ in 0..2 {
        for sql in HUNGRY {
            let (status, body) = lake.sql(sql).await;
            assert_eq!(
                (status.as_u16(), &body["error"]["code"]),
                (507, &json!("out_of_memory")),
                "{sql}: {body}"
            );
            lake.is_well().await;
        }
    }
    let bounded = LIMIT + LIMIT / 2 + (256 << 20);
    let peak = peak();
    assert!(peak < bounded + (128 << 20), "{} MiB", peak >> 20);
}

/// The most memory that this process had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
