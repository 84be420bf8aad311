//! Numbers for Prometheus: those of the server, and those that a service registers.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use axum::http::Method;
pub use prometheus_client;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// A registry that all parts of a process share. Cheap to clone. Every name starts with `lakehouse_`.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("lakehouse"))))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Lets a service add metrics of its own. Label values must come from a closed set.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every number in the text format of `OpenMetrics`, which Prometheus reads.
    pub fn text(&self) -> String {
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }
}

/// What the server counts.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    answered: Family<Answered, Counter>,
    duration: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    received: Counter<u64, AtomicU64>,
    sent: Counter<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

/// One request that is over.
pub(crate) struct Done<'a> {
    pub(crate) method: &'a Method,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Requests {
    pub(crate) fn register(metrics: &Metrics, service: &'static str) -> Self {
        let requests = Self {
            answered: Family::default(),
            duration: Family::new_with_constructor(duration_histogram),
            in_flight: Gauge::default(),
            received: Counter::default(),
            sent: Counter::default(),
        };
        let Self { answered, duration, in_flight, received, sent } = requests.clone();
        metrics.register(|registry| {
            let http = registry
                .sub_registry_with_label(("service".into(), service.into()))
                .sub_registry_with_prefix("http");
            http.register("requests", "Requests by route and status; 499: the client left", answered);
            http.register(
                "request_duration_seconds",
                "Time until the last byte of the answer was handed over",
                duration,
            );
            http.register("requests_in_flight", "Requests that are being answered", in_flight);
            http.register("received_bytes", "Bytes of request bodies", received);
            http.register("sent_bytes", "Bytes of answers' bodies", sent);
        });
        requests
    }

    pub(crate) fn begin(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn end(&self, done: &Done<'_>) {
        let Done { method, route, status, duration, received, sent } = *done;
        let (method, route) = (label(method), route.to_owned());
        self.in_flight.dec();
        self.received.inc_by(received);
        self.sent.inc_by(sent);
        self.duration.get_or_create(&Asked { method, route: route.clone() }).observe(duration.as_secs_f64());
        self.answered.get_or_create(&Answered { method, route, status }).inc();
    }
}

/// From 1 ms to 65 s, each bucket twice as wide as the one before.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// A client can invent methods; a label cannot.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
