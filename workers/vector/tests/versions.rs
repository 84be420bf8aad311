//! Versions of built indexes: published, collected, purged.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::{
    num::NonZeroU32,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use lakehouse_store::Store;
use lakehouse_vector::{Error, IndexWriter, Indexes};
use serde_json::json;
use support::{Faulty, Served, index_name, metadata, publish};

#[tokio::test]
async fn publishers_that_meet_each_get_a_version_of_their_own() {
    let store = Store::memory();
    let rows = [("w-1", vec![1.0, 0.0], json!({}))];
    let publish = || publish(&store, "workers", &rows, 1);
    let (one, two, three) = futures::join!(publish(), publish(), publish());
    let mut versions = [one.version, two.version, three.version];
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3]);
    let manifest = Indexes::new(store).manifest(&index_name("workers")).await.unwrap().unwrap();
    assert_eq!((manifest.version, manifest.latest_version), (3, 3));
}

#[tokio::test]
async fn only_what_no_kept_version_names_is_collected() {
    let store = Store::memory();
    let name = index_name("workers");
    let row = |id: &'static str| [(id, vec![1.0, 0.0], json!({}))];
    for id in ["w-1", "w-2", "w-3", "w-4"] {
        publish(&store, "workers", &row(id), 1).await;
    }
    let keep = NonZeroU32::new(2).unwrap();
    let patient = Indexes::new(store.clone());
    assert_eq!(patient.collect(&name, keep).await.unwrap().versions, 2);
    assert_eq!(segments(&store).await, 4, "all are younger than a day");
    let hasty = patient.clone().with_grace(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(hasty.collect(&name, keep).await.unwrap().objects, 2);
    assert_eq!(segments(&store).await, 2);
    let served = Served::over(&store).await;
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-4"]);
    patient.rollback(&name, None).await.unwrap();
    served.vectord.refresh(&name).await.unwrap();
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-3"]);
    assert!(
        matches!(patient.rollback(&name, Some(1)).await, Err(Error::UnknownVersion { kept, .. }) if kept == [4, 3])
    );
    // The current version stays, however few are kept.
    hasty.collect(&name, NonZeroU32::MIN).await.unwrap();
    served.vectord.refresh(&name).await.unwrap();
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-3"]);
}

#[tokio::test]
async fn a_purge_leaves_nothing_and_can_be_run_again() {
    let store = Store::memory();
    let indexes = Indexes::new(store.clone());
    for id in ["w-1", "w-2"] {
        publish(&store, "workers", &[(id, vec![1.0, 0.0], json!({}))], 1).await;
    }
    indexes.purge(&index_name("workers")).await.unwrap();
    let left = store.list_all("").await.unwrap();
    assert!(left.iter().all(|listed| listed.key.as_str() == "_vectors/workers/manifest.json"), "{left:?}");
    assert!(indexes.manifest(&index_name("workers")).await.unwrap().is_none());
    assert_eq!(indexes.purge(&index_name("workers")).await.unwrap().objects, 0);
    // The names of a log's objects stay for an hour, without what they held.
    let served = Served::over(&store).await;
    served.create("shelf", 2).await;
    served.add("shelf", json!([{"id": "secret", "vector": [1, 0]}])).await;
    indexes.purge(&index_name("shelf")).await.unwrap();
    let left = store.list_all("").await.unwrap();
    let is_name = |key: &str| key.contains("/log/") || key.ends_with("/manifest.json");
    assert!(left.iter().all(|listed| is_name(listed.key.as_str())), "{left:?}");
    for listed in left {
        let bytes = store.get(&listed.key, None).await.unwrap().bytes(1 << 20).await.unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}

#[tokio::test]
async fn a_purge_that_is_slow_harms_no_index_that_has_the_name_since() {
    for pause_at in 1.. {
        let store = Faulty::default();
        let served = Served::over(&store.store()).await;
        served.create("shelf", 2).await;
        served.add("shelf", json!([{"id": "old", "vector": [1, 0]}])).await;
        let slow = store.beside();
        slow.pause_at.store(pause_at, SeqCst);
        let purge = {
            let indexes = Indexes::new(slow.store());
            tokio::spawn(async move { indexes.purge(&index_name("shelf")).await.unwrap() })
        };
        let ended = tokio::select! {
            () = slow.paused.notified() => false,
            () = until(async || purge.is_finished()) => true,
        };
        if !ended {
            Indexes::new(store.store()).purge(&index_name("shelf")).await.unwrap();
            let next = Served::over(&store.store()).await;
            next.create("shelf", 2).await;
            next.add("shelf", json!([{"id": "new", "vector": [1, 0]}])).await;
            slow.resume.notify_one();
        }
        // Where it had not yet looked which index there is, it may take the new one for its own: then that is gone, and not hurt.
        purge.await.unwrap();
        let last = Served::over(&store.store()).await;
        match last.get("/vectors/index/shelf").await {
            (StatusCode::OK, info) => {
                assert_eq!((&info["length"], info.get("damaged")), (&json!(1), None), "{pause_at}: {info}");
                assert_eq!(last.ids("shelf", json!({"vector": [1, 0]})).await, ["new"]);
            }
            (status, _) => {
                assert_eq!(status, StatusCode::NOT_FOUND);
                assert!(
                    ended || pause_at == 1,
                    "stopped before its request {pause_at}, it removed the next index"
                );
            }
        }
        if ended {
            assert!(pause_at > 8, "it made {pause_at} requests");
            return;
        }
    }
}

#[tokio::test]
async fn a_purge_that_is_slow_leaves_the_versions_of_the_next_index() {
    let rows = [("w-1", vec![1.0, 0.0], json!({}))];
    for pause_at in 2.. {
        let store = Faulty::default();
        let plain = store.store();
        publish(&plain, "workers", &rows, 1).await;
        publish(&plain, "workers", &rows, 1).await;
        let slow = store.beside();
        slow.pause_at.store(pause_at, SeqCst);
        let purge = {
            let indexes = Indexes::new(slow.store());
            tokio::spawn(async move { indexes.purge(&index_name("workers")).await.unwrap() })
        };
        let ended = tokio::select! {
            () = slow.paused.notified() => false,
            () = until(async || purge.is_finished()) => true,
        };
        if ended {
            return assert!(pause_at > 6, "it made {pause_at} requests");
        }
        let indexes = Indexes::new(plain.clone());
        indexes.purge(&index_name("workers")).await.unwrap();
        publish(&plain, "workers", &rows, 1).await;
        let next = publish(&plain, "workers", &rows, 1).await;
        let about_to_remove = slow.deletes.load(SeqCst) > 0;
        slow.resume.notify_one();
        purge.await.unwrap();
        let current = indexes.manifest(&index_name("workers")).await.unwrap();
        assert_eq!(current.map(|current| current.id), Some(next.id), "{pause_at}");
        // One lot whose names were looked at a moment ago is on its way.
        if !about_to_remove {
            assert_eq!(indexes.served_versions(&next).await.unwrap(), [1, 2], "{pause_at}");
        }
        assert_eq!(Served::over(&plain).await.ids("workers", json!({"vector": [1, 0]})).await, ["w-1"]);
    }
}

#[test]
fn a_build_hears_which_rows_share_an_id_and_goes_on_with_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let shape = serde_json::from_value(json!({"dimension": 2})).unwrap();
    let mut writer = IndexWriter::create(folder.path(), &shape, 2, 1);
    writer.push("a", &[1.0, 0.0], &metadata(&json!({"x": 1}))).unwrap();
    writer.push("b", &[0.0, 1.0], &metadata(&json!({}))).unwrap();
    let again = writer.push("a", &[1.0, 1.0], &metadata(&json!({})));
    assert!(matches!(again, Err(Error::Duplicate { first: 0, again: 2, .. })));
    for (id, vector) in [("", [1.0, 0.0]), ("c", [0.0, 0.0]), ("d", [f32::NAN, 0.0])] {
        assert!(matches!(writer.push(id, &vector, &metadata(&json!({}))), Err(Error::Invalid(_))), "{id}");
    }
    let finished = writer.finish(&|_| {}).unwrap();
    assert_eq!(finished.iter().map(|segment| segment.rows).sum::<u32>(), 2);
}

async fn until(holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "it takes too long");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn segments(store: &Store) -> usize {
    let all = store.list_all("_vectors/").await.unwrap();
    all.iter().filter(|listed| listed.key.as_str().ends_with(".segment")).count()
}
