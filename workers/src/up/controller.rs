//! Brings every Dataset from its spec to its status, for as long as the process runs.
//!
//! ```text
//! files changed ─┐
//! published ─────┼─► due ─► check ─► pin │ read source ─► ingest ─► refresh the views ─► status
//! time has come ─┘
//! ```
//! What is published already is not made again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::Aborted;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::DatasetName;
use lakehouse_crds::conditions::READY;
use lakehouse_plan::{
    Retry, check,
    status::{RunFacts, ServedFacts, SourceFacts},
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{
    inputs::{self, Declared, Inputs},
    screen::condition,
    turns::{Turn, Visits, until},
    visit::{Task, Visited, Visitor},
};
use crate::uploads::Resident;

/// So long what to try next waits for the Datasets that are not there yet, once there is one that is.
const WELCOME: Duration = Duration::from_secs(3);

/// Decides who is visited when, and tells what came of it.
pub(crate) struct Controller {
    visitor: Visitor,
    resident: Resident,
    inputs: Arc<Inputs>,
    entries: BTreeMap<DatasetName, Entry>,
    visits: Visits<DatasetName, Visited>,
}

/// A Dataset under control.
struct Entry {
    task: Arc<Task>,
    turn: Turn,
    /// Somebody published while it ran, perhaps the visit itself.
    news: bool,
}

impl Controller {
    pub(crate) fn new(visitor: Visitor, resident: Resident) -> Self {
        let (inputs, entries) = (Arc::default(), BTreeMap::new());
        Self { visitor, resident, inputs, entries, visits: Visits::new() }
    }

    /// Runs for ever; dropping it stops what it does. `published` names datasets that this process has published, in whatever way.
    pub(crate) async fn run(
        mut self,
        mut followed: watch::Receiver<Arc<Inputs>>,
        mut published: broadcast::Receiver<DatasetName>,
    ) {
        let mut welcome = Some(Instant::now() + WELCOME);
        loop {
            self.start_due();
            if welcome.is_some_and(|at| self.may_welcome(at)) {
                welcome = None;
                let Visitor { screen, endpoint, credential, resources, .. } = &self.visitor;
                screen.next_steps(endpoint, credential.as_deref(), &resources.datasets());
            }
            let now = Instant::now();
            let due = self.visits.next_due(self.entries.values().map(|entry| &entry.turn));
            let rest = due.into_iter().chain(welcome.filter(|&at| at > now)).min();
            tokio::select! {
                Some((name, visited)) = self.visits.next() => self.ended(name, visited).await,
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
        let kept = match self.visitor.services.catalog.list().await {
            Ok(listing) => listing.datasets.iter().map(|manifest| manifest.name.clone()).collect(),
            Err(error) => {
                self.visitor.screen.problem(&format!("the catalogue cannot be read: {error}"));
                Vec::new()
            }
        };
        let mut wanted: BTreeMap<DatasetName, Declared> = kept
            .into_iter()
            .map(|name| (name.clone(), Declared { dataset: inputs::upload(&name), file: None, stamp: None }))
            .collect();
        wanted.extend(inputs.datasets.iter().map(|(name, declared)| (name.clone(), declared.clone())));

        self.entries.retain(|name, entry| {
            let stays = wanted.contains_key(name);
            if !stays {
                entry.turn.stop();
                self.visitor.resources.remove(name.as_str());
            }
            stays
        });
        self.inputs = inputs;
        for (name, declared) in wanted {
            self.declare(name, declared);
        }
        self.resident.set(self.entries.iter().map(|(name, entry)| {
            let Task { checked, declared, .. } = &*entry.task;
            (name.clone(), checked.clone(), declared.file.clone())
        }));
    }

    fn declare(&mut self, name: DatasetName, declared: Declared) {
        if let Some(entry) = self.entries.get_mut(&name)
            && entry.task.declared.asks_the_same(&declared)
        {
            // A ConfigMap or Secret beside it may have changed; a look at the source will tell.
            if declared.dataset.spec.source.upload.is_none() {
                entry.turn.call();
            }
            return;
        }
        let before = self.entries.remove(&name);
        if let Some(before) = &before {
            before.turn.stop(); // it makes what nobody asks for any more
        }
        let known = before.as_ref().map(|before| &before.task.declared.dataset);
        let generation = known.map_or(1, |known| {
            known.metadata.generation.unwrap_or(1) + i64::from(known.spec != declared.dataset.spec)
        });
        let created = known.and_then(|known| known.metadata.creation_timestamp.clone());
        let mut dataset = declared.dataset.clone();
        dataset.metadata.generation = Some(generation);
        dataset.metadata.uid = Some(name.id().to_string());
        dataset.metadata.creation_timestamp = Some(created.unwrap_or_else(|| Time(Timestamp::now())));
        let checked = check(&dataset);
        let declared = Declared { dataset, ..declared };
        let task = Arc::new(Task { name: name.clone(), declared, checked });
        if self.visitor.resources.status(name.as_str()).is_none() {
            let (source, run, served) = (SourceFacts::Unknown, RunFacts::Waiting, ServedFacts::NotYet);
            self.visitor.report(&task, None, source, run, served, None);
        }
        let entry = Entry { task, turn: Turn::after(before.map(|before| before.turn)), news: false };
        self.entries.insert(name, entry);
    }

    /// Somebody published: this controller itself, an upload, or a rollback over HTTP.
    async fn published(&mut self, name: &DatasetName) {
        if let Some(entry) = self.entries.get_mut(name)
            && entry.turn.is_visited()
        {
            entry.news = true; // its visit will tell whether that is news
            return;
        }
        let Visitor { services, resources, .. } = &self.visitor;
        let current = services.catalog.get(name).await.ok().flatten().map(|manifest| manifest.version);
        let told = resources.status(name.as_str()).and_then(|status| status.version);
        if current == told {
            return; // by this controller, which has told it already
        }
        if !self.entries.contains_key(name) {
            let declared = Declared { dataset: inputs::upload(name), file: None, stamp: None };
            self.declare(name.clone(), declared);
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.turn.call();
        }
    }

    /// Some news were missed, and nobody knows of whom.
    async fn look_at_everything(&mut self) {
        self.accept(self.inputs.clone()).await;
        for entry in self.entries.values_mut() {
            entry.turn.call();
        }
    }

    /// Starts the visits that are due, as far as there are places.
    fn start_due(&mut self) {
        for entry in self.visits.due(self.entries.values_mut(), |entry| &entry.turn) {
            let (name, task) = (entry.task.name.clone(), Arc::clone(&entry.task));
            let visit = self.visitor.clone().visit(task, Arc::clone(&self.inputs));
            self.visits.start(name, &mut entry.turn, visit);
        }
    }

    /// Whether it is time to say what to try: at the end of the first round, or before it when that takes long.
    fn may_welcome(&self, at: Instant) -> bool {
        let is_ready = |dataset: &lakehouse_crds::Dataset| {
            dataset
                .status
                .as_ref()
                .and_then(|status| condition(status, READY))
                .is_some_and(|(holds, _)| holds)
        };
        let some_ready = || self.visitor.resources.datasets().iter().any(is_ready);
        self.visits.is_empty() || (at <= Instant::now() && some_ready())
    }

    async fn ended(&mut self, name: DatasetName, visited: Result<Visited, Aborted>) {
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.turn.ended();
        if let Ok(visited) = visited
            && Arc::ptr_eq(&visited.task, &entry.task)
        {
            self.settle(visited);
        }
        let news = self.entries.get_mut(&name).is_some_and(|entry| std::mem::take(&mut entry.news));
        if news {
            self.published(&name).await;
        }
    }

    /// Tells what a visit came to, and when the next one is due.
    fn settle(&mut self, visited: Visited) {
        let Visited { task, manifest, outcome, served } = visited;
        let Some(entry) = self.entries.get_mut(&task.name) else { return };
        let now = Instant::now();
        let failure = outcome.failure().cloned().or_else(|| match &served {
            ServedFacts::Failed(failure) => Some(failure.clone()),
            _ => None,
        });
        let retry = match &failure {
            Some(failure) if failure.reason.retry() == Retry::Backoff => Some(entry.turn.after_failure()),
            _ => {
                entry.turn.went_well();
                None
            }
        };
        entry.turn.due = [entry.turn.due, retry, entry.next_run(now)].into_iter().flatten().min();

        let run = outcome.failed.map_or(RunFacts::Idle, RunFacts::Failed);
        self.visitor.report(&task, manifest.as_deref(), outcome.source, run, served, outcome.last_ingest);
        if let Some(status) = self.visitor.resources.status(task.name.as_str()) {
            self.visitor.screen.dataset(&task.name, &status);
        }
    }
}

impl Entry {
    /// When the schedule asks for the next reading.
    fn next_run(&self, now: Instant) -> Option<Instant> {
        let dataset = self.task.checked.as_ref().ok().filter(|dataset| !dataset.suspend)?;
        let clock = Timestamp::now();
        let next = dataset.schedule.as_ref()?.next_after(clock)?;
        Some(now + Duration::try_from(next.duration_since(clock)).unwrap_or_default())
    }
}
