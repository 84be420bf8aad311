//! Brings every Dataset from its spec to its status, for as long as the process runs.
//!
//! ```text
//! files changed ─┐
//! published ─────┼─► due ─► check ─► pin │ read source ─► ingest ─► refresh the views ─► status
//! time has come ─┘
//! ```
//! A visit looks at everything anew, so it does not matter what it missed: what is published already is not made again. Visits run beside
//! each other, so a source that keeps silent holds up nobody else.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, BoxFuture, abortable},
    stream::FuturesUnordered,
};
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
    visit::{Task, Visited, Visitor},
};
use crate::uploads::Resident;

/// Each visit may hold a connection and a copy of its source.
const MOST_VISITS: usize = 8;
/// The first wait after a failure that may pass; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// So long what to try next waits for the Datasets that are not there yet, once there is one that is.
const WELCOME: Duration = Duration::from_secs(3);

/// Decides who is visited when, and tells what came of it.
pub(crate) struct Controller {
    visitor: Visitor,
    resident: Resident,
    inputs: Arc<Inputs>,
    entries: BTreeMap<DatasetName, Entry>,
    visits: FuturesUnordered<BoxFuture<'static, (DatasetName, Result<Visited, Aborted>)>>,
}

/// A Dataset under control.
struct Entry {
    task: Arc<Task>,
    /// When it is visited next; `None` waits for an event.
    due: Option<Instant>,
    failures: u32,
    /// The visit that runs.
    visit: Option<AbortHandle>,
    /// Somebody published while it ran, perhaps the visit itself.
    news: bool,
}

impl Controller {
    pub(crate) fn new(visitor: Visitor, resident: Resident) -> Self {
        let (inputs, entries) = (Arc::default(), BTreeMap::new());
        Self { visitor, resident, inputs, entries, visits: FuturesUnordered::new() }
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
            let rest = self.next_due().into_iter().chain(welcome.filter(|&at| at > now)).min();
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
                entry.stop();
                self.visitor.resources.remove(name.as_str());
            }
            stays
        });
        self.visitor.resources.put_others(&inputs.others);
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
                entry.due = Some(Instant::now());
            }
            return;
        }
        let before = self.entries.remove(&name);
        if let Some(before) = &before {
            before.stop(); // it makes what nobody asks for any more
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
        // The next visit starts when the one before has let go of everything.
        let visit = before.and_then(|before| before.visit);
        let entry = Entry { task, due: Some(Instant::now()), failures: 0, visit, news: false };
        self.entries.insert(name, entry);
    }

    /// Somebody published: this controller itself, an upload, or a rollback over HTTP.
    async fn published(&mut self, name: &DatasetName) {
        if let Some(entry) = self.entries.get_mut(name)
            && entry.visit.is_some()
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

    /// Starts the visits that are due, the one that waits longest first, as long as there are places.
    fn start_due(&mut self) {
        let now = Instant::now();
        let mut due: Vec<&mut Entry> = self.entries.values_mut().filter(|entry| entry.is_due(now)).collect();
        due.sort_by_key(|entry| entry.due);
        for entry in due.into_iter().take(MOST_VISITS.saturating_sub(self.visits.len())) {
            let (name, task) = (entry.task.name.clone(), Arc::clone(&entry.task));
            let (visit, handle) = abortable(self.visitor.clone().visit(task, Arc::clone(&self.inputs)));
            self.visits.push(visit.map(|visited| (name, visited)).boxed());
            (entry.due, entry.visit) = (None, Some(handle));
        }
    }

    /// When a visit can start next, unless something happens before.
    fn next_due(&self) -> Option<Instant> {
        if self.visits.len() >= MOST_VISITS {
            return None; // when one of them ends
        }
        self.entries.values().filter(|entry| entry.visit.is_none()).filter_map(|entry| entry.due).min()
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
        entry.visit = None;
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
        entry.due = [entry.due, retry, entry.next_run(now)].into_iter().flatten().min();

        let run = outcome.failed.map_or(RunFacts::Idle, RunFacts::Failed);
        self.visitor.report(&task, manifest.as_deref(), outcome.source, run, served, outcome.last_ingest);
        if let Some(status) = self.visitor.resources.status(task.name.as_str()) {
            self.visitor.screen.dataset(&task.name, &status);
        }
    }
}

impl Entry {
    /// Stops the visit that runs; it lets go of everything the next time the controller waits.
    fn stop(&self) {
        if let Some(visit) = &self.visit {
            visit.abort();
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.visit.is_none() && self.due.is_some_and(|due| due <= now)
    }

    /// When the schedule asks for the next reading.
    fn next_run(&self, now: Instant) -> Option<Instant> {
        let dataset = self.task.checked.as_ref().ok().filter(|dataset| !dataset.suspend)?;
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
