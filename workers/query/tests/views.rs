//! Views follow the catalogue, and one dataset's trouble is its own.

mod support;

use std::{sync::Arc, time::Duration};

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use lakehouse_contract::{DatasetName, ingest::SchemaPolicy, keys};
use lakehouse_query::Settings;
use lakehouse_store::{Condition, Payload};
use serde_json::{Value, json};
use support::{Lake, ids, settings, texts, workers};
use tower::ServiceExt;

#[tokio::test]
async fn an_engine_without_datasets_answers() {
    let lake = Lake::new().await;
    assert!(lake.engine.is_ready());
    assert_eq!(lake.rows("SELECT 42").await, json!([[42]]));
    assert_eq!(lake.rows("SHOW TABLES").await, json!([]));
}

#[tokio::test]
async fn views_come_change_and_go_with_the_catalogue() {
    let lake = Lake::with_workers(settings()).await;
    lake.put("workers", &workers(&["Ada"])).await;
    lake.put("us-airports.v2", &[("code", texts(&["SEA"]))]).await;
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.rows("FROM workers").await, json!([[1, "Ada"]]));
    assert_eq!(lake.rows("FROM \"us-airports.v2\"").await, json!([["SEA"]]));
    lake.catalog.remove(&DatasetName::parse("workers").unwrap()).await.unwrap();
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.sql("FROM workers").await.0, 400);
    assert_eq!(lake.rows("SHOW TABLES").await, json!([["us-airports.v2"]]));
}

#[tokio::test]
async fn the_follower_needs_no_call() {
    let lake = Lake::with(Settings { refresh_interval: Duration::from_millis(20), ..settings() }).await;
    lake.put("workers", &workers(&["Ada"])).await;
    for _ in 0..500 {
        if lake.sql("FROM workers").await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the view never came");
}

#[tokio::test]
async fn a_column_that_an_older_file_lacks_is_null_there() {
    let lake = Lake::new().await;
    let old: [(&str, ArrayRef); 2] = [("id", ids(2)), ("name", texts(&["a", "b"]))];
    let new: [(&str, ArrayRef); 3] = [
        ("active", Arc::new(BooleanArray::from(vec![true]))),
        ("name", texts(&["c"])),
        ("id", Arc::new(Int64Array::from(vec![3]))),
    ];
    lake.register("evolved", &[&old, &new], SchemaPolicy::Reject).await;
    lake.engine.refresh().await.unwrap();
    assert_eq!(
        lake.rows("FROM evolved").await,
        json!([[null, "a", 1], [null, "b", 2], [true, "c", 3]]),
        "in the manifest's order of columns and the files' order of rows"
    );
}

#[tokio::test]
async fn names_that_sql_would_mistake_are_kept() {
    let lake = Lake::new().await;
    lake.put("Odd", &[("we'ird \"x\"", ids(1)), ("select", ids(1)), ("ID", ids(1)), ("id", ids(1))]).await;
    lake.engine.refresh().await.unwrap();
    let (_, body) = lake.sql("FROM odd").await;
    let names: Vec<_> =
        body["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["we'ird \"x\"", "select", "ID", "id_1"]);
    assert_eq!(lake.rows("SELECT \"we'ird \"\"x\"\"\", \"select\" FROM odd").await, json!([[1, 1]]));
}

#[tokio::test]
async fn of_names_that_differ_in_case_only_the_first_has_the_view() {
    let lake = Lake::with_workers(settings()).await;
    lake.put("Workers", &workers(&["Eve"])).await;
    lake.engine.refresh().await.unwrap();
    lake.is_well().await;
    let damaged = lake.engine.views().damaged;
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].name == "Workers" && damaged[0].message.contains("`workers`"));
}

#[tokio::test]
async fn a_damaged_manifest_hides_its_own_dataset_only() {
    let lake = Lake::with_workers(settings()).await;
    lake.put("poisoned", &workers(&["Eve"])).await;
    lake.engine.refresh().await.unwrap();
    let key = keys::manifest(&DatasetName::parse("poisoned").unwrap());
    lake.store.put(&key, Payload::from(b"not parquet".to_vec()), Condition::Always).await.unwrap();
    lake.engine.refresh().await.unwrap();
    is_isolated(&lake, "poisoned").await;
}

#[tokio::test]
async fn a_lost_or_damaged_file_hides_its_own_dataset_only() {
    let lake = Lake::with_workers(settings()).await;
    for (name, content) in [("lost", None), ("damaged", Some(b"PAR1 but not really".to_vec()))] {
        lake.put(name, &workers(&[name])).await;
        let manifest = lake.catalog.get(&DatasetName::parse(name).unwrap()).await.unwrap().unwrap();
        let key = &manifest.objects[0].key;
        match content {
            None => lake.store.delete(key).await.unwrap(),
            Some(bytes) => drop(lake.store.put(key, Payload::from(bytes), Condition::Always).await.unwrap()),
        }
        lake.engine.refresh().await.unwrap();
        is_isolated(&lake, name).await;
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_on_this_disk_is_its_datasets_fault() {
    let lake = Lake::with_workers(settings()).await;
    lake.put("hurt", &workers(&["Eve"])).await;
    lake.engine.refresh().await.unwrap();
    let manifest = lake.catalog.get(&DatasetName::parse("hurt").unwrap()).await.unwrap().unwrap();
    let object = &manifest.objects[0];
    let file = lake.folder.path().join(format!("query/blobs/{}.parquet", object.sha256));
    std::fs::write(&file, vec![0; usize::try_from(object.size).unwrap()]).unwrap();
    let (status, body) = lake.sql("FROM hurt").await;
    assert_eq!((status.as_u16(), &body["error"]["details"]["dataset"]), (502, &json!("hurt")), "{body}");
    assert!(!body.to_string().contains(&*lake.folder.path().to_string_lossy()), "{body}");
    lake.is_well().await;
}

#[tokio::test]
async fn files_that_do_not_fit_the_cache_are_fetched_when_they_are_asked_for() {
    let lake = Lake::with(Settings { cache_limit: 1, ..settings() }).await;
    for name in ["one", "two", "three"] {
        lake.put(name, &workers(&[name])).await;
    }
    lake.engine.refresh().await.unwrap();
    for name in ["one", "two", "three", "one"] {
        assert_eq!(lake.rows(&format!("SELECT name FROM {name}")).await, json!([[name]]));
    }
    assert_eq!(lake.rows("SELECT count(*) FROM one, two, three").await, json!([[1]]));
    assert!(std::fs::read_dir(lake.folder.path().join("query/blobs")).unwrap().count() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_never_fails_a_running_query() {
    let lake = Arc::new(Lake::with_workers(Settings { max_queue: 1000, ..settings() }).await);
    let writer = tokio::spawn({
        let lake = lake.clone();
        async move {
            for round in 0..20_usize {
                lake.put("workers", &workers(&vec!["Ada"; 3 + round % 2])).await;
                lake.engine.refresh().await.unwrap();
            }
        }
    });
    let mut answers = 0;
    while !writer.is_finished() || answers < 20 {
        let rows = lake.rows("SELECT (SELECT count(*) FROM workers), (SELECT count(*) FROM workers)").await;
        assert_eq!(rows[0][0], rows[0][1], "one query sees one version");
        assert!(rows[0][0] == 3 || rows[0][0] == 4);
        answers += 1;
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn what_can_be_queried_is_listed() {
    let lake = Lake::with_workers(settings()).await;
    let request = Request::get("/sql/views").body(Body::empty()).unwrap();
    let body = lake.router().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let expected = json!({"views": [{"name": "workers", "version": 1, "row_count": 3}], "damaged": []});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
}

/// A query on `name` says whose fault it is; every other dataset works.
async fn is_isolated(lake: &Lake, name: &str) {
    let (status, body) = lake.sql(&format!("FROM {name}")).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (502, &json!("dataset_unreadable")), "{body}");
    assert_eq!(body["error"]["details"]["dataset"], name);
    assert!(lake.engine.views().damaged.iter().any(|damaged| damaged.name == name));
    lake.is_well().await;
}
