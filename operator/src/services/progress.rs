//! How far running Jobs have come, as their pods last told.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A pod is not asked more often: each answer may be a write of the status.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// What the pods of one kind's Jobs told, by namespace and name of the resource.
#[derive(Debug)]
pub(super) struct Seen<P>(Mutex<HashMap<(String, String), Entry<P>>>);

impl<P> Default for Seen<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[derive(Debug)]
struct Entry<P> {
    /// The address of the pod that is asked: another pod is another run.
    address: String,
    asked: Instant,
    asking: bool,
    last: Option<P>,
}

impl<P: Clone + PartialEq> Seen<P> {
    /// Whether it is time to ask; who is told so asks and calls [`Self::end`].
    pub(super) fn begin(&self, namespace: &str, name: &str, address: &str) -> bool {
        let mut all = self.all();
        let now = Instant::now();
        let place = (namespace.to_owned(), name.to_owned());
        match all.get_mut(&place).filter(|entry| entry.address == address) {
            Some(entry) if entry.asking || now < entry.asked + INTERVAL => false,
            Some(entry) => {
                (entry.asked, entry.asking) = (now, true);
                true
            }
            None => {
                let address = address.to_owned();
                all.insert(place, Entry { address, asked: now, asking: true, last: None });
                true
            }
        }
    }

    /// Takes an answer, and says whether it is news. A pod that does not answer has told nothing new.
    pub(super) fn end(&self, namespace: &str, name: &str, address: &str, told: Option<P>) -> bool {
        let mut all = self.all();
        let entry = all.get_mut(&(namespace.to_owned(), name.to_owned()));
        let Some(entry) = entry.filter(|entry| entry.address == address) else { return false };
        entry.asking = false;
        let news = told.is_some() && told != entry.last;
        entry.last = told.or_else(|| entry.last.take());
        news
    }

    pub(super) fn last(&self, namespace: &str, name: &str, address: &str) -> Option<P> {
        let all = self.all();
        let entry = all.get(&(namespace.to_owned(), name.to_owned()))?;
        entry.last.clone().filter(|_| entry.address == address)
    }

    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.all().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Entry<P>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lakehouse_contract::ingest::{Phase, Progress};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_asked_every_two_seconds_and_once_at_a_time() {
        let seen = Seen::default();
        assert!(seen.begin("ns", "a", "one"));
        tokio::time::advance(INTERVAL * 2).await;
        assert!(!seen.begin("ns", "a", "one"), "somebody is at it");
        assert!(seen.end("ns", "a", "one", Some(progress(1))));
        assert!(seen.begin("ns", "a", "one"));
        assert!(!seen.end("ns", "a", "one", Some(progress(1))), "that is no news");
        assert!(!seen.begin("ns", "a", "one"), "it is too soon");
        tokio::time::advance(INTERVAL).await;
        assert!(seen.begin("ns", "a", "one"));
        assert!(!seen.end("ns", "a", "one", None), "a pod that does not answer has told nothing new");
        assert_eq!(seen.last("ns", "a", "one"), Some(progress(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn another_pod_begins_from_nothing() {
        let seen = Seen::default();
        seen.begin("ns", "a", "one");
        assert!(seen.begin("ns", "a", "two"));
        assert!(!seen.end("ns", "a", "one", Some(progress(9))), "nobody asks for that run any more");
        assert_eq!(seen.last("ns", "a", "two"), None);
    }

    fn progress(rows: u64) -> Progress {
        Progress {
            name: "a".to_owned(),
            phase: Phase::Converting,
            bytes: 0,
            total_bytes: None,
            rows,
            rejected_rows: 0,
            elapsed_ms: 0,
            bytes_per_second: 0,
            remaining_ms: None,
            message: None,
        }
    }
}
