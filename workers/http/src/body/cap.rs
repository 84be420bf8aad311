//! The count of one request's body, shared by the body itself, the route that sets the cap and the answer.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::Problem;

/// Where a router runs without a server around it, bodies may take their time.
const PATIENT: Duration = Duration::from_hours(1);

/// How much of an unwanted body is read, and for how long, so that the client gets to read our answer. A connection that is
/// closed on unread bytes is reset, and the answer is lost with it.
const LINGER_BYTES: u64 = 64 << 20;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// A handle on the count.
#[derive(Clone, Debug)]
pub(crate) struct Cap(Arc<State>);

#[derive(Debug)]
struct State {
    limit: AtomicU64,
    received: AtomicU64,
    broken: OnceLock<Broken>,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Broken {
    #[error("the body is larger than the {0} bytes that are allowed here")]
    TooLarge(u64),
    #[error("nothing of the body came for {} s", .0.as_secs_f64())]
    Stalled(Duration),
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TooLarge(limit) => Self::too_large(limit),
            Broken::Stalled(_) => Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", broken.to_string()),
        }
    }
}

impl Cap {
    /// Begins to count the request's body. Routes further inside find the handle and set their own limit.
    pub(crate) fn install(request: Request, limit: u64, idle: Duration) -> (Request, Self) {
        let cap = Self(Arc::new(State {
            limit: limit.into(),
            received: AtomicU64::new(0),
            broken: OnceLock::new(),
        }));
        let waits = request.headers().contains_key(header::EXPECT);
        let mut request = request.map(|inner| Body::new(Counted::new(inner, cap.clone(), idle, waits)));
        request.extensions_mut().insert(cap.clone());
        (request, cap)
    }

    /// Sets the limit of a body that is already counted, else begins to count.
    pub(crate) fn of(request: Request, limit: u64) -> (Request, Self) {
        match request.extensions().get::<Self>().cloned() {
            Some(cap) => {
                cap.0.limit.store(limit, Relaxed);
                (request, cap)
            }
            None => Self::install(request, limit, PATIENT),
        }
    }

    /// The answer itself, or the one that a broken body deserves where the handler could only say that it broke.
    pub(crate) fn judge(&self, response: Response) -> Response {
        let failed = response.status().is_client_error() || response.status().is_server_error();
        match self.0.broken.get() {
            Some(broken) if failed => Problem::from(*broken).into_response(),
            _ => response,
        }
    }

    /// Bytes so far.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Relaxed)
    }
}

/// A body under a cap.
struct Counted {
    inner: Body,
    cap: Cap,
    idle: Duration,
    /// Runs while a piece is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// The reader has seen the end, or why there is none.
    over: bool,
    /// The client may still be sending. Not so before the first read when it waits for `100 Continue`.
    sending: bool,
}

impl Counted {
    fn new(inner: Body, cap: Cap, idle: Duration, waits: bool) -> Self {
        Self { inner, cap, idle, timer: None, over: false, sending: !waits }
    }

    fn break_off(&mut self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.over = true;
        let why = *self.cap.0.broken.get_or_init(|| why);
        Poll::Ready(Some(Err(axum::Error::new(why))))
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        timer.as_mut().poll(cx).is_ready()
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let limit = this.cap.0.limit.load(Relaxed);
        if this.cap.received().saturating_add(this.inner.size_hint().lower()) > limit {
            return this.break_off(Broken::TooLarge(limit));
        }
        this.sending = true;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending if this.stalled(cx) => {
                this.sending = false;
                this.break_off(Broken::Stalled(this.idle))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let received = this.cap.0.received.fetch_add(bytes, Relaxed) + bytes;
                if received > limit {
                    return this.break_off(Broken::TooLarge(limit));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.over = true;
                this.sending = false;
                Poll::Ready(end)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    /// Nobody wants the rest of the body, but the client should get to read why.
    fn drop(&mut self) {
        if !self.sending || self.inner.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(linger(std::mem::take(&mut self.inner)));
        }
    }
}

async fn linger(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut left = LINGER_BYTES;
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await
            && left > 0
        {
            left = left.saturating_sub(piece.len() as u64);
        }
    };
    // However this ends, the connection may close now.
    let _ = tokio::time::timeout(LINGER_TIME, reading).await;
}
