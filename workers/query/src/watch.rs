//! Ends queries that take too long or that nobody waits for any more.
//!
//! DuckDB has no timeout of its own. An interrupt that comes before DuckDB works is lost, so it is sent until the query is
//! over.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use duckdb::InterruptHandle;
use tokio::sync::Notify;

use crate::{Error, gate::Place};

/// How often an interrupt is repeated.
const REPEAT: Duration = Duration::from_millis(10);

/// How long DuckDB may take to notice an interrupt before others may work in the query's place.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the query, its watchdog and its caller share.
pub(crate) struct Watch {
    state: Mutex<State>,
    changed: Notify,
    over: AtomicBool,
    timeout: Duration,
}

struct State {
    /// When the query has worked for long enough.
    deadline: Instant,
    verdict: Option<Verdict>,
    interrupt: Option<Arc<InterruptHandle>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Timeout,
    Gone,
}

impl Watch {
    /// Starts the clock and the watchdog of a query that has a place.
    pub(crate) fn start(timeout: Duration, place: Arc<Place>) -> Arc<Self> {
        let state = State { deadline: Instant::now() + timeout, verdict: None, interrupt: None };
        let watch = Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            over: AtomicBool::new(false),
            timeout,
        });
        tokio::spawn(watch.clone().guard(place));
        watch
    }

    /// Names the connection that the query works on.
    pub(crate) fn watch(&self, interrupt: Arc<InterruptHandle>) {
        self.state().interrupt = Some(interrupt);
    }

    /// The caller went away.
    pub(crate) fn abandon(&self) {
        self.state().verdict.get_or_insert(Verdict::Gone);
        self.changed.notify_one();
    }

    /// The query is over, whatever became of it.
    pub(crate) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Why the query was ended, if it was.
    pub(crate) fn verdict(&self) -> Option<Error> {
        self.state().verdict.map(|verdict| match verdict {
            Verdict::Timeout => Error::Timeout { limit: self.timeout },
            Verdict::Gone => Error::Gone,
        })
    }

    /// Waits until the query is to end.
    pub(crate) async fn ended(&self) -> Error {
        loop {
            if let Some(error) = self.verdict() {
                return error;
            }
            tokio::time::sleep(REPEAT).await;
        }
    }

    /// Runs something that is not the query's own work, and gives the query that time back.
    pub(crate) fn off_the_clock<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let left = self.state().deadline.saturating_duration_since(started);
        self.state().deadline = started + FAR;
        let result = work();
        self.state().deadline = Instant::now() + left;
        self.changed.notify_one();
        result
    }

    async fn guard(self: Arc<Self>, place: Arc<Place>) {
        while !self.is_over() && self.state().verdict.is_none() {
            let deadline = self.state().deadline;
            if deadline <= Instant::now() {
                self.state().verdict.get_or_insert(Verdict::Timeout);
                break;
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                () = self.changed.notified() => {}
            }
        }
        let ended = Instant::now();
        while !self.is_over() {
            if ended.elapsed() > PATIENCE {
                place.pass_by();
            }
            let interrupt = self.state().interrupt.clone();
            if let Some(interrupt) = interrupt {
                interrupt.interrupt();
            }
            tokio::time::sleep(REPEAT).await;
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every statement that holds the lock leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer than any other limit of a query.
const FAR: Duration = Duration::from_hours(24);
