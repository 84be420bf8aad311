//! Kept versions by their numbers, and queries for this process.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arrow::array::{AsArray, RecordBatch};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future::join_all};
use lakehouse_contract::{DatasetName, Key, keys, sql::SqlRequest};
use lakehouse_query::{Error, Settings};
use lakehouse_store::{
    ByteRange, Condition, Etag, Meta, Object, Objects, Page, Payload, Result as Stored, Store, memory::Memory,
};
use serde_json::json;
use support::{Lake, ids, settings, workers};

#[tokio::test]
async fn a_version_is_a_table_by_its_number() {
    let lake = with_two_versions(settings()).await;
    assert_eq!(lake.rows("FROM \"workers@1\"").await, json!([[1, "Ada"], [2, "Grace"], [3, "Barbara"]]));
    assert_eq!(
        lake.rows("FROM \"workers@2\"").await,
        lake.rows("FROM workers").await,
        "the current one has one too"
    );
    for sql in [
        "SELECT count(*) FROM \"workers@1\" WHERE id NOT IN (SELECT id FROM workers)",
        "SELECT count(*) FROM main.\"WORKERS@1\" w LEFT JOIN \"workers@2\" USING (id) WHERE \"workers@2\".id IS NULL",
        "WITH old AS (FROM \"Workers@1\") SELECT count(\"old\".id) FROM old ANTI JOIN workers USING (id)",
        "SELECT (SELECT count(*) FROM \"workers@1\") - (SELECT count(*) FROM \"workers@1\" WHERE id = 1)",
    ] {
        assert_eq!(lake.rows(sql).await, json!([[2]]), "{sql}");
    }
    assert_eq!(lake.rows("DESCRIBE \"workers@1\"").await[1][0], "name");
    assert_eq!(lake.rows("SUMMARIZE \"workers@1\"").await.as_array().unwrap().len(), 2);
    assert_eq!(lake.sql("EXPLAIN FROM \"workers@1\"").await.0, 200);
    let (_, body) =
        lake.post(json!({"sql": "FROM \"workers@1\" WHERE id >= ?", "params": [2], "limit": 1})).await;
    assert_eq!(body["rows"], json!([[2, "Grace"]]));
}

#[tokio::test]
async fn the_view_of_a_version_is_seen_by_its_query_alone() {
    let lake = with_two_versions(settings()).await;
    lake.rows("FROM \"workers@1\"").await;
    assert_eq!(lake.rows("SHOW TABLES").await, json!([["workers"]]));
    assert_eq!(lake.rows("SELECT table_name FROM information_schema.tables").await, json!([["workers"]]));
    assert_eq!(lake.rows("FROM workers").await, json!([[1, "Ada"]]));
}

#[tokio::test]
async fn a_version_that_is_not_kept_is_refused_with_those_that_are() {
    let lake = with_two_versions(settings()).await;
    let (status, body) = lake.sql("SELECT 1 FROM \"workers@9\"").await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("unknown_version")), "{body}");
    assert_eq!(body["error"]["message"], "dataset `workers` has no version 9; versions 2, 1 are kept");
    assert_eq!(body["error"]["details"]["kept"], json!([2, 1]));
    let (status, body) = lake.sql("SELECT 1 FROM \"nobody@1\"").await;
    assert_eq!((status.as_u16(), &body["error"]["message"]), (400, &json!("there is no dataset `nobody`")));
    for name in
        ["\"workers@\"", "\"workers@latest\"", "\"workers@01\"", "memory.\"workers@1\"", "s.\"workers@1\""]
    {
        let (status, body) = lake.sql(&format!("FROM {name}")).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains("`@` and its number: \"sales@3\"."), "{name}: {message}");
    }
    let (_, body) = lake.sql("WITH \"workers@1\" AS (SELECT 1) FROM \"workers@1\"").await;
    assert_eq!(body["error"]["code"], "sql_refused", "{body}");

    let name = DatasetName::parse("workers").unwrap();
    lake.catalog.collect(&name, NonZeroU32::MIN).await.unwrap();
    lake.engine.refresh().await.unwrap();
    let (_, body) = lake.sql("SELECT 1 FROM \"workers@1\"").await;
    assert_eq!(body["error"]["message"], "dataset `workers` has no version 1; only version 2 is kept");
}

#[tokio::test]
async fn a_version_that_cannot_be_read_fails_its_own_queries_only() {
    let lake = with_two_versions(Settings { cache_limit: 1, ..settings() }).await;
    let first = lake.catalog.get_version(&DatasetName::parse("workers").unwrap(), 1).await.unwrap();
    lake.store.delete(&first.objects[0].key).await.unwrap();
    let (status, body) = lake.sql("FROM \"workers@1\"").await;
    assert_eq!((status.as_u16(), &body["error"]["details"]["dataset"]), (502, &json!("workers@1")), "{body}");
    assert_eq!(lake.rows("FROM workers").await, json!([[1, "Ada"]]));
}

#[tokio::test]
async fn a_dataset_that_counts_from_1_again_is_seen_after_a_refresh() {
    let lake = with_two_versions(settings()).await;
    lake.rows("FROM \"workers@1\"").await;
    lake.catalog.purge(&DatasetName::parse("workers").unwrap()).await.unwrap();
    lake.put("workers", &workers(&["Eve"])).await;
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.rows("FROM \"workers@1\"").await, json!([[1, "Eve"]]));
}

#[tokio::test]
async fn versions_of_a_damaged_or_removed_dataset_are_still_kept() {
    let lake = with_two_versions(settings()).await;
    let name = DatasetName::parse("workers").unwrap();
    lake.store.put(&keys::manifest(&name), b"rot".to_vec().into(), Condition::Always).await.unwrap();
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.sql("FROM workers").await.0, 502);
    assert_eq!(lake.rows("SELECT count(*) FROM \"workers@1\"").await, json!([[3]]));
    lake.catalog.remove(&name).await.unwrap();
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.rows("SELECT count(*) FROM \"workers@1\"").await, json!([[3]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_is_loaded_once_however_many_ask() {
    let (gets, store) = counted();
    let lake = Lake::over(store, Settings { max_queue: 100, ..settings() }).await;
    lake.put("workers", &workers(&["Ada"])).await;
    lake.put("workers", &workers(&["Grace"])).await;
    lake.engine.refresh().await.unwrap();
    gets.store(0, Relaxed);
    let answers = join_all((0..32).map(|_| lake.rows("FROM \"workers@1\""))).await;
    assert!(answers.iter().all(|rows| *rows == json!([[1, "Ada"]])));
    assert_eq!(gets.load(Relaxed), 3, "the current manifest, the version's, its rows");
}

#[tokio::test]
async fn a_query_keeps_the_version_that_it_started_with() {
    let lake = Lake::with(Settings { cache_limit: 1, ..settings() }).await;
    lake.put("many", &[("id", ids(300_000))]).await;
    lake.put("many", &[("id", ids(1))]).await;
    let mut batches = lake.engine.batches(request("FROM \"many@1\""), MINUTE).await.unwrap();
    let first = batches.next().await.unwrap().unwrap().num_rows();
    lake.catalog.purge(&DatasetName::parse("many").unwrap()).await.unwrap();
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.sql("FROM \"many@1\"").await.0, 400);
    let rest: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    assert_eq!(first + rest.iter().map(RecordBatch::num_rows).sum::<usize>(), 300_000);
}

#[tokio::test]
async fn an_engine_without_views_reads_only_what_is_asked_for() {
    let (gets, store) = counted();
    let other = Lake::over(store.clone(), settings()).await;
    for name in ["workers", "unread"] {
        other.put(name, &workers(&["Ada"])).await;
    }
    gets.store(0, Relaxed);
    let lake = Lake::over(store, Settings { views: false, ..settings() }).await;
    assert!(lake.engine.is_ready());
    assert_eq!(gets.load(Relaxed), 0);
    assert_eq!(lake.rows("FROM \"workers@1\"").await, json!([[1, "Ada"]]));
    assert_eq!(gets.load(Relaxed), 2, "the manifest and the rows");
    lake.engine.refresh().await.unwrap();
    let (status, body) = lake.sql("FROM workers").await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("sql_error")), "{body}");
}

#[tokio::test]
async fn batches_have_the_columns_the_rows_and_the_fence() {
    let lake = with_two_versions(settings()).await;
    let sql = "SELECT CAST(id AS VARCHAR) AS id, name FROM \"workers@1\" WHERE name > $1";
    let request = SqlRequest { sql: sql.into(), params: vec![json!("B")], limit: None };
    let batches = lake.engine.batches(request, MINUTE).await.unwrap();
    assert_eq!(batches.schema().field(1).name(), "name");
    let rows: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    assert_eq!(rows.len(), 1);
    let texts =
        |column: usize| rows[0].column(column).as_string::<i32>().iter().flatten().collect::<Vec<_>>();
    assert_eq!((texts(0), texts(1)), (vec!["2", "3"], vec!["Grace", "Barbara"]));

    let mut none =
        lake.engine.batches(self::request("FROM \"workers@1\" WHERE false"), MINUTE).await.unwrap();
    assert_eq!(none.schema().fields().len(), 2);
    assert!(none.next().await.is_none());
    for (sql, refused) in [("FROM read_csv('/etc/passwd')", true), ("FROM \"workers@1\" WHERE nope", false)] {
        let error = lake.engine.batches(self::request(sql), MINUTE).await.err().unwrap();
        assert_eq!(matches!(error, Error::Refused(_)), refused, "{error}");
    }
}

#[tokio::test]
async fn a_reader_of_batches_takes_its_time_and_no_place() {
    let patient =
        Settings { stall_timeout: Duration::from_millis(20), max_concurrent: 1, max_queue: 0, ..settings() };
    let lake = with_two_versions(patient).await;
    let mut batches =
        lake.engine.batches(request("FROM range(100000)"), Duration::from_secs(20)).await.unwrap();
    let mut rows = batches.next().await.unwrap().unwrap().num_rows();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(lake.rows("FROM workers").await, json!([[1, "Ada"]]));
    while let Some(batch) = batches.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 100_000);
    let slow = lake
        .engine
        .batches(
            request("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"),
            Duration::from_millis(50),
        )
        .await;
    assert!(matches!(slow.err(), Some(Error::Timeout { .. })));
}

#[tokio::test]
async fn dropping_batches_ends_their_query() {
    let lake = with_two_versions(Settings { cache_limit: 1, ..settings() }).await;
    let first = lake.catalog.get_version(&DatasetName::parse("workers").unwrap(), 1).await.unwrap();
    let file = lake.folder.path().join(format!("query/blobs/{}.parquet", first.objects[0].sha256));
    for sql in [
        "FROM \"workers@1\", range(1000000000000)",
        "FROM \"workers@1\", range(100000) a, range(100000000) b WHERE random() < 0",
    ] {
        let batches = lake.engine.batches(request(sql), MINUTE);
        let batches = tokio::time::timeout(Duration::from_millis(300), batches).await;
        assert!(file.exists(), "a query that runs keeps its files");
        drop(batches);
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if !file.exists() {
                break;
            }
        }
        assert!(!file.exists(), "{sql}");
    }
}

const MINUTE: Duration = Duration::from_mins(1);

fn request(sql: &str) -> SqlRequest {
    SqlRequest { sql: sql.into(), ..SqlRequest::default() }
}

/// `workers` with three rows in version 1 and the first of them in version 2.
async fn with_two_versions(settings: Settings) -> Lake {
    let lake = Lake::with_workers(settings).await;
    lake.put("workers", &workers(&["Ada"])).await;
    lake.engine.refresh().await.unwrap();
    lake
}

/// A store in memory that counts what is read of it.
fn counted() -> (Arc<AtomicUsize>, Store) {
    let gets = Arc::new(AtomicUsize::new(0));
    (gets.clone(), Store::new(Counted(Memory::default(), gets)))
}

#[derive(Debug)]
struct Counted(Memory, Arc<AtomicUsize>);

#[async_trait]
impl Objects for Counted {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Stored<Etag> {
        self.0.put(key, body, condition).await
    }
    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Stored<Object> {
        self.1.fetch_add(1, Relaxed);
        self.0.get(key, range).await
    }
    async fn head(&self, key: &Key) -> Stored<Meta> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Stored<Page> {
        self.0.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &Key) -> Stored<()> {
        self.0.delete(key).await
    }
}
