//! `VectorIndex`: vectors that answer searches by nearness.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{DeletionPolicy, Resources},
    rules::OBJECT_NAME,
};

/// Vectors that answer searches by nearness: of a Dataset's text, or pushed by clients.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lakehouse.dev",
    version = "v1alpha1",
    kind = "VectorIndex",
    plural = "vectorindexes",
    singular = "vectorindex",
    shortname = "lhv",
    category = "lakehouse",
    namespaced,
    status = "VectorIndexStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Vectors that answer searches by nearness: of a Dataset's text, or pushed by clients.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.source.dataset"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.embedding.model"),
    printcolumn(name = "Vectors", type_ = "integer", json_path = ".status.vectors"),
    printcolumn(
        name = "Fresh",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Fresh")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Dim", type_ = "integer", json_path = ".status.dimension", priority = 1),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.version", priority = 1),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending", priority = 1),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed", priority = 1),
    printcolumn(name = "Recall", type_ = "number", json_path = ".status.recall", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "!has(self.source) || has(self.embedding)",
        "a `source` of text needs an `embedding` that turns it into vectors"
    ),
    validation = (
        "has(self.dimension) || has(self.embedding)",
        "set `dimension`, or an `embedding` whose model tells it"
    ),
    validation = (
        "!has(self.refresh) || has(self.source)",
        "`refresh` says when to follow a `source`; an index that clients fill has none"
    ),
    validation = (
        "has(self.source) || (!has(self.version) && !has(self.keepVersions) && !has(self.build))",
        "`version`, `keepVersions` and `build` are of an index that is built from a `source`; clients fill this one"
    ),
    validation = (
        "has(self.source) || !has(self.shards) || self.shards == 1",
        "an index that clients fill has one shard; remove `shards`"
    )
)]
pub struct VectorIndexSpec {
    /// The text that is indexed; absent where clients push vectors over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IndexSource")]
    pub source: Option<IndexSource>,
    /// What turns text into vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Embedding")]
    pub embedding: Option<Embedding>,
    /// Numbers in a vector; the model tells it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16384))]
    pub dimension: Option<u32>,
    /// How the distance of two vectors is measured. `Cosine` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Metric")]
    pub metric: Option<Metric>,
    /// The graph's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Hnsw")]
    pub hnsw: Option<Hnsw>,
    /// How numbers are stored. `None` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quantization")]
    pub quantization: Option<Quantization>,
    /// When a build follows the Dataset. `OnDatasetChange` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Refresh")]
    pub refresh: Option<Refresh>,
    /// Pods that answer searches, for each shard. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<u32>,
    /// Parts that the vectors are spread over. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub shards: Option<u32>,
    /// CPU and memory of each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resources")]
    pub resources: Option<Resources>,
    /// How many versions stay in the store, with the served one among them. 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep_versions: Option<u32>,
    /// Serves this kept version and builds no other as long as it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u64>,
    /// The pod that builds the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BuildPod")]
    pub build: Option<BuildPod>,
    /// Stops all builds; what is built stays served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What happens to the vectors when the resource is deleted. `Retain` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeletionPolicy")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// The text that is indexed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexSource {
    /// The Dataset, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = OBJECT_NAME)]
    pub dataset: String,
    /// A vector's id: the column that names a row, or a text around one, such as `w-{worker_id}`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = (
        r"self.matches('^([^{}]+|[^{}]*\\{[^{}]+\\}[^{}]*)$')",
        "must be a column's name, or a text with exactly one in braces, such as `w-{worker_id}`"
    ))]
    pub id: String,
    /// The text of a row: a template over columns, such as `{title}: {body}`.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = (
        r"self.matches('\\{[^{}]+\\}')",
        "must name at least one column in braces, such as `{title}: {body}`"
    ))]
    pub text: String,
    /// Columns kept with each vector, to be returned and used in filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub metadata: Vec<String>,
    /// Which rows are indexed: an SQL predicate, such as `state = 'IL'`. All when absent.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub predicate: Option<String>,
}

/// What turns text into vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.provider) != has(self.local)", "exactly one of `provider` and `local` must be set"),
    validation = (
        "has(self.provider) == has(self.model)",
        "`model` belongs to `provider`: set both, or `local` with its own `model`"
    )
)]
pub struct Embedding {
    /// A ChatProvider in the same namespace that embeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = OBJECT_NAME)]
    #[x_kube(validation = (
        "self != 'local'",
        "`local` stands for the models that run inside the service; give the ChatProvider another name"
    ))]
    pub provider: Option<String>,
    /// The provider's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,
    /// A model that runs inside the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LocalModel")]
    pub local: Option<LocalModel>,
}

/// A model that runs inside the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LocalModel {
    /// The model's name.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
}

/// How the distance of two vectors is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Metric {
    /// One minus the cosine of the angle.
    #[default]
    Cosine,
    /// The straight line.
    Euclidean,
    /// The negative inner product.
    Dot,
}

/// Parameters of the graph ([HNSW](https://arxiv.org/abs/1603.09320)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.m) || !has(self.efConstruction) || self.efConstruction >= self.m",
    "`efConstruction` must be at least `m`"
))]
pub struct Hnsw {
    /// Links of a node in each layer. 16 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 128))]
    pub m: Option<u32>,
    /// Candidates that are looked at when a node is added. 128 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 4096))]
    pub ef_construction: Option<u32>,
    /// Candidates that are looked at in a search. 64 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub ef_search: Option<u32>,
}

/// How a vector's numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantization {
    /// 32 bits, exactly as given.
    #[default]
    None,
    /// 16 bits.
    F16,
    /// 8 bits.
    Int8,
}

/// When a build follows the Dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Refresh {
    /// Whenever the Dataset has a new version.
    #[default]
    OnDatasetChange,
    /// When the annotation `lakehouse.dev/refresh` gets a new value.
    Manual,
}

/// The pod that builds the index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildPod {
    /// Its CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resources")]
    pub resources: Option<Resources>,
    /// How often it is tried again before the build counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: Option<i32>,
    /// How many seconds all tries may take together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
}

/// What is known of an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VectorIndexStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `DatasetReady`, `EmbedderReady`, `Built`, `Served`, `Fresh`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Vectors that are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<u64>,
    /// Rows that the running build has still to embed; 0 when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    /// Rows of the version that have no vector: their text or id is empty, or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Numbers in a vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<u32>,
    /// The model that made the vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<StatusEmbedding>,
    /// The Dataset's version that the vectors were made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_version: Option<u64>,
    /// The index's version that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The share of true neighbours that searches find, as checked after the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Bytes in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Where it answers searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How far the running build has come; absent when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<BuildProgress>,
    /// The last build that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_build: Option<LastBuild>,
}

/// The model that made the vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct StatusEmbedding {
    /// Its name.
    pub model: String,
    /// Names its weights, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether its vectors have length one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalised: Option<bool>,
}

/// How far a build has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct BuildProgress {
    /// Rows that have their vector, or were turned away.
    pub done: u64,
    /// Rows to read, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// A build that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LastBuild {
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How long it took, such as `1.2s` or `3m10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The Job that ran it; absent where there is no cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How it ended, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
