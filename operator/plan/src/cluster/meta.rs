//! Labels, annotations and owners of what the operator keeps.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use lakehouse_crds::API_VERSION;

/// The label that every object of Lakehouse carries.
pub const NAME_LABEL: (&str, &str) = ("app.kubernetes.io/name", "lakehouse");
/// The label by which the operator finds what it keeps.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "lakehouse-operator");
/// Says what an object is for: a [`Component`].
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Says which Dataset an object is of, by its short name.
pub const DATASET_LABEL: &str = "lakehouse.dev/dataset";

/// On a Job: what decides its output.
pub(super) const INPUTS: &str = "lakehouse.dev/inputs";
/// On a Job: how often the same was tried, from 1.
pub(super) const ATTEMPT: &str = "lakehouse.dev/attempt";
/// On a Job: how many Jobs its Dataset has had, with itself. It tells which one is the latest.
pub(super) const RUN: &str = "lakehouse.dev/run";
/// On a Job: the time of the schedule that asked for it.
pub(super) const SLOT: &str = "lakehouse.dev/slot";
/// On a Job: what its pod is like, where that may decide whether it ends well.
pub(super) const POD: &str = "lakehouse.dev/pod";
/// On a Job: its Dataset's `metadata.uid`.
pub(super) const UID: &str = "lakehouse.dev/uid";
/// On a pod: the settings that it started with.
pub(super) const SETTINGS: &str = "lakehouse.dev/settings";
/// On a pod: the store's Secret that it started with.
pub(super) const STORE_SECRET: &str = "lakehouse.dev/store-secret";

/// Whether a label or an annotation is the operator's to set.
pub(super) fn is_ours(key: &str) -> bool {
    [NAME_LABEL.0, MANAGED_BY_LABEL.0, COMPONENT_LABEL].contains(&key) || key.starts_with("lakehouse.dev/")
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The public edge with the stateless roles.
    Gateway,
    /// SQL.
    Query,
    /// Reads a source.
    Ingest,
    /// Removes a Dataset's rows.
    Purge,
}

impl Component {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Query => "query",
            Self::Ingest => "ingest",
            Self::Purge => "purge",
        }
    }
}

/// A Dataset that needs an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl Owner {
    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: "Dataset".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            block_owner_deletion: Some(false),
            controller: None,
        }
    }

    /// That of what belongs to this Dataset alone.
    fn controller_reference(&self) -> OwnerReference {
        OwnerReference { controller: Some(true), ..self.reference() }
    }
}

/// What tells the pods of a component from all others.
pub(super) fn selector(component: Component) -> BTreeMap<String, String> {
    [NAME_LABEL, (COMPONENT_LABEL, component.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The labels of what is of no Dataset alone.
pub(super) fn labels(component: Option<Component>) -> BTreeMap<String, String> {
    let mut labels = component.map(selector).unwrap_or_default();
    labels.extend([NAME_LABEL, MANAGED_BY_LABEL].map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// An object that all Datasets of a namespace share.
pub(super) fn shared(
    namespace: &str,
    name: &str,
    component: Option<Component>,
    owners: &[Owner],
) -> ObjectMeta {
    let mut owners: Vec<OwnerReference> = owners.iter().map(Owner::reference).collect();
    owners.sort_by(|a, b| a.uid.cmp(&b.uid));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(component)),
        owner_references: Some(owners).filter(|owners| !owners.is_empty()),
        ..ObjectMeta::default()
    }
}

/// An object of one Dataset. Without an owner, nobody but the operator removes it.
pub(super) fn own(
    namespace: &str,
    name: &str,
    component: Component,
    dataset: &str,
    owner: Option<&Owner>,
) -> ObjectMeta {
    let mut labels = labels(Some(component));
    labels.insert(DATASET_LABEL.to_owned(), dataset.to_owned());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: owner.map(|owner| vec![owner.controller_reference()]),
        ..ObjectMeta::default()
    }
}
