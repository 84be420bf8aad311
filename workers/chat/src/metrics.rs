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

/// Pairs of a model and a key that are labels. Keys are few, but change when they are rotated.
const MAX_USES: usize = 2000;

/// The label of models and keys beyond those.
const OTHER: &str = "other";

/// The numbers of a chatd.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    requests: Family<Asked, Counter>,
    tokens: Family<Counted, Counter>,
    first_token: Family<Use, Histogram, fn() -> Histogram>,
    duration: Family<Model, Histogram, fn() -> Histogram>,
    in_flight: Family<Provider, Gauge<i64, AtomicI64>>,
    retries: Family<Provider, Counter>,
    fallbacks: Family<Provider, Counter>,
    resting: Family<Provider, Gauge<i64, AtomicI64>>,
    known: Arc<Mutex<Known>>,
}

/// What is a label already.
#[derive(Debug, Default)]
struct Known {
    /// Those that some provider answered for.
    models: HashSet<Model>,
    uses: HashSet<Use>,
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

/// A model, and who uses it: the name of the client's token, empty where none is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Use {
    provider: String,
    model: String,
    key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    provider: String,
    model: String,
    key: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    provider: String,
    model: String,
    key: String,
    direction: &'static str,
}

/// Whose numbers they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    /// The name of the client's token.
    pub(crate) key: &'a str,
}

/// How a request to a provider ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed(Kind),
    ClientLeft,
}

impl Outcome {
    /// The word for it in metrics and traces.
    pub(crate) fn label(self) -> &'static str {
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
            known: Arc::default(),
        };
        let Self { requests, tokens, first_token, duration, in_flight, retries, fallbacks, resting, .. } =
            numbers.clone();
        metrics.register(|registry| {
            let chat = registry.sub_registry_with_prefix("chat");
            chat.register(
                "requests",
                "Requests to providers by how they ended; key: the client's token",
                requests,
            );
            chat.register(
                "tokens",
                "Tokens in and out, as the providers count them; key: the client's token",
                tokens,
            );
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

    pub(crate) fn left(&self, provider: &str) {
        self.in_flight.get_or_create(&label(provider)).dec();
    }

    pub(crate) fn in_flight(&self, provider: &str) -> u64 {
        self.in_flight.get_or_create(&label(provider)).get().try_into().unwrap_or(0)
    }

    pub(crate) fn first_token(&self, whose: Whose<'_>, after: Duration) {
        self.first_token.get_or_create(&self.labels(whose, true)).observe(after.as_secs_f64());
    }

    pub(crate) fn ended(&self, whose: Whose<'_>, outcome: Outcome, after: Duration, usage: Usage) {
        // A client can invent names; only one that a provider answered for becomes a label.
        let Use { provider, model, key } = self.labels(whose, outcome == Outcome::Answered);
        if outcome == Outcome::Answered {
            let model = Model { provider: provider.clone(), model: model.clone() };
            self.duration.get_or_create(&model).observe(after.as_secs_f64());
        }
        for (direction, tokens) in [("in", usage.prompt_tokens), ("out", usage.completion_tokens)] {
            if tokens > 0 {
                let (provider, model, key) = (provider.clone(), model.clone(), key.clone());
                self.tokens.get_or_create(&Counted { provider, model, key, direction }).inc_by(tokens);
            }
        }
        self.requests.get_or_create(&Asked { provider, model, key, outcome: outcome.label() }).inc();
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

    /// The labels of a use. `answered` says that the provider has the model.
    fn labels(&self, whose: Whose<'_>, answered: bool) -> Use {
        let [provider, model, key] = [whose.provider, whose.model, whose.key].map(str::to_owned);
        let mut labels = Use { provider, model, key };
        let Known { models, uses } = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.contains(&labels) {
            return labels;
        }
        let model = Model { provider: labels.provider.clone(), model: labels.model.clone() };
        if !models.contains(&model) {
            if answered && models.len() < MAX_MODELS {
                models.insert(model);
            } else {
                OTHER.clone_into(&mut labels.model);
            }
        }
        if !uses.contains(&labels) {
            if uses.len() < MAX_USES {
                uses.insert(labels.clone());
            } else {
                OTHER.clone_into(&mut labels.key);
            }
        }
        labels
    }
}

fn label(provider: &str) -> Provider {
    Provider { provider: provider.to_owned() }
}

/// From 1 ms to 17 minutes, each bucket twice as wide as the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 21))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_models_that_answered_and_keys_that_there_are_and_not_too_many_of_them() {
        let numbers = Numbers::register(&Metrics::default());
        let labels = |model: &str, key: &str, answered| {
            let Use { model, key, .. } = numbers.labels(Whose { provider: "up", model, key }, answered);
            (model, key)
        };
        let named = |model: &str, key: &str| (model.to_owned(), key.to_owned());
        assert_eq!(labels("invented", "a", false), named("other", "a"));
        assert_eq!(labels("m", "a", true), named("m", "a"));
        assert_eq!(labels("m", "b", false), named("m", "b"), "the model is known by now");
        for model in 0..2 * MAX_MODELS {
            labels(&format!("m{model}"), "a", true);
        }
        assert_eq!(labels("one more", "a", true), named("other", "a"));
        for key in 0..2 * MAX_USES {
            labels("m", &format!("k{key}"), true);
        }
        assert_eq!(labels("m", "one more", true), named("m", "other"));
        assert_eq!(labels("m", "a", true), named("m", "a"));
        let Known { models, uses } = &*numbers.known.lock().unwrap();
        assert_eq!((models.len(), uses.len()), (MAX_MODELS, MAX_USES));
    }
}
