//! Connections to services that may be about to come back.
//!
//! Receives the address of a service; hands on a connection. Between the end of a pod and the start of its successor nobody
//! listens: a call that waits a few seconds for that is answered, and nothing of it has been sent, so nothing is done twice.

use std::{
    error::Error as StdError,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::Uri;
use futures::future::BoxFuture;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tower::Service;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may be silent before the other side's kernel is asked whether it is still there, and how often it is asked.
/// So a machine that vanished is found, though its service may be one that is silent for long.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;

/// Connects, and tries again for a while where nobody listens.
#[derive(Clone, Debug)]
pub(crate) struct PatientConnector {
    connector: HttpConnector,
    patience: Duration,
}

impl PatientConnector {
    /// Each try may take `timeout`; no try starts after `patience`.
    pub(crate) fn new(timeout: Duration, patience: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVE_TRIES));
        Self { connector, patience }
    }
}

impl Service<Uri> for PatientConnector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut connector, last) = (self.connector.clone(), Instant::now() + self.patience);
        Box::pin(async move {
            loop {
                match connector.call(uri.clone()).await {
                    Err(_) if Instant::now() + PAUSE < last => sleep(PAUSE).await,
                    connected => return connected.map_err(Into::into),
                }
            }
        })
    }
}
