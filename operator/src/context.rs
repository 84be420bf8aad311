//! What every reconcile works with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};
use lakehouse_plan::{cluster::Settings, status::Failure};

use crate::{
    apply::Applier,
    observe::Reader,
    report::Reporter,
    services::Services,
    world::{Wake, World},
};

/// What every reconcile works with. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Context {
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// What is known, and who is to be woken.
    pub wake: Wake,
    /// What no watch brings.
    pub reader: Reader,
    /// The pods' side.
    pub services: Services,
    /// The way to change things.
    pub applier: Applier,
    /// The way to tell things of Datasets.
    pub datasets: Reporter<Dataset>,
    /// The way to tell things of `VectorIndexes`.
    pub indexes: Reporter<VectorIndex>,
    /// The way to tell things of `ChatProviders`.
    pub providers: Reporter<ChatProvider>,
    /// Why what a namespace's resources share cannot be made.
    pub refusals: Refusals,
}

impl Context {
    /// Lets go of what is only remembered until it is seen.
    pub fn settle(&self) {
        let World { datasets, indexes, providers, .. } = &self.wake.world;
        self.datasets.settle(|namespace, name| Some(datasets.get(namespace, name)?.stamp.clone()));
        self.indexes.settle(|namespace, name| Some(indexes.get(namespace, name)?.stamp.clone()));
        self.providers.settle(|namespace, name| Some(providers.get(namespace, name)?.stamp.clone()));
    }
}

/// Why the shared objects of namespaces cannot be made. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<HashMap<String, Failure>>>);

impl Refusals {
    /// Why those of this namespace cannot be made.
    pub fn of(&self, namespace: &str) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// Notes a refusal, or that there is none any more. Whether that is news.
    pub fn set(&self, namespace: &str, failure: Option<Failure>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = all.get(namespace) != failure.as_ref();
        match failure {
            Some(failure) => all.insert(namespace.to_owned(), failure),
            None => all.remove(namespace),
        };
        news
    }
}
