//! What is to be looked at, and when.
//!
//! Receives keys from watches and verdicts from reconciles; hands on each key when it is due. A key is queued once and
//! runs once at a time: what comes in while it runs makes it run once more afterwards. Failures of a key put its next
//! try off, each time twice as long; a success forgets them.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The wait after a first failure; each further one is twice as long.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: so late, at most, is it noticed that a cause has gone that sends no event.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What becomes of a key whose work has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something happens.
    Settled,
    /// All went well; look again then.
    After(Duration),
    /// It failed: look again after a wait that grows.
    Failed,
}

/// A queue of keys. Cheap to clone; all clones are one.
#[derive(Debug)]
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<K> {
    state: Mutex<State<K>>,
    /// Something may be due earlier than who waits knows.
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// Waiting keys, the earliest first; the number keeps the order of those that came at the same time.
    due: BTreeSet<(Instant, u64, K)>,
    entries: HashMap<K, Entry>,
    /// How many keys were ever queued.
    arrivals: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Its place in `due`; while it runs, when it is to run again.
    place: Option<(Instant, u64)>,
    running: bool,
    failures: u32,
}

impl<K: Clone + Ord + Hash> Default for Queue<K> {
    fn default() -> Self {
        let state = State { due: BTreeSet::new(), entries: HashMap::new(), arrivals: 0 };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() }))
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// Queues a key to run at once, or as soon as its present run has ended.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// Queues a key to run after `delay` at the latest: an earlier time that it has already stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.state().put(key, Instant::now() + delay);
        self.0.changed.notify_one();
    }

    /// Waits for the next key that is due, and gives it away. Who takes it tells [`Self::done`].
    pub async fn next(&self) -> K {
        loop {
            let earliest = {
                let mut state = self.state();
                if let Some(key) = state.take(Instant::now()) {
                    return key;
                }
                state.due.first().map(|(at, _, _)| *at)
            };
            let rest = async {
                match earliest {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // A notification of the time between the look and the wait is kept for the wait.
            tokio::select! {
                () = rest => {}
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// Takes back a key whose run has ended.
    pub fn done(&self, key: &K, next: Next) {
        self.state().end(key, next, Instant::now());
        self.0.changed.notify_one();
    }

    /// How many keys are due and wait for their turn.
    pub fn depth(&self) -> usize {
        let now = Instant::now();
        self.state().due.iter().take_while(|(at, _, _)| *at <= now).count()
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // Each method leaves the state whole, so a panic elsewhere cannot have hurt it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    fn put(&mut self, key: K, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.place {
            Some((earlier, _)) if earlier <= at => return,
            Some((later, number)) if !entry.running => {
                self.due.remove(&(later, number, key.clone()));
            }
            _ => {}
        }
        self.arrivals += 1;
        entry.place = Some((at, self.arrivals));
        if !entry.running {
            self.due.insert((at, self.arrivals, key));
        }
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, _, key) = self.due.pop_first()?;
        let entry = self.entries.entry(key.clone()).or_default();
        (entry.place, entry.running) = (None, true);
        Some(key)
    }

    fn end(&mut self, key: &K, next: Next, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        let rest = match next {
            Next::Settled => None,
            Next::After(delay) => Some(delay),
            Next::Failed => Some((FIRST_WAIT * 2u32.saturating_pow(entry.failures)).min(LONGEST_WAIT)),
        };
        entry.failures = if next == Next::Failed { entry.failures.saturating_add(1).min(16) } else { 0 };
        let meanwhile = entry.place.take().map(|(at, _)| at);
        match [meanwhile, rest.map(|rest| now + rest)].into_iter().flatten().min() {
            Some(at) => self.put(key.clone(), at),
            None => {
                self.entries.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once() {
        let queue = Queue::default();
        for key in ["a", "b", "a", "a"] {
            queue.add(key);
        }
        assert_eq!(queue.depth(), 2);
        assert_eq!((queue.next().await, queue.next().await), ("a", "b"));
        assert_eq!(queue.depth(), 0);
        assert!(nothing_within(&queue, Duration::from_hours(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_during_a_run_makes_one_more() {
        let queue = Queue::default();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        queue.add("a");
        assert!(nothing_within(&queue, Duration::from_mins(1)).await, "a key runs once at a time");
        queue.done(&key, Next::Settled);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Next::Settled);
        assert!(nothing_within(&queue, Duration::from_hours(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn events_in_quick_succession_become_one_run() {
        let queue = Queue::default();
        let start = Instant::now();
        for _ in 0..10 {
            queue.add_after("namespace", Duration::from_millis(300));
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        queue.next().await;
        assert_eq!(start.elapsed().as_millis() / 10, 30, "the first of them sets the time");
        queue.done(&"namespace", Next::Settled);
        assert!(nothing_within(&queue, Duration::from_hours(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_time_wins_and_a_later_one_changes_nothing() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_mins(1));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(30));
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&"a", Next::Settled);
        assert!(nothing_within(&queue, Duration::from_hours(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_a_success_forgets_them() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        let mut waits = Vec::new();
        let seven = Next::After(Duration::from_secs(7));
        for next in [Next::Failed, Next::Failed, Next::Failed, seven, Next::Failed] {
            let start = Instant::now();
            queue.done(&"a", next);
            queue.next().await;
            waits.push(start.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 7, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_end_at_the_longest() {
        let queue = Queue::default();
        queue.add("a");
        for _ in 0..100 {
            queue.next().await;
            queue.done(&"a", Next::Failed);
        }
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), LONGEST_WAIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_ends_the_wait_after_a_failure() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        queue.done(&"a", Next::Failed);
        let start = Instant::now();
        queue.add("a");
        queue.next().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_queue_remembers_nothing() {
        let queue = Queue::default();
        for key in 0..1000 {
            queue.add(key);
            queue.next().await;
            queue.done(&key, if key == 7 { Next::After(Duration::from_secs(1)) } else { Next::Settled });
        }
        assert_eq!(queue.state().entries.len(), 1, "only what is to be looked at again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_taker_is_woken_by_something_earlier() {
        let queue = Queue::default();
        queue.add_after("late", Duration::from_hours(1));
        let taker = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.add("early");
        assert_eq!(taker.await.unwrap(), "early");
    }

    async fn nothing_within<K: Clone + Ord + Hash>(queue: &Queue<K>, time: Duration) -> bool {
        tokio::time::timeout(time, queue.next()).await.is_err()
    }
}
