//! ingestd's answers, through its router.
#![allow(clippy::unwrap_used, reason = "tests panic; clippy knows it only inside test functions")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
    response::Response,
};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    Column, ColumnType, DatasetManifest, DatasetName,
    ingest::{DeclaredColumn, Format, IngestAnswer, IngestSpec, OnError},
};
use lakehouse_http::{Problem, with_error_bodies};
use lakehouse_ingest::{
    Options,
    service::{Ingestd, Settings, router},
};
use lakehouse_store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const CSV: &str = "id,city,zip\n1,Łódź,00501\n2,\"Springfield, IL\",62701\n";

#[tokio::test]
async fn a_form_with_a_file_becomes_a_dataset() {
    let service = Service::new();
    let (status, answer) = service.post_form("/ingest?name=shops", &[("file", "shops.csv", CSV)]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer: IngestAnswer = serde_json::from_value(answer).unwrap();
    assert_eq!((answer.version, answer.existing, answer.rows), (1, false, 2));
    let types: Vec<ColumnType> = answer.columns.iter().map(|column| column.column_type).collect();
    assert_eq!(types, [ColumnType::Int64, ColumnType::String, ColumnType::String]);
    let manifest = service.manifest("shops").await.unwrap();
    assert_eq!(manifest.origin.unwrap().source, "shops.csv");
    service.assert_nothing_is_spooled();
}

#[tokio::test]
async fn a_raw_body_is_csv_and_the_same_body_again_is_no_new_version() {
    let service = Service::new();
    let (status, first) = service.post("/ingest?name=shops", CSV).await;
    assert_eq!((status, &first["unchanged"]), (StatusCode::OK, &json!(false)), "{first}");
    let (_, again) = service.post("/ingest?name=shops", CSV).await;
    assert_eq!(
        (&again["version"], &again["existing"], &again["unchanged"]),
        (&json!(1), &json!(true), &json!(true))
    );
    let manifest = service.manifest("shops").await.unwrap();
    assert_eq!(manifest.origin.unwrap().source_digest, sha256(CSV));
}

#[tokio::test]
async fn the_query_says_how_to_read_and_to_write() {
    let service = Service::new();
    let path = "/ingest?name=shops&delimiter=%3B&header=false";
    let (status, answer) = service.post(path, "1;a\n2;b\n").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(columns(&answer), ["column_1", "column_2"]);
    let (status, answer) = service.post(&format!("{path}&write_mode=Append"), "3;c\n").await;
    assert_eq!((status, &answer["rows"]), (StatusCode::OK, &json!(3)), "{answer}");
    let wider = service.post(&format!("{path}&schema_policy=Evolve"), "1;a;x\n").await;
    assert_eq!((wider.0, &wider.1["version"]), (StatusCode::OK, &json!(3)), "{}", wider.1);
}

#[tokio::test]
async fn a_tsv_file_is_read_by_its_tabs() {
    let service = Service::new();
    let (_, answer) = service.post_form("/ingest?name=t", &[("file", "t.tsv", "a\tb\n1\t2\n")]).await;
    assert_eq!(columns(&answer), ["a", "b"]);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_a_400_that_names_what_is_wrong() {
    let service = Service::new();
    for (path, sentence) in [
        ("/ingest", "lacks `name`"),
        ("/ingest?name=", "the name is empty"),
        ("/ingest?name=a%2Fb", "holds '/'"),
        ("/ingest?name=a&format=xml", "`format`"),
        ("/ingest?name=a&delimiter=ab", "`delimiter`"),
        ("/ingest?name=a&nmae=b", "nmae"),
        ("/ingest?name=a&write_mode=Upsert", "Upsert"),
    ] {
        let (status, answer) = service.post(path, CSV).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {answer}");
        assert!(message(&answer).contains(sentence), "{path}: {answer}");
    }
    for (fields, sentence) in [
        (vec![], "lacks the field `file`"),
        (vec![("data", "a.csv", CSV)], "a field `data`"),
        (vec![("file", "a.csv", CSV), ("file", "b.csv", CSV)], "two fields `file`"),
    ] {
        let (status, answer) = service.post_form("/ingest?name=a", &fields).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(message(&answer).contains(sentence), "{answer}");
    }
    assert_eq!(service.manifest("a").await, None);
    service.assert_nothing_is_spooled();
}

#[tokio::test]
async fn a_form_that_was_cut_is_a_400_and_nothing_happened() {
    let service = Service::new();
    let whole = form(&[("file", "a.csv", CSV)]);
    for length in [whole.len() - 4, whole.len() - 20, whole.len() / 2, 3] {
        let (status, answer) = service.send(form_request("/ingest?name=a", whole[..length].to_owned())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{length}: {answer}");
    }
    assert_eq!(service.manifest("a").await, None);
    service.assert_nothing_is_spooled();
}

#[tokio::test]
async fn bad_csv_is_a_400_that_says_where() {
    let service = Service::new();
    let (status, answer) = service.post("/ingest?name=a", "id,city\n1,Lyon\n2\n").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["error"]["code"], "bad_source");
    assert_eq!(answer["error"]["details"], json!({ "line": 3, "byte": 15 }), "what is unknown is left out");
    let (status, answer) = service.post("/ingest?name=a", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(service.manifest("a").await, None);
}

#[tokio::test]
async fn a_format_that_comes_later_is_a_501_with_a_sentence() {
    let service = Service::new();
    let (status, answer) = service.post_form("/ingest?name=a", &[("file", "a.ndjson", "{}")]).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(message(&answer).contains("NDJSON"), "{answer}");
}

#[tokio::test]
async fn another_schema_is_a_409_and_the_live_version_stays() {
    let service = Service::new();
    service.post("/ingest?name=shops", CSV).await;
    let before = service.manifest("shops").await;
    let stored = service.store.list_all("datasets/").await.unwrap();
    let (status, answer) = service.post("/ingest?name=shops", "id,town\n1,Lyon\n").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["error"]["code"], "schema_conflict");
    assert_eq!(answer["error"]["details"]["difference"]["added"], json!(["town"]));
    assert_eq!(service.manifest("shops").await, before);
    assert_eq!(service.store.list_all("datasets/").await.unwrap(), stored, "nothing was uploaded");
}

#[tokio::test]
async fn a_body_over_the_cap_is_a_413_by_its_length_and_by_counting() {
    let service = Service::with(|settings| settings.max_ingest_bytes = 100);
    let large = format!("id\n{}", "1\n".repeat(100));
    let (status, answer) = service.post("/ingest?name=a", &large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert_eq!(answer["error"]["details"]["limit_bytes"], 100);
    let pieces: Vec<_> =
        large.as_bytes().chunks(50).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = Request::post("/ingest?name=a").body(Body::from_stream(stream::iter(pieces))).unwrap();
    assert_eq!(service.send(chunked).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let boundary = form(&[("file", "a.csv", &large)]);
    let pieces: Vec<_> =
        boundary.as_bytes().chunks(50).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let mut chunked = form_request("/ingest?name=a", String::new());
    *chunked.body_mut() = Body::from_stream(stream::iter(pieces));
    assert_eq!(service.send(chunked).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(service.manifest("a").await, None);
    service.assert_nothing_is_spooled();
}

#[tokio::test]
async fn a_second_ingest_of_a_dataset_is_a_409_while_the_first_one_runs() {
    let service = Service::new();
    let slow = service.start_slow_upload("/ingest?name=a").await;
    let (status, answer) = service.post("/ingest?name=a", CSV).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("ingest_running")));
    assert_eq!(service.post("/ingest?name=b", CSV).await.0, StatusCode::OK);
    slow.abort();
}

#[tokio::test]
async fn one_ingest_too_many_is_a_503_with_retry_after() {
    let service = Service::with(|settings| settings.max_running = 1);
    let slow = service.start_slow_upload("/ingest?name=a").await;
    let request = Request::post("/ingest?name=b").body(Body::from(CSV)).unwrap();
    let answer = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "5");
    slow.abort();
}

#[tokio::test]
async fn a_client_that_leaves_while_it_uploads_leaves_nothing() {
    let service = Service::new();
    let slow = service.start_slow_upload("/ingest?name=a").await;
    slow.abort();
    assert!(slow.await.unwrap_err().is_cancelled());
    assert_eq!(service.get("/ingest/progress").await.1, json!([]));
    service.assert_nothing_is_spooled();
    assert_eq!(service.post("/ingest?name=a", CSV).await.0, StatusCode::OK, "the name is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_ends_without_the_client_once_the_file_is_here() {
    let service = Service::new();
    let rows = "1,name\n".repeat(200_000);
    let request = Request::post("/ingest?name=a").body(Body::from(format!("id,name\n{rows}"))).unwrap();
    let client = tokio::spawn(service.router.clone().oneshot(request));
    service.wait_until(|phase| !matches!(phase, None | Some("Fetching"))).await;
    client.abort();
    service.wait_until(|phase| matches!(phase, Some("Done" | "Failed"))).await;
    assert_eq!(service.manifest("a").await.unwrap().row_count, 200_000);
}

#[tokio::test]
async fn progress_lists_the_last_ingest_of_each_dataset() {
    let service = Service::new();
    service.post("/ingest?name=b", CSV).await;
    service.post("/ingest?name=a", "id\n1\n2,3\n").await;
    let (status, all) = service.get("/ingest/progress").await;
    assert_eq!(status, StatusCode::OK);
    let phases: Vec<_> = all.as_array().unwrap().iter().map(|one| (&one["name"], &one["phase"])).collect();
    assert_eq!(phases, [(&json!("a"), &json!("Failed")), (&json!("b"), &json!("Done"))]);
    assert!(all[0]["message"].as_str().unwrap().contains("line 3"), "{all}");
    let (_, one) = service.get("/ingest/progress?name=b").await;
    assert_eq!((&one[0]["rows"], &one[0]["total_bytes"]), (&json!(2), &json!(CSV.len())));
    assert_eq!(service.get("/ingest/progress?name=none").await.1, json!([]));
}

#[tokio::test]
async fn whoever_follows_new_versions_has_heard_of_one_before_the_client_has() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    let service = Service::made(
        |_| {},
        move |ingestd| {
            ingestd.on_published(move |_| {
                let counter = counter.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    counter.fetch_add(1, Relaxed);
                }
            })
        },
    );
    service.post("/ingest?name=a", CSV).await;
    assert_eq!(heard.load(Relaxed), 1);
    service.post("/ingest?name=a", "id\n1,2\n").await;
    assert_eq!(heard.load(Relaxed), 1, "nothing was published");
}

#[tokio::test]
async fn a_declared_dataset_is_read_as_its_resource_says() {
    let service = Service::made(
        |_| {},
        |ingestd| {
            ingestd.declared_by(async |name: DatasetName, _| {
                let mut spec = IngestSpec::inferred(name.clone(), Format::CSV);
                spec.csv.delimiter = '|';
                let column_type = ColumnType::String;
                spec.columns =
                    vec![DeclaredColumn { name: "id".into(), column_type, on_error: OnError::Fail }];
                match name.as_str() {
                    "declared" => Ok(Some(spec)),
                    "pinned" => Err(Problem::conflict("the Dataset `pinned` takes no uploads now")),
                    _ => Ok(None),
                }
            })
        },
    );
    service.post("/ingest?name=declared", "id|n\n7|8\n").await;
    let schema = service.manifest("declared").await.unwrap().schema;
    let expected = [("id", ColumnType::String, 1), ("n", ColumnType::Int64, 2)];
    assert_eq!(
        schema,
        expected.map(|(name, column_type, field_id)| Column { name: name.into(), column_type, field_id })
    );
    let (status, answer) = service.post("/ingest?name=declared&delimiter=,", "id\n7\n").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(service.post("/ingest?name=free&delimiter=,", "id\n7\n").await.0, StatusCode::OK);
    let (status, answer) = service.post("/ingest?name=pinned", "id\n7\n").await;
    assert_eq!(
        (status, message(&answer)),
        (StatusCode::CONFLICT, "the Dataset `pinned` takes no uploads now")
    );
}

/// ingestd over a store in memory.
struct Service {
    store: Store,
    router: Router,
    spool: TempDir,
}

impl Service {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::made(change, |ingestd| ingestd)
    }

    fn made(change: impl FnOnce(&mut Settings), extend: impl FnOnce(Ingestd) -> Ingestd) -> Self {
        let spool = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(Options::new(spool.path()));
        change(&mut settings);
        let store = Store::memory();
        let ingestd = Ingestd::new(Catalog::new(store.clone()), settings);
        Self { store, router: with_error_bodies(router(extend(ingestd))), spool }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.send(Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn post_form(&self, path: &str, fields: &[(&str, &str, &str)]) -> (StatusCode, Value) {
        self.send(form_request(path, form(fields))).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer: Response = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Sends the start of a body and waits until it has arrived; the rest never comes.
    async fn start_slow_upload(&self, path: &str) -> tokio::task::JoinHandle<()> {
        let start = stream::iter([Ok::<_, std::io::Error>(Bytes::from("id\n1\n"))]).chain(stream::pending());
        let request = Request::post(path).body(Body::from_stream(start)).unwrap();
        let answer = self.router.clone().oneshot(request);
        let upload = tokio::spawn(async move { drop(answer.await) });
        while self.get("/ingest/progress").await.1[0]["bytes"] != 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        upload
    }

    /// Waits until the phase of the ingest into `a` is as it should be.
    async fn wait_until(&self, expected: impl Fn(Option<&str>) -> bool) {
        let met = async {
            while !expected(self.get("/ingest/progress?name=a").await.1[0]["phase"].as_str()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), met).await.expect("the phase is never reached");
    }

    async fn manifest(&self, dataset: &str) -> Option<DatasetManifest> {
        let name = DatasetName::parse(dataset).unwrap();
        Catalog::new(self.store.clone()).get(&name).await.unwrap().map(Arc::unwrap_or_clone)
    }

    fn assert_nothing_is_spooled(&self) {
        for entry in std::fs::read_dir(self.spool.path()).unwrap() {
            let entry = entry.unwrap();
            assert!(!entry.file_type().unwrap().is_dir(), "{} is left", entry.path().display());
        }
    }
}

/// A multipart body of files: field, file name, content.
fn form(fields: &[(&str, &str, &str)]) -> String {
    let part = |(field, file, content): &(&str, &str, &str)| {
        format!(
            "--XX\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
        )
    };
    fields.iter().map(part).collect::<Vec<_>>().concat() + "--XX--\r\n"
}

fn form_request(path: &str, body: String) -> Request<Body> {
    let form = Request::post(path).header(header::CONTENT_TYPE, "multipart/form-data; boundary=XX");
    form.body(Body::from(body)).unwrap()
}

fn columns(answer: &Value) -> Vec<&str> {
    answer["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap()
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    lakehouse_contract::dataset::hex(&Sha256::digest(text))
}
