//! Work that Jobs do, one Job at a time: which one, and when.
//!
//! Knows no kind of resource. Receives what the Jobs are made of and what is observed of them; hands on what is [`Doing`].
//!
//! ```text
//! no Job, or other inputs ─► stop what runs, then attempt 1
//! it works                ─► what its pods say; stuck on pods that would be made otherwise now ─► stop it
//! it is complete          ─► the schedule's next time has come ─► attempt 1 of that slot
//!                         ─► the bucket has lost what it published ─► after a while, the next attempt
//! it failed               ─► after a while, or soon when its pods would be made otherwise now ─► the next attempt
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use lakehouse_contract::job::{Built, Done, Purged, Summary};

use super::{
    Child, Kind, ObjectName,
    activity::{self, Activity},
    backoff,
    history::{self, History, Past, Phase},
    job::Ticket,
    meta::Component,
    pods::{self, Knobs},
    run::{EventsOf, Run},
};
use crate::{Reason, Schedule, human, status::Failure};

/// The Jobs of one work, as they would be made now.
pub(super) trait Make {
    /// The Job's name, and its ConfigMap's.
    fn name(&self, ticket: &Ticket) -> String;

    /// Names everything but the inputs that may decide how a Job ends: its pods, its limits, its Secrets.
    fn pod_digest(&self) -> String;

    /// The ConfigMap that tells the pod of the Job of this name what to do.
    fn config_map(&self, name: &str) -> Child;

    /// The Job.
    fn job(&self, ticket: &Ticket) -> Child;
}

/// What is seen of a resource's Jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) jobs: &'a [Arc<Job>],
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) events: &'a [Event],
    pub(super) config_maps: &'a [String],
    pub(super) now: Timestamp,
}

/// Everything that decides the next step.
pub(super) struct Work<'a> {
    pub(super) make: &'a dyn Make,
    pub(super) component: Component,
    /// What decides the output.
    pub(super) inputs: &'a str,
    pub(super) schedule: Option<&'a Schedule>,
    /// Why no Job can be made now.
    pub(super) missing: Option<Failure>,
    /// Set when the bucket holds nothing of what the last Job published: what is done about it.
    pub(super) lost: Option<&'static str>,
    /// What is said of a failure that nobody told of.
    pub(super) nameless: &'static str,
    pub(super) knobs: Knobs,
    pub(super) history: &'a History<'a>,
    pub(super) seen: Seen<'a>,
}

/// What is to be done. The fields stand in the order of doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Doing {
    pub(super) delete: Vec<ObjectName>,
    pub(super) children: Vec<Child>,
    pub(super) suspend: Option<(String, bool)>,
    pub(super) run: Run,
    pub(super) events_of: Option<EventsOf>,
    pub(super) progress_of: Option<String>,
    pub(super) next_visit: Option<Timestamp>,
}

impl Work<'_> {
    /// What is to be done now.
    pub(super) fn next(&self) -> Doing {
        match self.history.latest() {
            Some(latest) if latest.inputs() == Some(self.inputs) => match latest.phase {
                Phase::Active => self.watch(&latest),
                Phase::Complete => self.after_success(&latest),
                Phase::Failed { at, .. } => self.after_failure(&latest, at),
            },
            _ => self.begin(1, None, None),
        }
    }

    /// Makes a Job, unless something that it must not meet is still there. `last` is why the attempt before it failed.
    fn begin(&self, attempt: u32, slot: Option<Timestamp>, last: Option<&Failure>) -> Doing {
        let run = |sentence: String| last.cloned().map_or(Run::Waiting(sentence), Run::Failed);
        // Those of an earlier resource of this name, too: they publish under it.
        let at_work = history::all_of(self.seen.jobs, self.component).filter(Past::is_active);
        let delete: Vec<ObjectName> = at_work
            .filter(|job| !job.is_leaving())
            .map(|job| ObjectName::new(Kind::Job, job.name()))
            .collect();
        if let Some(name) = delete.first().map(|job| job.name.as_str()).or_else(|| self.in_the_way()) {
            // Two at once would publish in the order in which they end, not in which they were asked for.
            let run = run(format!("The Job `{name}`, which nobody asks for any more, is being stopped."));
            return Doing { delete, run, ..Doing::default() };
        }
        if let Some(failure) = &self.missing {
            return Doing { run: Run::Failed(failure.clone()), ..Doing::default() };
        }
        let ticket = Ticket { inputs: self.inputs.to_owned(), run: self.history.next_run(), attempt, slot };
        let name = self.make.name(&ticket);
        let children = vec![self.make.config_map(&name), self.make.job(&ticket)];
        Doing { children, run: run(format!("The Job `{name}` is being made.")), ..Doing::default() }
    }

    /// A Job on its way out whose pod may still work.
    fn in_the_way(&self) -> Option<&str> {
        let of = |component| history::all_of(self.seen.jobs, component).find(Past::is_active);
        of(self.component).or_else(|| of(Component::Purge)).map(|job| job.name())
    }

    /// Tells what a Job's pods do.
    pub(super) fn watch(&self, latest: &Past<'_>) -> Doing {
        let Seen { pods, events, now, config_maps, .. } = self.seen;
        let activity = activity::of(latest, pods, events, self.knobs, now);
        // An older one that still works came in between only if somebody made it by hand.
        let mut delete = stop(self.history);
        delete.retain(|job| job.name != latest.name());
        if activity.is_stuck() && self.is_made_otherwise_now(latest) {
            delete = stop(self.history);
        }
        let goes_on = delete.iter().all(|job| job.name != latest.name());
        let has_config_map = config_maps.iter().any(|name| name == latest.name());
        let Activity { run, progress_of, events_of, next_visit } = activity;
        let run = match (run, self.last_failure(latest)) {
            (Run::Waiting(_), Some(failure)) => Run::Failed(failure),
            (run, _) => run,
        };
        let run = match &self.missing {
            Some(failure) if run != Run::Running => Run::Failed(failure.clone()),
            _ => run,
        };
        Doing {
            delete,
            children: if goes_on && !has_config_map {
                vec![self.make.config_map(latest.name())]
            } else {
                Vec::new()
            },
            suspend: (goes_on && latest.is_suspended()).then(|| (latest.name().to_owned(), false)),
            run,
            events_of,
            progress_of,
            next_visit,
        }
    }

    fn after_success(&self, latest: &Past<'_>) -> Doing {
        let now = self.seen.now;
        // Another bucket, or one that somebody has emptied: no event tells of its filling, so we do it.
        let wait = backoff::wait(Reason::StoreFailed, latest.attempt).filter(|_| self.lost.is_some());
        let again = wait.map(|wait| latest.completed() + wait);
        match (self.next_slot(latest), again) {
            (Some(slot), _) if slot <= now => self.begin(1, Some(slot), None),
            (_, Some(again)) if again <= now => self.begin(latest.attempt.saturating_add(1), None, None),
            (slot, again) => {
                let name = latest.name();
                let lost =
                    |then| format!("The bucket holds nothing of what the Job `{name}` published; {then}.");
                let run = self.lost.map_or(Run::Idle, |then| Run::Waiting(lost(then)));
                Doing { run, next_visit: slot.into_iter().chain(again).min(), ..Doing::default() }
            }
        }
    }

    fn after_failure(&self, latest: &Past<'_>, at: Timestamp) -> Doing {
        let now = self.seen.now;
        let failure = self.failure_of(latest).unwrap_or_else(|| Failure::new(Reason::Failed, self.nameless));
        let wait = if self.is_made_otherwise_now(latest) {
            Some(backoff::AFTER_A_CHANGE)
        } else {
            backoff::wait(failure.reason, latest.attempt)
        };
        let again = wait.map(|wait| at + wait);
        // What only an edit can mend is not mended by the time.
        let slot = wait.and_then(|_| self.next_slot(latest));
        match (slot, again) {
            (Some(slot), _) if slot <= now => self.begin(1, Some(slot), Some(&failure)),
            (_, Some(again)) if again <= now => {
                self.begin(latest.attempt.saturating_add(1), None, Some(&failure))
            }
            _ => Doing {
                run: Run::Failed(failure),
                next_visit: slot.into_iter().chain(again).min(),
                ..Doing::default()
            },
        }
    }

    /// Why the attempt before this one failed. Waiting for the next one is no news beside that.
    fn last_failure(&self, latest: &Past<'_>) -> Option<Failure> {
        let before = self.history.newest_ended().filter(|_| latest.attempt > 1)?;
        self.failure_of(&before)
    }

    fn failure_of(&self, job: &Past<'_>) -> Option<Failure> {
        activity::failure_of_ended(job, self.seen.pods, self.knobs)
    }

    /// Whether new pods would differ from those of this Job.
    fn is_made_otherwise_now(&self, job: &Past<'_>) -> bool {
        job.pod() != Some(&self.make.pod_digest())
    }

    /// The first time of the schedule after this Job; it may have passed.
    fn next_slot(&self, job: &Past<'_>) -> Option<Timestamp> {
        self.schedule?.next_after(job.scheduled())
    }
}

/// Nothing begins, and what runs is stopped without being forgotten.
pub(super) fn suspended(history: &History<'_>) -> Option<(String, bool)> {
    let running = history.latest().filter(|job| job.is_active() && !job.is_suspended());
    running.map(|job| (job.name().to_owned(), true))
}

/// Every Job that is not to go on.
pub(super) fn stop(history: &History<'_>) -> Vec<ObjectName> {
    history.staying().filter(Past::is_active).map(|job| ObjectName::new(Kind::Job, job.name())).collect()
}

/// What nobody needs any more, beside what is deleted anyway: of the Jobs that have ended, all but the newest and the last one that
/// succeeded; purges of a resource that stays after all; `ConfigMap`s whose Job is gone.
pub(super) fn prune(
    delete: &mut Vec<ObjectName>,
    children: &[Child],
    history: &History<'_>,
    seen: &Seen<'_>,
) {
    let kept = [history.latest(), history.newest_ended(), history.newest_complete()];
    let is_kept = |job: &Past<'_>| kept.iter().flatten().any(|kept| kept.name() == job.name());
    let ended = history.staying().filter(|job| !job.is_active() && !is_kept(job));
    let purges = history::all_of(seen.jobs, Component::Purge).filter(|job| !job.is_leaving());
    delete.extend(ended.chain(purges).map(|job| ObjectName::new(Kind::Job, job.name())));

    let planned = children.iter().map(Child::name);
    let there = history.all().map(|job| job.name().to_owned());
    let needed: Vec<String> =
        planned.chain(there.filter(|name| !delete.iter().any(|deleted| deleted.name == *name))).collect();
    let orphans = seen.config_maps.iter().filter(|name| !needed.contains(name));
    delete.extend(orphans.map(|name| ObjectName::new(Kind::ConfigMap, name)));
}

/// A Job that has ended.
pub(super) struct Ended {
    pub(super) started: Option<Time>,
    pub(super) finished: Option<Time>,
    pub(super) duration: Option<String>,
    pub(super) job: String,
    pub(super) message: String,
}

/// The last Job that ended. When its pod is gone, so are its words: nothing is told, and what was told before stays.
pub(super) fn last_ended(history: &History<'_>, pods: &[Arc<Pod>], knobs: Knobs) -> Option<Ended> {
    let job = history.newest_ended()?;
    let pod = *job.pods(pods).first()?;
    let (started, finished, message) = match pods::summary(pod) {
        Some(
            Summary::Done(Done { started, finished, message, .. })
            | Summary::Built(Built { started, finished, message, .. })
            | Summary::Purged(Purged { started, finished, message, .. })
            | Summary::Failed { started, finished, message, .. },
        ) => (Some(started), Some(finished), message),
        None => {
            let ended = pods::terminated(pod);
            let time = |time: Option<&Time>| time.map(|time| time.0);
            let message = match activity::failure_of_ended(&job, pods, knobs) {
                Some(failure) => failure.message,
                None => format!("The Job `{}` ended well.", job.name()),
            };
            let started = ended.and_then(|ended| time(ended.started_at.as_ref()));
            let finished = ended.and_then(|ended| time(ended.finished_at.as_ref()));
            (started, finished.or_else(|| at(&job.phase)), message)
        }
    };
    let took = started
        .zip(finished)
        .and_then(|(started, finished)| u64::try_from(finished.duration_since(started).as_millis()).ok());
    Some(Ended {
        started: started.map(Time),
        finished: finished.map(Time),
        duration: took.map(human::duration),
        job: job.name().to_owned(),
        message,
    })
}

fn at(phase: &Phase<'_>) -> Option<Timestamp> {
    match phase {
        Phase::Failed { at, .. } => Some(*at),
        Phase::Active | Phase::Complete => None,
    }
}

/// No pod starts without the bucket's credentials.
pub(super) fn missing_store_secret(secret: &str, namespace: &str) -> Failure {
    let message = format!(
        "The Secret `{secret}` with the bucket's credentials is not in the namespace `{namespace}`. Create it with the entries \
         `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."
    );
    Failure::new(Reason::SecretMissing, message)
}
