//! Bodies of requests: capped, and with a sentence for whatever is wrong with them.

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::Problem;

/// The cap of a JSON body where the route sets none, in bytes.
pub const DEFAULT_JSON_LIMIT: u64 = 16 << 20;

/// The cap of a route's bodies in bytes. A route sets its own with `.layer(Extension(BodyLimit(n)))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(pub u64);

/// Reads a whole body; 413 past `limit`, judged by `Content-Length` first and by counting for chunked bodies.
pub async fn read(body: Body, limit: u64) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit {
        return Err(Problem::too_large(limit));
    }
    let mut all = Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0));
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece
            .map_err(|error| Problem::bad_request("the body broke off before its end").because(error))?;
        if (all.len() + piece.len()) as u64 > limit {
            return Err(Problem::too_large(limit));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// A JSON body. Whatever `Content-Type` says, the bytes decide: `curl -d` users need not set a header.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limit = request.extensions().get::<BodyLimit>().map_or(DEFAULT_JSON_LIMIT, |limit| limit.0);
        let bytes = read(request.into_body(), limit).await?;
        if bytes.is_empty() {
            return Err(Problem::bad_request("the body is empty; a JSON object is expected"));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(error) => {
                Err(Problem::bad_request(format!("the body is not the JSON that is expected: {error}")))
            }
        }
    }
}
