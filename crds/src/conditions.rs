//! The condition types, by the names that users wait for.
//!
//! `Reconciling` and `Stalled` follow [kstatus](https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus):
//! `kubectl wait`, Argo CD and Flux understand them without a plug-in.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The resource does what its spec asks.
pub const READY: &str = "Ready";
/// Work towards the spec goes on.
pub const RECONCILING: &str = "Reconciling";
/// Work has stopped until someone changes something.
pub const STALLED: &str = "Stalled";

/// Dataset: the source was found and could be read.
pub const SOURCE_REACHABLE: &str = "SourceReachable";
/// Dataset: the source as it was last seen is typed Parquet in the store.
pub const INGESTED: &str = "Ingested";
/// Dataset: the catalogue names a version, and it is the one that the spec asks for.
pub const PUBLISHED: &str = "Published";
/// Dataset, VectorIndex: requests are answered from the published version.
pub const SERVED: &str = "Served";

/// VectorIndex: the Dataset it is built from is ready.
pub const DATASET_READY: &str = "DatasetReady";
/// VectorIndex: its embedding model answers.
pub const EMBEDDER_READY: &str = "EmbedderReady";
/// VectorIndex: a version is built.
pub const BUILT: &str = "Built";
/// VectorIndex: the version is built from the Dataset's current one.
pub const FRESH: &str = "Fresh";

/// ChatProvider: its API key was found.
pub const SECRET_RESOLVED: &str = "SecretResolved";
/// ChatProvider: the upstream answers.
pub const REACHABLE: &str = "Reachable";
/// ChatProvider: the upstream's models are known.
pub const MODELS_DISCOVERED: &str = "ModelsDiscovered";
