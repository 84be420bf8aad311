//! Calls to services behind a URL.
//!
//! An answer is passed on as it is, whatever its status: the service's own words are better than ours. Only where none came
//! does the gateway speak: 502 when the service cannot be reached or broke off, 504 when it stayed silent too long.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, Request},
    http::{StatusCode, Uri, Version, header, uri::Scheme},
    response::{IntoResponse, Response},
};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use lakehouse_http::{AsIs, BodyLimit, Problem};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    Settings,
    connect::PatientConnector,
    headers,
    upstream::{BaseUrl, Owner},
};

/// Below the time after which a service closes an idle connection, so that no call starts on one that is about to close.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// A client for all services.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    client: Client<PatientConnector, Body>,
    idle: Duration,
    limit: BodyLimit,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} cannot be reached")]
    Unreachable(&'static str, #[source] legacy::Error),
    #[error("{0} broke off before its answer")]
    BrokeOff(&'static str, #[source] legacy::Error),
    #[error("{0} took too long to accept a connection")]
    SlowConnect(&'static str, #[source] legacy::Error),
    #[error("nothing came from {service} for {} s", .idle.as_secs_f64())]
    Silent { service: &'static str, idle: Duration },
    #[error("the path does not fit below the base path of {0}")]
    Path(&'static str, #[source] axum::http::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Unreachable(..) | Error::BrokeOff(..) => (StatusCode::BAD_GATEWAY, "bad_gateway"),
            Error::SlowConnect(..) | Error::Silent { .. } => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout"),
            Error::Path(..) => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        Self::new(status, code, error.to_string()).because(error)
    }
}

impl Remote {
    pub(crate) fn new(settings: &Settings) -> Self {
        let connector = PatientConnector::new(settings.connect_timeout, settings.connect_patience);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { client, idle: settings.idle_timeout, limit: BodyLimit(settings.max_body_bytes) }
    }

    /// Passes `request` on to the service below `base`, and its answer back.
    pub(crate) async fn call(&self, owner: Owner, base: &BaseUrl, request: Request) -> Response {
        let (remote, base) = (self.clone(), base.clone());
        let passing = service_fn(move |request: Request| {
            let (remote, base) = (remote.clone(), base.clone());
            async move {
                let answer = remote.pass(owner, &base, request).await;
                Ok::<_, Infallible>(answer.map_err(Problem::from).into_response())
            }
        });
        let capped = self.limit.layer(passing);
        capped.oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    async fn pass(&self, owner: Owner, base: &BaseUrl, request: Request) -> Result<Response, Error> {
        let (service, activity) = (owner.service(), Activity::default());
        let idle = (!owner.ends_silence()).then_some(self.idle);
        let request = outbound(service, base, request, &activity)?;
        let mut call = pin!(self.client.request(request));
        let answer = tokio::select! {
            answer = &mut call => answer.map_err(|error| failure(service, error))?,
            idle = activity.silence(idle) => return Err(Error::Silent { service, idle }),
        };
        Ok(inbound(service, answer, idle))
    }
}

/// The request as the service gets it: below its base path, with the caller's token and the request's id.
fn outbound(
    service: &'static str,
    base: &BaseUrl,
    request: Request,
    activity: &Activity,
) -> Result<Request, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(base.authority.clone())
        .path_and_query(format!("{}{path}", base.path));
    let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    headers::drop_hop_by_hop(&mut parts.headers);
    headers::add_forwarded(&mut parts.headers, remote);
    // The gateway answers it itself when it begins to read the body.
    parts.headers.remove(header::EXPECT);

    let activity = activity.clone();
    let body = body.map_frame(move |frame| {
        activity.touch();
        frame
    });
    let mut passed = Request::new(Body::new(body));
    *passed.method_mut() = parts.method;
    *passed.uri_mut() = uri.build().map_err(|error| Error::Path(service, error))?;
    *passed.version_mut() = Version::HTTP_11;
    *passed.headers_mut() = parts.headers;
    Ok(passed)
}

/// The answer as the client gets it, cut when the service stays silent in the middle of it for too long.
fn inbound(service: &'static str, answer: Response<Incoming>, idle: Option<Duration>) -> Response {
    let (mut parts, body) = answer.into_parts();
    headers::drop_hop_by_hop(&mut parts.headers);
    parts.extensions.clear();
    parts.extensions.insert(AsIs);
    if body.is_end_stream() {
        return Response::from_parts(parts, Body::empty());
    }
    let frames = stream::try_unfold(body, move |mut body| async move {
        let frame = match idle {
            Some(idle) => timeout(idle, body.frame())
                .await
                .map_err(|_| axum::Error::new(Error::Silent { service, idle }))?,
            None => body.frame().await,
        };
        let frame = frame.transpose().map_err(axum::Error::new)?;
        Ok::<_, axum::Error>(frame.map(|frame| (frame, body)))
    });
    Response::from_parts(parts, Body::new(StreamBody::new(frames)))
}

fn failure(service: &'static str, error: legacy::Error) -> Error {
    if !error.is_connect() {
        Error::BrokeOff(service, error)
    } else if timed_out(&error) {
        Error::SlowConnect(service, error)
    } else {
        Error::Unreachable(service, error)
    }
}

fn timed_out(error: &legacy::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        source = error.source();
    }
    false
}

/// When a byte of the request last went to the service.
#[derive(Clone, Debug)]
struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves when nothing was sent for `idle`, and says for how long; never where there is no such limit.
    async fn silence(&self, idle: Option<Duration>) -> Duration {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + idle;
            if end <= Instant::now() {
                return idle;
            }
            sleep_until(end).await;
        }
    }
}
