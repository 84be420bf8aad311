//! One Dataset in a cluster: which Job is to run, which are to go, and what their pods tell.
//!
//! Receives the checked spec and what is observed of its Jobs; hands on a [`Plan`]. Planning is a pure function of what is seen, so
//! it does not matter which event was missed, or whether a step was taken twice or by two.

mod ingest;
mod told;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use lakehouse_contract::{DatasetManifest, dataset::hex};
use lakehouse_crds::dataset::LastIngest;
use sha2::{Digest, Sha256};

pub use super::run::{EventsOf, Rollback, Run};

use super::{
    Child, ObjectName, Settings,
    history::History,
    meta::Component,
    work::{self, Seen},
};
use crate::{
    ReadyDataset, Reason,
    dataset::Source,
    status::{Failure, SourceFacts},
};

/// What a Dataset refers to, for whoever watches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Secrets of its namespace, the store's among them.
    pub secrets: Vec<String>,
    /// A ConfigMap of its namespace, and the entry that is its source.
    pub config_map: Option<(String, String)>,
}

/// What a Dataset refers to.
pub fn needs(dataset: &ReadyDataset, settings: &Settings) -> Needs {
    let (secret, config_map) = match &dataset.source {
        Source::Http { headers_secret: secret, .. } | Source::S3 { credentials_secret: secret, .. } => {
            (secret.clone(), None)
        }
        Source::ConfigMap { name, key } => (None, Some((name.clone(), key.clone()))),
        Source::Upload => (None, None),
    };
    Needs { secrets: [settings.store.secret.clone()].into_iter().chain(secret).collect(), config_map }
}

/// The entry of a ConfigMap that is a Dataset's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The source is no ConfigMap.
    #[default]
    NotNeeded,
    /// There is no such ConfigMap.
    NoConfigMap,
    /// The ConfigMap has no such entry.
    NoKey,
    /// The entry's [`entry_digest`].
    Digest(&'a str),
}

/// Names the content of a ConfigMap's entry: its SHA-256, lower-case hexadecimal.
pub fn entry_digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// What the catalogue says of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Catalogue<'a> {
    /// It could not be asked yet.
    #[default]
    Unknown,
    /// It has just been asked, after whatever has ended: there is no version.
    Nothing,
    /// This is current.
    Current(&'a DatasetManifest),
}

/// What is observed of a Dataset.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Jobs with the Dataset's label, in any order; those of an earlier Dataset of this name are passed over.
    pub jobs: &'a [Arc<Job>],
    /// The pods of these Jobs.
    pub pods: &'a [Arc<Pod>],
    /// Events of the object that the last plan asked for with [`Plan::events_of`].
    pub events: &'a [Event],
    /// The names of the `ConfigMap`s with the Dataset's label.
    pub config_maps: &'a [String],
    /// Of the Secrets that it [`needs`], those that are there: name to `uid/resourceVersion`.
    pub secrets: &'a BTreeMap<String, String>,
    /// Its ConfigMap, where it has one.
    pub entry: Entry<'a>,
    /// What the catalogue says is current.
    pub catalogue: Catalogue<'a>,
    /// Why whoever takes uploads does not know the spec yet, as the rest of a sentence; absent once it does.
    pub undeclared: Option<&'a str>,
    /// The clock.
    pub now: Timestamp,
}

impl<'a> Observed<'a> {
    fn seen(&self) -> Seen<'a> {
        let Self { jobs, pods, events, config_maps, now, .. } = *self;
        Seen { jobs, pods, events, config_maps, now }
    }
}

/// What is to be done for a Dataset, and what is known of it. The fields stand in the order of doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs, each with its pods and waited for (`propagationPolicy: Foreground`), and `ConfigMap`s.
    pub delete: Vec<ObjectName>,
    /// Objects to apply, in this order. An existing Job is never among them: its template cannot change.
    pub children: Vec<Child>,
    /// A Job whose `spec.suspend` is to be patched, and the value.
    pub suspend: Option<(String, bool)>,
    /// The version to serve instead of the current one.
    pub rollback: Option<Rollback>,
    /// The object whose Events would tell why nothing moves: fetch them and plan again with them.
    pub events_of: Option<EventsOf>,
    /// The address of the pod whose `/ingest/progress` is worth asking, such as `10.0.0.7`.
    pub progress_of: Option<String>,
    /// What is being done.
    pub run: Run,
    /// What is known of the source.
    pub source: SourceFacts,
    /// The last ingest that ended.
    pub last_ingest: Option<LastIngest>,
    /// When to plan again, unless something changes before.
    pub next_visit: Option<Timestamp>,
}

/// Plans one Dataset; `uid` is its `metadata.uid`.
pub fn plan(dataset: &ReadyDataset, uid: &str, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let history = History::of(observed.jobs, uid, Component::Ingest);
    let mut plan = match (dataset.suspend, dataset.pin, &dataset.source) {
        (true, _, _) => {
            Plan { suspend: work::suspended(&history), source: told::source(&history), ..Plan::default() }
        }
        (false, Some(version), _) => pinned(version, observed, &history),
        (false, None, Source::Upload) => upload(observed, &history),
        (false, None, _) => ingest::plan(dataset, uid, observed, settings, &history),
    };
    if !dataset.suspend && dataset.pin.is_none() {
        plan.rollback = forward(observed.catalogue);
    }
    plan.last_ingest = told::last_ingest(&history, observed.pods);
    work::prune(&mut plan.delete, &plan.children, &history, &observed.seen());
    plan
}

/// No new rows are read; the named version is served.
fn pinned(version: u64, observed: &Observed<'_>, history: &History<'_>) -> Plan {
    let (rollback, run) = match observed.catalogue {
        Catalogue::Current(manifest) if manifest.version != version => {
            (Some(Rollback { version, pinned: true }), Run::Idle)
        }
        Catalogue::Current(_) | Catalogue::Unknown => (None, Run::Idle),
        Catalogue::Nothing => (
            None,
            Run::Failed(Failure::new(
                Reason::NotPublished,
                format!(
                    "`spec.version` asks for version {version}, but no version has been published yet; remove it, so that the source is read"
                ),
            )),
        ),
    };
    Plan { delete: work::stop(history), rollback, run, ..Plan::default() }
}

/// Clients send the rows. They are not asked for any before it is sure that these will be read as the spec says.
fn upload(observed: &Observed<'_>, history: &History<'_>) -> Plan {
    let source = match (observed.catalogue, observed.undeclared) {
        (Catalogue::Current(_), _) => SourceFacts::Found,
        (Catalogue::Nothing, None) => SourceFacts::WaitingForUpload,
        (Catalogue::Nothing, Some(_)) | (Catalogue::Unknown, _) => SourceFacts::Unknown,
    };
    let run = observed.undeclared.map_or(Run::Idle, |why| {
        Run::Waiting(format!("Send no file yet: the gateway has not been told how to read it: {why}."))
    });
    Plan { delete: work::stop(history), source, run, ..Plan::default() }
}

/// The newest version is served again where a pin had put another one in its place.
fn forward(catalogue: Catalogue<'_>) -> Option<Rollback> {
    match catalogue {
        Catalogue::Current(manifest) if manifest.version < manifest.latest_version => {
            Some(Rollback { version: manifest.latest_version, pinned: false })
        }
        _ => None,
    }
}
