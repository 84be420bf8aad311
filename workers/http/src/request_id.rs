//! The id under which the logs of all services tell one request.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Made at the edge, or taken from the caller; echoed in the answer and passed on to every service behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// `X-Request-Id`
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
    const MAX_BYTES: usize = 128;

    /// The caller's id when it is fit for a log line, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(Self::HEADER).and_then(|value| value.to_str().ok());
        match given {
            Some(id) if Self::is_fit(id) => Self(id.to_owned()),
            _ => Self(Uuid::now_v7().simple().to_string()),
        }
    }

    /// The id as a header's value.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("only letters, digits and a few marks")
    }

    fn is_fit(id: &str) -> bool {
        (1..=Self::MAX_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(id_for("build-7/step.3").to_string(), "build-7/step.3");
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        for given in ["", "a b", "a\tb", "\"", &"x".repeat(129)] {
            assert_ne!(id_for(given).to_string(), given);
        }
    }

    fn id_for(given: &str) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(RequestId::HEADER, given.parse().unwrap())]))
    }
}
