//! What a resource's user is told: conditions and numbers, computed from facts.
//!
//! Receives what an executor found ([`Facts`], [`IndexFacts`], [`ProviderFacts`]), the status as it was, and the clock. Hands on the whole status.
//! Equal facts give an equal status, so that writing it twice changes nothing: a condition's time moves only with its value.
//!
//! While work goes on, `Ready` keeps the verdict it had on this generation of the spec: a dataset that is refreshed
//! stays ready, and one whose spec was edited is not ready until the edit is served. An index is told of alike.

mod chat_provider;
mod conditions;
mod dataset;
mod vector_index;

use lakehouse_contract::ingest::Progress;
use lakehouse_crds::conditions::{Condition, READY, RECONCILING, STALLED};

pub use chat_provider::{LookFacts, PROBE_RENEWAL, ProviderFacts, SecretFacts, chat_provider};
pub use dataset::{Facts, SourceFacts, dataset, deleting};
pub use vector_index::{DatasetFacts, EmbedderFacts, IndexFacts, deleting_index, vector_index};

use crate::{Reason, Retry};
use conditions::{Verdict, Verdicts};

/// What is being done for a resource; `P` is how far it tells to have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RunFacts<'a, P = Progress> {
    /// Nothing: what is published is what was asked for, or there is nothing to do yet.
    #[default]
    Idle,
    /// Work waits for its turn, or for its next try.
    Waiting,
    /// Work waits, and this sentence says for what.
    WaitingFor(&'a str),
    /// It runs.
    Running(Option<&'a P>),
    /// The last try failed.
    Failed(Failure),
}

/// What is known of the service that answers requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServedFacts {
    /// It does not answer from the published version yet.
    #[default]
    NotYet,
    /// It does not answer from the published version yet, and this sentence says why.
    Waiting(String),
    /// It answers from this version.
    Serving {
        /// Where.
        endpoint: String,
        /// The version.
        version: u64,
    },
    /// It answers from this version, but a part of it that should help cannot.
    Limping {
        /// Where.
        endpoint: String,
        /// The version.
        version: u64,
        /// What the part suffers from.
        failure: Failure,
    },
    /// It cannot read the version.
    Failed(Failure),
}

impl ServedFacts {
    /// The same, where what all resources of a namespace share could not be made.
    #[must_use]
    pub fn with(self, refused: Option<Failure>) -> Self {
        match (self, refused) {
            (served, None) | (served @ Self::Limping { .. }, Some(_)) => served,
            (Self::Serving { endpoint, version }, Some(failure)) => {
                Self::Limping { endpoint, version, failure }
            }
            (Self::NotYet | Self::Waiting(_) | Self::Failed(_), Some(failure)) => Self::Failed(failure),
        }
    }
}

/// Why something failed, with the real error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// From the closed vocabulary.
    pub reason: Reason,
    /// The error, fit for a user's eyes.
    pub message: String,
}

impl Failure {
    /// A failure of this reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Whether requests are answered, be it from another version than the published one.
fn answers(served: &ServedFacts) -> bool {
    matches!(served, ServedFacts::Serving { .. } | ServedFacts::Limping { .. })
}

/// Where requests are answered.
fn endpoint(served: &ServedFacts) -> Option<String> {
    match served {
        ServedFacts::Serving { endpoint, .. } | ServedFacts::Limping { endpoint, .. } => {
            Some(endpoint.clone())
        }
        ServedFacts::NotYet | ServedFacts::Waiting(_) | ServedFacts::Failed(_) => None,
    }
}

/// Whether something is worked at that does not run at this moment; `rest` is the verdict where nothing failed.
fn reconciling(suspended: bool, failure: Option<&Failure>, rest: Verdict) -> Verdict {
    match failure {
        _ if suspended => Verdict::no(Reason::Suspended, "`spec.suspend` is set."),
        Some(failure) if failure.reason.retry() == Retry::Backoff => {
            Verdict::yes(failure.reason, format!("{} It is tried again.", sentence(&failure.message)))
        }
        Some(failure) => Verdict::failed(failure),
        None => rest,
    }
}

/// Whether everything waits for an edit.
fn stalled(failure: Option<&Failure>) -> Verdict {
    match failure {
        Some(failure) if failure.reason.retry() == Retry::OnEdit => {
            Verdict::yes(failure.reason, failure.message.clone())
        }
        _ => Verdict::no(Reason::Settled, "Nothing waits for an edit."),
    }
}

/// The conditions of a resource whose data are removed before it goes; those that say nothing of that stay.
fn ending<P>(verdicts: &Verdicts<'_>, run: &RunFacts<'_, P>, removal: &str) -> Vec<Condition> {
    let (ready, reconciling, stalled) = match run {
        RunFacts::Failed(failure) => {
            let stalled = if failure.reason.retry() == Retry::OnEdit {
                Verdict::yes(failure.reason, failure.message.clone())
            } else {
                Verdict::no(Reason::Deleting, "Nothing waits for an edit.")
            };
            let again = format!("{} It is tried again.", sentence(&failure.message));
            (Verdict::failed(failure), Verdict::yes(failure.reason, again), stalled)
        }
        run => {
            let message = match run {
                RunFacts::WaitingFor(sentence) => sentence,
                _ => removal,
            };
            let stalled = Verdict::no(Reason::Deleting, "Nothing waits for an edit.");
            (Verdict::no(Reason::Deleting, message), Verdict::yes(Reason::Deleting, message), stalled)
        }
    };
    let told = [(READY, ready), (RECONCILING, reconciling), (STALLED, stalled)];
    let mut conditions = told.map(|(name, verdict)| verdicts.condition(name, verdict)).to_vec();
    let others =
        verdicts.before.iter().filter(|before| conditions.iter().all(|new| new.type_ != before.type_));
    let others: Vec<Condition> = others.cloned().collect();
    conditions.extend(others);
    conditions
}

/// A message that another sentence can follow.
fn sentence(message: &str) -> String {
    let message = message.trim_end();
    if message.ends_with(['.', '!', '?']) { message.to_owned() } else { format!("{message}.") }
}
