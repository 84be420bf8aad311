//! Why a reconcile failed: at which stage, and whether trying again helps.

use lakehouse_plan::Retry;

use crate::{apply, observe, report};

/// A reconcile that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the resource refers to could not be read.
    #[error("observing: {0}")]
    Observe(#[from] observe::Error),
    /// The cluster could not be made what the plan says.
    #[error("applying: {0}")]
    Apply(#[from] apply::Error),
    /// What is known could not be told.
    #[error("reporting: {0}")]
    Report(#[from] report::Error),
    /// It took longer than any reconcile should.
    #[error("it was given up after {0} s")]
    TookTooLong(u64),
    /// A bug.
    #[error("it panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// Whether the same may end better later. What is gone sends no event, but nothing is left to do for it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Apply(apply::Error::Gone(_)) | Self::Report(report::Error::Gone) => Retry::OnEdit,
            Self::Observe(_)
            | Self::Apply(_)
            | Self::Report(_)
            | Self::TookTooLong(_)
            | Self::Panicked(_) => Retry::Backoff,
        }
    }

    /// The stage, for metrics.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
            Self::Report(_) => "report",
            Self::TookTooLong(_) | Self::Panicked(_) => "run",
        }
    }
}
