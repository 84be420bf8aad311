//! How HTTP says why an ingest failed. Paths of this machine go to the log only.

use std::io::{self, ErrorKind};

use axum::http::StatusCode;
use lakehouse_http::Problem;
use serde_json::{Value, json};

use crate::{Error, Fault};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let says = error.to_string();
        match error {
            Error::Unavailable(_) => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "not_available", says).because(error)
            }
            Error::Spec(_) => Self::bad_request(says),
            Error::Fault(fault) => {
                let Fault { line, byte, column, value, message: _ } = *fault;
                Self::new(StatusCode::BAD_REQUEST, "bad_source", says).details(known([
                    ("line", json!(line)),
                    ("byte", json!(byte)),
                    ("column", json!(column)),
                    ("value", json!(value)),
                ]))
            }
            Error::Spool { error: ref cause, .. } if is_full(cause) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the disk for files on their way is full",
            )
            .because(error),
            Error::Read { .. } | Error::Changed(_) | Error::Spool { .. } | Error::Parquet(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the service failed; its log says why",
            )
            .because(error),
            Error::Cancelled => Self::unavailable(says, 1),
            Error::Catalog(error) => error.into(),
        }
    }
}

/// The fields that are known; one that is not is left out.
fn known(fields: [(&str, Value); 4]) -> Value {
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
