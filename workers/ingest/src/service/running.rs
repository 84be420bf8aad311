//! Which ingests run: one of a dataset at a time, and only so many together.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lakehouse_contract::{
    DatasetName,
    ingest::{Phase, Progress},
};
use lakehouse_http::Problem;

use crate::Tracker;

/// How many ended ingests are remembered. Names come from callers, so their number needs an end.
const REMEMBERED: usize = 1000;

/// Seconds until another try makes sense.
const RETRY_AFTER: u32 = 5;

/// The ingests of this process.
#[derive(Clone, Debug)]
pub(super) struct Running {
    most: usize,
    ingests: Arc<Mutex<Ingests>>,
}

#[derive(Debug, Default)]
struct Ingests {
    running: BTreeMap<DatasetName, Tracker>,
    /// The last one of each dataset, oldest first.
    ended: VecDeque<(DatasetName, Progress)>,
}

impl Running {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ingests: Arc::default() }
    }

    /// The right to ingest an upload into the dataset, until it is dropped.
    pub(super) fn claim(&self, name: &DatasetName) -> Result<Claim, Problem> {
        let mut ingests = self.lock();
        if !ingests.running.contains_key(name) && ingests.running.len() >= self.most {
            let message =
                format!("{} ingests are running, as many as are allowed at once", ingests.running.len());
            return Err(Problem::unavailable(message, RETRY_AFTER));
        }
        self.claimed(&mut ingests, name).ok_or_else(|| {
            let message =
                format!("an ingest into dataset `{name}` is running; /ingest/progress says how far it is");
            Problem { code: "ingest_running", ..Problem::conflict(message) }
        })
    }

    /// The same for who decides by himself how many run. `None` while another ingest into the dataset runs.
    pub(super) fn claim_beyond_the_cap(&self, name: &DatasetName) -> Option<Claim> {
        self.claimed(&mut self.lock(), name)
    }

    fn claimed(&self, ingests: &mut Ingests, name: &DatasetName) -> Option<Claim> {
        if ingests.running.contains_key(name) {
            return None;
        }
        let tracker = Tracker::new(name.as_str());
        ingests.running.insert(name.clone(), tracker.clone());
        Some(Claim { running: self.clone(), name: name.clone(), tracker })
    }

    /// What runs, and how the last one ended of each dataset where none runs, by name.
    pub(super) fn progress(&self, name: Option<&str>) -> Vec<Progress> {
        let ingests = self.lock();
        let running = ingests.running.values().map(Tracker::progress);
        let ended = ingests.ended.iter().filter(|(name, _)| !ingests.running.contains_key(name));
        let all = running.chain(ended.map(|(_, progress)| progress.clone()));
        let mut asked: Vec<Progress> = all.filter(|one| name.is_none_or(|name| one.name == name)).collect();
        asked.sort_by(|a, b| a.name.cmp(&b.name));
        asked
    }

    fn lock(&self) -> MutexGuard<'_, Ingests> {
        self.ingests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to ingest into one dataset.
#[derive(Debug)]
pub struct Claim {
    running: Running,
    name: DatasetName,
    tracker: Tracker,
}

impl Claim {
    /// Counts how far the ingest has come.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let progress = self.tracker.progress();
        let mut ingests = self.running.lock();
        ingests.running.remove(&self.name);
        // One that did not come to an end is an upload that broke off, of which nothing is left.
        if matches!(progress.phase, Phase::Done | Phase::Failed) {
            ingests.ended.retain(|(name, _)| *name != self.name);
            ingests.ended.push_back((self.name.clone(), progress));
            if ingests.ended.len() > REMEMBERED {
                ingests.ended.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::Error;

    #[test]
    fn one_ingest_of_a_dataset_runs_at_a_time() {
        let running = Running::new(9);
        let first = running.claim(&name("a")).unwrap();
        assert_eq!(running.claim(&name("a")).unwrap_err().status, StatusCode::CONFLICT);
        running.claim(&name("b")).unwrap();
        drop(first);
        running.claim(&name("a")).unwrap();
    }

    #[test]
    fn one_too_many_is_told_when_to_come_back() {
        let running = Running::new(1);
        let first = running.claim(&name("a")).unwrap();
        let refused = running.claim(&name("b")).unwrap_err();
        assert_eq!(
            (refused.status, refused.retry_after),
            (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER))
        );
        let other_way = running.claim_beyond_the_cap(&name("b")).unwrap();
        assert!(running.claim_beyond_the_cap(&name("b")).is_none());
        drop((first, other_way));
        running.claim(&name("b")).unwrap();
    }

    #[test]
    fn the_last_ended_ingest_of_a_dataset_is_remembered_and_an_upload_that_broke_off_is_not() {
        let running = Running::new(9);
        running.claim(&name("a")).unwrap().tracker().end::<()>(&Err(Error::Cancelled));
        assert_eq!(running.progress(None)[0].phase, Phase::Failed);
        let again = running.claim(&name("a")).unwrap();
        assert_eq!(running.progress(Some("a")).len(), 1);
        assert_ne!(running.progress(Some("a"))[0].phase, Phase::Failed);
        drop(again);
        assert_eq!(running.progress(Some("a"))[0].phase, Phase::Failed);
        assert_eq!(running.progress(Some("b")), []);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let running = Running::new(1);
        for i in 0..=REMEMBERED {
            running.claim(&name(&format!("d{i}"))).unwrap().tracker().end(&Ok(()));
        }
        assert_eq!(running.progress(None).len(), REMEMBERED);
        assert_eq!(running.progress(Some("d0")), []);
    }

    fn name(text: &str) -> DatasetName {
        DatasetName::parse(text).unwrap()
    }
}
