//! A lake of its own for each test, with an embedder that counts and fails as told.
#![allow(clippy::unwrap_used, reason = "a failed step of a test's setup should stop the test")]

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use lakehouse_build::{Builder, Error, Options, Tracker};
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    DatasetName, IndexName, Key,
    embed::ModelIdentity,
    ingest::{Format, IngestSpec},
    job::Built,
    keys,
    vectors::{BuildSpec, Hnsw, Metadata, Metric, Quantization, RowId, Shape},
};
use lakehouse_embed::{EmbedError, Embedded, Embedder, Reason, Vector};
use lakehouse_ingest::{Options as IngestOptions, SourceInfo, Tracker as IngestTracker, ingest};
use lakehouse_query::{Engine, Settings};
use lakehouse_store::Store;
use lakehouse_vector::Segment;

pub(crate) const WORKERS: &str = "id,role,state,years,hired
1,nurse,IL,1,2024-01-01T08:00:00Z
2,nurse,OH,2,2024-01-02T08:00:00Z
3,welder,IL,3,2024-01-03T08:00:00Z
";

pub(crate) struct Lab {
    pub(crate) store: Store,
    pub(crate) embedder: Arc<Fake>,
    catalog: Catalog,
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let (folder, store) = (tempfile::tempdir().unwrap(), Store::memory());
        let catalog = Catalog::new(store.clone());
        let settings = Settings {
            memory_limit: 256 << 20,
            threads: 2,
            refresh_interval: Duration::from_hours(1),
            ..Settings::new(folder.path().join("query"))
        };
        let engine = Engine::open(store.clone(), catalog.clone(), settings).await.unwrap();
        Self { store, embedder: Arc::default(), catalog, engine, folder }
    }

    /// A new builder, as a new process has one.
    pub(crate) fn builder(&self) -> Builder {
        let (store, catalog, engine) = (self.store.clone(), self.catalog.clone(), self.engine.clone());
        let options = Options { threads: 2, patience: Duration::ZERO };
        Builder::new(store, catalog, engine, self.embedder.clone(), &self.work(), options).unwrap()
    }

    pub(crate) async fn build(&self, spec: &BuildSpec, version: u64) -> Result<Built, Error> {
        let built = self.builder().build(spec, version, &identity(), &Tracker::new(spec.name.clone())).await;
        if built.is_ok() {
            self.builder().collect(&spec.name, NonZeroU32::new(5).unwrap()).await;
        }
        built
    }

    /// Publishes the next version.
    pub(crate) async fn ingest(&self, name: &str, csv: &str) {
        let path = self.folder.path().join(format!("{name}.csv"));
        std::fs::write(&path, csv).unwrap();
        let spec = IngestSpec::inferred(DatasetName::parse(name).unwrap(), Format::CSV);
        let info = SourceInfo { source: name.to_owned(), digest: format!("sha256:{}", csv.len()) };
        let options = IngestOptions::new(self.folder.path().join("spool"));
        ingest(&self.catalog, &path, &spec, info, &IngestTracker::new(name), &options).await.unwrap();
        self.engine.refresh().await.unwrap();
    }

    /// Ids and metadata of the version that is served, by id.
    pub(crate) async fn rows(&self, name: &IndexName) -> Vec<(String, serde_json::Value)> {
        let manifest = self.builder().indexes().manifest(name).await.unwrap().unwrap();
        let mut rows = Vec::new();
        for segment in &manifest.segments {
            let key = Key::parse(format!("{}/{}.segment", keys::segments(name), segment.sha256)).unwrap();
            let path = self.folder.path().join(&segment.sha256);
            self.store.fetch_blob(&key, &segment.sha256, &path).await.unwrap();
            let segment = Segment::open(&path, &manifest.shape).unwrap();
            rows.extend((0..segment.rows()).map(|row| {
                let metadata: Metadata = segment.metadata(row);
                (segment.id(row).to_owned(), metadata.into())
            }));
        }
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        rows
    }

    /// An object as text.
    pub(crate) async fn text(&self, key: &Key) -> String {
        let bytes = self.store.get(key, None).await.unwrap().bytes(1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// What builders have left in their folder.
    pub(crate) fn left_behind(&self) -> usize {
        drop(self.builder());
        std::fs::read_dir(self.work()).unwrap().count()
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("builds")
    }
}

pub(crate) fn spec() -> BuildSpec {
    BuildSpec {
        name: IndexName::parse("shelf").unwrap(),
        dataset: DatasetName::parse("workers").unwrap(),
        id: RowId { prefix: "w-".into(), column: "id".into(), suffix: String::new() },
        text: "{role} in {state}: {{ICU}}".into(),
        metadata: vec!["state".into(), "years".into(), "hired".into()],
        predicate: None,
        model: "fake/tiny".into(),
        dimension: None,
        metric: Metric::Cosine,
        hnsw: Hnsw::default(),
        quantization: Quantization::None,
        shards: 1,
    }
}

pub(crate) fn shape() -> Shape {
    Shape { dimension: 4, metric: Metric::Cosine, hnsw: Hnsw::default(), quantization: Quantization::None }
}

pub(crate) fn identity() -> ModelIdentity {
    ModelIdentity { model: "fake/tiny".into(), digest: "sha256:00".into(), dimension: 4, normalised: false }
}

/// Embeds by counting letters, and remembers every text.
#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

#[derive(Default)]
struct State {
    texts: Vec<String>,
    fail: Option<(usize, EmbedError)>,
    hang: Option<usize>,
    hangs: bool,
}

impl Fake {
    /// Every text that gave a vector, in the order they came.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts = self.0.lock().unwrap().texts.clone();
        texts.sort();
        texts
    }

    pub(crate) fn fail_after(&self, texts: usize, error: EmbedError) {
        self.0.lock().unwrap().fail = Some((texts, error));
    }

    pub(crate) fn hang_after(&self, texts: usize) {
        let mut state = self.0.lock().unwrap();
        (state.hang, state.hangs) = (Some(texts), false);
    }

    pub(crate) fn hangs(&self) -> bool {
        self.0.lock().unwrap().hangs
    }

    pub(crate) fn recover(&self) {
        let mut state = self.0.lock().unwrap();
        (state.fail, state.hang) = (None, None);
    }

    fn take(&self, texts: &[String]) -> Option<Result<(), EmbedError>> {
        let mut state = self.0.lock().unwrap();
        if state.hang.is_some_and(|after| state.texts.len() >= after) {
            state.hangs = true;
            return None;
        }
        if let Some((after, error)) = &state.fail
            && state.texts.len() >= *after
        {
            return Some(Err(error.clone()));
        }
        if let Some(item) = texts.iter().position(|text| text.contains("toolong")) {
            return Some(Err(EmbedError::new(Reason::TooLong, "the text is too long").at(item)));
        }
        state.texts.extend_from_slice(texts);
        Some(Ok(()))
    }
}

#[async_trait]
impl Embedder for Fake {
    async fn embed(&self, _: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
        match self.take(texts) {
            Some(taken) => taken?,
            None => std::future::pending().await,
        }
        let vectors = texts.iter().map(|text| vector(text)).collect();
        Ok(Embedded { identity: identity(), vectors })
    }

    async fn identity(&self, _: &str) -> Result<ModelIdentity, EmbedError> {
        Ok(identity())
    }
}

#[allow(clippy::cast_precision_loss, reason = "short texts")]
fn vector(text: &str) -> Vector {
    let count = |letter: char| text.chars().filter(|c| *c == letter).count() as f32;
    Vector::from([1.0, count('e'), count('r'), text.len() as f32])
}
