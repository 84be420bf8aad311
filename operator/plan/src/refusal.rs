//! Why a spec was refused.

use std::fmt;

use crate::Reason;

/// Everything that is wrong with a spec; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    problems: Vec<Problem>,
}

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, such as `spec.columns[2].type`.
    pub field: String,
    /// From the closed vocabulary.
    pub reason: Reason,
    /// A sentence for who wrote it, without the field.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Refusal {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "a refusal has a problem");
        Self { problems }
    }

    /// The problems, in the order of the spec's fields.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The reason that all problems share, or [`Reason::InvalidSpec`].
    pub fn reason(&self) -> Reason {
        let mut reasons = self.problems.iter().map(|problem| problem.reason);
        let first = reasons.next().unwrap_or(Reason::InvalidSpec);
        if reasons.all(|reason| reason == first) { first } else { Reason::InvalidSpec }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
