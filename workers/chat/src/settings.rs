//! What chatd may use, where a provider says nothing of its own.

use std::{sync::Arc, time::Duration};

use lakehouse_contract::provider::Limits;
use lakehouse_http::Metrics;
use opentelemetry::global::BoxedTracer;

/// Limits of a [`Chatd`](crate::Chatd).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest request, in bytes. Images are in it as text.
    pub max_body_bytes: u64,
    /// How long each step of a request may take.
    pub timeouts: Timeouts,
    /// How often a request is sent again to the same provider, as long as nothing of its answer was sent on.
    pub retries: u32,
    /// The pause before the first of these; each next one is twice as long, and each is cut by chance.
    pub backoff: Duration,
    /// The longest pause. An upstream that asks for a longer one is not waited for: the caller is told.
    pub max_pause: Duration,
    /// How many requests may wait for one provider; the next one is refused at once.
    pub max_queue: usize,
    /// How long a request waits for its turn.
    pub queue_timeout: Duration,
    /// After how many failures in a row a provider is left alone for a while.
    pub breaker_failures: u32,
    /// How long that is.
    pub breaker_rest: Duration,
    /// How often key files are read again.
    pub key_poll: Duration,
    /// How often a provider is looked at that works.
    pub look_every: Duration,
    /// How soon one is looked at again that does not.
    pub look_soon: Duration,
    /// Where its numbers are shown.
    pub metrics: Metrics,
    /// What makes its spans; none are made without it.
    pub tracer: Option<Arc<BoxedTracer>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            timeouts: Timeouts::default(),
            retries: 2,
            backoff: Duration::from_millis(250),
            max_pause: Duration::from_secs(5),
            max_queue: 256,
            queue_timeout: Duration::from_secs(30),
            breaker_failures: 5,
            breaker_rest: Duration::from_secs(5),
            key_poll: Duration::from_secs(1),
            look_every: Duration::from_secs(30),
            look_soon: Duration::from_secs(5),
            metrics: Metrics::default(),
            tracer: None,
        }
    }
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// Until the first token. A model of one's own may have to be loaded first.
    pub first_token: Duration,
    /// Between two tokens.
    pub idle: Duration,
    /// All of it.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_token: Duration::from_mins(2),
            idle: Duration::from_mins(1),
            total: Duration::from_mins(10),
        }
    }
}

impl Timeouts {
    /// With what a provider sets instead.
    pub(crate) fn with(self, limits: &Limits) -> Self {
        let or = |own: Option<u64>, default| own.map_or(default, Duration::from_millis);
        Self {
            connect: or(limits.connect_ms, self.connect),
            first_token: or(limits.first_token_ms, self.first_token),
            idle: or(limits.idle_ms, self.idle),
            total: or(limits.total_ms, self.total),
        }
    }
}
