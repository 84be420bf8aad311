//! Checks a VectorIndex once, and carries the proof in a type.
//!
//! Receives a [`VectorIndex`] as a user wrote it. Hands on a [`ReadyVectorIndex`] that has no question left to ask, or a
//! [`Refusal`] that names everything that is wrong with it. An index is built from a Dataset's text, or clients fill it: the one gives
//! a [`BuildSpec`], the other a [`CreateRequest`].

mod source;

use std::num::NonZeroU32;

use lakehouse_contract::{
    IndexName,
    embed::ModelIdentity,
    vectors::{BuildSpec, CreateRequest, Hnsw, IndexInfo, MAX_DIMENSION, Metric, Quantization},
};
use lakehouse_crds::{
    VectorIndex, VectorIndexSpec,
    common::{DeletionPolicy, Resources},
    vector_index::{self as spec, Embedding, LocalModel, Refresh},
};

pub use source::Source;

use crate::{Pod, Problem, Reason, Refusal, convert, dataset, status::Failure};

/// How many versions stay in the store where the spec does not say.
pub const DEFAULT_KEEP_VERSIONS: NonZeroU32 = NonZeroU32::new(2).expect("2 is not 0");
/// What the pods that serve all indexes are called by, so that no index can be.
const TAKEN: &str = "lakehouse";
/// The prefix of models that run inside the service.
const LOCAL: &str = "local";

/// A VectorIndex that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyVectorIndex {
    /// The resource's name, which is the index's.
    pub name: IndexName,
    /// The resource's namespace.
    pub namespace: String,
    /// The generation of the spec; absent where no API server counts.
    pub generation: Option<i64>,
    /// The last value of the refresh annotation: every new one asks for one more build.
    pub refresh: Option<String>,
    /// The text that is indexed; absent where clients push vectors.
    pub source: Option<Source>,
    /// What turns text into vectors; an index that is built from text has one.
    pub model: Option<Model>,
    /// Numbers in a vector; those of the model when absent.
    pub dimension: Option<u32>,
    /// How distances are measured.
    pub metric: Metric,
    /// The graph's parameters.
    pub hnsw: Hnsw,
    /// How numbers are kept.
    pub quantization: Quantization,
    /// Pods that answer searches, for each shard.
    pub replicas: u16,
    /// Parts that the vectors are spread over.
    pub shards: u32,
    /// CPU and memory of each of these pods, where the spec says.
    pub resources: Option<Resources>,
    /// How many versions stay in the store.
    pub keep_versions: NonZeroU32,
    /// The kept version to serve, where one is pinned.
    pub pin: Option<u64>,
    /// Whether all builds stop.
    pub suspend: bool,
    /// What happens to the vectors when the resource is deleted.
    pub deletion_policy: DeletionPolicy,
    /// The pod that builds.
    pub pod: Pod,
}

/// A model that turns text into vectors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model {
    /// The ChatProvider that offers it; absent for one that runs inside the service.
    pub provider: Option<String>,
    /// Its full name: `local/<name>` or `<provider>/<model>`.
    pub name: String,
}

impl ReadyVectorIndex {
    /// What a build makes the index from; `None` where clients push vectors.
    pub fn build_spec(&self) -> Option<BuildSpec> {
        let (Source { dataset, id, text, metadata, predicate, on_change: _ }, model) =
            (self.source.clone()?, self.model.as_ref()?);
        Some(BuildSpec {
            name: self.name.clone(),
            dataset,
            id,
            text,
            metadata,
            predicate,
            model: model.name.clone(),
            dimension: self.dimension,
            metric: self.metric,
            hnsw: self.hnsw,
            quantization: self.quantization,
            shards: self.shards,
        })
    }

    /// The index as it is created where clients push vectors; `None` where it is built, or while nobody knows its dimension.
    pub fn create_request(&self, model: Option<&ModelIdentity>) -> Option<CreateRequest> {
        if self.source.is_some() {
            return None;
        }
        let Hnsw { m, ef_construction, ef_search } = self.hnsw;
        Some(CreateRequest {
            name: self.name.to_string(),
            dimension: self.dimension.or_else(|| model.map(|model| model.dimension))?,
            metric: self.metric,
            m: Some(m),
            ef_construction: Some(ef_construction),
            ef_search: Some(ef_search),
            quantization: self.quantization,
            model: self.model.as_ref().map(|model| model.name.clone()),
        })
    }

    /// Names the index that a build gives from this version of the Dataset with this model; `None` where clients push vectors.
    pub fn inputs(&self, version: u64, model: &ModelIdentity) -> Option<String> {
        let spec = self.build_spec()?;
        Some(spec.inputs_digest(&spec.dataset.id().to_string(), version, &model.digest))
    }

    /// Whether an index is what the spec asks for, of whichever version of the Dataset. Where nobody knows the model as it is now, the
    /// one that made the index counts.
    pub fn is_made_as_asked(&self, index: &IndexInfo, model: Option<&ModelIdentity>) -> bool {
        match (&self.source, &index.source) {
            (Some(_), Some(from)) => {
                let model = model.or(index.embedding.as_ref());
                let made = model.and_then(|model| self.inputs(from.version, model));
                made.is_some_and(|inputs| inputs == from.inputs)
            }
            (None, None) => self.conflict(index).is_none(),
            _ => false,
        }
    }

    /// Why a model cannot serve this index: its vectors have another length than the spec says.
    pub fn mismatch(&self, model: &ModelIdentity) -> Option<Failure> {
        let asked = self.dimension.filter(|&asked| asked != model.dimension)?;
        let ModelIdentity { model, dimension, .. } = model;
        let message = format!(
            "`spec.dimension` is {asked}, but `{model}` gives vectors of {dimension} numbers. Remove the field, or choose another model."
        );
        Some(Failure::new(Reason::DimensionMismatch, message))
    }

    /// Why an index of this name can never be what the spec asks for: somebody else made it, otherwise. What a build can replace is
    /// no conflict.
    pub fn conflict(&self, index: &IndexInfo) -> Option<String> {
        let name = &self.name;
        if self.source.is_some() {
            return index.source.is_none().then(|| {
                format!(
                    "The store has an index `{name}` that clients fill. Delete it (`DELETE /v1/vectors/index/{name}`), or use another name."
                )
            });
        }
        if let Some(from) = &index.source {
            return Some(format!(
                "The index `{name}` in the store was built from the Dataset `{}`. Delete it (`DELETE /v1/vectors/index/{name}`), or use \
                 another name.",
                from.dataset
            ));
        }
        let asked = (self.dimension.unwrap_or(index.shape.dimension), self.metric, self.quantization);
        let there = (index.shape.dimension, index.shape.metric, index.shape.quantization);
        (asked != there).then(|| {
            format!(
                "The index `{name}` in the store has {} dimensions, metric {:?} and quantization {:?}; the spec asks for {}, {:?} and {:?}. \
                 Vectors that clients pushed cannot be changed into others: use another name.",
                there.0, there.1, there.2, asked.0, asked.1, asked.2
            )
        })
    }
}

/// Checks a VectorIndex. Every problem is found, not only the first.
pub fn check(index: &VectorIndex) -> Result<ReadyVectorIndex, Refusal> {
    let mut problems = Vec::new();
    let VectorIndexSpec {
        source,
        embedding,
        dimension,
        metric,
        hnsw,
        quantization,
        refresh,
        replicas,
        shards,
        resources,
        keep_versions,
        version,
        build,
        suspend,
        deletion_policy,
    } = &index.spec;

    let name = name(index, &mut problems);
    let ready_source = source.as_ref().and_then(|source| source::check(source, *refresh, &mut problems));
    let model = embedding.as_ref().and_then(|embedding| model(embedding, &mut problems));
    check_parts(&index.spec, &mut problems);
    let dimension = within("spec.dimension", *dimension, 1..=MAX_DIMENSION, &mut problems);
    let hnsw = check_hnsw(hnsw.as_ref(), &mut problems);
    let replicas = within("spec.replicas", *replicas, 1..=100, &mut problems).unwrap_or(1);
    let shards = within("spec.shards", *shards, 1..=64, &mut problems).unwrap_or(1);
    let keep_versions = dataset::check_keep_versions(*keep_versions, DEFAULT_KEEP_VERSIONS, &mut problems);
    let pin = dataset::check_pin(*version, &mut problems);
    let (Some(name), true) = (name, problems.is_empty()) else { return Err(Refusal::new(problems)) };
    Ok(ReadyVectorIndex {
        name,
        namespace: dataset::namespace(&index.metadata),
        generation: index.metadata.generation,
        refresh: dataset::refresh(&index.metadata),
        source: ready_source,
        model,
        dimension,
        metric: metric.map(convert::metric).unwrap_or_default(),
        hnsw,
        quantization: quantization.map(convert::quantization).unwrap_or_default(),
        replicas: u16::try_from(replicas).unwrap_or(u16::MAX),
        shards,
        resources: resources.clone(),
        keep_versions,
        pin,
        suspend: suspend.unwrap_or(false),
        deletion_policy: deletion_policy.unwrap_or_default(),
        pod: build.as_ref().map(Pod::from).unwrap_or_default(),
    })
}

fn name(index: &VectorIndex, problems: &mut Vec<Problem>) -> Option<IndexName> {
    let text = index.metadata.name.clone().unwrap_or_default();
    if text == TAKEN {
        let sentence =
            "`lakehouse` is what the pods that serve all indexes are called by; choose another name";
        problems.push(Problem::new("metadata.name", Reason::InvalidName, sentence));
        return None;
    }
    IndexName::parse(text)
        .map_err(|error| problems.push(Problem::new("metadata.name", Reason::InvalidName, error.to_string())))
        .ok()
}

fn model(embedding: &Embedding, problems: &mut Vec<Problem>) -> Option<Model> {
    let mut refuse = |field: &str, sentence: &str| {
        problems.push(Problem::new(field, Reason::InvalidSpec, sentence));
        None
    };
    let (provider, model) = match embedding {
        Embedding { provider: None, model: None, local: Some(LocalModel { model }) } => (None, model),
        Embedding { provider: Some(provider), model: Some(model), local: None } => (Some(provider), model),
        Embedding { provider: Some(_), model: None, local: None }
        | Embedding { provider: None, model: Some(_), .. } => {
            let sentence = "`model` belongs to `provider`: set both, or `local` with its own `model`";
            return refuse("spec.embedding", sentence);
        }
        _ => return refuse("spec.embedding", "exactly one of `provider` and `local` must be set"),
    };
    if provider.is_some_and(|provider| provider == LOCAL) {
        let sentence =
            "`local` stands for the models that run inside the service; give the ChatProvider another name";
        return refuse("spec.embedding.provider", sentence);
    }
    if model.is_empty() || model.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let field = if provider.is_some() { "spec.embedding.model" } else { "spec.embedding.local.model" };
        return refuse(field, "a model's name is not empty and holds no white space");
    }
    let prefix = provider.map_or(LOCAL, String::as_str);
    Some(Model { name: format!("{prefix}/{model}"), provider: provider.cloned() })
}

/// Which fields need which others.
fn check_parts(spec: &VectorIndexSpec, problems: &mut Vec<Problem>) {
    let mut refuse = |field: &str, sentence: &str| {
        problems.push(Problem::new(field, Reason::InvalidSpec, sentence));
    };
    if spec.embedding.is_none() {
        if spec.source.is_some() {
            refuse("spec.embedding", "a `source` of text needs an `embedding` that turns it into vectors");
        } else if spec.dimension.is_none() {
            refuse("spec.dimension", "set it, or an `embedding` whose model tells it");
        }
    }
    if spec.source.is_some() {
        return;
    }
    if spec.refresh.is_some() {
        refuse("spec.refresh", "says when to follow a `source`; an index that clients fill has none");
    }
    let of_builds = [
        ("spec.version", spec.version.is_some()),
        ("spec.keepVersions", spec.keep_versions.is_some()),
        ("spec.build", spec.build.is_some()),
    ];
    for (field, _) in of_builds.into_iter().filter(|(_, is_set)| *is_set) {
        refuse(field, "is of an index that is built from a `source`; clients fill this one");
    }
    if spec.shards.is_some_and(|shards| shards > 1) {
        refuse("spec.shards", "an index that clients fill has one shard");
    }
}

fn check_hnsw(hnsw: Option<&spec::Hnsw>, problems: &mut Vec<Problem>) -> Hnsw {
    let defaults = Hnsw::default();
    let Some(spec::Hnsw { m, ef_construction, ef_search }) = hnsw else { return defaults };
    let before = problems.len();
    let links = within("spec.hnsw.m", *m, 2..=128, problems);
    let candidates = within("spec.hnsw.efConstruction", *ef_construction, 2..=4096, problems);
    let ef_search =
        within("spec.hnsw.efSearch", *ef_search, 1..=4096, problems).unwrap_or(defaults.ef_search);
    // Who says one of the two has said nothing against the other.
    let m = links.unwrap_or_else(|| defaults.m.min(candidates.unwrap_or(defaults.m)));
    let ef_construction = candidates.unwrap_or_else(|| defaults.ef_construction.max(m));
    if problems.len() == before && ef_construction < m {
        let sentence = "`efConstruction` must be at least `m`";
        problems.push(Problem::new("spec.hnsw", Reason::InvalidSpec, sentence));
    }
    Hnsw { m, ef_construction, ef_search }
}

/// A number that has its bounds; one that has not is a problem.
fn within(
    field: &str,
    number: Option<u32>,
    bounds: std::ops::RangeInclusive<u32>,
    problems: &mut Vec<Problem>,
) -> Option<u32> {
    let number = number?;
    if !bounds.contains(&number) {
        let sentence = format!("{number} is not from {} to {}", bounds.start(), bounds.end());
        problems.push(Problem::new(field, Reason::InvalidSpec, sentence));
    }
    Some(number)
}

/// Whether a build follows each new version of the Dataset.
fn follows(refresh: Option<Refresh>) -> bool {
    match refresh.unwrap_or_default() {
        Refresh::OnDatasetChange => true,
        Refresh::Manual => false,
    }
}
