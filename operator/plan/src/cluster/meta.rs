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
/// Says which shard of a VectorIndex a pod serves, and of how many.
pub(super) const SHARD_LABEL: &str = "lakehouse.dev/shard";
/// Says how many shards there are.
pub(super) const SHARDS_LABEL: &str = "lakehouse.dev/shards";

/// On a pod: it serves indexes that no resource declares.
pub(super) const SHARED_LABEL: &str = "lakehouse.dev/shared";

/// On a Job: what decides its output.
pub(super) const INPUTS: &str = "lakehouse.dev/inputs";
/// On a Job: how often the same was tried, from 1.
pub(super) const ATTEMPT: &str = "lakehouse.dev/attempt";
/// On a Job: how many Jobs its resource has had, with itself. It tells which one is the latest.
pub(super) const RUN: &str = "lakehouse.dev/run";
/// On a Job: the time of the schedule that asked for it.
pub(super) const SLOT: &str = "lakehouse.dev/slot";
/// On a Job: what its pod is like, where that may decide whether it ends well.
pub(super) const POD: &str = "lakehouse.dev/pod";
/// On a Job: its resource's `metadata.uid`.
pub(super) const UID: &str = "lakehouse.dev/uid";
/// On a pod: the settings that it started with.
pub(super) const SETTINGS: &str = "lakehouse.dev/settings";
/// On a pod: the state of the `ChatProviders`' list and keys that its node was told of.
pub const PROVIDERS: &str = "lakehouse.dev/providers";
/// On a pod: the store's Secret that it started with.
pub(super) const STORE_SECRET: &str = "lakehouse.dev/store-secret";

/// Whether a label or an annotation is the operator's to set.
pub(super) fn is_ours(key: &str) -> bool {
    [NAME_LABEL.0, MANAGED_BY_LABEL.0, COMPONENT_LABEL].contains(&key) || key.starts_with("lakehouse.dev/")
}

/// The kinds of resources that objects are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A source of rows.
    Dataset,
    /// Vectors.
    VectorIndex,
    /// A way to models.
    ChatProvider,
}

impl ResourceKind {
    /// The name in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "Dataset",
            Self::VectorIndex => "VectorIndex",
            Self::ChatProvider => "ChatProvider",
        }
    }

    /// The label of what belongs to one resource of this kind alone; the value is the resource's short name. A ChatProvider has
    /// nothing of its own.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::Dataset => Some("lakehouse.dev/dataset"),
            Self::VectorIndex => Some("lakehouse.dev/vector-index"),
            Self::ChatProvider => None,
        }
    }
}

/// The resource that an object belongs to alone, by its labels: kind and short name.
pub fn owner_of(labels: &BTreeMap<String, String>) -> Option<(ResourceKind, &str)> {
    [ResourceKind::Dataset, ResourceKind::VectorIndex]
        .into_iter()
        .find_map(|kind| Some((kind, labels.get(kind.label()?)?.as_str())))
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The public edge with the stateless roles.
    Gateway,
    /// SQL.
    Query,
    /// Nearness.
    Vectors,
    /// Text to vectors.
    Embed,
    /// Language models.
    Chat,
    /// Reads a source.
    Ingest,
    /// Builds an index.
    Build,
    /// Removes a resource's data.
    Purge,
}

impl Component {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Query => "query",
            Self::Vectors => "vectors",
            Self::Embed => "embed",
            Self::Chat => "chat",
            Self::Ingest => "ingest",
            Self::Build => "build",
            Self::Purge => "purge",
        }
    }
}

/// A resource that needs an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `kind`.
    pub kind: ResourceKind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl Owner {
    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: self.kind.as_str().to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            block_owner_deletion: Some(false),
            controller: None,
        }
    }

    /// That of what belongs to this resource alone.
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

/// The labels of what is of no resource alone.
pub(super) fn labels(component: Option<Component>) -> BTreeMap<String, String> {
    let mut labels = component.map(selector).unwrap_or_default();
    labels.extend([NAME_LABEL, MANAGED_BY_LABEL].map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// An object that resources of a namespace share.
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

/// An object of one resource. Without an owner, nobody but the operator removes it.
pub(super) fn own(
    namespace: &str,
    name: &str,
    component: Component,
    label: Option<(String, String)>,
    owner: Option<&Owner>,
) -> ObjectMeta {
    let mut labels = labels(Some(component));
    labels.extend(label);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: owner.map(|owner| vec![owner.controller_reference()]),
        ..ObjectMeta::default()
    }
}
