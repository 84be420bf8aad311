//! What a cluster asks every service: is it there, is it alive, may it have traffic, what are its numbers.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{Metrics, Problem};

/// The paths that need no token.
pub(crate) const OPEN: [&str; 3] = ["/health", "/livez", "/readyz"];

/// The path of the metrics.
pub(crate) const METRICS: &str = "/metrics";

/// Whether a path is asked by machines, again and again.
pub(crate) fn is_probe(path: &str) -> bool {
    OPEN.contains(&path) || path == METRICS
}

/// What `/readyz` answers. Cheap to clone; all clones are one. Ready unless somebody holds it back.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    holds: BTreeMap<&'static str, String>,
    draining: bool,
}

impl Readiness {
    /// Not ready because of `part` until [`Self::release`]; a second hold of the same part replaces the reason.
    pub fn hold(&self, part: &'static str, reason: impl Into<String>) {
        self.state().holds.insert(part, reason.into());
    }

    /// `part` no longer holds it back.
    pub fn release(&self, part: &'static str) {
        self.state().holds.remove(part);
    }

    /// Not ready any more, for good.
    pub(crate) fn drain(&self) {
        self.state().draining = true;
    }

    /// Why it is not ready; `None` when it is.
    pub fn reason(&self) -> Option<String> {
        let state = self.state();
        if state.draining {
            return Some("draining: this process is about to end".to_owned());
        }
        let mut reasons = String::new();
        for (part, reason) in &state.holds {
            let separator = if reasons.is_empty() { "" } else { "; " };
            // Writing to a String cannot fail.
            let _ = write!(reasons, "{separator}{part}: {reason}");
        }
        (!reasons.is_empty()).then_some(reasons)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole, so a panic elsewhere cannot have hurt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes that every service has.
pub(crate) fn routes(name: &'static str, readiness: Readiness, metrics: Metrics) -> Router {
    let health = move || async move { Json(json!({ "status": "ok", "service": name })) };
    let alive = || async { Json(json!({ "status": "alive" })) };
    let ready = move || async move { ready(&readiness) };
    let numbers = move || async move {
        let text_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, text_type)], metrics.text())
    };
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route(METRICS, get(numbers))
}

fn ready(readiness: &Readiness) -> Response {
    match readiness.reason() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_every_part_that_holds_it_back() {
        let readiness = Readiness::default();
        assert_eq!(readiness.reason(), None);
        readiness.hold("queryd", "2 of 3 views are loaded");
        readiness.hold("catalogd", "the bucket is asked");
        assert_eq!(
            readiness.reason().unwrap(),
            "catalogd: the bucket is asked; queryd: 2 of 3 views are loaded"
        );
        readiness.release("catalogd");
        readiness.release("queryd");
        assert_eq!(readiness.reason(), None);
    }

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::default();
        readiness.clone().drain();
        readiness.release("queryd");
        assert!(readiness.reason().unwrap().starts_with("draining"));
    }
}
