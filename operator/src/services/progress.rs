//! How far running ingests have come, as their pods last told.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lakehouse_contract::ingest::Progress;
use tokio::time::Instant;

/// A pod is not asked more often: each answer may be a write of the status.
pub const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<(String, String), Entry>>);

#[derive(Debug)]
struct Entry {
    asked: Instant,
    asking: bool,
    last: Option<Progress>,
}

impl Seen {
    /// Whether it is time to ask; who is told so asks and calls [`Self::end`].
    pub(super) fn begin(&self, namespace: &str, dataset: &str) -> bool {
        let mut all = self.all();
        let now = Instant::now();
        match all.get_mut(&(namespace.to_owned(), dataset.to_owned())) {
            Some(entry) if entry.asking || now < entry.asked + INTERVAL => false,
            Some(entry) => {
                (entry.asked, entry.asking) = (now, true);
                true
            }
            None => {
                let entry = Entry { asked: now, asking: true, last: None };
                all.insert((namespace.to_owned(), dataset.to_owned()), entry);
                true
            }
        }
    }

    /// Takes an answer, and says whether it is news. A pod that does not answer has told nothing new.
    pub(super) fn end(&self, namespace: &str, dataset: &str, told: Option<Progress>) -> bool {
        let mut all = self.all();
        let Some(entry) = all.get_mut(&(namespace.to_owned(), dataset.to_owned())) else { return false };
        entry.asking = false;
        let news = told.is_some() && told != entry.last;
        entry.last = told.or_else(|| entry.last.take());
        news
    }

    pub(super) fn last(&self, namespace: &str, dataset: &str) -> Option<Progress> {
        self.all().get(&(namespace.to_owned(), dataset.to_owned()))?.last.clone()
    }

    pub(super) fn forget(&self, namespace: &str, dataset: &str) {
        self.all().remove(&(namespace.to_owned(), dataset.to_owned()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
