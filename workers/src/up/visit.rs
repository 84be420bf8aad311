//! One visit to a Dataset: makes what its spec asks for, and tells what came of it.
//!
//! Receives a [`Task`] and the inputs of the moment; hands on a [`Visited`]. Several visits may run at once; dropping one stops what
//! it does. When the next one is due is the controller's affair.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    ingest::{IngestSpec, Phase, Progress},
};
use lakehouse_crds::{Dataset, dataset::LastIngest};
use lakehouse_ingest::Tracker;
use lakehouse_plan::{
    ReadyDataset, Reason,
    dataset::Refusal,
    human,
    status::{self, Facts, Failure, RunFacts, ServedFacts, SourceFacts},
};
use lakehouse_source::{Local, Reading, Source};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    inputs::{Declared, Inputs},
    resources::Resources,
    screen::Screen,
    source,
};
use crate::{
    failure,
    run::{self, Runner},
    services::Services,
};

/// How often a running ingest is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// What visits work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) services: Services,
    pub(crate) runner: Runner,
    pub(crate) resources: Resources,
    pub(crate) screen: Screen,
    pub(crate) endpoint: String,
    /// How a shell says the token that clients must send, where one is asked for.
    pub(crate) credential: Option<String>,
    /// Held by who reads from this machine's disk or ingests: two at once would share its cores and take twice the memory.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// What a Dataset asks for.
pub(crate) struct Task {
    pub(crate) name: DatasetName,
    pub(crate) declared: Declared,
    pub(crate) checked: Result<ReadyDataset, Refusal>,
}

/// What a visit found.
pub(crate) struct Visited {
    pub(crate) task: Arc<Task>,
    pub(crate) manifest: Option<Arc<DatasetManifest>>,
    pub(crate) outcome: Outcome,
    pub(crate) served: ServedFacts,
}

/// What a visit came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) source: SourceFacts,
    pub(crate) failed: Option<Failure>,
    pub(crate) last_ingest: Option<LastIngest>,
}

impl Outcome {
    fn source_failed(failure: Failure) -> Self {
        Self { source: SourceFacts::Failed(failure), ..Self::default() }
    }

    fn failed(failure: Failure) -> Self {
        Self { source: SourceFacts::Found, failed: Some(failure), last_ingest: None }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        match (&self.failed, &self.source) {
            (Some(failure), _) | (None, SourceFacts::Failed(failure)) => Some(failure),
            _ => None,
        }
    }
}

impl Visitor {
    /// Visits once.
    pub(crate) async fn visit(self, task: Arc<Task>, inputs: Arc<Inputs>) -> Visited {
        let outcome = match &task.checked {
            Ok(dataset) if dataset.suspend => Outcome::default(),
            Ok(dataset) => match dataset.pin {
                Some(version) => self.pin(dataset, version).await,
                None => Box::pin(self.bring_up_to_date(&task, dataset, &inputs)).await,
            },
            Err(_) => Outcome::default(),
        };
        let manifest = self.services.catalog.get(&task.name).await;
        let (manifest, outcome) = match manifest {
            Ok(manifest) => (manifest, outcome),
            Err(error) if outcome.failed.is_none() => (None, Outcome::failed(failure::of_catalog(&error))),
            Err(_) => (None, outcome),
        };
        let served = self.serve(&task.name, manifest.as_deref()).await;
        if let (Ok(dataset), None) = (&task.checked, outcome.failure())
            && !dataset.suspend
        {
            run::collect(&self.services.catalog, &task.name, dataset.keep_versions).await;
        }
        Visited { task, manifest, outcome, served }
    }

    /// Serves the version that the spec names.
    async fn pin(&self, dataset: &ReadyDataset, version: u64) -> Outcome {
        match self.services.catalog.rollback(&dataset.name, Some(version)).await {
            Ok(_) => Outcome { source: SourceFacts::Unknown, ..Outcome::default() },
            Err(error) => Outcome { failed: Some(failure::of_catalog(&error)), ..Outcome::default() },
        }
    }

    /// Reads the source where it has changed since the published version.
    async fn bring_up_to_date(&self, task: &Task, dataset: &ReadyDataset, inputs: &Inputs) -> Outcome {
        let source = match source::resolve(dataset, task.declared.file.as_ref(), inputs) {
            Ok(Some(source)) => source,
            Ok(None) => return self.wait_for_upload(dataset).await,
            Err(failure) => return Outcome::source_failed(failure),
        };
        let newest = match self.runner.newest(&dataset.name).await {
            Ok(newest) => newest,
            Err(failure) => return Outcome::failed(failure),
        };
        let spec = dataset.ingest_of(&source.file_name());
        // What comes over a network is waited for beside the others, however long it takes.
        let turn = if source.is_here() { Some(self.turn.lock().await) } else { None };
        let Some(claim) = self.services.ingestd.claim(&spec.name) else {
            return Outcome::failed(Failure::new(Reason::Waiting, "An upload into the dataset is running."));
        };
        let tracker = claim.tracker();
        let reading = self.runner.read(&source, &spec, newest.as_deref(), tracker);
        match self.watch(task, tracker, reading).await {
            Ok(Reading::Unchanged) => Outcome { source: SourceFacts::Found, ..Outcome::default() },
            Ok(Reading::Here(local)) => {
                let turn = match turn {
                    Some(turn) => turn,
                    None => self.turn.lock().await,
                };
                Box::pin(self.ingest(task, tracker, &source, &local, &spec, turn)).await
            }
            Err(failure) => Outcome::source_failed(failure),
        }
    }

    async fn wait_for_upload(&self, dataset: &ReadyDataset) -> Outcome {
        match self.services.catalog.get(&dataset.name).await {
            Ok(None) => Outcome { source: SourceFacts::WaitingForUpload, ..Outcome::default() },
            Ok(Some(_)) => Outcome { source: SourceFacts::Found, ..Outcome::default() },
            Err(error) => Outcome::failed(failure::of_catalog(&error)),
        }
    }

    async fn ingest(
        &self,
        task: &Task,
        tracker: &Tracker,
        source: &Source,
        local: &Local,
        spec: &IngestSpec,
        _turn: MutexGuard<'_, ()>,
    ) -> Outcome {
        let started = Timestamp::now();
        let work = self.runner.ingest(source, local, spec, tracker);
        let result = self.watch(task, tracker, work).await;
        let finished = Timestamp::now();
        let took = u64::try_from(finished.duration_since(started).as_millis()).unwrap_or(0);
        let message = match &result {
            Ok(answer) => run::told(answer),
            Err(failure) => failure.message.clone(),
        };
        let last_ingest = Some(LastIngest {
            started: Some(Time(started)),
            finished: Some(Time(finished)),
            duration: Some(human::duration(took)),
            job: None,
            message: Some(message),
        });
        Outcome { source: SourceFacts::Found, failed: result.err(), last_ingest }
    }

    /// Waits for `work`, and shows meanwhile how far it is.
    async fn watch<T>(&self, task: &Task, tracker: &Tracker, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut bar = None;
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = tokio::time::sleep(GLANCE) => {
                    let progress = tracker.progress();
                    // Before its first byte, a source has not been found yet.
                    if progress.phase != Phase::Fetching || progress.bytes > 0 {
                        bar.get_or_insert_with(|| self.screen.bar(task.name.as_str())).update(&progress);
                        self.show_progress(task, &progress).await;
                    }
                }
            }
        }
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

    async fn show_progress(&self, task: &Task, progress: &Progress) {
        // What is not known in the middle of the work stays as it was told before.
        let manifest = self.services.catalog.get(&task.name).await.ok().flatten();
        let served = manifest.as_deref().map_or(ServedFacts::NotYet, |manifest| ServedFacts::Serving {
            endpoint: self.endpoint.clone(),
            version: manifest.version,
        });
        let run = RunFacts::Running(Some(progress));
        self.report(task, manifest.as_deref(), SourceFacts::Found, run, served, None);
    }

    /// Writes the Dataset's status.
    pub(crate) fn report(
        &self,
        task: &Task,
        manifest: Option<&DatasetManifest>,
        source: SourceFacts,
        run: RunFacts<'_>,
        served: ServedFacts,
        last_ingest: Option<LastIngest>,
    ) {
        let facts = Facts {
            generation: task.declared.dataset.metadata.generation,
            spec: task.checked.as_ref(),
            manifest,
            catalogue: Ok(()),
            source,
            run,
            served,
            last_ingest,
        };
        let previous = self.resources.status(task.name.as_str());
        let status = status::dataset(previous.as_ref(), &facts, Timestamp::now());
        let mut dataset: Dataset = task.declared.dataset.clone();
        dataset.status = Some(status);
        if let Some(manifest) = manifest {
            dataset.metadata.creation_timestamp = Some(Time(manifest.created_at));
        }
        self.resources.put(dataset);
    }
}
