//! What is counted: requests, tokens and times per provider and model, and failures by kind.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

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

use crate::{error::Kind, event::Usage};

/// Names of models that are labels. A label value lives for ever, and a default provider may know any number of models.
const MAX_MODELS: usize = 500;

/// The label of models beyond those.
const OTHER: &str = "other";

/// The numbers of a chatd.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    requests: Family<Asked, Counter>,
    tokens: Family<Counted, Counter>,
    first_token: Family<Model, Histogram, fn() -> Histogram>,
    duration: Family<Model, Histogram, fn() -> Histogram>,
    in_flight: Family<Provider, Gauge<i64, AtomicI64>>,
    retries: Family<Provider, Counter>,
    fallbacks: Family<Provider, Counter>,
    resting: Family<Provider, Gauge<i64, AtomicI64>>,
    /// Those that are labels already: models that some provider answered for.
    models: Arc<Mutex<HashSet<Model>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Provider {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Model {
    provider: String,
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    provider: String,
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    provider: String,
    model: String,
    direction: &'static str,
}

/// How a request to a provider ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed(Kind),
    ClientLeft,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Failed(kind) => kind.code(),
            Self::ClientLeft => "client_left",
        }
    }
}

impl Numbers {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let numbers = Self {
            requests: Family::default(),
            tokens: Family::default(),
            first_token: Family::new_with_constructor(seconds),
            duration: Family::new_with_constructor(seconds),
            in_flight: Family::default(),
            retries: Family::default(),
            fallbacks: Family::default(),
            resting: Family::default(),
            models: Arc::default(),
        };
        let Self { requests, tokens, first_token, duration, in_flight, retries, fallbacks, resting, .. } =
            numbers.clone();
        metrics.register(|registry| {
            let chat = registry.sub_registry_with_prefix("chat");
            chat.register("requests", "Requests to providers by how they ended", requests);
            chat.register("tokens", "Tokens in and out, as the providers count them", tokens);
            chat.register("first_token_seconds", "Time until the first piece of an answer came", first_token);
            chat.register("duration_seconds", "Time until the end of an answer", duration);
            chat.register("in_flight", "Requests that a provider works on", in_flight);
            chat.register("retries", "Requests that were sent again", retries);
            chat.register("fallbacks", "Requests that went on to another provider", fallbacks);
            chat.register("resting", "Whether a provider is left alone after failures", resting);
        });
        numbers
    }

    pub(crate) fn begun(&self, provider: &str) {
        self.in_flight.get_or_create(&label(provider)).inc();
    }

    pub(crate) fn in_flight(&self, provider: &str) -> u64 {
        self.in_flight.get_or_create(&label(provider)).get().try_into().unwrap_or(0)
    }

    pub(crate) fn first_token(&self, provider: &str, model: &str, after: Duration) {
        let model = self.model(provider, model, true);
        self.first_token.get_or_create(&model).observe(after.as_secs_f64());
    }

    pub(crate) fn ended(&self, provider: &str, model: &str, outcome: Outcome, after: Duration, usage: Usage) {
        self.in_flight.get_or_create(&label(provider)).dec();
        // A client can invent names; only one that a provider answered for becomes a label.
        let model = self.model(provider, model, outcome == Outcome::Answered);
        if outcome == Outcome::Answered {
            self.duration.get_or_create(&model).observe(after.as_secs_f64());
        }
        for (direction, tokens) in [("in", usage.prompt_tokens), ("out", usage.completion_tokens)] {
            if tokens > 0 {
                let Model { provider, model } = model.clone();
                self.tokens.get_or_create(&Counted { provider, model, direction }).inc_by(tokens);
            }
        }
        let Model { provider, model } = model;
        self.requests.get_or_create(&Asked { provider, model, outcome: outcome.label() }).inc();
    }

    pub(crate) fn retried(&self, provider: &str) {
        self.retries.get_or_create(&label(provider)).inc();
    }

    pub(crate) fn fell_back(&self, provider: &str) {
        self.fallbacks.get_or_create(&label(provider)).inc();
    }

    pub(crate) fn resting(&self, provider: &str, resting: bool) {
        self.resting.get_or_create(&label(provider)).set(resting.into());
    }

    fn model(&self, provider: &str, model: &str, known: bool) -> Model {
        let named = Model { provider: provider.to_owned(), model: model.to_owned() };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.contains(&named) {
            return named;
        }
        if known && models.len() < MAX_MODELS {
            models.insert(named.clone());
            return named;
        }
        Model { model: OTHER.to_owned(), ..named }
    }
}

fn label(provider: &str) -> Provider {
    Provider { provider: provider.to_owned() }
}

/// From 1 ms to 17 minutes, each bucket twice as wide as the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 21))
}
