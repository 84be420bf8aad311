//! Where a request comes from: which token the client showed, and the trace that the request is a part of.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName},
};
use lakehouse_http::Caller;

/// The headers of W3C's Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where a request comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    caller: Option<Caller>,
    /// The trace's headers as they came. They go on to the provider also where no spans are made here.
    pub(crate) trace: HeaderMap,
}

impl Origin {
    pub(crate) fn of(request: &Request) -> Self {
        let mut trace = HeaderMap::new();
        for name in [TRACEPARENT, TRACESTATE] {
            if let Some(value) = request.headers().get(&name) {
                trace.insert(name, value.clone());
            }
        }
        Self { caller: request.extensions().get().cloned(), trace }
    }

    /// The name of the client's token; empty where none is asked for.
    pub(crate) fn key(&self) -> &str {
        self.caller.as_ref().map_or("", Caller::name)
    }
}
