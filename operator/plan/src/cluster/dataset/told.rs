//! What ended Jobs tell of a source and of the last ingest.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use lakehouse_contract::job::{Done, Summary};
use lakehouse_crds::dataset::LastIngest;

use crate::{
    Reason,
    cluster::{
        activity,
        history::{History, Past, Phase},
        pods,
    },
    human,
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

/// The last ingest that ended. When its pod is gone, so are its words: nothing is told, and what was told before stays.
pub(super) fn last_ingest(history: &History<'_>, pods: &[Arc<Pod>]) -> Option<LastIngest> {
    let job = history.newest_ended()?;
    let pod = *job.pods(pods).first()?;
    let (started, finished, message) = match (job.phase, pods::summary(pod)) {
        (
            _,
            Some(
                Summary::Done(Done { started, finished, message, .. })
                | Summary::Failed { started, finished, message, .. },
            ),
        ) => (Some(started), Some(finished), message),
        (phase, _) => {
            let ended = pods::terminated(pod);
            let time = |time: Option<&Time>| time.map(|time| time.0);
            let message = match activity::failure_of_ended(&job, pods, pods::INGEST) {
                Some(failure) => failure.message,
                None => format!("The Job `{}` ended well.", job.name()),
            };
            let started = ended.and_then(|ended| time(ended.started_at.as_ref()));
            let finished = ended.and_then(|ended| time(ended.finished_at.as_ref()));
            (started, finished.or_else(|| at(&phase)), message)
        }
    };
    let took = started
        .zip(finished)
        .and_then(|(started, finished)| u64::try_from(finished.duration_since(started).as_millis()).ok());
    Some(LastIngest {
        started: started.map(Time),
        finished: finished.map(Time),
        duration: took.map(human::duration),
        job: Some(job.name().to_owned()),
        message: Some(message),
    })
}

fn at(phase: &Phase<'_>) -> Option<Timestamp> {
    match phase {
        Phase::Failed { at, .. } => Some(*at),
        Phase::Active | Phase::Complete => None,
    }
}

/// Why a Job that gave up did so.
pub(super) fn failure(job: &Past<'_>, pods: &[Arc<Pod>]) -> Option<Failure> {
    activity::failure_of_ended(job, pods, pods::INGEST)
}
