//! A verdict becomes a condition: with a generation, and a time that moves only with its value.

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_crds::conditions::{Condition, READY};

use super::Failure;
use crate::Reason;

/// The longest message, in bytes: that of a Kubernetes condition.
const MAX_MESSAGE_BYTES: usize = 32_768;

/// A condition without its name and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    value: &'static str,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { value: "True", reason, message: message.into() }
    }

    pub(super) fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { value: "False", reason, message: message.into() }
    }

    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { value: "Unknown", reason, message: message.into() }
    }

    pub(super) fn failed(failure: &Failure) -> Self {
        Self::no(failure.reason, failure.message.clone())
    }

    pub(super) fn holds(&self) -> bool {
        self.value == "True"
    }
}

/// What verdicts are dated by.
pub(super) struct Verdicts<'a> {
    pub(super) before: &'a [Condition],
    pub(super) generation: Option<i64>,
    pub(super) now: Timestamp,
}

impl Verdicts<'_> {
    /// Whether the resource was ready by this generation of its spec.
    pub(super) fn was_ready(&self) -> bool {
        self.before.iter().any(|condition| {
            condition.type_ == READY
                && condition.status == "True"
                && condition.observed_generation == self.generation
        })
    }

    pub(super) fn condition(&self, name: &str, verdict: Verdict) -> Condition {
        let Verdict { value, reason, message } = verdict;
        let same = self.before.iter().find(|before| before.type_ == name && before.status == value);
        Condition {
            type_: name.to_owned(),
            status: value.to_owned(),
            reason: reason.as_str().to_owned(),
            message: shortened(message),
            observed_generation: self.generation,
            last_transition_time: same
                .map_or_else(|| Time(whole_seconds(self.now)), |before| before.last_transition_time.clone()),
        }
    }
}

/// Conditions are written with whole seconds; more would be a difference each time they are read back.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    now.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc)).unwrap_or(now)
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - '…'.len_utf8()));
        message.push('…');
    }
    message
}
