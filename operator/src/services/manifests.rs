//! What the catalogue last said of each dataset, and what was known when it did.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lakehouse_contract::DatasetManifest;

use super::Error;

/// What tells that a manifest may have changed: as long as it is the same, so is the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The versions that query pods see.
    pub served: Vec<u64>,
    /// The Jobs that have ended.
    pub ended: Vec<String>,
    /// The state of the Secret that opens the bucket and may name another one.
    pub store: Option<String>,
    /// The uids of the gateway's pods that are ready: another one may look into another bucket.
    pub gateway: Vec<String>,
}

/// What the catalogue says of a dataset.
#[derive(Clone, Debug)]
pub enum Said {
    /// There is no version.
    Nothing,
    /// This is current.
    Current(Arc<DatasetManifest>),
}

/// What is known of what the catalogue says.
#[derive(Debug)]
pub enum Known {
    /// This is it.
    Yes(Said),
    /// It cannot be asked; what it said last, where it said something.
    No(Error, Option<Said>),
}

#[derive(Debug, Default)]
pub(super) struct Manifests(Mutex<HashMap<(String, String), Entry>>);

#[derive(Debug)]
struct Entry {
    evidence: Evidence,
    said: Said,
}

impl Manifests {
    /// The manifest, where nothing tells that it has changed.
    pub(super) fn known(&self, namespace: &str, dataset: &str, evidence: &Evidence) -> Option<Said> {
        let all = self.all();
        let entry = all.get(&key(namespace, dataset)).filter(|entry| entry.evidence == *evidence)?;
        Some(entry.said.clone())
    }

    /// What was known last, of whatever time.
    pub(super) fn last(&self, namespace: &str, dataset: &str) -> Option<Said> {
        self.all().get(&key(namespace, dataset)).map(|entry| entry.said.clone())
    }

    pub(super) fn put(&self, namespace: &str, dataset: &str, evidence: Evidence, said: Said) {
        self.all().insert(key(namespace, dataset), Entry { evidence, said });
    }

    /// We have changed it ourselves.
    pub(super) fn replace(&self, namespace: &str, dataset: &str, manifest: DatasetManifest) {
        if let Some(entry) = self.all().get_mut(&key(namespace, dataset)) {
            entry.said = Said::Current(Arc::new(manifest));
        }
    }

    pub(super) fn forget(&self, namespace: &str, dataset: &str) {
        self.all().remove(&key(namespace, dataset));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(namespace: &str, dataset: &str) -> (String, String) {
    (namespace.to_owned(), dataset.to_owned())
}
