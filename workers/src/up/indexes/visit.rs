//! One visit to a VectorIndex: makes what its spec asks for, and tells what came of it.
//!
//! Receives a [`Task`] and what is remembered of earlier visits; hands on a [`Visited`]. Dropping a visit stops its build; what that
//! has embedded is kept.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_build::{Builder, Tracker};
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    DatasetName, IndexName,
    build::Progress,
    embed::ModelIdentity,
    vectors::{BuildSpec, IndexInfo, Shape},
};
use lakehouse_crds::{VectorIndex, vector_index::LastBuild};
use lakehouse_plan::{
    DEFAULT_NAMESPACE, ReadyVectorIndex, Reason, Refusal, Retry, human,
    status::{self, DatasetFacts, EmbedderFacts, Failure, IndexFacts, RunFacts, ServedFacts},
    vector_index::Source,
};
use lakehouse_vector::Vectord;
use tokio::sync::Mutex;

use crate::{
    failure,
    up::{resources::Resources, screen::Screen},
};

/// How often a running build is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// What visits work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) catalog: Catalog,
    pub(crate) vectord: Vectord,
    pub(crate) builder: Builder,
    pub(crate) resources: Resources,
    pub(crate) screen: Screen,
    pub(crate) endpoint: String,
    /// Held by the build that runs: two at once would share this machine's cores.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// What a VectorIndex asks for.
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) declared: VectorIndex,
    pub(crate) checked: Result<ReadyVectorIndex, Refusal>,
}

/// What a visit found.
pub(crate) struct Visited {
    pub(crate) task: Arc<Task>,
    pub(crate) found: Found,
    pub(crate) past: Past,
}

/// What is remembered from visit to visit.
#[derive(Clone, Default)]
pub(crate) struct Past {
    /// The refresh annotation that the last build followed.
    refresh: Option<String>,
    /// The inputs of which a build failed in a way that only an edit mends.
    failed: Option<(String, Failure)>,
}

/// Everything that a status is made of.
pub(crate) struct Found {
    index: Option<IndexInfo>,
    store: Result<(), Failure>,
    dataset: DatasetFacts,
    embedder: EmbedderFacts,
    waits: bool,
    failed: Option<Failure>,
    served: ServedFacts,
    last_build: Option<LastBuild>,
}

impl Task {
    /// Whether the index is built from this dataset.
    pub(crate) fn reads(&self, dataset: &DatasetName) -> bool {
        let source = self.checked.as_ref().ok().and_then(|index| index.source.as_ref());
        source.is_some_and(|source| source.dataset == *dataset)
    }

    /// Whether this is the same VectorIndex.
    pub(crate) fn asks_the_same(&self, other: &VectorIndex) -> bool {
        let metadata =
            |index: &VectorIndex| (index.metadata.annotations.clone(), index.metadata.labels.clone());
        self.declared.spec == other.spec && metadata(&self.declared) == metadata(other)
    }
}

impl Past {
    /// The same after the spec was edited.
    pub(crate) fn without_failure(self) -> Self {
        Self { failed: None, ..self }
    }
}

impl Found {
    /// Before the first look.
    pub(crate) fn waiting() -> Self {
        Self {
            index: None,
            store: Ok(()),
            dataset: DatasetFacts::Unknown,
            embedder: EmbedderFacts::Unknown,
            waits: true,
            failed: None,
            served: ServedFacts::NotYet,
            last_build: None,
        }
    }

    /// What went wrong, and may pass.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        let dataset = match &self.dataset {
            DatasetFacts::Failed(failure) => Some(failure),
            DatasetFacts::Unknown | DatasetFacts::Found { .. } => None,
        };
        let embedder = match &self.embedder {
            EmbedderFacts::Failed(failure) => Some(failure),
            _ => None,
        };
        let served = match &self.served {
            ServedFacts::Failed(failure) => Some(failure),
            _ => None,
        };
        self.failed.as_ref().or(self.store.as_ref().err()).or(embedder).or(served).or(dataset)
    }
}

impl Visitor {
    /// Visits once.
    pub(crate) async fn visit(self, task: Arc<Task>, mut past: Past) -> Visited {
        let mut found = Found { waits: false, ..Found::waiting() };
        if let Ok(asked) = &task.checked {
            Box::pin(self.look(asked, &mut found)).await;
            let acted = if asked.suspend || found.store.is_err() {
                Ok(())
            } else {
                Box::pin(self.act(&task, asked, &mut found, &mut past)).await
            };
            found.failed = acted.err();
            Box::pin(self.look_at_index(&asked.name, &mut found)).await;
        }
        Visited { task, found, past }
    }

    /// Looks at all that the index depends on.
    async fn look(&self, asked: &ReadyVectorIndex, found: &mut Found) {
        self.look_at_index(&asked.name, found).await;
        if let Some(source) = &asked.source {
            found.dataset = self.dataset(source).await;
        }
        if let Some(model) = &asked.model {
            found.embedder = match self.builder.identity(&model.name).await {
                Ok(identity) => EmbedderFacts::Answers(identity),
                Err(error) => EmbedderFacts::Failed(failure::of_embedder(&error)),
            };
        }
    }

    async fn look_at_index(&self, name: &IndexName, found: &mut Found) {
        match self.vectord.info(name).await {
            Ok(index) => {
                found.served = match &index {
                    Some(index) => {
                        ServedFacts::Serving { endpoint: self.endpoint.clone(), version: index.version }
                    }
                    None => ServedFacts::NotYet,
                };
                (found.index, found.store) = (index, Ok(()));
            }
            Err(error) => (found.served, found.store) = (ServedFacts::NotYet, Err(failure::of_index(&error))),
        }
    }

    /// The catalogue knows the version before the Dataset's status does.
    async fn dataset(&self, source: &Source) -> DatasetFacts {
        let name = &source.dataset;
        let told = DatasetFacts::of(name, DEFAULT_NAMESPACE, self.resources.dataset(name.as_str()).as_ref());
        match self.catalog.get(name).await {
            Ok(Some(manifest)) => {
                let trouble = match told {
                    DatasetFacts::Found { trouble, .. } => trouble,
                    DatasetFacts::Unknown | DatasetFacts::Failed(_) => None,
                };
                DatasetFacts::Found { version: manifest.version, trouble }
            }
            Ok(None) => told,
            Err(error) => DatasetFacts::Failed(failure::of_catalog(&error)),
        }
    }

    async fn act(
        &self,
        task: &Task,
        asked: &ReadyVectorIndex,
        found: &mut Found,
        past: &mut Past,
    ) -> Result<(), Failure> {
        if found.index.as_ref().is_some_and(|index| asked.conflict(index).is_some()) {
            return Ok(()); // the status says so
        }
        let Some(source) = &asked.source else { return self.create(asked, found).await };
        if let Some(version) = asked.pin {
            return self.pin(&asked.name, found.index.as_ref(), version).await;
        }
        let (Some(version), Some(identity)) = (found.dataset.version(), found.embedder.identity().cloned())
        else {
            return Ok(()); // the status says what is missing
        };
        if asked.mismatch(&identity).is_some() {
            return Ok(());
        }
        // Absent is remembered, too, so that the first value is a new one.
        let refresh = asked.refresh.clone().unwrap_or_default();
        let is_wanted = match &found.index {
            None => true,
            Some(index) => {
                let from = index.source.as_ref().map(|from| from.version);
                let is_newer = from != Some(version);
                let is_asked_for = past.refresh.as_ref().is_some_and(|before| *before != refresh);
                !asked.is_made_as_asked(index, Some(&identity))
                    || (is_newer && (source.on_change || is_asked_for))
            }
        };
        if is_wanted {
            self.build(task, asked, version, &identity, found, past).await?;
        }
        past.refresh = Some(refresh);
        Ok(())
    }

    /// Makes the index that clients fill.
    async fn create(&self, asked: &ReadyVectorIndex, found: &Found) -> Result<(), Failure> {
        if found.index.is_some() {
            return Ok(());
        }
        let identity = found.embedder.identity();
        let Some(request) = asked.create_request(identity) else { return Ok(()) };
        if identity.is_some_and(|identity| asked.mismatch(identity).is_some()) {
            return Ok(());
        }
        let shape = Shape {
            dimension: request.dimension,
            metric: asked.metric,
            hnsw: asked.hnsw,
            quantization: asked.quantization,
        };
        let made = self.builder.indexes().create(&asked.name, &shape, identity.cloned()).await;
        made.map(drop).map_err(|error| failure::of_index(&error))
    }

    /// Serves the version that the spec names.
    async fn pin(&self, name: &IndexName, index: Option<&IndexInfo>, version: u64) -> Result<(), Failure> {
        match index {
            Some(index) if index.version == version => return Ok(()),
            Some(_) => {}
            None => {
                let message =
                    format!("`spec.version` is {version}, but no version of the index has been built.");
                return Err(Failure::new(Reason::VersionNotKept, message));
            }
        }
        let served = self.builder.indexes().rollback(name, Some(version)).await;
        served.map_err(|error| failure::of_index(&error))?;
        self.follow(name).await
    }

    async fn build(
        &self,
        task: &Task,
        asked: &ReadyVectorIndex,
        version: u64,
        identity: &ModelIdentity,
        found: &mut Found,
        past: &mut Past,
    ) -> Result<(), Failure> {
        let (Some(spec), Some(inputs)) = (asked.build_spec(), asked.inputs(version, identity)) else {
            return Ok(());
        };
        if let Some((failed, failure)) = &past.failed
            && *failed == inputs
        {
            return Err(failure.clone());
        }
        let _turn = self.turn.lock().await;
        let started = Timestamp::now();
        let built = Box::pin(self.watched(task, &spec, version, identity, found)).await;
        let finished = Timestamp::now();
        let took = u64::try_from(finished.duration_since(started).as_millis()).unwrap_or(0);
        let (message, failed) = match built {
            Ok(message) => (message, None),
            Err(failure) => (failure.message.clone(), Some(failure)),
        };
        found.last_build = Some(LastBuild {
            started: Some(Time(started)),
            finished: Some(Time(finished)),
            duration: Some(human::duration(took)),
            job: None,
            message: Some(message),
        });
        past.failed = None;
        if let Some(failure) = failed {
            if failure.reason.retry() == Retry::OnEdit {
                past.failed = Some((inputs, failure.clone()));
            }
            return Err(failure);
        }
        self.follow(&asked.name).await?;
        self.builder.collect(&asked.name, asked.keep_versions).await;
        Ok(())
    }

    /// Lets searches see what was just published.
    async fn follow(&self, name: &IndexName) -> Result<(), Failure> {
        self.vectord.refresh(name).await.map_err(|error| failure::of_index(&error))
    }

    /// Builds, and shows meanwhile how far that is.
    async fn watched(
        &self,
        task: &Task,
        spec: &BuildSpec,
        version: u64,
        identity: &ModelIdentity,
        found: &Found,
    ) -> Result<String, Failure> {
        let tracker = Tracker::new(spec.name.clone());
        let mut work = pin!(self.builder.build(spec, version, identity, &tracker));
        let mut bar = None;
        loop {
            tokio::select! {
                built = &mut work => {
                    return built.map(|built| built.message).map_err(|error| failure::of_build(&error));
                }
                () = tokio::time::sleep(GLANCE) => {
                    let progress = tracker.progress();
                    bar.get_or_insert_with(|| self.screen.bar(&task.name)).update_build(&progress);
                    self.report_run(task, found, RunFacts::Running(Some(&progress)));
                }
            }
        }
    }

    /// Writes the status.
    pub(crate) fn report(&self, task: &Task, found: &Found) {
        let run = match (&found.failed, found.waits) {
            (Some(failure), _) => RunFacts::Failed(failure.clone()),
            (None, true) => RunFacts::Waiting,
            (None, false) => RunFacts::Idle,
        };
        self.report_run(task, found, run);
    }

    fn report_run(&self, task: &Task, found: &Found, run: RunFacts<'_, Progress>) {
        let facts = IndexFacts {
            generation: task.declared.metadata.generation,
            spec: task.checked.as_ref(),
            index: found.index.as_ref(),
            store: found.store.clone(),
            dataset: found.dataset.clone(),
            embedder: found.embedder.clone(),
            run,
            served: found.served.clone(),
            last_build: found.last_build.clone(),
        };
        let previous = self.resources.index_status(&task.name);
        let status = status::vector_index(previous.as_ref(), &facts, Timestamp::now());
        let mut index = task.declared.clone();
        if let Some(there) = &found.index {
            index.metadata.creation_timestamp = Some(Time(there.created_at));
        }
        index.status = Some(status);
        self.resources.put_index(index);
    }

    /// Says on the terminal what the index has come to.
    pub(crate) fn tell(&self, task: &Task) {
        if let Some(status) = self.resources.index_status(&task.name) {
            let model = task.checked.as_ref().ok().and_then(|index| index.model.as_ref());
            self.screen.index(&task.name, &status, model.map(|model| model.name.as_str()), &self.endpoint);
        }
    }
}
