//! Vector indexes: their names, what they are made of, and the bodies of vectord.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    DatasetName,
    dataset::{InvalidName, hex},
    embed::ModelIdentity,
};

/// The most numbers in a vector.
pub const MAX_DIMENSION: u32 = 16_384;
/// The most hits of one search.
pub const MAX_K: u32 = 1_000;
/// The hits of a search that does not say how many.
pub const DEFAULT_K: u32 = 10;
/// Counts up whenever the same inputs would give another index, so that old ones are built anew.
const BUILD_VERSION: u32 = 1;

/// An index's name; the rules are those of a [`DatasetName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IndexName(DatasetName);

impl IndexName {
    /// Checks a name.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
        DatasetName::parse(text).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for IndexName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<IndexName> for String {
    fn from(name: IndexName) -> Self {
        name.0.into()
    }
}

/// How the distance of two vectors is measured. Smaller is nearer in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One minus the cosine of the angle, from 0 to 2.
    #[default]
    Cosine,
    /// The length of the straight line.
    Euclidean,
    /// The negative inner product.
    Dot,
}

/// How a vector's numbers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 32 bits, exactly as given.
    #[default]
    None,
    /// 16 bits.
    F16,
    /// 8 bits.
    Int8,
}

/// Parameters of the graph ([HNSW](https://arxiv.org/abs/1603.09320)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hnsw {
    /// Links of a node in each layer; twice as many in the lowest.
    pub m: u32,
    /// Candidates that are looked at when a node is added.
    pub ef_construction: u32,
    /// Candidates that are looked at in a search that does not say how many.
    pub ef_search: u32,
}

impl Default for Hnsw {
    fn default() -> Self {
        Self { m: 16, ef_construction: 128, ef_search: 64 }
    }
}

/// What an index is, whatever is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Numbers in a vector.
    pub dimension: u32,
    /// How distances are measured.
    #[serde(default)]
    pub metric: Metric,
    /// The graph's parameters.
    #[serde(default)]
    pub hnsw: Hnsw,
    /// How numbers are kept.
    #[serde(default)]
    pub quantization: Quantization,
}

/// An id as it is made from a row: a column's text between two fixed ones, such as `w-{worker_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RowId {
    /// What stands before the column's text.
    #[serde(default)]
    pub prefix: String,
    /// The column that names a row.
    pub column: String,
    /// What stands behind it.
    #[serde(default)]
    pub suffix: String,
}

/// What a build makes an index from. The dataset's version is pinned when the build begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildSpec {
    /// The index to fill.
    pub name: IndexName,
    /// Where the rows are.
    pub dataset: DatasetName,
    /// A row's id.
    pub id: RowId,
    /// A row's text: a template over columns, such as `{title}: {body}`; `{{` and `}}` are braces.
    pub text: String,
    /// Columns that are kept with each vector.
    #[serde(default)]
    pub metadata: Vec<String>,
    /// Which rows: an SQL predicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
    /// The model by its full name: `local/<name>` or `<provider>/<model>`.
    pub model: String,
    /// What the vectors must have; that of the model when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<u32>,
    /// How distances are measured.
    #[serde(default)]
    pub metric: Metric,
    /// The graph's parameters.
    #[serde(default)]
    pub hnsw: Hnsw,
    /// How numbers are kept.
    #[serde(default)]
    pub quantization: Quantization,
    /// Parts that the vectors are spread over.
    pub shards: u32,
}

impl BuildSpec {
    /// Names the index that this spec gives from rows of this version with a model of this digest: equal digests, equal answers.
    /// How many candidates a search looks at is no part of it.
    pub fn inputs_digest(&self, dataset_id: &str, version: u64, model_digest: &str) -> String {
        let Self {
            name: _,
            dataset,
            id,
            text,
            metadata,
            predicate,
            model,
            dimension,
            metric,
            hnsw,
            quantization,
            shards,
        } = self;
        let Hnsw { m, ef_construction, ef_search: _ } = hnsw;
        let made = (dataset, dataset_id, version, id, text, metadata, predicate, model, model_digest);
        let shaped = (dimension, metric, m, ef_construction, quantization, shards);
        let text = serde_json::to_string(&(BUILD_VERSION, made, shaped))
            .expect("plain data with text keys always has a JSON form");
        hex(&Sha256::digest(text))
    }
}

/// Where an index's rows came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltFrom {
    /// The dataset.
    pub dataset: DatasetName,
    /// Its version.
    pub version: u64,
    /// How ids were made.
    pub id: RowId,
    /// [`BuildSpec::inputs_digest`].
    pub inputs: String,
}

/// `POST /vectors/index`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// The index; checked by the service, so that a bad one is a 400 with a sentence.
    pub name: String,
    /// Numbers in a vector.
    pub dimension: u32,
    /// How distances are measured.
    #[serde(default)]
    pub metric: Metric,
    /// Links of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<u32>,
    /// Candidates that are looked at when a node is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef_construction: Option<u32>,
    /// Candidates that are looked at in a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef_search: Option<u32>,
    /// How numbers are kept.
    #[serde(default)]
    pub quantization: Quantization,
    /// The model whose vectors will be pushed, by its full name; a search with text or with a vector of another model is refused then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// `GET /vectors/index/{name}`, and the answer to a create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// The index.
    pub name: IndexName,
    /// What it is.
    #[serde(flatten)]
    pub shape: Shape,
    /// Vectors that a search can find.
    pub length: u64,
    /// The version that is served; 0 for an index that clients fill.
    pub version: u64,
    /// The newest version that was published; differs while an older one is pinned.
    pub latest_version: u64,
    /// The versions that are kept and can be served, in rising order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u64>,
    /// The model that made the vectors, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<ModelIdentity>,
    /// What it was built from; absent for an index that clients fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BuiltFrom>,
    /// Rows that gave no vector.
    #[serde(default)]
    pub failed: u64,
    /// The share of neighbours that searches find, as checked after the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Bytes in the store.
    pub bytes: u64,
    /// Parts that the vectors are spread over.
    pub shards: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When this version was published, or the newest write was taken.
    pub updated_at: Timestamp,
    /// What of it cannot be read, in words; the rest serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// `GET /vectors/index`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IndexList {
    /// Every index that can be read, by name.
    pub indexes: Vec<IndexInfo>,
    /// Indexes that cannot be read: name and what is wrong.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged: BTreeMap<String, String>,
}

/// What is kept with a vector. Values are texts, numbers, booleans, or lists of texts.
pub type Metadata = Map<String, Value>;

/// One vector of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Names it; an equal id is replaced.
    pub id: String,
    /// Its numbers.
    pub vector: Vec<f32>,
    /// Absent leaves what is there; `{}` clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// `POST /vectors/index/{name}/add`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// All are taken or none.
    pub items: Vec<Item>,
    /// The model that made them, checked against the index's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The answer to an add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddAnswer {
    /// Items taken.
    pub added: u64,
    /// Of these, ids that were there before.
    pub replaced: u64,
    /// Vectors in the index now.
    pub length: u64,
}

/// `POST /vectors/index/{name}/search`: by exactly one of `vector`, `vectors` and `text`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// Search near this vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
    /// Search near each of these; the answer has `batches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vec<Vec<f32>>>,
    /// Search near this text, embedded by the index's own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The model that the caller means; refused when it is not the index's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Hits; [`DEFAULT_K`] when absent, at most [`MAX_K`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<u32>,
    /// Candidates that are looked at; the index's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef: Option<u32>,
    /// Which vectors count, by their metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
}

/// One vector that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// By the index's metric; smaller is nearer.
    pub distance: f32,
    /// What is kept with it.
    pub metadata: Metadata,
    /// The row that it was made from; absent in an index that clients fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RowRef>,
}

/// A row of a dataset's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRef {
    /// The dataset.
    pub dataset: DatasetName,
    /// Its version.
    pub version: u64,
    /// The column that names the row.
    pub column: String,
    /// The row's text in that column.
    pub key: String,
}

/// The answer to a search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchAnswer {
    /// Nearest first; of the only query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<Hit>>,
    /// One list for each of `vectors`, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Vec<Vec<Hit>>>,
    /// How many vectors the filter lets through, exactly; absent without a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<u64>,
    /// The version that answered; absent in an index that clients fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The rows behind the hits as SQL; absent in an index that clients fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Why vectors may be missing here; absent when none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// `POST /vectors/index/{name}/delete` and `…/get`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdsRequest {
    /// Which vectors.
    pub ids: Vec<String>,
}

/// The answer to a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// Ids that were there.
    pub deleted: u64,
    /// Vectors in the index now.
    pub length: u64,
}

/// The answer to a get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetAnswer {
    /// In the order asked for, without those that are missing.
    pub items: Vec<Item>,
    /// Ids that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// `POST /vectors/index/{name}/merge`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeRequest {
    /// The index that takes the items.
    pub dest: String,
    /// Whether what is in the destination afterwards leaves the source.
    #[serde(default)]
    pub clear_source: bool,
}

/// The answer to a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeAnswer {
    /// Items copied.
    pub merged: u64,
    /// Ids that the destination had.
    pub skipped_already_present: u64,
    /// Items that could not be copied.
    pub failed: u64,
    /// Vectors in the destination now.
    pub length_dest: u64,
    /// Vectors in the source now.
    pub length_source: u64,
    /// Why the first of the failed could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// `POST /vectors/index/{name}/rollback`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The version to serve; the one before the current when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}
