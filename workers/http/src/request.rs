//! What happens around every request: its id, its cap, its line in the log, its numbers, and what a panic becomes.

use std::{
    any::Any,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use hyper::body::{Frame, SizeHint};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::{
    Problem, RequestId,
    body::Cap,
    metrics::{Done, Requests},
    probes,
};

/// Where nginx writes it too: the client left before it had the whole answer.
const CLIENT_LEFT: u16 = 499;

/// The label of requests that no route matched.
const UNMATCHED: &str = "unmatched";

/// The template of the route that made an answer, such as `/storage/get/{*key}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub String);

/// What [`observe`] needs beside the request.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) requests: Requests,
    pub(crate) body_limit: u64,
    pub(crate) body_idle_timeout: Duration,
}

/// Lets `answer` answer a request.
pub(crate) async fn observe(
    observer: Arc<Observer>,
    mut request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let id = RequestId::of(request.headers());
    request.headers_mut().insert(RequestId::HEADER, id.header());
    request.extensions_mut().insert(id.clone());
    let (request, cap) = Cap::install(request, observer.body_limit, observer.body_idle_timeout);
    let mut entry = Entry::open(observer, &request, &id, cap.clone());

    let span = info_span!("request", %id);
    let mut response = match AssertUnwindSafe(answer(request)).catch_unwind().instrument(span).await {
        Ok(response) => cap.judge(response),
        Err(panic) => panicked(panic.as_ref()).into_response(),
    };
    response.headers_mut().insert(RequestId::HEADER, id.header());
    entry.answered(&response);
    response.map(|body| Body::new(Observed { body, entry }))
}

#[derive(Debug, thiserror::Error)]
#[error("the handler panicked: {0}")]
struct Panicked(String);

fn panicked(panic: &(dyn Any + Send)) -> Problem {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let message = "the service failed on this request; its log holds the cause under the request's id";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).because(Panicked(said))
}

/// A line of the request log. It is written when it is dropped: after the last byte of the answer, or when the client left.
#[derive(Debug)]
struct Entry {
    observer: Arc<Observer>,
    started: Instant,
    method: Method,
    path: String,
    id: RequestId,
    remote: Option<SocketAddr>,
    cap: Cap,
    answer: Option<Answer>,
    sent: u64,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    route: String,
    cause: Option<String>,
    /// How many bytes the answer promises.
    length: Option<u64>,
    /// The whole answer was handed over. An answer without a body is whole from the start: the server never reads it.
    complete: bool,
}

impl Entry {
    fn open(observer: Arc<Observer>, request: &Request, id: &RequestId, cap: Cap) -> Self {
        observer.requests.begin();
        Self {
            observer,
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            id: id.clone(),
            remote: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0),
            cap,
            answer: None,
            sent: 0,
        }
    }

    fn answered(&mut self, response: &Response) {
        let extensions = response.extensions();
        let cause = extensions.get::<Problem>().map(|problem| match &problem.cause {
            Some(cause) => cause.to_string(),
            None => problem.message.clone(),
        });
        let length = content_length(response.headers()).or(response.body().size_hint().exact());
        self.answer = Some(Answer {
            status: response.status(),
            route: extensions.get::<Template>().map_or(UNMATCHED, |template| &template.0).to_owned(),
            cause,
            length,
            complete: self.method == Method::HEAD
                || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
                || length == Some(0)
                || response.body().is_end_stream(),
        });
    }

    fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if let Some(answer) = &mut self.answer {
            answer.complete |= answer.length == Some(self.sent);
        }
    }

    /// The body came to its end, or broke off.
    fn ended(&mut self, failure: Option<String>) {
        if let Some(answer) = &mut self.answer {
            match failure {
                None => answer.complete = true,
                Some(failure) => {
                    // Too late for another status; the log says what the client cannot be told.
                    answer.complete = true;
                    answer.status = StatusCode::INTERNAL_SERVER_ERROR;
                    answer.cause = Some(format!("the answer broke off: {failure}"));
                }
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let (status, route, cause) = match &self.answer {
            Some(Answer { status, route, cause, complete: true, .. }) => {
                (status.as_u16(), route.as_str(), cause.as_deref())
            }
            Some(Answer { route, .. }) => {
                (CLIENT_LEFT, route.as_str(), Some("the client left before the end"))
            }
            None => (CLIENT_LEFT, UNMATCHED, Some("the client left before the answer")),
        };
        let received = self.cap.received();
        self.observer.requests.end(&Done {
            method: &self.method,
            route,
            status,
            duration,
            received,
            sent: self.sent,
        });
        let Self { method, path, id, remote, sent, .. } = self;
        let remote = remote.map(tracing::field::display);
        let duration_ms = duration.as_secs_f64() * 1000.0;
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    %method, path, status, duration_ms, received, sent, %id, remote, cause,
                    "{method} {path} answered {status}"
                )
            };
        }
        match status {
            _ if probes::is_probe(path) => line!(debug),
            500 => line!(error),
            501.. => line!(warn),
            _ => line!(info),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body of an answer, with the line that is written at its end.
struct Observed {
    body: Body,
    entry: Entry,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.entry.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => self.entry.ended(Some(error.to_string())),
            None => self.entry.ended(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
