//! The resources that this process runs, as an API server would show them.
//!
//! The controllers write them; clients read them under the paths and in the shapes of the Kubernetes API, so that
//! `lakehouse get` and a script written for a cluster read the same JSON.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use lakehouse_crds::{
    API_VERSION, ChatProvider, ChatProviderStatus, Dataset, DatasetStatus, VectorIndex, VectorIndexStatus,
};
use lakehouse_http::Problem;
use lakehouse_plan::DEFAULT_NAMESPACE;
use serde_json::{Value, json};

/// Cheap to clone; clones are the same resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    datasets: BTreeMap<String, Dataset>,
    indexes: BTreeMap<String, VectorIndex>,
    providers: BTreeMap<String, ChatProvider>,
    /// Counts every change, as an API server's resourceVersion does.
    changes: u64,
}

/// The plurals that are served, with the kind of their lists.
const PLURALS: [(&str, &str); 3] = [
    ("datasets", "DatasetList"),
    ("vectorindexes", "VectorIndexList"),
    ("chatproviders", "ChatProviderList"),
];

impl Resources {
    /// Takes a Dataset in place of the one of its name.
    pub(crate) fn put(&self, dataset: Dataset) {
        let mut known = self.write();
        known.changes += 1;
        let version = known.changes.to_string();
        let mut dataset = dataset;
        dataset.metadata.resource_version = Some(version);
        known.datasets.insert(dataset.metadata.name.clone().unwrap_or_default(), dataset);
    }

    /// Forgets a Dataset.
    pub(crate) fn remove(&self, name: &str) {
        let mut known = self.write();
        known.changes += 1;
        known.datasets.remove(name);
    }

    /// The status of a Dataset as it was last written.
    pub(crate) fn status(&self, name: &str) -> Option<DatasetStatus> {
        self.read().datasets.get(name)?.status.clone()
    }

    /// All Datasets, by name.
    pub(crate) fn datasets(&self) -> Vec<Dataset> {
        self.read().datasets.values().cloned().collect()
    }

    /// The Dataset of this name.
    pub(crate) fn dataset(&self, name: &str) -> Option<Dataset> {
        self.read().datasets.get(name).cloned()
    }

    /// Takes a VectorIndex in place of the one of its name.
    pub(crate) fn put_index(&self, mut index: VectorIndex) {
        let mut known = self.write();
        known.changes += 1;
        index.metadata.resource_version = Some(known.changes.to_string());
        known.indexes.insert(index.metadata.name.clone().unwrap_or_default(), index);
    }

    /// Forgets a VectorIndex.
    pub(crate) fn remove_index(&self, name: &str) {
        let mut known = self.write();
        known.changes += 1;
        known.indexes.remove(name);
    }

    /// The status of a VectorIndex as it was last written.
    pub(crate) fn index_status(&self, name: &str) -> Option<VectorIndexStatus> {
        self.read().indexes.get(name)?.status.clone()
    }

    /// Takes a ChatProvider in place of the one of its name, unless it is the same.
    pub(crate) fn put_provider(&self, mut provider: ChatProvider) {
        let name = provider.metadata.name.clone().unwrap_or_default();
        let mut known = self.write();
        if let Some(before) = known.providers.get(&name) {
            provider.metadata.resource_version.clone_from(&before.metadata.resource_version);
            if *before == provider {
                return;
            }
        }
        known.changes += 1;
        provider.metadata.resource_version = Some(known.changes.to_string());
        known.providers.insert(name, provider);
    }

    /// Forgets a ChatProvider.
    pub(crate) fn remove_provider(&self, name: &str) {
        let mut known = self.write();
        known.changes += 1;
        known.providers.remove(name);
    }

    /// The status of a ChatProvider as it was last written.
    pub(crate) fn provider_status(&self, name: &str) -> Option<ChatProviderStatus> {
        self.read().providers.get(name)?.status.clone()
    }

    /// The routes under which the resources are read.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/apis/lakehouse.dev/v1alpha1/{plural}", get(list))
            .route("/apis/lakehouse.dev/v1alpha1/namespaces/{namespace}/{plural}", get(list_in))
            .route("/apis/lakehouse.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}", get(one))
            .with_state(self)
    }

    fn list(&self, plural: &str) -> Result<Value, Problem> {
        let (_, kind) = PLURALS.iter().find(|(known, _)| *known == plural).ok_or_else(|| unknown(plural))?;
        let known = self.read();
        let items: Vec<Value> = match plural {
            "datasets" => known.datasets.values().map(|dataset| json!(dataset)).collect(),
            "vectorindexes" => known.indexes.values().map(|index| json!(index)).collect(),
            _ => known.providers.values().map(|provider| json!(provider)).collect(),
        };
        let metadata = json!({ "resourceVersion": known.changes.to_string() });
        Ok(json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "items": items }))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        // Each method leaves the state whole, so a panic elsewhere cannot have hurt it.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn list(
    State(resources): State<Resources>,
    Path(plural): Path<String>,
) -> Result<Json<Value>, Problem> {
    resources.list(&plural).map(Json)
}

async fn list_in(
    State(resources): State<Resources>,
    Path((namespace, plural)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let mut list = resources.list(&plural)?;
    if namespace != DEFAULT_NAMESPACE {
        list["items"] = json!([]);
    }
    Ok(Json(list))
}

async fn one(
    State(resources): State<Resources>,
    Path((namespace, plural, name)): Path<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let list = resources.list(&plural)?;
    let found = list["items"]
        .as_array()
        .and_then(|items| items.iter().find(|item| item["metadata"]["name"] == name.as_str()))
        .filter(|_| namespace == DEFAULT_NAMESPACE);
    match found {
        Some(item) => Ok(Json(item.clone())),
        None => Err(Problem::not_found(format!("{plural}.lakehouse.dev \"{name}\" not found"))),
    }
}

fn unknown(plural: &str) -> Problem {
    let plurals = PLURALS.map(|(plural, _)| plural).join(", ");
    Problem::not_found(format!("`{plural}` is no resource here; the resources are {plurals}"))
}
