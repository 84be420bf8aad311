//! The one error body of every service.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `{"error":{"code","message","details"?}}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The only member.
    pub error: ErrorDetail,
}

/// What went wrong, for a program (`code`) and for a person (`message`). Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A stable word in `snake_case`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Fields that a program may want: a line, a column, an item's index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl ErrorBody {
    /// A body without details.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { code: code.into(), message: message.into(), details: None } }
    }
}
