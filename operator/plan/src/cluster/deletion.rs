//! The end of a Dataset: with `deletionPolicy: Delete` its rows are removed from the bucket before it goes.
//!
//! Receives the resource as it is, sound or not, and its Jobs; hands on a [`Plan`]. The purge Job has no owner: a deletion in the
//! foreground removes what a Dataset owns at once, and the purge must outlive that.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use lakehouse_crds::Dataset;

use super::{
    Child, ObjectName, Settings,
    dataset::{EventsOf, Run},
};

/// What to do about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// Add [`super::names::FINALIZER`].
    Add,
    /// Remove it.
    Remove,
}

/// Whether a Dataset's finalizer is to be added or removed while nobody deletes it. Asked first, of every Dataset, sound or not.
pub fn finalizer(dataset: &Dataset) -> Option<Finalizer> {
    let _ = dataset;
    None
}

/// What is observed of a Dataset that is being deleted.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Jobs with the Dataset's label.
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

/// What is to be done for a Dataset that is being deleted. The fields stand in the order of doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs, each with its pods and waited for (`propagationPolicy: Foreground`).
    pub delete: Vec<ObjectName>,
    /// The purge Job.
    pub children: Vec<Child>,
    /// Whether the finalizer can go, after all of the above.
    pub release: bool,
    /// The object whose Events would tell why nothing moves.
    pub events_of: Option<EventsOf>,
    /// What is being done, for the status.
    pub run: Run,
    /// When to plan again, unless something changes before.
    pub next_visit: Option<Timestamp>,
}

/// Plans the end of a Dataset that has a deletion timestamp.
pub fn plan(dataset: &Dataset, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let _ = (dataset, observed, settings);
    Plan::default()
}
