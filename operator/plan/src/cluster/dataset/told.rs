//! What ended Jobs tell of a source and of the last ingest.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use lakehouse_crds::dataset::LastIngest;

use crate::{
    Reason,
    cluster::{
        history::History,
        pods,
        work::{self, Ended},
    },
    status::{Failure, SourceFacts},
};

/// The source as the last Job that ended well found it.
pub(super) fn source(history: &History<'_>) -> SourceFacts {
    if history.newest_complete().is_some() { SourceFacts::Found } else { SourceFacts::Unknown }
}

/// What a failure says of the source.
pub(super) fn source_after(failure: &Failure, history: &History<'_>) -> SourceFacts {
    match failure.reason {
        Reason::SourceMissing | Reason::SourceDenied | Reason::SourceUnreachable | Reason::DigestMismatch => {
            SourceFacts::Failed(failure.clone())
        }
        // These are told by who has read it.
        Reason::InvalidData | Reason::InvalidColumns | Reason::TooManyRejects | Reason::SchemaChanged => {
            SourceFacts::Found
        }
        _ => source(history),
    }
}

/// The last ingest that ended.
pub(super) fn last_ingest(history: &History<'_>, pods: &[Arc<Pod>]) -> Option<LastIngest> {
    let Ended { started, finished, duration, job, message } = work::last_ended(history, pods, pods::INGEST)?;
    Some(LastIngest { started, finished, duration, job: Some(job), message: Some(message) })
}
