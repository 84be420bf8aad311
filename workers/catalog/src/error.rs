//! What can go wrong with the catalogue, and how HTTP says it.

use axum::http::StatusCode;
use lakehouse_contract::DatasetName;
use lakehouse_http::Problem;
use lakehouse_store::Error as StoreError;
use serde_json::json;

use crate::SchemaDiff;

/// A failure of the catalogue. Nothing was changed, except where a store failure left open whether its write happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request names something impossible.
    #[error("{0}")]
    Invalid(String),
    /// An object of the request is not in the store as the request says.
    #[error("objects[{index}]: {message}")]
    Object {
        /// Its place in the request, from 0.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The dataset has another schema, and the policy does not allow the new one.
    #[error("dataset `{name}` has another schema: {diff}")]
    SchemaConflict {
        /// The dataset.
        name: DatasetName,
        /// The fingerprint that is registered.
        current: String,
        /// The fingerprint that was offered.
        offered: String,
        /// What differs.
        diff: Box<SchemaDiff>,
    },
    /// No manifest has this name.
    #[error("there is no dataset `{0}`")]
    UnknownDataset(DatasetName),
    /// No manifest of this version is kept.
    #[error("dataset `{name}` has no {}; {}", wanted(*.version), kept_versions(.kept))]
    UnknownVersion {
        /// The dataset.
        name: DatasetName,
        /// The version that was asked for; `None` for "the one before".
        version: Option<u64>,
        /// The versions that are kept, newest first.
        kept: Vec<u64>,
    },
    /// The manifest cannot be read. Hides only this dataset.
    #[error("the manifest of dataset `{name}` is damaged: {message}")]
    Damaged {
        /// The dataset.
        name: DatasetName,
        /// What is wrong with it.
        message: String,
    },
    /// What is declared of the dataset cannot be read.
    #[error("what is declared of dataset `{name}` cannot be read: {message}")]
    DamagedDeclaration {
        /// The dataset.
        name: DatasetName,
        /// What is wrong with it.
        message: String,
    },
    /// Other writers were first each time.
    #[error("dataset `{name}` is being changed by other writers; none of {tries} tries came first")]
    Contended {
        /// The dataset.
        name: DatasetName,
        /// How often it was tried.
        tries: u32,
    },
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Contended { .. } => true,
            Self::Store(error) => error.retry_helps(),
            _ => false,
        }
    }
}

fn wanted(version: Option<u64>) -> String {
    version.map_or_else(|| "earlier version".to_owned(), |version| format!("version {version}"))
}

fn kept_versions(kept: &[u64]) -> String {
    match kept {
        [] => "none is kept".to_owned(),
        [one] => format!("only version {one} is kept"),
        many => {
            let list: Vec<String> = many.iter().map(u64::to_string).collect();
            format!("versions {} are kept", list.join(", "))
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let says = error.to_string();
        match &error {
            Error::Invalid(_) => Self::bad_request(says),
            Error::Object { index, .. } => Self::bad_request(says).details(json!({ "index": index })),
            Error::SchemaConflict { current, offered, diff, .. } => {
                Self::new(StatusCode::CONFLICT, "schema_conflict", says).details(json!({
                    "current_fingerprint": current,
                    "offered_fingerprint": offered,
                    "difference": diff,
                }))
            }
            Error::UnknownDataset(_) => Self::not_found(says),
            Error::UnknownVersion { kept, .. } => Self::not_found(says).details(json!({ "kept": kept })),
            Error::Damaged { name, .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged_manifest", says)
                    .details(json!({ "name": name }))
            }
            Error::DamagedDeclaration { name, .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged_declaration", says)
                    .details(json!({ "name": name }))
            }
            Error::Contended { .. } => Self::unavailable(says, 1),
            Error::Store(StoreError::Full { .. }) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_full", says)
            }
            Error::Store(_) => Self::bad_gateway(says),
        }
        .because(error)
    }
}
