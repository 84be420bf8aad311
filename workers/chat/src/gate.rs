//! How many requests a provider gets at once and in a minute, and how many may wait for that: in the order of arrival, so
//! nobody is overtaken, and bounded, so nobody waits in vain.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lakehouse_contract::provider::Limits;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

use crate::Settings;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Gate {
    places: Option<Arc<Semaphore>>,
    rate: Option<Rate>,
    waiting: AtomicUsize,
    max_queue: usize,
    patience: Duration,
}

/// When the last requests of a minute were let through. Who waits for a turn holds the lock, which is given in the order of
/// arrival.
#[derive(Debug)]
struct Rate {
    limit: usize,
    starts: Mutex<VecDeque<Instant>>,
}

/// The right to ask the provider. Given back when it is dropped.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

/// Why a request may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All places are taken, and so many wait for one.
    Busy { waiting: usize },
    /// The minute's requests are used up, for so long at least.
    Rate { limit: usize, pause: Duration },
}

impl Gate {
    pub(crate) fn new(limits: &Limits, settings: &Settings) -> Self {
        let number =
            |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: limits.max_concurrent.map(|limit| Arc::new(Semaphore::new(number(limit)))),
            rate: limits
                .requests_per_minute
                .map(|limit| Rate { limit: number(limit), starts: Mutex::default() }),
            waiting: AtomicUsize::new(0),
            max_queue: settings.max_queue,
            patience: settings.queue_timeout,
        }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Result<Place, Refusal> {
        let Some(places) = &self.places else { return Ok(None) };
        if let Ok(permit) = places.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        let queue = self.queue()?;
        let end = Instant::now() + self.patience;
        match timeout_at(end, places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(queue.busy()),
        }
    }

    /// Waits for a turn in the minute: once for every request that is sent.
    pub(crate) async fn turn(&self) -> Result<(), Refusal> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let queue = self.queue()?;
        let end = Instant::now() + self.patience;
        let Ok(mut starts) = timeout_at(end, rate.starts.lock()).await else { return Err(queue.busy()) };
        let now = Instant::now();
        while starts.front().is_some_and(|start| *start + MINUTE <= now) {
            starts.pop_front();
        }
        if starts.len() >= rate.limit
            && let Some(free) = starts.front().map(|start| *start + MINUTE)
        {
            if free > end {
                return Err(Refusal::Rate { limit: rate.limit, pause: free - now });
            }
            sleep_until(free).await;
            starts.pop_front();
        }
        starts.push_back(Instant::now());
        Ok(())
    }

    fn queue(&self) -> Result<Queued<'_>, Refusal> {
        let queue = Queued(&self.waiting);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= self.max_queue { Err(Refusal::Busy { waiting: before }) } else { Ok(queue) }
    }
}

/// Counts one that waits, also when it goes away meanwhile.
struct Queued<'a>(&'a AtomicUsize);

impl Queued<'_> {
    fn busy(&self) -> Refusal {
        Refusal::Busy { waiting: self.0.load(Ordering::Relaxed) }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_the_order_of_arrival_and_the_queue_is_bounded() {
        let gate = Arc::new(gate(Some(1), None, 2));
        let inside = gate.enter().await.unwrap();
        let mut first = Box::pin(gate.enter());
        let mut second = Box::pin(gate.enter());
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        assert_eq!(gate.enter().await.unwrap_err(), Refusal::Busy { waiting: 2 });
        drop(inside);
        assert!(futures::poll!(&mut second).is_pending(), "the first one is first");
        let place = first.await.unwrap();
        drop(place);
        second.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_gives_its_place_in_it_back() {
        let gate = gate(Some(1), None, 1);
        let _inside = gate.enter().await.unwrap();
        {
            let mut waits = Box::pin(gate.enter());
            assert!(futures::poll!(&mut waits).is_pending());
        }
        assert_eq!(gate.enter().await.unwrap_err(), Refusal::Busy { waiting: 1 }, "after the patience");
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_requests_than_its_limit() {
        let gate = gate(None, Some(3), 10);
        let start = Instant::now();
        for _ in 0..3 {
            gate.turn().await.unwrap();
        }
        assert_eq!(gate.turn().await.unwrap_err(), Refusal::Rate { limit: 3, pause: MINUTE });
        tokio::time::advance(Duration::from_secs(45)).await;
        gate.turn().await.unwrap();
        assert_eq!(start.elapsed(), MINUTE, "the wait is shorter than the patience");
    }

    fn gate(max_concurrent: Option<u32>, requests_per_minute: Option<u32>, max_queue: usize) -> Gate {
        let limits = Limits { max_concurrent, requests_per_minute, ..Limits::default() };
        Gate::new(&limits, &Settings { max_queue, ..Settings::default() })
    }
}
