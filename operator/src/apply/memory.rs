//! What was applied, so that it is not applied again without need.
//!
//! The API server adds defaults and writes quantities its own way, so what was asked for and what is there cannot be
//! compared. What was asked for now is compared with what was asked for last, and what is there now with what was there
//! right after.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lakehouse_plan::cluster::ObjectName;
use tokio::time::Instant;

use crate::world::seen::Stamp;

/// So long may the event of our own write take. After it, an object that was not seen is taken for missing.
const LAG: Duration = Duration::from_secs(10);

/// Shared by all who apply. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<HashMap<(String, ObjectName), Applied>>>);

#[derive(Debug)]
struct Applied {
    /// The digest of what was asked for; 0 for what is made once.
    asked: u64,
    /// The object right after.
    stamp: Stamp,
    at: Instant,
}

impl Memory {
    /// Whether an object is to be applied, by what is asked for and what was seen of it last.
    pub(super) fn needs(
        &self,
        namespace: &str,
        object: &ObjectName,
        asked: u64,
        live: Option<&Stamp>,
    ) -> bool {
        let all = self.all();
        let Some(applied) = all.get(&(namespace.to_owned(), object.clone())) else { return true };
        if applied.asked != asked {
            return true;
        }
        match live {
            None => applied.at.elapsed() > LAG,
            // What was seen is older than what we did.
            Some(live) if live.is_before(&applied.stamp.version) => false,
            Some(live) => live.digest != applied.stamp.digest || live.uid != applied.stamp.uid,
        }
    }

    pub(super) fn applied(&self, namespace: &str, object: ObjectName, asked: u64, stamp: Stamp) {
        let applied = Applied { asked, stamp, at: Instant::now() };
        self.all().insert((namespace.to_owned(), object), applied);
    }

    pub(super) fn made(&self, namespace: &str, object: &ObjectName) {
        self.applied(namespace, object.clone(), 0, Stamp::default());
    }

    /// Whether an object that is made once was made so recently that its event may be on the way.
    pub(super) fn was_just_made(&self, namespace: &str, object: &ObjectName) -> bool {
        let all = self.all();
        all.get(&(namespace.to_owned(), object.clone())).is_some_and(|made| made.at.elapsed() <= LAG)
    }

    /// An object is gone.
    pub fn forget(&self, namespace: &str, object: &ObjectName) {
        self.all().remove(&(namespace.to_owned(), object.clone()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, ObjectName), Applied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lakehouse_plan::cluster::Kind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_applied_is_applied_again_only_when_it_or_the_wish_has_changed() {
        let memory = Memory::default();
        let object = ObjectName::new(Kind::Service, "lakehouse");
        let needs = |asked, live: Option<&Stamp>| memory.needs("ns", &object, asked, live);
        assert!(needs(1, None), "it was never applied");
        assert!(needs(1, Some(&stamp("5", 7))), "by this process");

        memory.applied("ns", object.clone(), 1, stamp("6", 8));
        assert!(!needs(1, None), "its event is on the way");
        assert!(!needs(1, Some(&stamp("5", 7))), "what was seen is older than what was applied");
        assert!(!needs(1, Some(&stamp("6", 8))));
        assert!(!needs(1, Some(&stamp("9", 8))), "a status has changed");
        assert!(needs(1, Some(&stamp("9", 9))), "somebody edited it");
        assert!(needs(2, Some(&stamp("6", 8))), "something else is asked for");

        tokio::time::advance(LAG + Duration::from_secs(1)).await;
        assert!(needs(1, None), "it never came");
        memory.forget("ns", &object);
        assert!(needs(1, Some(&stamp("6", 8))));
    }

    fn stamp(version: &str, digest: u64) -> Stamp {
        Stamp { uid: "u".to_owned(), version: version.to_owned(), digest }
    }
}
