//! Why a query was not answered, and what the caller reads about it.

use std::time::Duration;

use axum::http::StatusCode;
use lakehouse_http::Problem;
use serde_json::json;

/// A query that was not answered. No message holds a credential or a path of this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// DuckDB does not accept the statement; the message is DuckDB's.
    #[error("{0}")]
    Sql(String),
    /// The statement asks for something that no caller may have.
    #[error("{0}")]
    Refused(String),
    /// The parameters do not fit the statement.
    #[error("{0}")]
    Params(String),
    /// A version that is not kept, or one of a dataset that there is not.
    #[error("{message}")]
    UnknownVersion {
        /// What there is instead.
        message: String,
        /// The versions that are kept, newest first.
        kept: Vec<u64>,
    },
    /// A dataset whose manifest or files cannot be read.
    #[error("the dataset `{dataset}` cannot be read: {message}")]
    Dataset {
        /// The dataset.
        dataset: String,
        /// What is wrong with it.
        message: String,
    },
    /// A JSON answer over the limit.
    #[error(
        "the answer is larger than the {limit} bytes that a JSON answer may have; ask for fewer rows with `limit`, \
         or stream it with `Accept: application/vnd.apache.arrow.stream` or `Accept: text/csv`"
    )]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The memory or the spill limit was reached.
    #[error("{0}")]
    OutOfMemory(String),
    /// The query worked for longer than it may.
    #[error("the query was stopped after {} s, the longest that one may take", .limit.as_secs_f64())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// Every place is taken, and the queue before them is full or too slow.
    #[error("{running} queries are running and {waiting} are waiting; try again soon")]
    Busy {
        /// The places.
        running: usize,
        /// Those that wait for one.
        waiting: usize,
    },
    /// The caller went away, or took nothing of a streamed answer for too long.
    #[error("the caller went away")]
    Gone,
    /// A fault of this service. The message is for the log.
    #[error("{0}")]
    Internal(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Sql(_) => (StatusCode::BAD_REQUEST, "sql_error"),
            Error::Refused(_) => (StatusCode::BAD_REQUEST, "sql_refused"),
            Error::Params(_) => (StatusCode::BAD_REQUEST, "bad_params"),
            Error::UnknownVersion { .. } => (StatusCode::BAD_REQUEST, "unknown_version"),
            Error::Dataset { .. } => (StatusCode::BAD_GATEWAY, "dataset_unreadable"),
            Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "result_too_large"),
            Error::OutOfMemory(_) => (StatusCode::INSUFFICIENT_STORAGE, "out_of_memory"),
            Error::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Error::Busy { .. } => return Self::unavailable(error.to_string(), 1),
            // Nobody reads this answer; the status is the one that logs know for it.
            Error::Gone => (StatusCode::REQUEST_TIMEOUT, "gone"),
            Error::Internal(_) => {
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the query engine failed")
                    .because(error);
            }
        };
        let problem = Self::new(status, code, error.to_string());
        match error {
            Error::UnknownVersion { kept, .. } => problem.details(json!({ "kept": kept })),
            Error::Dataset { dataset, .. } => problem.details(json!({ "dataset": dataset })),
            Error::TooLarge { limit } => problem.details(json!({ "limit_bytes": limit })),
            Error::Timeout { limit } => problem.details(json!({ "limit_seconds": limit.as_secs_f64() })),
            _ => problem,
        }
    }
}

/// Sorts DuckDB's errors into ours by the kind that DuckDB puts first, without what only this machine should know.
#[derive(Clone, Debug)]
pub(crate) struct Scrub {
    /// The engine's folder as DuckDB may print it, with its `/`.
    folder: String,
    memory_limit: u64,
    temp_limit: u64,
}

impl Scrub {
    pub(crate) fn new(settings: &crate::Settings) -> Self {
        let mut folder = settings.cache_dir.display().to_string();
        if !folder.ends_with('/') {
            folder.push('/');
        }
        Self { folder, memory_limit: settings.memory_limit, temp_limit: settings.temp_limit }
    }

    /// A text without the engine's folder in it.
    pub(crate) fn text(&self, text: &str) -> String {
        text.replace(&self.folder, "")
    }

    /// What a failure of DuckDB means to the caller.
    pub(crate) fn error(&self, error: &duckdb::Error) -> Error {
        let message = self.text(&error.to_string());
        let message = message.strip_prefix(IN_A_STREAM).unwrap_or(&message).to_owned();
        let kind = message.split_once(" Error:").map_or("", |(kind, _)| kind);
        match kind {
            "Parser"
            | "Binder"
            | "Catalog"
            | "Conversion"
            | "Out of Range"
            | "Invalid Input"
            | "Constraint"
            | "Mismatch Type"
            | "Divide by Zero"
            | "Not implemented"
            | "Syntax"
            | "Sequence"
            | "Invalid Type"
            | "Dependency"
            | "Type"
            | "Parameter Not Resolved"
            | "Parameter Not Allowed" => Error::Sql(message),
            "Permission" | "Missing Extension" | "Autoload" | "Settings" => Error::Refused(message),
            _ if kind == "Out of Memory" || message.contains(NO_SUCH_SIZE) => Error::OutOfMemory(format!(
                "the query needs more than the {} of memory and {} of disk that all queries share: \
                 ask for fewer columns or rows, or group before sorting",
                bytes(self.memory_limit),
                bytes(self.temp_limit)
            )),
            "INTERRUPT" => Error::Gone,
            _ => Error::Internal(message),
        }
    }
}

/// What DuckDB puts before an error that comes while rows are streamed.
const IN_A_STREAM: &str =
    "Invalid Input Error: Attempting to execute an unsuccessful or closed pending query result\nError: ";

/// How DuckDB says that no machine has so much memory: a fault of the query, though DuckDB takes it for one of its own.
const NO_SUCH_SIZE: &str = "Error: Requested allocation size of ";

/// A count of bytes as a person says it.
fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        c if c >= f64::from(1 << 30) => format!("{:.1} GiB", c / f64::from(1 << 30)),
        c => format!("{:.0} MiB", c / f64::from(1 << 20)),
    }
}

/// Whether DuckDB says that this database will never answer again.
pub(crate) fn is_fatal(message: &str) -> bool {
    message.contains("FATAL Error") || message.contains("database has been invalidated")
}
