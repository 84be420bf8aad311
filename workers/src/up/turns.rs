//! Who is visited when: what the controllers of all kinds of resources share.
//!
//! A visit looks at everything anew, so it does not matter what it missed. Visits run beside each other, so one that waits for long
//! holds up nobody else.

use std::time::{Duration, Instant};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, BoxFuture, abortable},
    stream::FuturesUnordered,
};

/// Each visit may hold a connection and a copy of its source.
const MOST_VISITS: usize = 8;
/// The first wait after a failure that may pass; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// When a resource is visited next.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// `None` waits for an event.
    pub(crate) due: Option<Instant>,
    failures: u32,
    /// The visit that runs.
    visit: Option<AbortHandle>,
}

impl Turn {
    /// The turn of a resource that is new or has changed. The next visit starts when the one `before` has let go of everything.
    pub(crate) fn after(before: Option<Self>) -> Self {
        let visit = before.and_then(|before| before.visit);
        Self { due: Some(Instant::now()), failures: 0, visit }
    }

    /// Asks for a visit at once.
    pub(crate) fn call(&mut self) {
        self.due = Some(Instant::now());
    }

    /// Stops the visit that runs; it lets go of everything the next time its controller waits.
    pub(crate) fn stop(&self) {
        if let Some(visit) = &self.visit {
            visit.abort();
        }
    }

    pub(crate) fn is_visited(&self) -> bool {
        self.visit.is_some()
    }

    /// The visit is over.
    pub(crate) fn ended(&mut self) {
        self.visit = None;
    }

    /// When to try again what has failed for now.
    pub(crate) fn after_failure(&mut self) -> Instant {
        let wait = (FIRST_WAIT * 2u32.saturating_pow(self.failures)).min(LONGEST_WAIT);
        self.failures += 1;
        Instant::now() + wait
    }

    /// Nothing has failed, or nothing that passes by itself.
    pub(crate) fn went_well(&mut self) {
        self.failures = 0;
    }

    fn is_due(&self, now: Instant) -> bool {
        self.visit.is_none() && self.due.is_some_and(|due| due <= now)
    }
}

/// The visits that run, each with the name of whom it visits.
pub(crate) struct Visits<K, R>(FuturesUnordered<BoxFuture<'static, (K, Result<R, Aborted>)>>);

impl<K: Send + 'static, R: 'static> Visits<K, R> {
    pub(crate) fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those who are to be visited now, the one that waits longest first, as far as there are places.
    pub(crate) fn due<T>(&self, entries: impl Iterator<Item = T>, turn: impl Fn(&T) -> &Turn) -> Vec<T> {
        let now = Instant::now();
        let mut due: Vec<T> = entries.filter(|entry| turn(entry).is_due(now)).collect();
        due.sort_by_key(|entry| turn(entry).due);
        due.truncate(MOST_VISITS.saturating_sub(self.0.len()));
        due
    }

    /// Starts a visit.
    pub(crate) fn start(&mut self, key: K, turn: &mut Turn, visit: impl Future<Output = R> + Send + 'static) {
        let (visit, handle) = abortable(visit);
        self.0.push(visit.map(|visited| (key, visited)).boxed());
        (turn.due, turn.visit) = (None, Some(handle));
    }

    /// When a visit can start next, unless something happens before.
    pub(crate) fn next_due<'a>(&self, turns: impl Iterator<Item = &'a Turn>) -> Option<Instant> {
        if self.0.len() >= MOST_VISITS {
            return None; // when one of them ends
        }
        turns.filter(|turn| turn.visit.is_none()).filter_map(|turn| turn.due).min()
    }

    /// The next visit that ends; `None` where none runs.
    pub(crate) async fn next(&mut self) -> Option<(K, Result<R, Aborted>)> {
        self.0.next().await
    }
}

/// Waits for this moment, or for ever.
pub(crate) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_after_failures_grow_until_something_goes_well() {
        let mut turn = Turn::default();
        let mut wait = || (turn.after_failure().duration_since(Instant::now()).as_millis() + 500) / 1000;
        assert_eq!([wait(), wait(), wait()], [1, 2, 4]);
        (0..10).for_each(|_| assert!(wait() <= 60));
        assert_eq!(wait(), 60);
        turn.went_well();
        assert!(turn.after_failure() <= Instant::now() + FIRST_WAIT);
    }

    #[tokio::test]
    async fn the_one_that_waits_longest_is_visited_first_and_only_once_at_a_time() {
        let mut visits: Visits<u8, ()> = Visits::new();
        let now = Instant::now();
        let at = |due: Instant| Turn { due: Some(due), ..Turn::default() };
        let mut turns = [at(now), at(now.checked_sub(Duration::from_secs(1)).unwrap()), Turn::default()];
        let places = |visits: &Visits<u8, ()>, turns: &[Turn]| -> Vec<usize> {
            visits
                .due(turns.iter().enumerate(), |(_, turn)| turn)
                .into_iter()
                .map(|(place, _)| place)
                .collect()
        };
        assert_eq!(places(&visits, &turns), [1, 0]);
        visits.start(1, &mut turns[1], std::future::ready(()));
        turns[1].call();
        assert_eq!(places(&visits, &turns), [0]);
        assert_eq!(visits.next().await.unwrap().0, 1);
        turns[1].ended();
        assert_eq!(places(&visits, &turns), [0, 1]);
    }
}
