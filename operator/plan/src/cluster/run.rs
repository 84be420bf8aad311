//! What is being done for a resource, in a cluster's words.

use crate::status::{Failure, RunFacts};

/// A version that is to be served instead of the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The version.
    pub version: u64,
    /// The spec names it, so that it is a failure when it is not kept. Otherwise that changes nothing.
    pub pinned: bool,
}

/// An object whose Events are worth reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsOf {
    /// `Job` or `Pod`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// What is being done for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Nothing.
    #[default]
    Idle,
    /// Work waits, and this sentence says for what.
    Waiting(String),
    /// A pod is at work.
    Running,
    /// The last try failed, or the next one cannot start.
    Failed(Failure),
}

impl Run {
    /// As the status wants it, with what the running pod told.
    pub fn facts<'a, P>(&'a self, progress: Option<&'a P>) -> RunFacts<'a, P> {
        match self {
            Self::Idle => RunFacts::Idle,
            Self::Waiting(sentence) => RunFacts::WaitingFor(sentence),
            Self::Running => RunFacts::Running(progress),
            Self::Failed(failure) => RunFacts::Failed(failure.clone()),
        }
    }
}
