//! What can go wrong with an index, and how HTTP says it.

use std::{io, path::Path};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lakehouse_contract::{DatasetName, IndexName, embed::ModelIdentity};
use lakehouse_embed::{EmbedError, Reason};
use lakehouse_http::Problem;
use lakehouse_store::Error as StoreError;
use serde_json::json;

use crate::filter::InvalidFilter;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Seconds until a call that met a store that failed for now should be tried again.
const RETRY_AFTER: u32 = 5;

/// A failure. Nothing was changed, except where a store failure left open whether its write happened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// One item of the request cannot be taken, so none is.
    #[error("{list}[{index}]: {message}")]
    Item {
        /// The list that it stands in.
        list: &'static str,
        /// Its place in the request, from 0.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
    /// More bytes than one batch may have.
    #[error("the batch becomes {bytes} bytes; at most {limit} fit into one")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// An answer becomes larger than this process holds for one caller.
    #[error(
        "the answer becomes more than {limit} bytes of ids and metadata; ask for less at once: fewer `{list}`, or a smaller `k`"
    )]
    AnswerTooLarge {
        /// What it may have.
        limit: usize,
        /// The list of the request that it answers.
        list: &'static str,
    },
    /// The filter cannot be used.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// A row of a build has an id that another one had before.
    #[error("rows {first} and {again} both have the id `{id}`")]
    Duplicate {
        /// The id.
        id: String,
        /// The row that had it first, counted from 0 in the order they were pushed.
        first: u64,
        /// The row that has it again.
        again: u64,
    },
    /// No index has this name.
    #[error("there is no index `{0}`")]
    UnknownIndex(IndexName),
    /// There is one of this name already.
    #[error("there is an index `{0}` already")]
    Exists(IndexName),
    /// Clients cannot write to it.
    #[error("index `{name}` is built from dataset `{dataset}`; it follows the dataset and takes no writes")]
    BuiltFromDataset {
        /// The index.
        name: IndexName,
        /// The dataset.
        dataset: DatasetName,
    },
    /// Builds cannot write to it.
    #[error("index `{0}` is filled by clients; it has no versions")]
    FilledByClients(IndexName),
    /// No manifest of this version is kept.
    #[error("index `{name}` has no {}; {}", wanted(*.version), kept_versions(.kept))]
    UnknownVersion {
        /// The index.
        name: IndexName,
        /// The version that was asked for; `None` for "the one before".
        version: Option<u64>,
        /// The versions that are kept, newest first.
        kept: Vec<u64>,
    },
    /// The manifest, or something that it names, is not what was written.
    #[error("index `{name}` is damaged: {message}")]
    Damaged {
        /// The index.
        name: IndexName,
        /// What is wrong with it.
        message: String,
    },
    /// It is not known which model made the vectors.
    #[error(
        "index `{0}` does not say which model made its vectors, so a text or a vector of a named model cannot be compared with them; search by `vector` alone"
    )]
    NoModel(IndexName),
    /// Vectors of two models mean nothing to each other.
    #[error("index `{name}` has vectors of {}, and the request's are of {}", shown(.index), shown(.request))]
    ModelMismatch {
        /// The index.
        name: IndexName,
        /// Its model.
        index: Box<ModelIdentity>,
        /// That of the request.
        request: Box<ModelIdentity>,
    },
    /// The text gave no vector.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Other writers were first each time.
    #[error("index `{name}` is being changed by other writers; none of {tries} tries came first")]
    Contended {
        /// The index.
        name: IndexName,
        /// How often it was tried.
        tries: u32,
    },
    /// Writes come faster than segments are made of them.
    #[error("index `{0}` takes no more writes until those that came before are indexed")]
    Behind(IndexName),
    /// Whoever asked went away, so the work was stopped.
    #[error("nobody waits for the answer any more")]
    GivenUp,
    /// Another part of the index, in another process, did not answer.
    #[error("part {part} of index `{name}` did not answer: {message}")]
    Part {
        /// The index.
        name: IndexName,
        /// Which part, from 0.
        part: u32,
        /// What came instead of an answer.
        message: String,
    },
    /// Parts of an index serve different versions, which passes.
    #[error("the parts of index `{0}` are just changing to another version")]
    Changing(IndexName),
    /// This part of the index has another version than the one that was asked for.
    #[error("version {found} of index `{name}` is served here, not {wanted}")]
    OtherVersion {
        /// The index.
        name: IndexName,
        /// The version that was asked for.
        wanted: u64,
        /// The one that is here.
        found: u64,
    },
    /// A file of this machine.
    #[error("{0}")]
    Local(String),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::Behind(_) | Self::Part { .. } | Self::Changing(_) => true,
            Self::Store(error) => error.retry_helps(),
            Self::Embed(error) => error.retry_helps(),
            _ => false,
        }
    }

    pub(crate) fn item(index: usize, message: impl Into<String>) -> Self {
        Self::Item { list: "items", index, message: message.into() }
    }

    pub(crate) fn damaged(name: &IndexName, message: impl Into<String>) -> Self {
        Self::Damaged { name: name.clone(), message: message.into() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
    pub(crate) fn local(path: &Path, error: io::Error) -> Self {
        Self::Local(format!("{}: {error}", path.display()))
    }
}

impl From<lakehouse_ann::Error> for Error {
    fn from(error: lakehouse_ann::Error) -> Self {
        Self::Local(error.to_string())
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

fn shown(identity: &ModelIdentity) -> String {
    match identity.digest.as_str() {
        "" => format!("`{}`", identity.model),
        digest => format!("`{}` ({digest})", identity.model),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let says = error.to_string();
        let new = |status, code| Self::new(status, code, says.clone());
        let problem = match &error {
            Error::Invalid(_) => Self::bad_request(says),
            Error::Item { list, index, .. } => {
                Self::bad_request(says).details(json!({ "list": list, "index": index }))
            }
            Error::TooLarge { limit, .. } | Error::AnswerTooLarge { limit, .. } => {
                new(StatusCode::PAYLOAD_TOO_LARGE, "too_large").details(json!({ "limit_bytes": limit }))
            }
            Error::Filter(InvalidFilter::Syntax(_)) => new(StatusCode::BAD_REQUEST, "invalid_filter"),
            Error::Filter(InvalidFilter::UnknownField { field, known }) => {
                new(StatusCode::BAD_REQUEST, "unknown_field")
                    .details(json!({ "field": field, "known": known }))
            }
            Error::Filter(InvalidFilter::WrongType { field, .. }) => {
                new(StatusCode::BAD_REQUEST, "wrong_type").details(json!({ "field": field }))
            }
            Error::Duplicate { .. } => new(StatusCode::BAD_REQUEST, "duplicate_id"),
            Error::UnknownIndex(_) => Self::not_found(says),
            Error::Exists(_) => Self::conflict(says),
            Error::BuiltFromDataset { dataset, .. } => {
                new(StatusCode::CONFLICT, "built_from_dataset").details(json!({ "dataset": dataset }))
            }
            Error::FilledByClients(_) => new(StatusCode::CONFLICT, "filled_by_clients"),
            Error::UnknownVersion { kept, .. } => Self::not_found(says).details(json!({ "kept": kept })),
            Error::Damaged { name, .. } => {
                new(StatusCode::INTERNAL_SERVER_ERROR, "damaged_index").details(json!({ "name": name }))
            }
            Error::NoModel(_) => new(StatusCode::BAD_REQUEST, "no_model"),
            Error::ModelMismatch { index, request, .. } => new(StatusCode::CONFLICT, "model_mismatch")
                .details(json!({ "index": index, "request": request })),
            Error::Embed(error) => embedder_failed(error),
            Error::Contended { .. } | Error::Behind(_) | Error::Changing(_) => Self::unavailable(says, 1),
            Error::Part { part, .. } => Self::bad_gateway(says).details(json!({ "part": part })),
            Error::OtherVersion { found, .. } => {
                new(StatusCode::CONFLICT, "other_version").details(json!({ "version": found }))
            }
            Error::Local(_) | Error::GivenUp => new(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Error::Store(StoreError::Unavailable { .. }) => Self {
                retry_after: Some(RETRY_AFTER),
                ..new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            },
            Error::Store(StoreError::Full { .. }) => new(StatusCode::INSUFFICIENT_STORAGE, "store_full"),
            Error::Store(StoreError::Damaged { .. }) => new(StatusCode::BAD_GATEWAY, "store_damaged"),
            Error::Store(_) => new(StatusCode::BAD_GATEWAY, "store_failed"),
        };
        problem.because(error)
    }
}

/// What the embedder says, under the status that a caller of this service should see.
fn embedder_failed(error: &EmbedError) -> Problem {
    let status = match error.reason {
        Reason::EmptyList | Reason::EmptyText | Reason::TooLong | Reason::TooMany => StatusCode::BAD_REQUEST,
        Reason::UnknownModel => StatusCode::NOT_FOUND,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::Refused
        | Reason::Credentials
        | Reason::Unavailable
        | Reason::BadAnswer
        | Reason::Unusable => StatusCode::BAD_GATEWAY,
    };
    let mut problem = Problem::new(status, error.reason.code(), error.to_string());
    if !error.known.is_empty() {
        problem = problem.details(json!({ "known": error.known }));
    }
    problem.retry_after =
        error.retry_after.map(|pause| u32::try_from(pause.as_secs().max(1)).unwrap_or(u32::MAX));
    problem
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
