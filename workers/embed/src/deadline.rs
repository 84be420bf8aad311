//! Until when somebody waits for an answer. Who joins later moves it: each caller has his own time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

/// Cheap to clone; clones move together.
#[derive(Clone, Debug)]
pub(crate) struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// When it is, as things stand.
    pub(crate) fn now(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits until `at`.
    pub(crate) fn extend(&self, at: Instant) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = at.max(*now);
    }

    /// What comes of `work`; `None` where the deadline passes first.
    pub(crate) async fn limit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let passed = async {
            while Instant::now() < self.now() {
                sleep_until(self.now()).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = passed => None,
        }
    }
}
