//! What embedd counts. Providers' names come from the configuration, so labels are a bounded set.

use std::{fmt, sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::Reason;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    texts: Family<From, Counter>,
    entries: Gauge<i64, AtomicI64>,
    bytes: Gauge<i64, AtomicI64>,
    seconds: Family<Asked, Histogram, fn() -> Histogram>,
    errors: Family<Failed, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    from: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    provider: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    provider: String,
    kind: &'static str,
    reason: &'static str,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn register(metrics: &lakehouse_http::Metrics) -> Self {
        let ours = Self {
            texts: Family::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            seconds: Family::new_with_constructor(seconds_histogram),
            errors: Family::default(),
        };
        let Self { texts, entries, bytes, seconds, errors } = ours.clone();
        metrics.register(|registry| {
            let embed = registry.sub_registry_with_prefix("embed");
            embed.register("texts", "Texts by what answered them: the cache, or a model", texts);
            embed.register("cache_entries", "Texts in the cache", entries);
            embed.register("cache_bytes", "Bytes in the cache", bytes);
            embed.register("upstream_seconds", "Time of one request to a provider or a local model", seconds);
            embed.register(
                "upstream_errors",
                "Requests to a provider that failed, also those tried again",
                errors,
            );
        });
        ours
    }

    pub(crate) fn looked_up(&self, hits: usize, misses: usize) {
        for (from, count) in [("cache", hits), ("model", misses)] {
            if count > 0 {
                self.texts.get_or_create(&From { from }).inc_by(count as u64);
            }
        }
    }

    pub(crate) fn cached(&self, entries: u64, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn asked(&self, provider: &str, kind: &'static str, duration: Duration) {
        let asked = Asked { provider: provider.to_owned(), kind };
        self.seconds.get_or_create(&asked).observe(duration.as_secs_f64());
    }

    pub(crate) fn failed(&self, provider: &str, kind: &'static str, reason: Reason) {
        let failed = Failed { provider: provider.to_owned(), kind, reason: reason.code() };
        self.errors.get_or_create(&failed).inc();
    }
}

/// From 1 ms to 65 s, each bucket twice as wide as the one before.
fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}
