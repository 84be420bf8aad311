//! Indexes and models as the pods of a namespace know them.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use jiff::Timestamp;
use lakehouse_contract::{
    build::{Phase, Progress},
    embed::ModelIdentity,
    job::BuildJob,
    problem::ErrorBody,
    vectors::{BuiltFrom, CreateRequest, Hnsw, IndexInfo, Shape},
};

type Answer<T> = Result<T, (StatusCode, ErrorBody)>;

/// Indexes and models.
pub(crate) struct Shelves {
    indexes: BTreeMap<String, Vec<IndexInfo>>,
    current: BTreeMap<String, u64>,
    /// Builds that run, and how many rows they have done.
    running: BTreeMap<String, u64>,
    /// What the weights of all models hash to.
    pub(crate) weights: &'static str,
    /// Why no model answers, where none does.
    pub(crate) outage: Option<&'static str>,
    /// Models that nobody has.
    pub(crate) unknown: Vec<&'static str>,
}

impl Default for Shelves {
    fn default() -> Self {
        Self {
            indexes: BTreeMap::new(),
            current: BTreeMap::new(),
            running: BTreeMap::new(),
            weights: "sha256:a",
            outage: None,
            unknown: Vec::new(),
        }
    }
}

impl Shelves {
    /// Publishes what a build Job makes, and gives its version.
    pub(crate) fn publish(&mut self, work: &BuildJob) -> u64 {
        let BuildJob { spec, dataset_version, model, .. } = work;
        let inputs = spec.inputs_digest(&spec.dataset.id().to_string(), *dataset_version, &model.digest);
        let name = spec.name.to_string();
        let kept = self.indexes.entry(name.clone()).or_default();
        let version = kept.iter().map(|info| info.version).max().unwrap_or(0) + 1;
        kept.push(IndexInfo {
            name: spec.name.clone(),
            shape: Shape {
                dimension: model.dimension,
                metric: spec.metric,
                hnsw: spec.hnsw,
                quantization: spec.quantization,
            },
            length: 2,
            version,
            latest_version: version,
            versions: Vec::new(),
            embedding: Some(model.clone()),
            source: Some(BuiltFrom {
                dataset: spec.dataset.clone(),
                version: *dataset_version,
                id: spec.id.clone(),
                inputs,
            }),
            failed: 0,
            recall: Some(1.0),
            bytes: 100,
            shards: spec.shards,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            damaged: Vec::new(),
        });
        self.current.insert(name, version);
        version
    }

    pub(crate) fn get(&self, name: &str) -> Answer<IndexInfo> {
        let kept = self.indexes.get(name).filter(|kept| !kept.is_empty());
        let kept = kept.ok_or_else(|| not_found("unknown_index", "there is no such index"))?;
        let current = self.current[name];
        let info = kept.iter().find(|info| info.version == current).unwrap();
        let latest_version = kept.iter().map(|info| info.version).max().unwrap();
        let versions = kept.iter().map(|info| info.version).filter(|&version| version > 0).collect();
        Ok(IndexInfo { latest_version, versions, ..info.clone() })
    }

    /// The newest version that was built.
    pub(crate) fn newest(&self, name: &str) -> u64 {
        self.get(name).map_or(0, |info| info.latest_version)
    }

    /// Somebody removes everything of an index from the bucket.
    pub(crate) fn remove(&mut self, name: &str) {
        self.indexes.remove(name);
    }

    pub(super) fn create(&mut self, request: &CreateRequest) -> Answer<IndexInfo> {
        if self.get(&request.name).is_ok() {
            return Err((StatusCode::CONFLICT, ErrorBody::new("index_exists", "the index is there already")));
        }
        let info = IndexInfo {
            name: request.name.clone().try_into().unwrap(),
            shape: Shape {
                dimension: request.dimension,
                metric: request.metric,
                hnsw: Hnsw::default(),
                quantization: request.quantization,
            },
            length: 0,
            version: 0,
            latest_version: 0,
            versions: Vec::new(),
            embedding: None,
            source: None,
            failed: 0,
            recall: None,
            bytes: 0,
            shards: 1,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            damaged: Vec::new(),
        };
        self.indexes.insert(request.name.clone(), vec![info]);
        self.current.insert(request.name.clone(), 0);
        self.get(&request.name)
    }

    pub(super) fn roll_back(&mut self, name: &str, version: u64) -> Answer<IndexInfo> {
        let kept = self.indexes.get(name).into_iter().flatten();
        if !kept.map(|info| info.version).any(|kept| kept == version) {
            return Err(not_found("unknown_version", "there is no such version"));
        }
        self.current.insert(name.to_owned(), version);
        self.get(name)
    }

    pub(super) fn identity(&self, model: &str) -> Answer<ModelIdentity> {
        if let Some(outage) = self.outage {
            return Err((StatusCode::BAD_GATEWAY, ErrorBody::new("embedder_failed", outage)));
        }
        if self.unknown.contains(&model) {
            return Err(not_found("unknown_model", "no provider has it"));
        }
        let (model, digest) = (model.to_owned(), self.weights.to_owned());
        Ok(ModelIdentity { model, digest, dimension: 384, normalised: true })
    }

    pub(crate) fn runs(&mut self, name: &str, rows: Option<u64>) {
        match rows {
            Some(rows) => self.running.insert(name.to_owned(), rows),
            None => self.running.remove(name),
        };
    }

    pub(super) fn progress(&mut self) -> Vec<Progress> {
        let told = self.running.iter_mut().map(|(name, done)| {
            *done += 1000;
            Progress {
                name: name.clone(),
                phase: Phase::Embedding,
                rows: *done,
                done: *done,
                total: Some(1_000_000),
                embedded: *done,
                reused: 0,
                failed: 0,
                elapsed_ms: 1000,
                rows_per_second: 1000,
                remaining_ms: None,
                message: None,
            }
        });
        told.collect()
    }
}

fn not_found(code: &str, message: &str) -> (StatusCode, ErrorBody) {
    (StatusCode::NOT_FOUND, ErrorBody::new(code, message))
}
