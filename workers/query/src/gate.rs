//! How many queries may work at once, and how many may wait for that.

use std::{
    sync::{
        Arc,
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
    max_queue: usize,
    patience: Duration,
}

impl Gate {
    pub(crate) fn new(settings: &Settings) -> Self {
        let count = settings.max_concurrent.max(1);
        Self {
            places: Arc::new(Semaphore::new(count)),
            count,
            waiting: AtomicUsize::new(0),
            max_queue: settings.max_queue,
            patience: settings.queue_timeout,
        }
    }

    /// Waits for a place in the order of arrival; refuses at once when too many wait already.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _left = Waiting(&self.waiting);
        let busy = || Error::Busy { running: self.count, waiting: waiting.min(self.max_queue) };
        if waiting >= self.max_queue {
            return Err(busy());
        }
        match tokio::time::timeout(self.patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
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

    fn gate(max_queue: usize, queue_timeout: Duration) -> Gate {
        Gate::new(&Settings { max_concurrent: 1, max_queue, queue_timeout, ..Settings::new("unused") })
    }
}
