//! What an unfinished Job is doing, by its pods and their events.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;

use super::{
    history::{Past, Phase},
    pods::{self, Knobs, State},
    run::{EventsOf, Run},
};
use crate::{Reason, status::Failure};

/// So long a Job may be without a pod before its events are read.
const POD_IS_LATE: Duration = Duration::from_secs(3);
/// So long a pod may be without a container before its events are read.
const CONTAINER_IS_LATE: Duration = Duration::from_secs(10);
/// How often events are read again. Nobody tells of new ones.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What an unfinished Job is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Activity {
    pub(super) run: Run,
    pub(super) progress_of: Option<String>,
    pub(super) events_of: Option<EventsOf>,
    pub(super) next_visit: Option<Timestamp>,
}

impl Activity {
    /// Whether its pods cannot start or ended badly, so that other pods might do better.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.run, Run::Failed(_))
    }
}

/// What an unfinished Job is doing.
pub(super) fn of(
    job: &Past<'_>,
    pods: &[Arc<Pod>],
    events: &[Event],
    knobs: Knobs,
    now: Timestamp,
) -> Activity {
    let pods = job.pods(pods);
    let Some((newest, older)) = pods.split_first() else { return without_a_pod(job, events, now) };
    let name = newest.name_any();
    let run = match pods::state(newest, events, knobs) {
        State::Running => {
            let progress_of = newest.status.as_ref().and_then(|status| status.pod_ip.clone());
            return Activity { run: Run::Running, progress_of, ..Activity::default() };
        }
        State::Succeeded => Run::Running,
        State::Failed(failure) => Run::Failed(failure),
        State::Leaving(why) => {
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            Run::Waiting(format!("The pod `{name}` is being stopped{why}; another takes its place."))
        }
        State::Starting => match older.iter().find_map(|pod| failure_of(pod, knobs)) {
            // The try before it says more than that there is another one.
            Some(failure) => Run::Failed(failure),
            None => Run::Waiting(format!("The pod `{name}` is being started.")),
        },
    };
    let created = newest.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let is_pending = newest.status.as_ref().is_none_or(|status| status.phase.as_deref() == Some("Pending"));
    let (events_of, next_visit) = if is_pending {
        late(created, CONTAINER_IS_LATE, now, || EventsOf {
            kind: "Pod",
            name,
            uid: newest.uid().unwrap_or_default(),
        })
    } else {
        (None, None)
    };
    Activity { run, progress_of: None, events_of, next_visit }
}

fn without_a_pod(job: &Past<'_>, events: &[Event], now: Timestamp) -> Activity {
    let name = job.name();
    if job.is_suspended() {
        let run = Run::Waiting(format!("The Job `{name}` is suspended."));
        return Activity { run, ..Activity::default() };
    }
    let run = match pods::refused(events) {
        Some(failure) => Run::Failed(failure),
        None => Run::Waiting(format!("The pod of the Job `{name}` is being made.")),
    };
    let (events_of, next_visit) = late(job.created(), POD_IS_LATE, now, || EventsOf {
        kind: "Job",
        name: name.to_owned(),
        uid: job.job.uid().unwrap_or_default(),
    });
    Activity { run, progress_of: None, events_of, next_visit }
}

/// Whose events to read when something is late, and when to look again.
fn late(
    since: Timestamp,
    patience: Duration,
    now: Timestamp,
    whose: impl FnOnce() -> EventsOf,
) -> (Option<EventsOf>, Option<Timestamp>) {
    let due = since + patience;
    if now < due { (None, Some(due)) } else { (Some(whose()), Some(now + LOOK_AGAIN)) }
}

fn failure_of(pod: &Pod, knobs: Knobs) -> Option<Failure> {
    match pods::state(pod, &[], knobs) {
        State::Failed(failure) => Some(failure),
        _ => None,
    }
}

/// Why a Job that gave up did so: what its pods said, else what its controller says.
pub(super) fn failure_of_ended(job: &Past<'_>, pods: &[Arc<Pod>], knobs: Knobs) -> Option<Failure> {
    let Phase::Failed { reason, message, .. } = job.phase else { return None };
    let told = job.pods(pods).into_iter().find_map(|pod| failure_of(pod, knobs));
    let name = job.name();
    if reason == "DeadlineExceeded" {
        let seconds = job.job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
        let own = knobs.deadline.map(|field| format!("{field} or ")).unwrap_or_default();
        let before = told.map(|failure| format!(" Before that: {}", failure.message)).unwrap_or_default();
        return Some(Failure::new(
            Reason::DeadlineExceeded,
            format!(
                "The Job `{name}` had not ended after {seconds} seconds, the most that {own}the operator's settings allow.{before}"
            ),
        ));
    }
    Some(told.unwrap_or_else(|| {
        let message = format!("The Job `{name}` gave up ({reason}: {message}), and its pods are gone.");
        Failure::new(Reason::PodFailed, message)
    }))
}
