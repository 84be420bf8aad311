//! What was acknowledged stays, whatever happens to processes, the store and its objects.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use lakehouse_store::{Condition, Store};
use lakehouse_vector::{Indexes, Settings, Tuning};
use serde_json::{Value, json};
use support::{Faulty, Served, index_name, publish, refusal, settings};

#[tokio::test]
async fn a_store_that_dies_at_any_write_loses_nothing_that_was_acknowledged() {
    for writes in 0..40 {
        let faulty = Faulty::default();
        let served = Served::over(&faulty.store()).await;
        served.create("shelf", 2).await;
        faulty.light_fuse(writes);
        let mut acknowledged = Vec::new();
        let mut asked = 0;
        while !faulty.down.load(SeqCst) && asked < 60 {
            let batch: Vec<u32> = (asked * 10..asked * 10 + 10).collect();
            let items: Vec<Value> =
                batch.iter().map(|id| json!({"id": id.to_string(), "vector": towards(*id)})).collect();
            let (status, answer) = served.post("/vectors/index/shelf/add", json!({"items": items})).await;
            if status == StatusCode::OK {
                acknowledged.extend(batch);
            } else {
                assert_eq!(
                    (status, refusal(&answer).0),
                    (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
                );
            }
            asked += 1;
        }
        faulty.down.store(false, SeqCst);
        let again = Served::over(&faulty.store()).await;
        let ids: Vec<String> = acknowledged.iter().map(ToString::to_string).collect();
        let got = again.good("/vectors/index/shelf/get", json!({"ids": ids})).await;
        assert_eq!(got["items"].as_array().unwrap().len(), ids.len(), "after {writes} writes");
        // A batch that was not acknowledged is there in full or not at all.
        assert_eq!(again.length("shelf").await % 10, 0);
        for id in acknowledged.iter().step_by(37) {
            assert_eq!(again.ids("shelf", json!({"vector": towards(*id), "k": 1})).await, [id.to_string()]);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_gone_stops_writes_and_no_search() {
    let faulty = Faulty::default();
    let served = Served::over(&faulty.store()).await;
    served.create("shelf", 2).await;
    served.add("shelf", json!([{"id": "a", "vector": [1, 0]}])).await;
    faulty.down.store(true, SeqCst);
    tokio::time::sleep(settings().follow * 4).await;
    assert_eq!(served.ids("shelf", json!({"vector": [1, 0]})).await, ["a"]);
    assert_eq!(served.item("shelf", "a").await["id"], "a");
    let (status, info) = served.get("/vectors/index/shelf").await;
    assert_eq!((status, &info["length"]), (StatusCode::OK, &json!(1)));
    for (path, body) in [
        ("/vectors/index/shelf/add", json!({"items": [{"id": "b", "vector": [1, 1]}]})),
        ("/vectors/index/shelf/delete", json!({"ids": ["a"]})),
        ("/vectors/index", json!({"name": "new", "dimension": 2})),
    ] {
        let (status, answer) = served.post(path, body).await;
        assert_eq!(
            (status, refusal(&answer).0),
            (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            "{path}"
        );
    }
    faulty.down.store(false, SeqCst);
    served.add("shelf", json!([{"id": "c", "vector": [0, 1]}])).await;
    assert_eq!(served.length("shelf").await, 2);
}

#[tokio::test]
async fn two_processes_on_one_bucket_come_to_the_same() {
    let store = Store::memory();
    let (left, right) = (Served::over(&store).await, Served::over(&store).await);
    left.create("shelf", 2).await;
    let write = async |served: &Served, side: &str| {
        for round in 0..30 {
            let item = |row: u32| json!({"id": format!("{side}-{round}-{row}"), "vector": [1, row]});
            let mut items: Vec<Value> = (0..8).map(item).collect();
            items.push(json!({"id": format!("both-{round}"), "vector": [1, 1], "metadata": {"by": side}}));
            served.add("shelf", json!(items)).await;
        }
    };
    futures::future::join(write(&left, "left"), write(&right, "right")).await;
    let name = index_name("shelf");
    for served in [&left, &right] {
        served.vectord.refresh(&name).await.unwrap();
        assert_eq!(served.length("shelf").await, 2 * 30 * 8 + 30);
    }
    for round in 0..30 {
        let id = format!("both-{round}");
        assert_eq!(left.item("shelf", &id).await, right.item("shelf", &id).await);
    }
}

#[tokio::test]
async fn another_process_is_followed_without_asking() {
    let store = Store::memory();
    let (writer, reader) = (Served::over(&store).await, Served::over(&store).await);
    writer.create("shelf", 2).await;
    assert_eq!(reader.length("shelf").await, 0);
    writer.add("shelf", json!([{"id": "a", "vector": [1, 0]}])).await;
    until(async || reader.length("shelf").await == 1).await;
    writer.vectord.flush().await.unwrap();
    writer.add("shelf", json!([{"id": "b", "vector": [1, 0]}])).await;
    until(async || reader.length("shelf").await == 2).await;
    let (status, _) = writer.ask(Method::DELETE, "/vectors/index/shelf", &Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    // Even before it hears of it, it acknowledges no write to what is gone.
    let body = json!({"items": [{"id": "c", "vector": [1, 0]}]});
    let (status, _) = reader.post("/vectors/index/shelf/add", body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    until(async || reader.get("/vectors/index/shelf").await.0 == StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn an_index_whose_objects_do_not_come_holds_up_no_other() {
    let faulty = Faulty::default();
    let writer = Served::over(&faulty.store()).await;
    writer.create("stuck", 2).await;
    writer.create("quick", 2).await;
    let slow = faulty.beside();
    let reader = Served::over(&slow.store()).await;
    for name in ["stuck", "quick"] {
        assert_eq!(reader.length(name).await, 0);
    }
    *slow.stuck.lock().unwrap() = Some("_vectors/stuck/");
    tokio::time::sleep(settings().follow * 4).await;
    writer.add("quick", json!([{"id": "a", "vector": [1, 0]}])).await;
    let began = Instant::now();
    while reader.length("quick").await != 1 {
        assert!(began.elapsed() < Duration::from_secs(3), "it is not followed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_write_to_an_index_that_is_gone_is_none_to_the_next_of_its_name() {
    let store = Store::memory();
    // One that does not hear of the others by itself.
    let deaf = Settings { follow: Duration::from_mins(10), ..settings() };
    let (left, right) = (Served::over(&store).await, Served::with(&store, deaf).await);
    left.create("shelf", 2).await;
    right.add("shelf", json!([{"id": "a", "vector": [1, 0]}])).await;
    left.ask(Method::DELETE, "/vectors/index/shelf", &Value::Null).await;
    left.create("shelf", 2).await;
    let late = json!({"items": [{"id": "late", "vector": [1, 0]}]});
    let (status, _) = right.post("/vectors/index/shelf/add", late.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    left.vectord.refresh(&index_name("shelf")).await.unwrap();
    assert_eq!(left.length("shelf").await, 0);
    // It has heard of it now.
    right.add("shelf", late["items"].clone()).await;
    left.vectord.refresh(&index_name("shelf")).await.unwrap();
    assert_eq!(left.length("shelf").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_beside_writers_loses_nothing() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    served.create("from", 2).await;
    served.create("into", 2).await;
    let write = async |name: &str| {
        for round in 0..40_u32 {
            let item = |row: u32| json!({"id": format!("{name}-{round}-{row}"), "vector": [1, row]});
            served.add(name, json!((0..10).map(item).collect::<Vec<_>>())).await;
        }
    };
    let merge = async || {
        for _ in 0..12 {
            let body = json!({"dest": "into", "clear_source": true});
            served.good("/vectors/index/from/merge", body).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    futures::future::join3(write("from"), write("into"), merge()).await;
    merge().await;
    assert_eq!((served.length("from").await, served.length("into").await), (0, 800));
}

#[tokio::test]
async fn a_damaged_segment_is_named_and_the_rest_serves() {
    let store = Store::memory();
    let rows: Vec<(String, Vec<f32>, Value)> =
        (0..40).map(|row: u8| (format!("w-{row}"), vec![1.0, row.into()], json!({}))).collect();
    let rows: Vec<(&str, Vec<f32>, Value)> =
        rows.iter().map(|(id, vector, kept)| (id.as_str(), vector.clone(), kept.clone())).collect();
    let manifest = publish(&store, "workers", &rows, 2).await;
    let [bad, good] = manifest.segments.as_slice() else { panic!("one for each shard") };
    damage(&store, &format!("/segments/{}.segment", bad.sha256)).await;
    let served = Served::over(&store).await;
    let found = served.search("workers", json!({"vector": [1, 0], "k": 100})).await;
    assert_eq!(found["results"].as_array().unwrap().len(), good.rows as usize);
    assert!(found["incomplete"].as_str().unwrap().contains(&bad.sha256), "{found}");
    let (_, info) = served.get("/vectors/index/workers").await;
    assert!(info["damaged"][0].as_str().unwrap().contains(&bad.sha256), "{info}");
    let (status, _) = served.get("/vectors/index/workers/export").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_damaged_copy_of_a_segment_is_fetched_anew() {
    let store = Store::memory();
    let manifest = publish(&store, "workers", &[("w-1", vec![1.0, 0.0], json!({}))], 1).await;
    let served = Served::over(&store).await;
    let folder = served.cache.path().join("workers");
    std::fs::create_dir_all(&folder).unwrap();
    let copy = folder.join(format!("{}.segment", manifest.segments[0].sha256));
    std::fs::write(&copy, "not what it was").unwrap();
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-1"]);
}

#[tokio::test]
async fn a_damaged_end_of_the_log_is_cut_and_the_rest_serves() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    served.create("shelf", 2).await;
    for id in ["a", "b", "c"] {
        served.add("shelf", json!([{"id": id, "vector": [1, 0]}])).await;
    }
    damage(&store, "/log/00000000000000000002").await;
    let again = Served::over(&store).await;
    assert_eq!(again.length("shelf").await, 2);
    let (_, info) = again.get("/vectors/index/shelf").await;
    assert!(info["damaged"][0].as_str().unwrap().contains("/log/00000000000000000002"), "{info}");
    again.add("shelf", json!([{"id": "d", "vector": [1, 0]}])).await;
    let third = Served::over(&store).await;
    assert_eq!(third.length("shelf").await, 3);
    assert_eq!(third.item("shelf", "d").await["id"], "d");
    // Once what is whole is in a segment, nothing is damaged any more.
    third.vectord.flush().await.unwrap();
    let fourth = Served::over(&store).await;
    let (_, info) = fourth.get("/vectors/index/shelf").await;
    assert_eq!((&info["length"], info.get("damaged")), (&json!(3), None));
}

#[tokio::test]
async fn a_damaged_record_within_the_log_is_passed_over() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    served.create("shelf", 2).await;
    for id in ["a", "b", "c"] {
        served.add("shelf", json!([{"id": id, "vector": [1, 0]}])).await;
    }
    damage(&store, "/log/00000000000000000001").await;
    let again = Served::over(&store).await;
    assert_eq!(again.length("shelf").await, 2);
    let (_, info) = again.get("/vectors/index/shelf").await;
    assert!(!info["damaged"].as_array().unwrap().is_empty(), "{info}");
}

#[tokio::test]
async fn a_damaged_manifest_hides_only_its_own_index() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    served.create("good", 2).await;
    served.create("hurt", 2).await;
    damage(&store, "/hurt/manifest.json").await;
    let again = Served::over(&store).await;
    let (status, list) = again.get("/vectors/index").await;
    assert_eq!((status, list["indexes"].as_array().unwrap().len()), (StatusCode::OK, 1));
    assert!(list["damaged"]["hurt"].as_str().unwrap().contains("manifest"), "{list}");
    let (status, answer) = again.get("/vectors/index/hurt").await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::INTERNAL_SERVER_ERROR, "damaged_index"));
    let (status, _) = again.ask(Method::DELETE, "/vectors/index/hurt", &Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_go_on_while_rows_become_segments() {
    let store = Store::memory();
    let tuning = Tuning { flush_rows: 200, small_rows: 50, fan_in: 2, ..Tuning::default() };
    let served = Served::with(&store, Settings { tuning, ..settings() }).await;
    served.create("shelf", 2).await;
    let total = 3000_u32;
    let writing = async {
        for first in (0..total).step_by(50) {
            let item =
                |row: u32| json!({"id": row.to_string(), "vector": towards(row), "metadata": {"row": row}});
            served.add("shelf", json!((first..first + 50).map(item).collect::<Vec<_>>())).await;
        }
    };
    let searching = async {
        let mut seen = 0;
        while seen < u64::from(total) {
            let length = served.length("shelf").await;
            assert!(length >= seen, "{length} after {seen}");
            seen = length;
            if seen > 0 {
                let row = seen - 1;
                let found =
                    served.search("shelf", json!({"vector": [1, 0], "k": 1, "filter": {"row": row}})).await;
                assert_eq!(
                    (&found["results"][0]["id"], &found["matches"]),
                    (&json!(row.to_string()), &json!(1))
                );
            }
            tokio::task::yield_now().await;
        }
    };
    futures::future::join(writing, searching).await;
    served.vectord.flush().await.unwrap();
    let manifest = Indexes::new(store.clone()).manifest(&index_name("shelf")).await.unwrap().unwrap();
    assert_eq!(manifest.length, u64::from(total));
    assert!(manifest.segments.len() < 20, "{} segments", manifest.segments.len());
    let again = Served::over(&store).await;
    for row in (0..total).step_by(101) {
        assert_eq!(again.ids("shelf", json!({"vector": towards(row), "k": 1})).await, [row.to_string()]);
    }
}

#[tokio::test]
async fn a_thousand_small_indexes_cost_little() {
    let faulty = Faulty::default();
    let settings = Settings { idle: Duration::from_millis(100), ..settings() };
    let served = Served::with(&faulty.store(), settings).await;
    for index in 0..1000 {
        let name = format!("i{index}");
        served.create(&name, 4).await;
        if index % 100 == 0 {
            served.add(&name, json!([{"id": "a", "vector": [1, 0, 0, 0]}])).await;
        }
    }
    let began = Instant::now();
    let (_, list) = served.get("/vectors/index").await;
    assert_eq!(list["indexes"].as_array().unwrap().len(), 1000);
    assert!(began.elapsed() < Duration::from_secs(10), "a list took {:?}", began.elapsed());
    // Those that nobody asks for are let go, and cost no request any more.
    until(async || {
        let before = faulty.requests.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        faulty.requests.load(SeqCst) == before
    })
    .await;
    assert_eq!(served.ids("i100", json!({"vector": [1, 0, 0, 0]})).await, ["a"]);
}

/// A direction of its own for each number below 3,000.
fn towards(number: u32) -> [f64; 2] {
    let (sine, cosine) = (f64::from(number) * 0.002).sin_cos();
    [sine, cosine]
}

/// Changes a byte in the middle of the only object whose key ends like this.
async fn damage(store: &Store, end: &str) {
    let all = store.list_all("_vectors/").await.unwrap();
    let found: Vec<_> = all.into_iter().filter(|listed| listed.key.as_str().ends_with(end)).collect();
    let [listed] = found.as_slice() else { panic!("{} objects end in {end}", found.len()) };
    let mut bytes = store.get(&listed.key, None).await.unwrap().bytes(1 << 30).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&listed.key, bytes.into(), Condition::Always).await.unwrap();
}

async fn until(holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "it takes too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
