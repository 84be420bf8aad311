//! Brings every VectorIndex from its spec to its status, for as long as the process runs.
//!
//! ```text
//! files changed ──────┐
//! dataset published ──┼─► due ─► look ─► create │ pin │ build ─► status
//! time has come ──────┘
//! ```
//! What changes unseen, a model behind a provider or an index that a client rolls back, is noticed at the next look.

mod visit;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::Aborted;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::DatasetName;
use lakehouse_crds::VectorIndex;
use lakehouse_plan::{Retry, vector_index};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{
    inputs::Inputs,
    turns::{Turn, Visits, until},
};
pub(crate) use visit::Visitor;
use visit::{Past, Task, Visited};

/// How long after a look the next one comes, where nothing happens before.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Decides which VectorIndex is visited when, and tells what came of it.
pub(crate) struct Controller {
    visitor: Visitor,
    entries: BTreeMap<String, Entry>,
    visits: Visits<String, Visited>,
}

/// A VectorIndex under control.
struct Entry {
    task: Arc<Task>,
    turn: Turn,
    past: Past,
}

impl Controller {
    pub(crate) fn new(visitor: Visitor) -> Self {
        Self { visitor, entries: BTreeMap::new(), visits: Visits::new() }
    }

    /// Runs for ever; dropping it stops what it does. `published` names datasets that this process has published, in whatever way.
    pub(crate) async fn run(
        mut self,
        mut followed: watch::Receiver<Arc<Inputs>>,
        mut published: broadcast::Receiver<DatasetName>,
    ) {
        loop {
            self.start_due();
            let rest = self.visits.next_due(self.entries.values().map(|entry| &entry.turn));
            tokio::select! {
                Some((name, visited)) = self.visits.next() => self.ended(&name, visited),
                changed = followed.changed() => {
                    if changed.is_err() {
                        return; // the follower has ended, so the process is about to
                    }
                    let inputs = followed.borrow_and_update().clone();
                    self.accept(&inputs);
                }
                name = published.recv() => match name {
                    Ok(name) => self.call(|task| task.reads(&name)),
                    Err(RecvError::Lagged(_)) => self.call(|_| true),
                    Err(RecvError::Closed) => return,
                },
                () = until(rest) => {}
            }
        }
    }

    /// Takes new inputs: what is new or has changed is due, what is gone is forgotten. Its vectors stay.
    pub(crate) fn accept(&mut self, inputs: &Inputs) {
        self.entries.retain(|name, entry| {
            let stays = inputs.indexes.contains_key(name);
            if !stays {
                entry.turn.stop();
                self.visitor.resources.remove_index(name);
            }
            stays
        });
        for (name, index) in &inputs.indexes {
            self.declare(name, index);
        }
    }

    fn declare(&mut self, name: &str, declared: &VectorIndex) {
        if let Some(entry) = self.entries.get_mut(name)
            && entry.task.asks_the_same(declared)
        {
            entry.turn.call(); // a provider or its key may have changed
            return;
        }
        let before = self.entries.remove(name);
        if let Some(before) = &before {
            before.turn.stop(); // it makes what nobody asks for any more
        }
        let known = before.as_ref().map(|before| &before.task.declared);
        let generation = known.map_or(1, |known| {
            known.metadata.generation.unwrap_or(1) + i64::from(known.spec != declared.spec)
        });
        let created = known.and_then(|known| known.metadata.creation_timestamp.clone());
        let mut declared = declared.clone();
        declared.metadata.generation = Some(generation);
        declared.metadata.creation_timestamp = Some(created.unwrap_or_else(|| Time(Timestamp::now())));
        let checked = vector_index::check(&declared);
        let task = Arc::new(Task { name: name.to_owned(), declared, checked });
        if self.visitor.resources.index_status(name).is_none() {
            self.visitor.report(&task, &visit::Found::waiting());
        }
        let (turn, past) = match before {
            Some(before) => (Turn::after(Some(before.turn)), before.past.without_failure()),
            None => (Turn::after(None), Past::default()),
        };
        self.entries.insert(name.to_owned(), Entry { task, turn, past });
    }

    /// Visits those at once of which this holds; one that is visited is visited again.
    fn call(&mut self, is_meant: impl Fn(&Task) -> bool) {
        for entry in self.entries.values_mut().filter(|entry| is_meant(&entry.task)) {
            entry.turn.call();
        }
    }

    fn start_due(&mut self) {
        for entry in self.visits.due(self.entries.values_mut(), |entry| &entry.turn) {
            let visit = self.visitor.clone().visit(Arc::clone(&entry.task), entry.past.clone());
            self.visits.start(entry.task.name.clone(), &mut entry.turn, visit);
        }
    }

    /// Tells what a visit came to, and when the next one is due.
    fn ended(&mut self, name: &str, visited: Result<Visited, Aborted>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.turn.ended();
        let Ok(Visited { task, found, past }) = visited else { return };
        if !Arc::ptr_eq(&task, &entry.task) {
            return;
        }
        entry.past = past;
        let next = match found.failure() {
            Some(failure) if failure.reason.retry() == Retry::Backoff => entry.turn.after_failure(),
            _ => {
                entry.turn.went_well();
                Instant::now() + LOOK_AGAIN
            }
        };
        entry.turn.due = Some(entry.turn.due.map_or(next, |due| due.min(next)));
        self.visitor.report(&task, &found);
        self.visitor.tell(&task);
    }
}
