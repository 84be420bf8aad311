//! The public edge: `/v1/<x>` goes to the service that owns `<x>`.
//!
//! Receives where each service is, in this process or behind a URL; hands on the gateway's routes. Bodies pass through
//! unbuffered both ways, paths keep every byte, and a client that goes away takes its call to the service with it.
//!
//! ```text
//! /v1/storage/get/a%2Fb?x=1 ─► storage ─┬─ in this process:  /storage/get/a%2Fb?x=1
//!                                       └─ http://host/api:  /api/storage/get/a%2Fb?x=1
//! ```

mod connect;
mod forward;
mod headers;
mod indexes;
mod path;
mod remote;
mod upstream;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, extract::Request, response::IntoResponse};
use tower::service_fn;

use forward::Gateway;
use remote::Remote;
pub use upstream::{InvalidUpstream, Owner, Upstream, Upstreams};

/// How the gateway calls services that are not in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a call waits for a service that nobody listens for, such as one whose pod is being replaced.
    pub connect_patience: Duration,
    /// How long a call may stay without a byte in either direction. Longer than any service takes to find its first byte; one that
    /// has limits of its own for that is left to them.
    pub idle_timeout: Duration,
    /// The largest body that is passed on, in bytes. The service's own cap is usually lower and answers first.
    pub max_body_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            connect_patience: Duration::from_secs(20),
            idle_timeout: Duration::from_mins(5),
            max_body_bytes: 1 << 30,
        }
    }
}

/// The gateway's routes: everything below `/v1`.
pub fn router(upstreams: Upstreams, settings: &Settings) -> Router {
    let gateway = Arc::new(Gateway { upstreams, remote: Remote::new(settings) });
    let forward = service_fn(move |request: Request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.forward(request).await.into_response()) }
    });
    // Takes `/v1` off and leaves the rest of the path as it was sent.
    Router::new().nest_service("/v1", forward)
}
