//! What storaged answers when something does not work out.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use lakehouse_contract::key::InvalidKey;
use lakehouse_http::Problem;
use lakehouse_store as store;

/// Seconds until an upload that found all places taken, or a store that failed for now, should be tried again.
const RETRY_AFTER: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Key(#[from] InvalidKey),
    #[error("`prefix`: {0}")]
    Prefix(InvalidKey),
    #[error("`continuation`: {0}")]
    Continuation(InvalidKey),
    #[error("{0} uploads are running already; try again in {RETRY_AFTER} s")]
    Busy(usize),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let says = error.to_string();
        let Error::Store(cause) = error else {
            return match error {
                Error::Busy(_) => Self::unavailable(says, RETRY_AFTER),
                _ => Self::bad_request(says),
            };
        };
        let (status, code) = match &cause {
            store::Error::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            store::Error::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            store::Error::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            store::Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            store::Error::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "store_full"),
            store::Error::Body { .. } | store::Error::UnfitKey { .. } => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            store::Error::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            store::Error::Denied { .. } | store::Error::Unfit { .. } => {
                (StatusCode::BAD_GATEWAY, "store_failed")
            }
            store::Error::Damaged { .. } => (StatusCode::BAD_GATEWAY, "store_damaged"),
            _ => (StatusCode::BAD_GATEWAY, "store_failed"),
        };
        let mut problem = Self::new(status, code, says);
        problem.retry_after = cause.retry_helps().then_some(RETRY_AFTER);
        if let store::Error::Range { size, .. } = &cause {
            let whole = HeaderValue::try_from(format!("bytes */{size}")).expect("digits fit into a header");
            problem = problem.header(header::CONTENT_RANGE, whole);
        }
        problem.because(cause)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
