//! Follows the objects of a kind.
//!
//! Receives a kind's API and what of an object is kept; fills a store and hands every change to whoever knows which keys it
//! concerns. A watch that breaks off is begun again, each time after a longer wait; until its first list is complete,
//! the operator is not ready and says why. A namespace that it may not look at holds up no other one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    core::Status,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lakehouse_http::Readiness;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{
    metrics::Metrics,
    store::{Change, Names, Scope, Store},
};

/// Objects a page of a list: what is read at once is in memory at once.
const PAGE: u32 = 200;

/// One watch: a kind within a scope.
#[derive(Clone, Debug)]
pub struct Watch<K: Resource> {
    /// Where the objects come from.
    pub api: Api<K>,
    /// Which of them.
    pub scope: Scope,
    /// Only those that match, where there is a selector.
    pub labels: Option<&'static str>,
    /// The kind's plural, for messages and metrics.
    pub kind: &'static str,
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Follows for ever. `keep` is what the store holds of an object; `changed` hears of every event after the first list
    /// and of all objects at its end.
    pub async fn follow<T>(
        self,
        store: Store<T>,
        keep: impl Fn(K) -> T + Send,
        changed: impl Fn(&Change<T>) + Send,
        health: Health,
    ) where
        T: Send + Sync,
    {
        let me = health.begin(self.kind, &self.scope);
        let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
        let config = match self.labels {
            Some(labels) => config.labels(labels),
            None => config,
        };
        let mut events = watcher(self.api, config).default_backoff().boxed();
        let mut listed = BTreeMap::<String, Names<T>>::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = BTreeMap::new(),
                Ok(Event::InitApply(object)) => {
                    let (namespace, name) = place(&object);
                    listed.entry(namespace).or_default().insert(name, Arc::new(keep(object)));
                }
                Ok(Event::InitDone) => {
                    let all = store.replace(&self.scope, std::mem::take(&mut listed));
                    me.well();
                    all.iter().for_each(&changed);
                }
                Ok(Event::Apply(object)) => {
                    let (namespace, name) = place(&object);
                    changed(&store.put(namespace, name, keep(object)));
                }
                Ok(Event::Delete(object)) => {
                    let (namespace, name) = place(&object);
                    changed(&store.remove(namespace, name));
                }
                Err(error) => me.failed(&error),
            }
        }
    }
}

fn place<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What all watches are up to. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<Mutex<State>>,
    complete: watch::Sender<bool>,
    readiness: Readiness,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    begun: usize,
    expected: usize,
    /// Those whose first list is not complete, by their number.
    waiting: BTreeMap<usize, Waiting>,
}

/// A watch whose first list is not complete.
#[derive(Debug)]
struct Waiting {
    scope: Scope,
    place: String,
    reason: String,
    /// The namespace is gone, or was never ours to look at: nobody waits for its list.
    refused: bool,
}

/// The part of [`Health`] of one watch.
struct Part {
    health: Health,
    kind: &'static str,
    number: usize,
    place: String,
    told: Mutex<BTreeSet<String>>,
}

/// What holds the readiness back.
const WATCHES: &str = "watches";

impl Health {
    /// Waits for the first lists of this many watches.
    pub fn new(expected: usize, readiness: Readiness, metrics: Metrics) -> Self {
        readiness.hold(WATCHES, "the first lists are being read");
        let state = Arc::new(Mutex::new(State { expected, ..State::default() }));
        Self { state, complete: watch::Sender::new(expected == 0), readiness, metrics }
    }

    /// Whether all first lists of a namespace are complete, so that what is not there is not just unknown.
    pub fn knows(&self, namespace: &str) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !state.waiting.values().any(|one| match &one.scope {
            Scope::All => true,
            Scope::Namespace(waiting) => waiting == namespace,
        })
    }

    /// Resolves when every store holds what its first list said, but for namespaces that we may not look at.
    pub async fn complete(&self) {
        // The sender is part of `self`, so it cannot be gone.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    fn begin(&self, kind: &'static str, scope: &Scope) -> Part {
        let place = match scope {
            Scope::All => kind.to_owned(),
            Scope::Namespace(namespace) => format!("{kind} in {namespace}"),
        };
        let mut number = 0;
        self.update(|state| {
            (number, state.begun) = (state.begun, state.begun + 1);
            let (scope, place, reason) = (scope.clone(), place.clone(), "being read".to_owned());
            state.waiting.insert(number, Waiting { scope, place, reason, refused: false });
        });
        Part { health: self.clone(), kind, number, place, told: Mutex::default() }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let all_begun = state.begun >= state.expected;
        if all_begun && state.waiting.values().all(|one| one.refused) {
            self.complete.send_replace(true);
        }
        if all_begun && state.waiting.is_empty() {
            self.readiness.release(WATCHES);
        } else {
            let reasons =
                state.waiting.values().map(|Waiting { place, reason, .. }| format!("{place}: {reason}"));
            self.readiness.hold(WATCHES, reasons.collect::<Vec<_>>().join("; "));
        }
    }
}

impl Part {
    fn well(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.health.update(|state| {
            state.waiting.remove(&self.number);
        });
    }

    fn failed(&self, error: &watcher::Error) {
        self.health.metrics.watch_restarted(self.kind);
        let reason = sentence(self.kind, error);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(reason.clone()) {
            warn!("The watch of {} broke off and is begun again: {reason}", self.place);
        } else {
            debug!("The watch of {} broke off again: {reason}", self.place);
        }
        self.health.update(|state| {
            if let Some(waiting) = state.waiting.get_mut(&self.number) {
                let refused = status(error).is_some_and(|status| status.code == 403);
                waiting.refused = refused && waiting.scope != Scope::All;
                waiting.reason = reason;
            }
        });
    }
}

/// What went wrong, and what would help where that is known.
fn sentence(kind: &str, error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let Some(status) = status(error) else {
        return match error {
            InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => chain(error),
            error => error.to_string(),
        };
    };
    match status.code {
        404 => format!(
            "the API server does not know `{kind}`; install the resource definitions (chart lakehouse-crds)"
        ),
        403 => {
            format!("{}; give the operator's ServiceAccount the Role of the chart lakehouse", status.message)
        }
        _ => status.message.clone(),
    }
}

/// The API server's own answer, where it gave one.
fn status(error: &watcher::Error) -> Option<&Status> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status),
        _ => None,
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_may_not_be_looked_at_holds_up_no_other_one() {
        let (readiness, scope) = (Readiness::default(), |name: &str| Scope::Namespace(name.to_owned()));
        let health = Health::new(2, readiness, Metrics::default());
        let is_complete = || *health.complete.borrow();
        let (ours, gone) = (health.begin("pods", &scope("a")), health.begin("pods", &scope("b")));
        gone.failed(&refusal(403));
        assert!(!is_complete(), "what is in `a` is not known yet");
        ours.well();
        assert!(is_complete());
        assert_eq!(["a", "b"].map(|name| health.knows(name)), [true, false]);
        gone.well();
        assert!(health.knows("b"), "it was made, with the rights in it");
    }

    #[test]
    fn an_operator_that_may_look_nowhere_or_whose_api_server_is_in_trouble_waits() {
        for (scope, code) in [(Scope::All, 403), (Scope::Namespace("a".to_owned()), 500)] {
            let health = Health::new(1, Readiness::default(), Metrics::default());
            health.begin("pods", &scope).failed(&refusal(code));
            assert!(!*health.complete.borrow() && !health.knows("a"));
        }
    }

    fn refusal(code: u16) -> watcher::Error {
        let status = Status { code, message: "no".to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }
}
