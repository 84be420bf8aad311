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
use lakehouse_contract::{DatasetManifest, dataset::hex, ingest::Progress};
use lakehouse_crds::dataset::LastIngest;
use sha2::{Digest, Sha256};

pub(super) use ingest::missing_store_secret;

use super::{
    Child, Kind, ObjectName, Settings,
    history::{self, History, Past},
    meta::Component,
};
use crate::{
    ReadyDataset, Reason,
    dataset::Source,
    status::{Failure, RunFacts, SourceFacts},
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

/// A version that is to be served instead of the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The version.
    pub version: u64,
    /// The spec names it, so that it is a failure when it is not kept. Otherwise that changes nothing.
    pub pinned: bool,
}

/// An object whose Events are worth reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsOf {
    /// `Job` or `Pod`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// What is being done for a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Nothing.
    #[default]
    Idle,
    /// Work waits, and this sentence says for what.
    Waiting(String),
    /// A pod reads the source.
    Running,
    /// The last try failed, or the next one cannot start.
    Failed(Failure),
}

impl Run {
    /// As the status wants it, with what the running pod told.
    pub fn facts<'a>(&'a self, progress: Option<&'a Progress>) -> RunFacts<'a> {
        match self {
            Self::Idle => RunFacts::Idle,
            Self::Waiting(sentence) => RunFacts::WaitingFor(sentence),
            Self::Running => RunFacts::Running(progress),
            Self::Failed(failure) => RunFacts::Failed(failure.clone()),
        }
    }
}

/// Plans one Dataset; `uid` is its `metadata.uid`.
pub fn plan(dataset: &ReadyDataset, uid: &str, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let history = History::of(observed.jobs, uid, Component::Ingest);
    let mut plan = match (dataset.suspend, dataset.pin, &dataset.source) {
        (true, _, _) => suspended(&history),
        (false, Some(version), _) => pinned(version, observed, &history),
        (false, None, Source::Upload) => upload(observed, &history),
        (false, None, _) => ingest::plan(dataset, uid, observed, settings, &history),
    };
    if !dataset.suspend && dataset.pin.is_none() {
        plan.rollback = forward(observed.catalogue);
    }
    plan.last_ingest = told::last_ingest(&history, observed.pods);
    prune(&mut plan, &history, observed);
    plan
}

/// Nothing begins, and what runs is stopped without being forgotten.
fn suspended(history: &History<'_>) -> Plan {
    let running = history.latest().filter(|job| job.is_active() && !job.is_suspended());
    Plan {
        suspend: running.map(|job| (job.name().to_owned(), true)),
        source: told::source(history),
        ..Plan::default()
    }
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
    Plan { delete: stop(history), rollback, run, ..Plan::default() }
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
    Plan { delete: stop(history), source, run, ..Plan::default() }
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

/// Every Job that is not to go on.
fn stop(history: &History<'_>) -> Vec<ObjectName> {
    history.staying().filter(Past::is_active).map(|job| ObjectName::new(Kind::Job, job.name())).collect()
}

/// What nobody needs any more: of the Jobs that have ended, all but the newest and the last one that succeeded; purges of a
/// Dataset that stays after all; `ConfigMap`s whose Job is gone.
fn prune(plan: &mut Plan, history: &History<'_>, observed: &Observed<'_>) {
    let kept = [history.latest(), history.newest_ended(), history.newest_complete()];
    let is_kept = |job: &Past<'_>| kept.iter().flatten().any(|kept| kept.name() == job.name());
    let ended = history.staying().filter(|job| !job.is_active() && !is_kept(job));
    let purges = history::all_of(observed.jobs, Component::Purge).filter(|job| !job.is_leaving());
    plan.delete.extend(ended.chain(purges).map(|job| ObjectName::new(Kind::Job, job.name())));

    let planned = plan.children.iter().map(Child::name);
    let there = history.all().map(|job| job.name().to_owned());
    let needed: Vec<String> = planned
        .chain(there.filter(|name| !plan.delete.iter().any(|deleted| deleted.name == *name)))
        .collect();
    let orphans = observed.config_maps.iter().filter(|name| !needed.contains(name));
    plan.delete.extend(orphans.map(|name| ObjectName::new(Kind::ConfigMap, name)));
}
