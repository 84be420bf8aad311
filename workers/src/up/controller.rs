//! Brings every Dataset from its spec to its status, one after the other, for as long as the process runs.
//!
//! ```text
//! files changed ─┐
//! published ─────┼─► due ─► check ─► pin │ read source ─► ingest ─► refresh the views ─► status
//! time has come ─┘
//! ```
//! A visit looks at everything anew, so it does not matter what it missed: what is published already is not made again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::{DatasetManifest, DatasetName, ingest::Progress};
use lakehouse_crds::{Dataset, dataset::LastIngest};
use lakehouse_ingest::SourceInfo;
use lakehouse_plan::{
    ReadyDataset, Reason, Retry, check,
    dataset::Refusal,
    human,
    status::{self, Facts, Failure, RunFacts, ServedFacts, SourceFacts},
};
use lakehouse_source::{Local, Reader, Reading, Source};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{
    inputs::{self, Declared, Inputs},
    resources::Resources,
    screen::Screen,
    source,
    uploads::Uploads,
};
use crate::{failure, services::Services};

/// How often a running ingest is looked at.
const GLANCE: Duration = Duration::from_millis(200);
/// The first wait after a failure that may pass; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What the controller works with.
pub(crate) struct Controller {
    services: Services,
    reader: Reader,
    resources: Resources,
    uploads: Uploads,
    screen: Screen,
    endpoint: String,
    inputs: Arc<Inputs>,
    entries: BTreeMap<DatasetName, Entry>,
}

/// A Dataset under control.
struct Entry {
    declared: Declared,
    checked: Result<ReadyDataset, Refusal>,
    /// When it is visited next; `None` waits for an event.
    due: Option<Instant>,
    failures: u32,
}

/// What a visit came to.
#[derive(Default)]
struct Outcome {
    source: SourceFacts,
    failed: Option<Failure>,
    last_ingest: Option<LastIngest>,
}

impl Outcome {
    fn source_failed(failure: Failure) -> Self {
        Self { source: SourceFacts::Failed(failure), ..Self::default() }
    }

    fn failed(failure: Failure) -> Self {
        Self { source: SourceFacts::Found, failed: Some(failure), last_ingest: None }
    }

    fn failure(&self) -> Option<&Failure> {
        match (&self.failed, &self.source) {
            (Some(failure), _) | (None, SourceFacts::Failed(failure)) => Some(failure),
            _ => None,
        }
    }
}

impl Controller {
    pub(crate) fn new(
        services: Services,
        reader: Reader,
        resources: Resources,
        uploads: Uploads,
        screen: Screen,
        endpoint: String,
    ) -> Self {
        let (inputs, entries) = (Arc::default(), BTreeMap::new());
        Self { services, reader, resources, uploads, screen, endpoint, inputs, entries }
    }

    /// Runs for ever; dropping it stops what it does. `published` names datasets that this process has published, in whatever way.
    pub(crate) async fn run(
        mut self,
        mut followed: watch::Receiver<Arc<Inputs>>,
        mut published: broadcast::Receiver<DatasetName>,
    ) {
        let mut settled_once = false;
        loop {
            if let Some(name) = self.next_due() {
                self.visit(&name).await;
                continue;
            }
            if !settled_once {
                settled_once = true;
                self.screen.next_steps(&self.endpoint, &self.resources.datasets());
            }
            let rest = self.entries.values().filter_map(|entry| entry.due).min();
            tokio::select! {
                changed = followed.changed() => {
                    if changed.is_err() {
                        return; // the follower has ended, so the process is about to
                    }
                    let inputs = followed.borrow_and_update().clone();
                    self.accept(inputs).await;
                }
                name = published.recv() => match name {
                    Ok(name) => self.published(&name).await,
                    Err(RecvError::Lagged(_)) => self.look_at_everything().await,
                    Err(RecvError::Closed) => return,
                },
                () = until(rest) => {}
            }
        }
    }

    /// Takes new inputs: what is new or has changed is due, what is gone is forgotten. Its data stays.
    pub(crate) async fn accept(&mut self, inputs: Arc<Inputs>) {
        let kept = match self.services.catalog.list().await {
            Ok(listing) => listing.datasets.iter().map(|manifest| manifest.name.clone()).collect(),
            Err(error) => {
                self.screen.problem(&format!("the catalogue cannot be read: {error}"));
                Vec::new()
            }
        };
        let mut wanted: BTreeMap<DatasetName, Declared> = kept
            .into_iter()
            .map(|name| (name.clone(), Declared { dataset: inputs::upload(&name), file: None, stamp: None }))
            .collect();
        wanted.extend(inputs.datasets.iter().map(|(name, declared)| (name.clone(), declared.clone())));

        self.entries.retain(|name, _| {
            let stays = wanted.contains_key(name);
            if !stays {
                self.resources.remove(name.as_str());
            }
            stays
        });
        self.resources.put_others(&inputs.others);
        self.inputs = inputs;
        for (name, declared) in wanted {
            self.declare(name, declared);
        }
        let checked = self.entries.values().filter_map(|entry| entry.checked.as_ref().ok());
        self.uploads.set(checked.cloned());
    }

    fn declare(&mut self, name: DatasetName, declared: Declared) {
        let before = self.entries.get_mut(&name);
        if let Some(entry) = before
            && entry.declared.asks_the_same(&declared)
        {
            // A ConfigMap or Secret beside it may have changed; a look at the source will tell.
            if declared.dataset.spec.source.upload.is_none() {
                entry.due = Some(Instant::now());
            }
            return;
        }
        let before = self.entries.get(&name).map(|entry| &entry.declared.dataset);
        let generation = before.map_or(1, |before| {
            before.metadata.generation.unwrap_or(1) + i64::from(before.spec != declared.dataset.spec)
        });
        let created = before.and_then(|before| before.metadata.creation_timestamp.clone());
        let mut dataset = declared.dataset.clone();
        dataset.metadata.generation = Some(generation);
        dataset.metadata.uid = Some(name.id().to_string());
        dataset.metadata.creation_timestamp = Some(created.unwrap_or_else(|| Time(Timestamp::now())));
        let checked = check(&dataset);
        let declared = Declared { dataset, ..declared };
        let entry = Entry { declared, checked, due: Some(Instant::now()), failures: 0 };
        if self.resources.status(name.as_str()).is_none() {
            self.report(&entry, None, SourceFacts::Unknown, RunFacts::Waiting, ServedFacts::NotYet, None);
        }
        self.entries.insert(name, entry);
    }

    /// Somebody published: this controller itself, an upload, or a rollback over HTTP.
    async fn published(&mut self, name: &DatasetName) {
        let current = self.services.catalog.get(name).await.ok().flatten().map(|manifest| manifest.version);
        let told = self.resources.status(name.as_str()).and_then(|status| status.version);
        if current == told {
            return; // by this controller, which has told it already
        }
        if !self.entries.contains_key(name) {
            let declared = Declared { dataset: inputs::upload(name), file: None, stamp: None };
            self.declare(name.clone(), declared);
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.due = Some(Instant::now());
        }
    }

    /// Some news were missed, and nobody knows of whom.
    async fn look_at_everything(&mut self) {
        self.accept(self.inputs.clone()).await;
        for entry in self.entries.values_mut() {
            entry.due = Some(Instant::now());
        }
    }

    fn next_due(&self) -> Option<DatasetName> {
        let now = Instant::now();
        let due = self.entries.iter().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        due.min_by_key(|(_, entry)| entry.due).map(|(name, _)| name.clone())
    }

    async fn visit(&mut self, name: &DatasetName) {
        let Some(entry) = self.entries.get(name) else { return };
        let outcome = match &entry.checked {
            Ok(dataset) if dataset.suspend => Outcome::default(),
            Ok(dataset) => match dataset.pin {
                Some(version) => self.pin(dataset, version).await,
                None => self.bring_up_to_date(entry, dataset).await,
            },
            Err(_) => Outcome::default(),
        };
        let manifest = self.services.catalog.get(name).await;
        let (manifest, outcome) = match manifest {
            Ok(manifest) => (manifest, outcome),
            Err(error) if outcome.failed.is_none() => (None, Outcome::failed(failure::of_catalog(&error))),
            Err(_) => (None, outcome),
        };
        let served = self.serve(name, manifest.as_deref()).await;
        self.settle(name, manifest.as_deref(), outcome, served);
    }

    /// Serves the version that the spec names.
    async fn pin(&self, dataset: &ReadyDataset, version: u64) -> Outcome {
        match self.services.catalog.rollback(&dataset.name, Some(version)).await {
            Ok(_) => Outcome { source: SourceFacts::Unknown, ..Outcome::default() },
            Err(error) => Outcome { failed: Some(failure::of_catalog(&error)), ..Outcome::default() },
        }
    }

    /// Reads the source where it has changed since the published version.
    async fn bring_up_to_date(&self, entry: &Entry, dataset: &ReadyDataset) -> Outcome {
        let source = match source::resolve(dataset, entry.declared.file.as_ref(), &self.inputs) {
            Ok(Some(source)) => source,
            Ok(None) => return self.wait_for_upload(dataset).await,
            Err(failure) => return Outcome::source_failed(failure),
        };
        let manifest = match self.newest(&dataset.name).await {
            Ok(manifest) => manifest,
            Err(failure) => return Outcome::failed(failure),
        };
        let spec = dataset.ingest_of(&source.file_name());
        // A digest that was read for other options says nothing about these.
        let seen = manifest
            .and_then(|manifest| manifest.origin.clone())
            .filter(|origin| origin.inputs == spec.inputs_digest(&origin.source_digest))
            .map(|origin| origin.source_digest);
        let copied = |_, _| {};
        match self.reader.read(&source, seen.as_deref(), &copied).await {
            Ok(Reading::Unchanged) => Outcome { source: SourceFacts::Found, ..Outcome::default() },
            Ok(Reading::Here(local)) => self.ingest(entry, &source, &local, &spec).await,
            Err(error) => Outcome::source_failed(failure::of_source(&error)),
        }
    }

    async fn wait_for_upload(&self, dataset: &ReadyDataset) -> Outcome {
        match self.services.catalog.get(&dataset.name).await {
            Ok(None) => Outcome { source: SourceFacts::WaitingForUpload, ..Outcome::default() },
            Ok(Some(_)) => Outcome { source: SourceFacts::Found, ..Outcome::default() },
            Err(error) => Outcome::failed(failure::of_catalog(&error)),
        }
    }

    /// The newest version, served again where an earlier pin had put another one in its place.
    async fn newest(&self, name: &DatasetName) -> Result<Option<Arc<DatasetManifest>>, Failure> {
        let catalog = &self.services.catalog;
        let manifest = catalog.get(name).await.map_err(|error| failure::of_catalog(&error))?;
        match manifest {
            Some(manifest) if manifest.version < manifest.latest_version => {
                match catalog.rollback(name, Some(manifest.latest_version)).await {
                    Ok(newest) => Ok(Some(newest)),
                    // It is not kept any more; the source has the rows.
                    Err(lakehouse_catalog::Error::UnknownVersion { .. }) => Ok(Some(manifest)),
                    Err(error) => Err(failure::of_catalog(&error)),
                }
            }
            manifest => Ok(manifest),
        }
    }

    async fn ingest(
        &self,
        entry: &Entry,
        source: &Source,
        local: &Local,
        spec: &lakehouse_contract::ingest::IngestSpec,
    ) -> Outcome {
        let started = Timestamp::now();
        let Some(claim) = self.services.ingestd.claim(&spec.name) else {
            return Outcome::failed(Failure::new(Reason::Waiting, "An upload into the dataset is running."));
        };
        let info = SourceInfo { source: source.to_string(), digest: local.digest.clone() };
        let (store, catalog, options) = (&self.services.store, &self.services.catalog, &self.services.ingest);
        let work =
            lakehouse_ingest::ingest(store, catalog, &local.path, spec, info, claim.tracker(), options);
        let mut work = std::pin::pin!(work);
        let bar = self.screen.bar(&spec.name);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(GLANCE) => {
                    let progress = claim.tracker().progress();
                    bar.update(&progress);
                    self.show_progress(entry, &progress).await;
                }
            }
        };
        drop(bar);
        let finished = Timestamp::now();
        let took = u64::try_from(finished.duration_since(started).as_millis()).unwrap_or(0);
        let message = match &result {
            Ok(answer) => {
                format!("Version {} was published with {} rows.", answer.version, human::count(answer.rows))
            }
            Err(error) => error.to_string(),
        };
        let last_ingest = Some(LastIngest {
            started: Some(Time(started)),
            finished: Some(Time(finished)),
            duration: Some(human::duration(took)),
            job: None,
            message: Some(message),
        });
        let failed = result.err().map(|error| failure::of_ingest(&error));
        Outcome { source: SourceFacts::Found, failed, last_ingest }
    }

    /// Makes queries read the published version.
    async fn serve(&self, name: &DatasetName, manifest: Option<&DatasetManifest>) -> ServedFacts {
        if manifest.is_none() {
            return ServedFacts::NotYet;
        }
        let Some(engine) = &self.services.engine else { return ServedFacts::NotYet };
        if let Err(error) = engine.refresh().await {
            return ServedFacts::Failed(Failure::new(Reason::ServingFailed, error.to_string()));
        }
        let views = engine.views();
        if let Some(damaged) = views.damaged.iter().find(|damaged| damaged.name == name.as_str()) {
            return ServedFacts::Failed(Failure::new(Reason::ServingFailed, damaged.message.clone()));
        }
        match views.views.iter().find(|view| view.name == name.as_str()) {
            Some(view) => ServedFacts::Serving { endpoint: self.endpoint.clone(), version: view.version },
            None => ServedFacts::NotYet,
        }
    }

    async fn show_progress(&self, entry: &Entry, progress: &Progress) {
        let Ok(name) = entry.name() else { return };
        // What is not known in the middle of the work stays as it was told before.
        let manifest = self.services.catalog.get(&name).await.ok().flatten();
        let served = manifest.as_deref().map_or(ServedFacts::NotYet, |manifest| ServedFacts::Serving {
            endpoint: self.endpoint.clone(),
            version: manifest.version,
        });
        let run = RunFacts::Running(Some(progress));
        self.report(entry, manifest.as_deref(), SourceFacts::Found, run, served, None);
    }

    fn settle(
        &mut self,
        name: &DatasetName,
        manifest: Option<&DatasetManifest>,
        outcome: Outcome,
        served: ServedFacts,
    ) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let now = Instant::now();
        let failure = outcome.failure().cloned().or_else(|| match &served {
            ServedFacts::Failed(failure) => Some(failure.clone()),
            ServedFacts::NotYet | ServedFacts::Serving { .. } => None,
        });
        let retry = match &failure {
            Some(failure) if failure.reason.retry() == Retry::Backoff => {
                let wait = (FIRST_WAIT * 2u32.saturating_pow(entry.failures)).min(LONGEST_WAIT);
                entry.failures += 1;
                Some(now + wait)
            }
            _ => {
                entry.failures = 0;
                None
            }
        };
        entry.due = [retry, entry.next_run(now)].into_iter().flatten().min();

        let entry = &self.entries[name];
        let run = outcome.failed.map_or(RunFacts::Idle, RunFacts::Failed);
        self.report(entry, manifest, outcome.source, run, served, outcome.last_ingest);
        if let Some(status) = self.resources.status(name.as_str()) {
            self.screen.dataset(name, &status);
        }
    }

    fn report(
        &self,
        entry: &Entry,
        manifest: Option<&DatasetManifest>,
        source: SourceFacts,
        run: RunFacts<'_>,
        served: ServedFacts,
        last_ingest: Option<LastIngest>,
    ) {
        let facts = Facts {
            generation: entry.declared.dataset.metadata.generation,
            spec: entry.checked.as_ref(),
            manifest,
            source,
            run,
            served,
            last_ingest,
        };
        let name = entry.declared.dataset.metadata.name.as_deref().unwrap_or_default();
        let previous = self.resources.status(name);
        let status = status::dataset(previous.as_ref(), &facts, Timestamp::now());
        let mut dataset: Dataset = entry.declared.dataset.clone();
        dataset.status = Some(status);
        if let Some(manifest) = manifest {
            dataset.metadata.creation_timestamp = Some(Time(manifest.created_at));
        }
        self.resources.put(dataset);
    }
}

impl Entry {
    fn name(&self) -> Result<DatasetName, lakehouse_contract::dataset::InvalidName> {
        DatasetName::parse(self.declared.dataset.metadata.name.clone().unwrap_or_default())
    }

    /// When the schedule asks for the next reading.
    fn next_run(&self, now: Instant) -> Option<Instant> {
        let dataset = self.checked.as_ref().ok().filter(|dataset| !dataset.suspend)?;
        let clock = Timestamp::now();
        let next = dataset.schedule.as_ref()?.next_after(clock)?;
        Some(now + Duration::try_from(next.duration_since(clock)).unwrap_or_default())
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
