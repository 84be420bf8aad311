//! One VectorIndex in a cluster: the pods that answer its searches, which build is to run, and what their pods tell.
//!
//! Receives the checked spec and what is observed; hands on a [`Plan`]. The pods are there from the beginning, so that an index is
//! served as soon as it is published; the version before is served until then, whatever a build does.

mod build;
mod readers;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use lakehouse_contract::vectors::{CreateRequest, IndexInfo};
use lakehouse_crds::vector_index::LastBuild;

use super::{
    Child, EventsOf, ObjectName, ResourceKind, Rollback, Run, Settings,
    history::History,
    job::For,
    meta::Component,
    pod::Surroundings,
    pods,
    work::{self, Doing, Ended, Seen},
};
use crate::{
    ReadyVectorIndex, Reason,
    status::{DatasetFacts, EmbedderFacts, Failure},
};

/// What the store has of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Stored<'a> {
    /// No pod could be asked yet.
    #[default]
    Unknown,
    /// It has just been asked, after whatever has ended: there is nothing.
    Nothing,
    /// This is served.
    Index(&'a IndexInfo),
}

impl<'a> Stored<'a> {
    fn index(self) -> Option<&'a IndexInfo> {
        match self {
            Self::Index(index) => Some(index),
            Self::Unknown | Self::Nothing => None,
        }
    }
}

/// What is observed of a VectorIndex.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Jobs with the index's label, in any order; those of an earlier one of this name are passed over.
    pub jobs: &'a [Arc<Job>],
    /// The pods of these Jobs, and those that serve the index.
    pub pods: &'a [Arc<Pod>],
    /// Events of the object that the last plan asked for with [`Plan::events_of`].
    pub events: &'a [Event],
    /// The names of the `ConfigMap`s with the index's label.
    pub config_maps: &'a [String],
    /// Services, Deployments and budgets with the index's label.
    pub existing: &'a [ObjectName],
    /// The Secrets that are there: name to `uid/resourceVersion`.
    pub secrets: &'a BTreeMap<String, String>,
    /// What the store has of it.
    pub stored: Stored<'a>,
    /// What is known of its Dataset.
    pub dataset: &'a DatasetFacts,
    /// What is known of its model.
    pub embedder: &'a EmbedderFacts,
    /// The clock.
    pub now: Timestamp,
}

impl<'a> Observed<'a> {
    fn seen(&self) -> Seen<'a> {
        let Self { jobs, pods, events, config_maps, now, .. } = *self;
        Seen { jobs, pods, events, config_maps, now }
    }
}

/// What is to be done for a VectorIndex, and what is known of it. The fields stand in the order of doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs, each with its pods and waited for (`propagationPolicy: Foreground`), and what else nobody needs any more.
    pub delete: Vec<ObjectName>,
    /// Objects to apply, in this order. An existing Job is never among them: its template cannot change.
    pub children: Vec<Child>,
    /// A Job whose `spec.suspend` is to be patched, and the value.
    pub suspend: Option<(String, bool)>,
    /// The version to serve instead of the current one.
    pub rollback: Option<Rollback>,
    /// The index to create, which clients fill.
    pub create: Option<CreateRequest>,
    /// The object whose Events would tell why nothing moves: fetch them and plan again with them.
    pub events_of: Option<EventsOf>,
    /// The address of the pod whose `/build/progress` is worth asking, such as `10.0.0.7`.
    pub progress_of: Option<String>,
    /// What is being done.
    pub run: Run,
    /// The last build that ended.
    pub last_build: Option<LastBuild>,
    /// When to plan again, unless something changes before.
    pub next_visit: Option<Timestamp>,
}

/// Plans one VectorIndex; `uid` is its `metadata.uid`.
pub fn plan(index: &ReadyVectorIndex, uid: &str, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let namespace = index.namespace.as_str();
    let store_secret = observed.secrets.get(&settings.store.secret).map(String::as_str);
    let place = Place {
        of: For { kind: ResourceKind::VectorIndex, namespace, name: index.name.as_str(), uid },
        surroundings: Surroundings { namespace, store_secret },
        settings,
    };
    let history = History::of(observed.jobs, uid, Component::Build);
    let built = index.source.as_ref().zip(index.build_spec());
    let mut plan = match (index.suspend, index.pin, built) {
        (true, _, _) => Plan { suspend: work::suspended(&history), ..Plan::default() },
        (false, Some(version), _) => pinned(version, observed, &history),
        (false, None, None) => Plan { delete: work::stop(&history), ..filled(index, observed) },
        (false, None, Some(built)) => build::plan(index, built, &place, observed, &history),
    };
    plan.last_build = last_build(&history, observed.pods);
    work::prune(&mut plan.delete, &plan.children, &history, &observed.seen());
    let readers = readers::children(index, &place, observed.stored.index(), observed.pods);
    let gone =
        observed.existing.iter().filter(|object| readers.iter().all(|child| child.object_name() != **object));
    plan.delete.extend(gone.cloned());
    plan.children.splice(0..0, readers);
    plan
}

/// Where an index's objects are, and what all of them start with.
#[derive(Clone, Copy)]
struct Place<'a> {
    of: For<'a>,
    surroundings: Surroundings<'a>,
    settings: &'a Settings,
}

/// No new version is built; the named one is served.
fn pinned(version: u64, observed: &Observed<'_>, history: &History<'_>) -> Plan {
    let (rollback, run) = match observed.stored {
        Stored::Index(index) if index.version != version => {
            (Some(Rollback { version, pinned: true }), Run::Idle)
        }
        Stored::Index(_) | Stored::Unknown => (None, Run::Idle),
        Stored::Nothing => {
            let message = format!(
                "`spec.version` asks for version {version}, but no version has been built yet; remove it, so that one is"
            );
            (None, Run::Failed(Failure::new(Reason::NotBuilt, message)))
        }
    };
    Plan { delete: work::stop(history), rollback, run, ..Plan::default() }
}

/// Clients send the vectors; the index is made for them once.
fn filled(index: &ReadyVectorIndex, observed: &Observed<'_>) -> Plan {
    let run = match (observed.stored, observed.embedder) {
        (Stored::Unknown, _) => Run::Waiting("The pods that serve the index are being started.".to_owned()),
        (Stored::Index(there), _) => match index.conflict(there) {
            Some(sentence) => Run::Failed(Failure::new(Reason::IndexConflict, sentence)),
            None => Run::Idle,
        },
        (Stored::Nothing, embedder) => match index.create_request(embedder.identity()) {
            Some(request) => {
                let run = Run::Waiting("The index is being created.".to_owned());
                return Plan { create: Some(request), run, ..Plan::default() };
            }
            // Only the model knows the dimension.
            None => unknown_model(embedder),
        },
    };
    Plan { run, ..Plan::default() }
}

/// What is done while the model cannot be asked.
fn unknown_model(embedder: &EmbedderFacts) -> Run {
    match embedder {
        EmbedderFacts::Failed(failure) => Run::Failed(failure.clone()),
        EmbedderFacts::Waiting(sentence) => Run::Waiting(sentence.clone()),
        EmbedderFacts::Unknown | EmbedderFacts::Answers(_) => {
            Run::Waiting("The embedding model is being asked what it is.".to_owned())
        }
    }
}

/// The last build that ended.
fn last_build(history: &History<'_>, pods: &[Arc<Pod>]) -> Option<LastBuild> {
    let Ended { started, finished, duration, job, message } = work::last_ended(history, pods, pods::BUILD)?;
    Some(LastBuild { started, finished, duration, job: Some(job), message: Some(message) })
}

impl From<Doing> for Plan {
    fn from(doing: Doing) -> Self {
        let Doing { delete, children, suspend, run, events_of, progress_of, next_visit } = doing;
        Self { delete, children, suspend, events_of, progress_of, run, next_visit, ..Self::default() }
    }
}
