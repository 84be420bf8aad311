//! A vectord to talk to, and stores that fail when they are told to.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use lakehouse_contract::{
    Key,
    embed::ModelIdentity,
    vectors::{BuiltFrom, Metadata, RowId, Shape},
};
use lakehouse_embed::{EmbedError, Embedded, Embedder, Reason};
use lakehouse_http::Metrics;
use lakehouse_store::{
    ByteRange, Condition, Error, Etag, Meta, Object, Objects, Page, Payload, Result, Store, memory::Memory,
};
use lakehouse_vector::{IndexWriter, Indexes, Manifest, NewVersion, Settings, Tuning, Vectord, router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tower::ServiceExt;

/// A vectord over a store, with a cache of its own.
pub struct Served {
    pub vectord: Vectord,
    pub routes: Router,
    pub cache: TempDir,
}

impl Served {
    pub async fn over(store: &Store) -> Self {
        Self::with(store, settings()).await
    }

    pub async fn with(store: &Store, settings: Settings) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let vectord = open(store, cache.path(), settings).await;
        Self { routes: router(vectord.clone()), vectord, cache }
    }

    pub async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        let (status, bytes) = self.call(method, path, body).await;
        let answer = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (status, answer)
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, &body).await
    }

    /// A call that must work.
    pub async fn good(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, &Value::Null).await
    }

    pub async fn create(&self, name: &str, dimension: u32) -> Value {
        self.good("/vectors/index", json!({"name": name, "dimension": dimension})).await
    }

    pub async fn add(&self, name: &str, items: Value) -> Value {
        self.good(&format!("/vectors/index/{name}/add"), json!({"items": items})).await
    }

    pub async fn search(&self, name: &str, body: Value) -> Value {
        self.good(&format!("/vectors/index/{name}/search"), body).await
    }

    /// The ids of a search's only list.
    pub async fn ids(&self, name: &str, body: Value) -> Vec<String> {
        let answer = self.search(name, body).await;
        answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub async fn length(&self, name: &str) -> u64 {
        let (status, info) = self.get(&format!("/vectors/index/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{info}");
        info["length"].as_u64().unwrap()
    }

    /// What is kept under an id.
    pub async fn item(&self, name: &str, id: &str) -> Value {
        self.good(&format!("/vectors/index/{name}/get"), json!({"ids": [id]})).await["items"][0].clone()
    }
}

pub async fn open(store: &Store, cache: &Path, settings: Settings) -> Vectord {
    let embedder: Arc<dyn Embedder> = Arc::new(Words);
    Vectord::open(store.clone(), cache, Some(embedder), settings, &Metrics::default()).await.unwrap()
}

/// Follows the store at once, and makes segments early.
pub fn settings() -> Settings {
    let tuning = Tuning { flush_rows: 64, flush_records: 64, small_rows: 16, ..Tuning::default() };
    Settings { follow: Duration::from_millis(50), tuning, ..Settings::default() }
}

/// A bad answer's code and sentence.
pub fn refusal(answer: &Value) -> (&str, &str) {
    (answer["error"]["code"].as_str().unwrap(), answer["error"]["message"].as_str().unwrap())
}

/// Embeds a text as how often each of some letters stands in it.
#[derive(Debug, Default)]
pub struct Words;

pub const MODEL: &str = "local/letters";

pub fn identity(digest: &str) -> ModelIdentity {
    ModelIdentity { model: MODEL.into(), digest: digest.into(), dimension: 4, normalised: false }
}

#[async_trait]
impl Embedder for Words {
    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
        let vectors = texts.iter().map(|text| letters(text).into()).collect();
        Ok(Embedded { identity: self.identity(model).await?, vectors })
    }

    async fn identity(&self, model: &str) -> Result<ModelIdentity, EmbedError> {
        match model {
            MODEL | "letters" => Ok(identity("one")),
            _ => Err(EmbedError::new(Reason::UnknownModel, format!("there is no model `{model}`"))),
        }
    }
}

pub fn letters(text: &str) -> Vec<f32> {
    let count = |letter: char| f32::from(u8::try_from(text.matches(letter).count()).unwrap());
    ['a', 'b', 'c', 'd'].map(count).to_vec()
}

/// Publishes the next version of an index with these rows, as a build would.
pub async fn publish(store: &Store, name: &str, rows: &[(&str, Vec<f32>, Value)], shards: u32) -> Manifest {
    let folder = tempfile::tempdir().unwrap();
    let shape: Shape = serde_json::from_value(json!({"dimension": rows[0].1.len()})).unwrap();
    let mut writer = IndexWriter::create(folder.path(), &shape, shards, 1);
    for (id, vector, metadata) in rows {
        writer.push(id, vector, metadata.as_object().unwrap()).unwrap();
    }
    let (indexes, name) = (Indexes::new(store.clone()), index_name(name));
    let mut segments = Vec::new();
    for finished in writer.finish(&|_| {}).unwrap() {
        segments.push(indexes.upload(&name, &finished).await.unwrap());
    }
    let id = RowId { prefix: "w-".into(), column: "worker id".into(), suffix: String::new() };
    let source =
        BuiltFrom { dataset: "workers".to_owned().try_into().unwrap(), version: 3, id, inputs: "i".into() };
    let version = NewVersion {
        shape,
        shards,
        segments,
        fields: vec!["state".into(), "rank".into()],
        embedding: identity("one"),
        source,
        failed: 0,
        recall: Some(1.0),
    };
    indexes.publish(&name, version).await.unwrap()
}

pub fn index_name(name: &str) -> lakehouse_contract::IndexName {
    lakehouse_contract::IndexName::parse(name).unwrap()
}

pub fn metadata(value: &Value) -> Metadata {
    value.as_object().unwrap().clone()
}

/// A store in memory that can go away, lose answers, and count what is asked of it.
#[derive(Clone, Debug, Default)]
pub struct Faulty {
    memory: Arc<Memory>,
    pub down: Arc<AtomicBool>,
    /// After so many writes, the next one is done and its answer lost, and the store is down.
    pub fuse: Arc<AtomicU64>,
    pub requests: Arc<AtomicU64>,
    /// Of these, removals.
    pub deletes: Arc<AtomicU64>,
    /// Requests for what begins like this never end.
    pub stuck: Arc<Mutex<Option<&'static str>>>,
    /// The request that waits until [`Self::resume`] is notified; `paused` is told that it does.
    pub pause_at: Arc<AtomicU64>,
    pub paused: Arc<Notify>,
    pub resume: Arc<Notify>,
}

impl Faulty {
    pub fn store(&self) -> Store {
        Store::new(self.clone())
    }

    /// Another way to the same objects, with faults of its own.
    pub fn beside(&self) -> Self {
        Self { memory: self.memory.clone(), ..Self::default() }
    }

    /// The next `writes` writes work; the one after happens, and nobody hears of it.
    pub fn light_fuse(&self, writes: u64) {
        self.fuse.store(writes + 1, SeqCst);
    }

    async fn up(&self, place: &str) -> Result<()> {
        let stuck = self.stuck.lock().unwrap().is_some_and(|stuck| place.starts_with(stuck));
        if stuck {
            std::future::pending::<()>().await;
        }
        let number = self.requests.fetch_add(1, SeqCst) + 1;
        if number == self.pause_at.load(SeqCst) {
            self.paused.notify_one();
            self.resume.notified().await;
        }
        if self.down.load(SeqCst) { Err(gone()) } else { Ok(()) }
    }

    /// Whether the write that is being made is the last one.
    fn burns(&self) -> bool {
        let burnt =
            self.fuse.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok_and(|left| left == 1);
        if burnt {
            self.down.store(true, SeqCst);
        }
        burnt
    }
}

fn gone() -> Error {
    Error::Unavailable { message: "nobody listens".into() }
}

#[async_trait]
impl Objects for Faulty {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.up(key.as_str()).await?;
        let burns = self.burns();
        let written = self.memory.put(key, body, condition).await;
        if burns { Err(gone()) } else { written }
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        self.up(key.as_str()).await?;
        self.memory.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.up(key.as_str()).await?;
        self.memory.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.up(prefix).await?;
        self.memory.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.deletes.fetch_add(1, SeqCst);
        self.up(key.as_str()).await?;
        let burns = self.burns();
        let deleted = self.memory.delete(key).await;
        if burns { Err(gone()) } else { deleted }
    }
}
