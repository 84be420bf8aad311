//! The pod of a Job, as a spec asks for it.

use lakehouse_crds::{common::Resources, dataset::IngestPod, vector_index::BuildPod};

/// The pod that does a resource's work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its CPU and memory, where the spec says.
    pub resources: Option<Resources>,
    /// How often it is tried again, where the spec says.
    pub backoff_limit: Option<i32>,
    /// How many seconds all tries may take together, where the spec says.
    pub active_deadline_seconds: Option<i64>,
}

impl From<&IngestPod> for Pod {
    fn from(pod: &IngestPod) -> Self {
        let IngestPod { resources, backoff_limit, active_deadline_seconds } = pod.clone();
        Self { resources, backoff_limit, active_deadline_seconds }
    }
}

impl From<&BuildPod> for Pod {
    fn from(pod: &BuildPod) -> Self {
        let BuildPod { resources, backoff_limit, active_deadline_seconds } = pod.clone();
        Self { resources, backoff_limit, active_deadline_seconds }
    }
}
