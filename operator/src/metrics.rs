//! The operator's numbers. Every label comes from a closed set.

use std::{sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
};

/// What the operator counts. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: lakehouse_http::Metrics,
    reconciles: Family<Reconcile, Counter>,
    failures: Family<Failure, Counter>,
    duration: Family<Kind, Histogram, fn() -> Histogram>,
    requests: Family<Request, Counter>,
    restarts: Family<Kind, Counter>,
    leader: Gauge<i64, AtomicI64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    kind: &'static str,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: lakehouse_http::Metrics::default(),
            reconciles: Family::default(),
            failures: Family::default(),
            duration: Family::new_with_constructor(durations),
            requests: Family::default(),
            restarts: Family::default(),
            leader: Gauge::default(),
        };
        let Self { registry, reconciles, failures, duration, requests, restarts, leader } = metrics.clone();
        registry.register(|registry| {
            let ours = registry.sub_registry_with_prefix("operator");
            ours.register("reconciles", "Reconciles by kind and outcome", reconciles);
            ours.register("reconcile_failures", "Reconciles that failed, by the stage that did", failures);
            ours.register("reconcile_duration_seconds", "How long a reconcile took", duration);
            ours.register("api_requests", "Requests to the API server", requests);
            ours.register("watch_restarts", "Watches that broke off and were begun again", restarts);
            ours.register("leader", "Whether this operator leads", leader);
        });
        metrics
    }
}

impl Metrics {
    /// All numbers, those of the server that shows them with them.
    pub fn registry(&self) -> &lakehouse_http::Metrics {
        &self.registry
    }

    /// Shows how many keys wait for their turn, asked whenever somebody reads the numbers.
    pub fn show_depth(&self, depth: impl Fn() -> usize + Send + Sync + 'static) {
        self.registry.register(|registry| {
            registry
                .sub_registry_with_prefix("operator")
                .register_collector(Box::new(Depth(Box::new(depth))));
        });
    }

    /// A reconcile has ended; `failed` names the stage that did not.
    pub fn reconciled(&self, kind: &'static str, failed: Option<&'static str>, took: Duration) {
        let outcome = if failed.is_some() { "failed" } else { "done" };
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
        if let Some(stage) = failed {
            self.failures.get_or_create(&Failure { kind, stage }).inc();
        }
        self.duration.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    /// A request goes to the API server.
    pub fn requested(&self, verb: &'static str) {
        self.requests.get_or_create(&Request { verb }).inc();
    }

    /// How many requests went to the API server, watches among them.
    pub fn requests(&self) -> u64 {
        VERBS.iter().map(|verb| self.requests.get_or_create(&Request { verb }).get()).sum()
    }

    /// A watch of this kind broke off.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.restarts.get_or_create(&Kind { kind }).inc();
    }

    /// Whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

/// What a request to the API server can be.
pub(crate) const VERBS: [&str; 6] = ["get", "watch", "create", "update", "patch", "delete"];

/// From 1 ms to 65 s, each bucket twice as wide as the one before.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

struct Depth(Box<dyn Fn() -> usize + Send + Sync>);

impl std::fmt::Debug for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Depth")
    }
}

impl Collector for Depth {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let depth = ConstGauge::new(i64::try_from((self.0)()).unwrap_or(i64::MAX));
        let help = "Keys that are due and wait for their turn";
        depth.encode(encoder.encode_descriptor("queue_depth", help, None, depth.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_the_operators_prefix() {
        let metrics = Metrics::default();
        metrics.show_depth(|| 3);
        metrics.reconciled("dataset", Some("apply"), Duration::from_millis(5));
        metrics.requested("patch");
        metrics.watch_restarted("jobs");
        metrics.leads(true);
        let text = metrics.registry().text();
        for line in [
            "lakehouse_operator_reconciles_total{kind=\"dataset\",outcome=\"failed\"} 1",
            "lakehouse_operator_reconcile_failures_total{kind=\"dataset\",stage=\"apply\"} 1",
            "lakehouse_operator_reconcile_duration_seconds_count{kind=\"dataset\"} 1",
            "lakehouse_operator_queue_depth 3",
            "lakehouse_operator_api_requests_total{verb=\"patch\"} 1",
            "lakehouse_operator_leader 1",
            "lakehouse_operator_watch_restarts_total{kind=\"jobs\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
