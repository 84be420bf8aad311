//! Why a chat was not answered, and what the caller reads about it.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use lakehouse_http::Problem;
use serde_json::{Map, Value};

/// One sentence, and what a program needs to go on. Of an upstream's failure the sentence has the provider's name, its status and
/// its words, and never a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChatError {
    /// What kind of failure it is.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
    /// Whose failure it is, where it is a provider's.
    pub provider: Option<Arc<str>>,
    /// What the upstream answered.
    pub upstream_status: Option<u16>,
    /// How long to wait before another try.
    pub retry_after: Option<Duration>,
    /// The field of the request that is wrong.
    pub field: Option<String>,
}

/// Kinds of failures: a closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be understood, or asks for what the provider does not have.
    BadRequest,
    /// No provider has the model.
    UnknownModel,
    /// A limit of requests, the upstream's or the one that is set for it.
    RateLimited,
    /// Too many wait for the provider.
    Busy,
    /// The upstream does not want the request.
    Refused,
    /// The upstream does not accept the key, or there is none.
    Credentials,
    /// The upstream does not work, or cannot be reached.
    Unavailable,
    /// It failed so often that it is not asked for a while.
    Resting,
    /// The upstream's answer is not what was asked for, or broke off.
    Broken,
    /// Nothing came in time.
    Timeout,
}

impl Kind {
    /// The word for it in error bodies and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownModel => "unknown_model",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::Refused => "provider_refused",
            Self::Credentials => "provider_credentials",
            Self::Unavailable => "provider_unavailable",
            Self::Resting => "provider_resting",
            Self::Broken => "provider_answer",
            Self::Timeout => "timeout",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::UnknownModel => StatusCode::NOT_FOUND,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Refused | Self::Credentials | Self::Unavailable | Self::Resting | Self::Broken => {
                StatusCode::BAD_GATEWAY
            }
        }
    }
}

impl ChatError {
    /// A failure without more to say than its sentence.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, provider: None, upstream_status: None, retry_after: None, field: None }
    }

    /// The caller's mistake in `field`. The sentence begins with the field's name.
    pub(crate) fn field(field: impl Into<String>, sentence: impl std::fmt::Display) -> Self {
        let field = field.into();
        let message = format!("`{field}` {sentence}");
        Self { field: Some(field), ..Self::new(Kind::BadRequest, message) }
    }

    /// Names the provider.
    pub(crate) fn of(self, provider: &Arc<str>) -> Self {
        Self { provider: Some(provider.clone()), ..self }
    }

    /// Says how long to wait.
    pub(crate) fn after(self, pause: impl Into<Option<Duration>>) -> Self {
        Self { retry_after: pause.into(), ..self }
    }

    /// Whether the same provider may answer when it is asked again soon.
    pub(crate) fn retry_helps(&self) -> bool {
        match self.kind {
            // Our own limit has made the caller wait already.
            Kind::RateLimited => self.upstream_status.is_some(),
            Kind::Unavailable | Kind::Broken => true,
            Kind::BadRequest
            | Kind::UnknownModel
            | Kind::Busy
            | Kind::Refused
            | Kind::Credentials
            | Kind::Resting
            | Kind::Timeout => false,
        }
    }

    /// Whether another provider may answer.
    pub(crate) fn fallback_helps(&self) -> bool {
        match self.kind {
            Kind::RateLimited
            | Kind::Busy
            | Kind::Unavailable
            | Kind::Resting
            | Kind::Broken
            | Kind::Timeout => true,
            Kind::BadRequest | Kind::UnknownModel | Kind::Refused | Kind::Credentials => false,
        }
    }

    /// Whether it says that the provider is not well, and not only this request.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Broken | Kind::Timeout)
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        let ChatError { kind, message, provider, upstream_status, retry_after, field } = error;
        let mut details = Map::new();
        if let Some(provider) = provider {
            details.insert("provider".to_owned(), Value::from(&*provider));
        }
        if let Some(status) = upstream_status {
            details.insert("upstream_status".to_owned(), status.into());
        }
        if let Some(field) = field {
            details.insert("field".to_owned(), field.into());
        }
        let problem = Self {
            retry_after: retry_after.map(whole_seconds),
            ..Self::new(kind.status(), kind.code(), message)
        };
        if details.is_empty() { problem } else { problem.details(details.into()) }
    }
}

/// Rounded up, since a client that comes a moment too early comes in vain; at least one.
fn whole_seconds(pause: Duration) -> u32 {
    let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_stays_429_and_other_failures_of_an_upstream_are_502() {
        let limit = ChatError::new(Kind::RateLimited, "slow down").after(Duration::from_millis(1200));
        let problem = Problem::from(limit);
        assert_eq!((problem.status.as_u16(), problem.retry_after), (429, Some(2)));
        for kind in [Kind::Refused, Kind::Credentials, Kind::Unavailable, Kind::Resting, Kind::Broken] {
            assert_eq!(Problem::from(ChatError::new(kind, "no")).status, 502, "{kind:?}");
        }
        assert_eq!(Problem::from(ChatError::new(Kind::Timeout, "no")).status, 504);
    }

    #[test]
    fn the_caller_reads_which_field_is_wrong() {
        let problem = Problem::from(ChatError::field("messages[2].role", "is missing"));
        assert_eq!(problem.message, "`messages[2].role` is missing");
        assert_eq!(problem.details.unwrap()["field"], "messages[2].role");
    }
}
