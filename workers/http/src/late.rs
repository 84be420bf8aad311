//! Routes that come once what they stand on is there. Until then every request is told what is waited for, and probes are answered.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use tower::{ServiceExt, service_fn};

use crate::{Problem, Readiness, with_error_bodies};

/// Seconds after which a client may look again.
const RETRY_AFTER: u32 = 2;

/// Cheap to clone; clones are the same routes.
#[derive(Clone, Debug, Default)]
pub struct Late(Arc<OnceLock<Router>>);

impl Late {
    /// Here they are. Only the first ones count.
    pub fn set(&self, routes: Router) {
        let _ = self.0.set(with_error_bodies(routes));
    }

    /// `router` with these routes behind its own; `readiness` says what is waited for.
    pub(crate) fn behind(&self, router: Router, readiness: Readiness) -> Router {
        let late = self.clone();
        router.fallback_service(service_fn(move |request: Request| {
            let (late, readiness) = (late.clone(), readiness.clone());
            async move { Ok::<_, Infallible>(late.answer(&readiness, request).await) }
        }))
    }

    async fn answer(&self, readiness: &Readiness, request: Request) -> Response {
        if let Some(routes) = self.0.get() {
            return routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        }
        let reason = readiness.reason().unwrap_or_else(|| "this service is starting".to_owned());
        Problem::unavailable(reason, RETRY_AFTER).into_response()
    }
}
