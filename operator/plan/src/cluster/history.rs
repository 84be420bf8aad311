//! The Jobs that a resource has and had, as the API server tells of them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::Pod,
};
use kube::ResourceExt;

use super::meta::{self, COMPONENT_LABEL, Component};

/// One Job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) job: &'a Job,
    pub(super) run: u32,
    pub(super) attempt: u32,
    pub(super) phase: Phase<'a>,
}

/// How far a Job is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase<'a> {
    /// It has work, or waits for it.
    Active,
    /// It ended well.
    Complete,
    /// It gave up.
    Failed {
        /// The Job controller's reason, such as `DeadlineExceeded`.
        reason: &'a str,
        /// Its sentence.
        message: &'a str,
        at: Timestamp,
    },
}

impl<'a> Past<'a> {
    fn of(job: &'a Job) -> Self {
        let number = |key| annotation(job, key).and_then(|text| text.parse().ok()).unwrap_or(1);
        Self { job, run: number(meta::RUN), attempt: number(meta::ATTEMPT), phase: phase(job) }
    }

    pub(super) fn name(&self) -> &'a str {
        self.job.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn inputs(&self) -> Option<&'a str> {
        annotation(self.job, meta::INPUTS)
    }

    /// What its pods are like.
    pub(super) fn pod(&self) -> Option<&'a str> {
        annotation(self.job, meta::POD)
    }

    pub(super) fn created(&self) -> Timestamp {
        self.job.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// The time from which its schedule counts on: that of its own slot, should the clocks of the cluster differ.
    pub(super) fn scheduled(&self) -> Timestamp {
        let slot = annotation(self.job, meta::SLOT).and_then(|text| text.parse().ok());
        slot.map_or_else(|| self.created(), |slot: Timestamp| slot.max(self.created()))
    }

    /// When it ended well; its creation, as long as it has not.
    pub(super) fn completed(&self) -> Timestamp {
        let time = condition(self.job, "Complete").and_then(|one| one.last_transition_time.as_ref());
        time.map_or_else(|| self.created(), |time| time.0)
    }

    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether it is on its way out of the cluster.
    pub(super) fn is_leaving(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false)
    }

    /// Its pods, the newest first.
    pub(super) fn pods(&self, pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
        let uid = self.job.metadata.uid.as_deref().unwrap_or_default();
        let mut own: Vec<&Pod> = pods
            .iter()
            .map(Arc::as_ref)
            .filter(|pod| pod.owner_references().iter().any(|owner| owner.uid == uid))
            .collect();
        own.sort_by_key(|pod| {
            std::cmp::Reverse((pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any()))
        });
        own
    }

    fn order(&self) -> (u32, Timestamp, u32, &'a str) {
        (self.run, self.created(), self.attempt, self.name())
    }
}

/// A resource's Jobs of one component, the latest first.
#[derive(Clone, Debug)]
pub(super) struct History<'a> {
    jobs: Vec<Past<'a>>,
}

impl<'a> History<'a> {
    /// Those of the resource with this uid; an earlier one of its name may have left others.
    pub(super) fn of(jobs: &'a [Arc<Job>], uid: &str, component: Component) -> Self {
        let mut jobs: Vec<Past<'a>> = jobs
            .iter()
            .map(Arc::as_ref)
            .filter(|job| is_of(job, component) && belongs_to(job, uid))
            .map(Past::of)
            .collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.order()));
        Self { jobs }
    }

    /// The one that says where its resource stands.
    pub(super) fn latest(&self) -> Option<Past<'a>> {
        self.staying().next()
    }

    /// All, the latest first.
    pub(super) fn all(&self) -> impl Iterator<Item = Past<'a>> {
        self.jobs.iter().copied()
    }

    /// All that nobody deletes, the latest first.
    pub(super) fn staying(&self) -> impl Iterator<Item = Past<'a>> {
        self.all().filter(|job| !job.is_leaving())
    }

    /// The newest that has ended.
    pub(super) fn newest_ended(&self) -> Option<Past<'a>> {
        self.staying().find(|job| !job.is_active())
    }

    pub(super) fn newest_complete(&self) -> Option<Past<'a>> {
        self.staying().find(|job| job.phase == Phase::Complete)
    }

    /// How many Jobs there were, with the next one.
    pub(super) fn next_run(&self) -> u32 {
        self.jobs.iter().map(|job| job.run).max().unwrap_or(0).saturating_add(1)
    }
}

/// The Jobs of a component, whoever owned them.
pub(super) fn all_of(jobs: &[Arc<Job>], component: Component) -> impl Iterator<Item = Past<'_>> {
    jobs.iter().map(Arc::as_ref).filter(move |job| is_of(job, component)).map(Past::of)
}

fn is_of(job: &Job, component: Component) -> bool {
    job.labels().get(COMPONENT_LABEL).is_some_and(|label| label == component.as_str())
}

/// A purge Job has no owner; it tells its resource by an annotation.
fn belongs_to(job: &Job, uid: &str) -> bool {
    annotation(job, meta::UID) == Some(uid) || job.owner_references().iter().any(|owner| owner.uid == uid)
}

fn annotation<'a>(job: &'a Job, key: &str) -> Option<&'a str> {
    job.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A condition that holds.
fn condition<'a>(job: &'a Job, name: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == name && condition.status == "True")
}

fn phase(job: &Job) -> Phase<'_> {
    if condition(job, "Complete").is_some() {
        return Phase::Complete;
    }
    match condition(job, "Failed") {
        None => Phase::Active,
        Some(JobCondition { reason, message, last_transition_time, .. }) => Phase::Failed {
            reason: reason.as_deref().unwrap_or_default(),
            message: message.as_deref().unwrap_or_default(),
            at: last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        },
    }
}
