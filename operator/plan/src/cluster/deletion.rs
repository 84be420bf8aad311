//! The end of a resource: with `deletionPolicy: Delete` its data are removed from the bucket before it goes.
//!
//! Receives the resource as it is, sound or not, and its Jobs; hands on a [`Plan`]. The purge Job has no owner: a deletion in the
//! foreground removes what a resource owns at once, and the purge must outlive that.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{Resource, ResourceExt};
use lakehouse_contract::DatasetName;
use lakehouse_crds::{Dataset, VectorIndex, common::DeletionPolicy};

use super::{
    Child, Kind, ObjectName, ResourceKind, Settings,
    activity::{self, Activity},
    backoff,
    history::{History, Past, Phase},
    job::{For, Purges, Ticket},
    meta::Component,
    names::FINALIZER,
    pod::Surroundings,
    pods,
    run::{EventsOf, Run},
    work::missing_store_secret,
};
use crate::{DEFAULT_NAMESPACE, Reason, status::Failure};

/// A resource with data in the bucket.
pub trait KeepsData: Resource {
    /// Its kind.
    const KIND: ResourceKind;

    /// What becomes of the data when it is deleted, where the spec says.
    fn deletion_policy(&self) -> Option<DeletionPolicy>;
}

impl KeepsData for Dataset {
    const KIND: ResourceKind = ResourceKind::Dataset;

    fn deletion_policy(&self) -> Option<DeletionPolicy> {
        self.spec.deletion_policy
    }
}

impl KeepsData for VectorIndex {
    const KIND: ResourceKind = ResourceKind::VectorIndex;

    fn deletion_policy(&self) -> Option<DeletionPolicy> {
        self.spec.deletion_policy
    }
}

/// What makes the data of a kind, and what these are.
fn work_and_data(kind: ResourceKind) -> (Component, &'static str) {
    match kind {
        ResourceKind::Dataset => (Component::Ingest, "rows"),
        ResourceKind::VectorIndex | ResourceKind::ChatProvider => (Component::Build, "vectors"),
    }
}

/// What to do about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// Add [`super::names::FINALIZER`].
    Add,
    /// Remove it.
    Remove,
}

/// Whether a resource's finalizer is to be added or removed while nobody deletes it. Asked first, of every one, sound or not.
pub fn finalizer<K: KeepsData>(resource: &K) -> Option<Finalizer> {
    if resource.meta().deletion_timestamp.is_some() {
        // The API server takes no finalizer any more, and to remove one is the end of [`plan`].
        return None;
    }
    let is_there = resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    match (is_there, removes_data(resource)) {
        (false, true) => Some(Finalizer::Add),
        (true, false) => Some(Finalizer::Remove),
        (true, true) | (false, false) => None,
    }
}

fn removes_data(resource: &impl KeepsData) -> bool {
    resource.deletion_policy() == Some(DeletionPolicy::Delete)
}

/// What is observed of a resource that is being deleted.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Jobs with the resource's label.
    pub jobs: &'a [Arc<Job>],
    /// Their pods.
    pub pods: &'a [Arc<Pod>],
    /// Events of the object that the last plan asked for.
    pub events: &'a [Event],
    /// The Secrets that are there: name to `uid/resourceVersion`.
    pub secrets: &'a BTreeMap<String, String>,
    /// Whether the namespace itself is being deleted, so that no pod can start in it any more.
    pub namespace_ends: bool,
    /// The clock.
    pub now: Timestamp,
}

/// What is to be done for a resource that is being deleted. The fields stand in the order of doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs, each with its pods and waited for (`propagationPolicy: Foreground`).
    pub delete: Vec<ObjectName>,
    /// The purge Job.
    pub children: Vec<Child>,
    /// Whether the finalizer can go, after all of the above.
    pub release: bool,
    /// Jobs that go once the finalizer has gone: until then, a purge that has ended is the record of that.
    pub delete_after: Vec<ObjectName>,
    /// The object whose Events would tell why nothing moves.
    pub events_of: Option<EventsOf>,
    /// What is being done, for the status.
    pub run: Run,
    /// When to plan again, unless something changes before.
    pub next_visit: Option<Timestamp>,
}

/// Plans the end of a resource that has a deletion timestamp.
pub fn plan<K: KeepsData>(resource: &K, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let (uid, name) = (resource.uid().unwrap_or_default(), resource.name_any());
    let (work, data) = work_and_data(K::KIND);
    let purges = History::of(observed.jobs, &uid, Component::Purge);
    // A name that the bucket does not take never had data. The rules are those of an index, too.
    let has_data = DatasetName::parse(name.as_str()).is_ok() && removes_data(resource);
    if !has_data || observed.namespace_ends {
        return Plan { delete: jobs(purges.staying()), release: true, ..Plan::default() };
    }
    let makers = History::of(observed.jobs, &uid, work);
    if let Some(job) = makers.all().find(Past::is_active) {
        // What it published after the purge would stay for ever.
        let run = Run::Waiting(format!(
            "The Job `{}` is being stopped; then the {data} are removed from the bucket.",
            job.name()
        ));
        return Plan { delete: jobs(makers.staying().filter(Past::is_active)), run, ..Plan::default() };
    }
    let namespace = resource.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let store_secret = observed.secrets.get(&settings.store.secret).map(String::as_str);
    let step = Step {
        observed,
        purges: &purges,
        data,
        make: Purges {
            of: For { kind: K::KIND, namespace: &namespace, name: &name, uid: &uid },
            surroundings: Surroundings { namespace: &namespace, store_secret },
            settings,
        },
    };
    let mut plan = step.plan();
    if let Run::Failed(failure) = &mut plan.run {
        let kind = K::KIND.as_str();
        let Failure { message, .. } = failure;
        *message = format!(
            "{message} Until that is mended, `spec.deletionPolicy: Retain` lets the {kind} go and leaves its {data} in the bucket."
        );
    }
    plan
}

fn jobs<'a>(jobs: impl Iterator<Item = Past<'a>>) -> Vec<ObjectName> {
    jobs.map(|job| ObjectName::new(Kind::Job, job.name())).collect()
}

struct Step<'a> {
    observed: &'a Observed<'a>,
    purges: &'a History<'a>,
    data: &'static str,
    make: Purges<'a>,
}

impl Step<'_> {
    fn plan(&self) -> Plan {
        if self.purges.all().any(|job| job.phase == Phase::Complete) {
            // Be it on its way out already: the data are gone. Nobody owns the Jobs, so they are ours to remove.
            let left = jobs(self.purges.staying());
            return Plan { release: true, delete_after: left, ..Plan::default() };
        }
        let Some(latest) = self.purges.latest() else { return self.begin(1, None) };
        match latest.phase {
            Phase::Failed { at, .. } => self.after_failure(&latest, at),
            Phase::Active | Phase::Complete => self.watch(&latest),
        }
    }

    fn begin(&self, attempt: u32, last: Option<Failure>) -> Plan {
        if self.make.surroundings.store_secret.is_none() {
            let secret = &self.make.settings.store.secret;
            let run = Run::Failed(missing_store_secret(secret, self.make.of.namespace));
            return Plan { run, ..Plan::default() };
        }
        let run = self.purges.next_run();
        let ticket = Ticket { inputs: String::new(), run, attempt, slot: None };
        Plan {
            delete: jobs(self.purges.staying()),
            children: vec![self.make.job(&ticket)],
            run: last.map_or(Run::Running, Run::Failed),
            ..Plan::default()
        }
    }

    fn watch(&self, latest: &Past<'_>) -> Plan {
        let Observed { pods, events, now, .. } = *self.observed;
        let activity = activity::of(latest, pods, events, pods::PURGE, now);
        if activity.is_stuck() && latest.pod() != Some(&self.make.pod_digest()) {
            return Plan { delete: jobs(self.purges.staying()), run: activity.run, ..Plan::default() };
        }
        let Activity { run, progress_of: _, events_of, next_visit } = activity;
        Plan { events_of, run, next_visit, ..Plan::default() }
    }

    fn after_failure(&self, latest: &Past<'_>, at: Timestamp) -> Plan {
        let failure =
            activity::failure_of_ended(latest, self.observed.pods, pods::PURGE).unwrap_or_else(|| {
                Failure::new(Reason::Failed, format!("The {} could not be removed.", self.data))
            });
        let wait = if latest.pod() == Some(&self.make.pod_digest()) {
            backoff::wait(failure.reason, latest.attempt)
        } else {
            Some(backoff::AFTER_A_CHANGE)
        };
        match wait.map(|wait| at + wait) {
            Some(again) if again <= self.observed.now => {
                self.begin(latest.attempt.saturating_add(1), Some(failure))
            }
            again => Plan { run: Run::Failed(failure), next_visit: again, ..Plan::default() },
        }
    }
}
