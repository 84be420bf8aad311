//! What vectord counts. An index is a label only while it is open here, and only the first thousand are: the rest share one.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use lakehouse_contract::IndexName;
use lakehouse_http::{
    Metrics,
    metrics::prometheus_client::{
        encoding::EncodeLabelSet,
        metrics::{
            counter::Counter,
            family::Family,
            gauge::Gauge,
            histogram::{Histogram, exponential_buckets},
        },
    },
};

/// So many indexes have numbers of their own.
const MOST: usize = 1000;
const OTHERS: &str = "others";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    index: String,
}

#[derive(Clone)]
pub(crate) struct Numbers {
    searches: Family<Of, Counter>,
    seconds: Histogram,
    written: Counter<u64, AtomicU64>,
    vectors: Family<Of, Gauge>,
    bytes: Family<Of, Gauge>,
    known: Arc<Mutex<HashSet<IndexName>>>,
}

impl Numbers {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let numbers = Self {
            searches: Family::default(),
            // From 50 µs to 1.6 s, each bucket twice as wide as the one before.
            seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            written: Counter::default(),
            vectors: Family::default(),
            bytes: Family::default(),
            known: Arc::default(),
        };
        let Self { searches, seconds, written, vectors, bytes, known: _ } = numbers.clone();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("vectors");
            registry.register("searches", "Queries by index", searches);
            registry.register(
                "search_seconds",
                "Time of a search in the index, without reading and writing bodies",
                seconds,
            );
            registry.register("written", "Vectors added or replaced by clients", written);
            registry.register("held", "Vectors of the indexes that are open", vectors);
            registry.register("segment_bytes", "Bytes of their segments", bytes);
        });
        numbers
    }

    pub(crate) fn searched(&self, name: &IndexName, queries: u64, took: Duration) {
        self.searches.get_or_create(&self.label(name)).inc_by(queries);
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn wrote(&self, vectors: u64) {
        self.written.inc_by(vectors);
    }

    pub(crate) fn holds(&self, name: &IndexName, vectors: u64, bytes: u64) {
        let label = self.label(name);
        if label.index == OTHERS {
            return;
        }
        self.vectors.get_or_create(&label).set(i64::try_from(vectors).unwrap_or(i64::MAX));
        self.bytes.get_or_create(&label).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An index is no longer open here.
    pub(crate) fn forget(&self, name: &IndexName) {
        let label = self.label(name);
        if label.index != OTHERS {
            self.searches.remove(&label);
            self.vectors.remove(&label);
            self.bytes.remove(&label);
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }

    fn label(&self, name: &IndexName) -> Of {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST {
            known.insert(name.clone());
        }
        let index = if known.contains(name) { name.to_string() } else { OTHERS.to_owned() };
        Of { index }
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}
