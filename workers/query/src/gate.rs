//! How many queries may work at once, and how many may wait for that.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Settings};

#[derive(Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    count: usize,
    waiting: AtomicUsize,
    /// Queries that work on without a place.
    stuck: Arc<AtomicUsize>,
    max_queue: usize,
    patience: Duration,
}

/// The right to work. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    stuck: Arc<AtomicUsize>,
    count: usize,
}

impl Place {
    /// One that is not among those that a gate gives.
    pub(crate) fn apart() -> Self {
        let alone = Arc::new(Semaphore::new(1));
        Self { permit: Mutex::new(alone.try_acquire_owned().ok()), stuck: Arc::default(), count: 0 }
    }

    /// Lets another query work although this one, which was told to end, does not: some of DuckDB's functions notice no
    /// interrupt. As many as there are places may be passed by like this; the next ones keep theirs.
    pub(crate) fn pass_by(&self) {
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        let one_more = |stuck| (stuck < self.count).then_some(stuck + 1);
        if permit.is_some() && self.stuck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
        {
            *permit = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.permit.get_mut().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Gate {
    pub(crate) fn new(settings: &Settings) -> Self {
        let count = settings.max_concurrent.max(1);
        Self {
            places: Arc::new(Semaphore::new(count)),
            count,
            waiting: AtomicUsize::new(0),
            stuck: Arc::default(),
            max_queue: settings.max_queue,
            patience: settings.queue_timeout,
        }
    }

    /// Waits for a place in the order of arrival; refuses at once when too many wait already.
    pub(crate) async fn enter(&self) -> Result<Place, Error> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(self.place(permit));
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _left = Waiting(&self.waiting);
        let busy = || Error::Busy { running: self.count, waiting: waiting.min(self.max_queue) };
        if waiting >= self.max_queue {
            return Err(busy());
        }
        match tokio::time::timeout(self.patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        Place { permit: Mutex::new(Some(permit)), stuck: self.stuck.clone(), count: self.count }
    }
}

/// Counts one that waits, also when it goes away meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_is_bounded_and_forgets_those_who_leave() {
        let gate = gate(1, Duration::from_mins(1));
        let inside = gate.enter().await.unwrap();
        {
            let mut waits = Box::pin(gate.enter());
            assert!(futures::poll!(&mut waits).is_pending());
            assert!(matches!(gate.enter().await, Err(Error::Busy { running: 1, waiting: 1 })));
        }
        let mut waits = Box::pin(gate.enter());
        assert!(futures::poll!(&mut waits).is_pending(), "the one that left gave up its place in the queue");
        drop(inside);
        assert!(waits.await.is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let gate = gate(1, Duration::from_millis(5));
        let _inside = gate.enter().await.unwrap();
        assert!(matches!(gate.enter().await, Err(Error::Busy { .. })));
    }

    #[tokio::test]
    async fn queries_that_do_not_end_are_passed_by_but_only_so_many() {
        let gate = gate(1, Duration::from_millis(5));
        let stuck = gate.enter().await.unwrap();
        stuck.pass_by();
        stuck.pass_by();
        let second = gate.enter().await.unwrap();
        second.pass_by();
        assert!(matches!(gate.enter().await, Err(Error::Busy { .. })), "the second one keeps its place");
        drop(stuck);
        second.pass_by();
        assert!(gate.enter().await.is_ok(), "the first one ended");
    }

    fn gate(max_queue: usize, queue_timeout: Duration) -> Gate {
        Gate::new(&Settings { max_concurrent: 1, max_queue, queue_timeout, ..Settings::new("unused") })
    }
}
