//! The server: from a listener to its graceful end.
//!
//! Speaks HTTP/1.1. TLS and HTTP/2 end at the Ingress; inside, one protocol is one set of limits to get right.
//! Head and body of a request have a limit in size and in time, and so has the reading of an answer: no slow client holds a
//! connection for ever. What is no request at all (no HTTP: 400, too long a head: 431) is answered without a body.

use std::{
    convert::Infallible, fmt, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, Request},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::{Auth, Late, Metrics, Readiness, auth, body, errors, metrics::Requests, probes, request};

/// What is served.
#[derive(Clone, Debug)]
pub struct Service {
    name: &'static str,
    routes: Routes,
    readiness: Readiness,
    metrics: Metrics,
}

#[derive(Clone, Debug)]
enum Routes {
    Here(Router),
    Late(Late),
}

impl Service {
    /// A service under the name that `/health` and the metrics say. It is ready at once and has no metrics of its own.
    pub fn new(name: &'static str, router: Router) -> Self {
        Self {
            name,
            routes: Routes::Here(router),
            readiness: Readiness::default(),
            metrics: Metrics::default(),
        }
    }

    /// The same with routes that come later. Whoever brings them holds the readiness back until then.
    pub fn late(name: &'static str, routes: Late) -> Self {
        Self { routes: Routes::Late(routes), ..Self::new(name, Router::new()) }
    }

    /// Lets `readiness` decide what `/readyz` answers.
    #[must_use]
    pub fn with_readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// Shows `metrics` under `/metrics`, beside those of the server itself.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }
}

/// How it is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may call.
    pub auth: Auth,
    /// How long a client may take for a request's head, and how long a connection may stay idle between two.
    pub head_timeout: Duration,
    /// The most bytes of a request's line and headers together.
    pub max_head_bytes: usize,
    /// The cap of a body whose route sets none, in bytes.
    pub body_limit: u64,
    /// How long a client may send nothing in the middle of a body.
    pub body_idle_timeout: Duration,
    /// How long a client may read nothing in the middle of an answer.
    pub answer_idle_timeout: Duration,
    /// How long `/readyz` says "draining" before the listener closes. In a cluster, the time that endpoints need to learn it.
    pub drain_notice: Duration,
    /// How long requests in flight may take to finish after that.
    pub drain_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auth: Auth::none(),
            head_timeout: Duration::from_secs(30),
            max_head_bytes: 64 << 10,
            body_limit: body::DEFAULT_LIMIT,
            body_idle_timeout: Duration::from_mins(1),
            answer_idle_timeout: Duration::from_mins(1),
            drain_notice: Duration::ZERO,
            drain_deadline: Duration::from_secs(25),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would be open to the network.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// The listener is none any more.
    #[error("the listener has no address")]
    Listener(#[from] io::Error),
}

/// Serves until `shutdown` resolves, then drains: `/readyz` answers 503 and each answer ends its connection, so that clients go
/// elsewhere; after the notice the listener closes, and requests in flight finish or are cut at the deadline.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    settings.auth.check_listen(address)?;
    let (name, readiness) = (service.name, service.readiness.clone());
    let server = Server {
        front: Front::new(service, &settings),
        http: protocol(&settings),
        answer_idle_timeout: settings.answer_idle_timeout,
        leaving: CancellationToken::new(),
        draining: CancellationToken::new(),
        cut: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    info!(service = name, %address, "{name} listens on {address}");

    let stop = async {
        shutdown.await;
        info!(service = name, "{name} drains");
        readiness.drain();
        server.leaving.cancel();
        tokio::time::sleep(settings.drain_notice).await;
    };
    tokio::select! {
        () = server.accept(&listener) => {}
        () = settings.auth.follow() => {}
        () = stop => {}
    }
    drop(listener);
    server.drain(name, settings.drain_deadline).await;
    Ok(())
}

/// Resolves when this process is asked to end: SIGTERM, or Ctrl-C on a terminal.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(error) => {
                warn!(%error, "SIGTERM cannot be heard; only Ctrl-C ends this process gracefully");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// A service's routes with everything that every service has. Cheap to clone.
#[derive(Clone)]
struct Front {
    observer: Arc<request::Observer>,
    auth: Auth,
    router: Router,
}

impl Front {
    fn new(service: Service, settings: &Settings) -> Self {
        let Service { name, routes, readiness, metrics } = service;
        let observer = request::Observer {
            requests: Requests::register(&metrics, name),
            body_limit: settings.body_limit,
            body_idle_timeout: settings.body_idle_timeout,
        };
        let probes = probes::routes(name, readiness.clone(), metrics);
        let router = match routes {
            Routes::Here(router) => errors::with_error_bodies(router.merge(probes)),
            Routes::Late(late) => late.behind(errors::with_error_bodies(probes), readiness),
        };
        // Every body has our cap already; that of axum's extractors would be a second one.
        let router = router.layer(DefaultBodyLimit::disable());
        Self { observer: Arc::new(observer), auth: settings.auth.clone(), router }
    }

    async fn answer(self, request: Request) -> Response {
        let Self { observer, auth, router } = self;
        request::observe(observer, request, async |request| match auth.guard(request) {
            Ok(request) => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
            Err(problem) => problem.into_response(),
        })
        .await
    }
}

fn protocol(settings: &Settings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_header_size(settings.max_head_bytes);
    http
}

struct Server {
    front: Front,
    http: http1::Builder,
    answer_idle_timeout: Duration,
    /// Answers end their connections, so that clients come back to somebody else.
    leaving: CancellationToken,
    /// Idle connections end.
    draining: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Accepts connections for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    self.connections.spawn(self.connection(stream, remote));
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end give some back.
                    warn!(%error, "A connection could not be accepted; trying again in a second");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, remote: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        // Answers are written whole, so there is nothing that waiting could gather.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY was refused");
        }
        let (front, http, answer_idle_timeout) =
            (self.front.clone(), self.http.clone(), self.answer_idle_timeout);
        let (leaving, draining, cut) = (self.leaving.clone(), self.draining.clone(), self.cut.clone());
        // Thousands may be open at once. Whatever is made in here is there once; what was made before would be moved in, and there twice.
        async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(remote));
                // Boxed, it is gone as soon as there is an answer, whose body may take hours.
                let (answer, leaving) = (Box::pin(front.clone().answer(request)), leaving.clone());
                async move {
                    let mut answer = answer.await;
                    if leaving.is_cancelled() {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(answer_idle_timeout));
            let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
            let served = async {
                tokio::select! {
                    served = connection.as_mut() => served,
                    () = draining.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            match cut.run_until_cancelled(served).await {
                Some(Ok(())) => {}
                Some(Err(error)) => debug!(%remote, %error, "A connection ended early"),
                None => warn!(%remote, "A connection was cut: its request took longer than the drain allows"),
            }
        }
    }

    async fn drain(self, name: &str, deadline: Duration) {
        self.draining.cancel();
        self.connections.close();
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            self.cut.cancel();
            self.connections.wait().await;
        }
        info!(service = name, "{name} has ended");
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}
