//! Follows the objects of a kind.
//!
//! Receives a kind's API and what of an object is kept; fills a store and hands every change to whoever knows which keys it
//! concerns. A watch that breaks off is begun again, each time after a longer wait; until its first list is complete,
//! the operator is not ready and says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
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
    /// Those whose first list is not complete, by their number: where, and why not.
    waiting: BTreeMap<usize, (String, String)>,
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

    /// Resolves when every store holds what its first list said.
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
            state.waiting.insert(number, (place.clone(), "being read".to_owned()));
        });
        Part { health: self.clone(), kind, number, place, told: Mutex::default() }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.begun >= state.expected && state.waiting.is_empty() {
            self.readiness.release(WATCHES);
            self.complete.send_replace(true);
        } else {
            let reasons: Vec<String> =
                state.waiting.values().map(|(place, reason)| format!("{place}: {reason}")).collect();
            self.readiness.hold(WATCHES, reasons.join("; "));
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
            if let Some((_, waiting)) = state.waiting.get_mut(&self.number) {
                *waiting = reason;
            }
        });
    }
}

/// What went wrong, and what would help where that is known.
fn sentence(kind: &str, error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status,
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            return chain(error);
        }
        NoResourceVersion => return error.to_string(),
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
