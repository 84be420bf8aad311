//! Bodies of requests: capped, and with a sentence for whatever is wrong with them.
//!
//! Every body that [`crate::serve`] hands to a route is counted against a cap: the server's own, or the one that the route
//! sets with `.layer(BodyLimit(n))`. Past it the answer is 413, whatever the handler made of the broken body.

mod cap;

use std::task::{Context, Poll};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, future::BoxFuture};
use serde::de::DeserializeOwned;
use tower::{Layer, Service};

use crate::Problem;

pub(crate) use cap::Cap;

/// The cap of a body where neither route nor server sets one, in bytes.
pub const DEFAULT_LIMIT: u64 = 16 << 20;

/// The cap of a route's bodies in bytes: `.route("/x", post(x).layer(BodyLimit(1 << 20)))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(pub u64);

impl<S> Layer<S> for BodyLimit {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limit: *self }
    }
}

/// A route with a cap of its own.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    limit: BodyLimit,
}

impl<S> Service<Request> for Limited<S>
where
    S: Service<Request, Response: IntoResponse, Future: Send + 'static>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limit = self.limit.0;
        if request.body().size_hint().lower() > limit {
            return Box::pin(async move { Ok(Problem::too_large(limit).into_response()) });
        }
        let (mut request, cap) = Cap::of(request, limit);
        request.extensions_mut().insert(self.limit);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(cap.judge(answer.await?.into_response())) })
    }
}

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
        let limit = request.extensions().get::<BodyLimit>().map_or(DEFAULT_LIMIT, |limit| limit.0);
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
