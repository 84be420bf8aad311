//! Bodies of catalogd.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Column, DataObject, DatasetManifest, Origin,
    ingest::{SchemaPolicy, WriteMode},
};

/// `POST /catalog/register`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The dataset; checked by the service, so that a bad one is a 400 with a sentence.
    pub name: String,
    /// [`crate::dataset::schema_fingerprint`] of `schema`.
    pub schema_fingerprint: String,
    /// Columns in header order.
    pub schema: Vec<Column>,
    /// The files that together are the new content, in row order.
    pub objects: Vec<DataObject>,
    /// What the content was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What to do when the name is known with another fingerprint.
    #[serde(default)]
    pub schema_policy: SchemaPolicy,
    /// Whether the objects replace the current ones or follow them.
    #[serde(default)]
    pub write_mode: WriteMode,
}

/// The answer to a register: the manifest as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// Whether the name was known before.
    pub existing: bool,
    /// The manifest as written.
    #[serde(flatten)]
    pub manifest: DatasetManifest,
}

/// `GET /catalog/list`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// Every manifest that can be read, by name.
    pub datasets: Vec<DatasetManifest>,
    /// Manifests that cannot be read; each hides only its own dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
}

/// A manifest that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The dataset's name as its key spells it.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
}

/// `GET /catalog/history/{name}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// The dataset.
    pub name: String,
    /// The version that is served now.
    pub current: u64,
    /// Every kept version with the current one among them, newest first.
    pub versions: Vec<DatasetManifest>,
    /// Kept versions whose manifests cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
}

/// `POST /catalog/rollback/{name}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The version to serve; absent means the newest one before the current.
    #[serde(default)]
    pub version: Option<u64>,
}

/// `GET` and `PUT /catalog/declared/{name}`: what a resource says of a dataset that clients may upload to.
///
/// The catalogue keeps the spec as it is; who takes uploads reads it as a Dataset's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration<S = Map<String, Value>> {
    /// The resource's `spec`.
    pub spec: S,
}
