//! Why texts gave no vectors.

use std::time::Duration;

/// One sentence, and what a program needs to go on. Clones, since everybody who waited for a text hears the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EmbedError {
    /// What kind of failure it is.
    pub reason: Reason,
    /// The sentence; of a provider's failure it has the provider's name, status and words, and never a key.
    pub message: String,
    /// The text that was refused, counted from 0, where it was one text.
    pub item: Option<usize>,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// The models that are known, where the one asked for is not.
    pub known: Vec<String>,
}

/// Kinds of failures: a closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no text.
    EmptyList,
    /// A text is empty.
    EmptyText,
    /// A text is longer than the model takes.
    TooLong,
    /// More texts than one request may have.
    TooMany,
    /// No model answers to the name.
    UnknownModel,
    /// The provider does not want the request.
    Refused,
    /// The provider does not accept the key, or there is none.
    Credentials,
    /// The provider's limit, or the one that is set for it.
    RateLimited,
    /// The provider does not work, or cannot be reached.
    Unavailable,
    /// Nothing came in time.
    Timeout,
    /// The provider's answer is not what was asked for.
    BadAnswer,
    /// A model's own files cannot be used.
    Unusable,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::EmptyList,
        Self::EmptyText,
        Self::TooLong,
        Self::TooMany,
        Self::UnknownModel,
        Self::Refused,
        Self::Credentials,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::BadAnswer,
        Self::Unusable,
    ];

    /// The word for it in error bodies and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyList => "empty_list",
            Self::EmptyText => "empty_text",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many_texts",
            Self::UnknownModel => "unknown_model",
            Self::Refused => "provider_refused",
            Self::Credentials => "provider_credentials",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "provider_unavailable",
            Self::Timeout => "timeout",
            Self::BadAnswer => "provider_answer",
            Self::Unusable => "model_unusable",
        }
    }

    /// The reason behind a word.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl EmbedError {
    /// A failure without more to say than its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), item: None, retry_after: None, known: Vec::new() }
    }

    /// Names the text that was refused.
    #[must_use]
    pub fn at(self, item: usize) -> Self {
        Self { item: Some(item), ..self }
    }

    /// Says how long the provider asks to wait.
    #[must_use]
    pub fn after(self, pause: Option<Duration>) -> Self {
        Self { retry_after: pause, ..self }
    }

    /// Whether the same request may work later, without anybody changing anything.
    pub fn retry_helps(&self) -> bool {
        match self.reason {
            Reason::RateLimited | Reason::Unavailable | Reason::Timeout => true,
            Reason::EmptyList
            | Reason::EmptyText
            | Reason::TooLong
            | Reason::TooMany
            | Reason::UnknownModel
            | Reason::Refused
            | Reason::Credentials
            | Reason::BadAnswer
            | Reason::Unusable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code("bad_request"), None);
    }
}
