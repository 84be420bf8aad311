//! What the resources of a namespace share: settings, a service account, the gateway, the query pods, the pods that serve and make
//! vectors, and those that ask language models.
//!
//! Receives who needs them and what of the users' Secrets is known by name; hands on the objects in the order of applying, and what of
//! an earlier plan is to be removed. Shared objects are owned by every resource that needs them, so that Kubernetes collects them when
//! the last one goes, even when no operator runs any more.

mod providers;
mod servers;

use std::sync::Arc;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
};

use super::{Child, Kind, ObjectName, Owner, ResourceKind, Settings, meta, names, pod};
use crate::ReadyProvider;

pub use providers::{Notice, told};

/// What is known of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    /// Its name.
    pub namespace: &'a str,
    /// The resources that need the gateway and are not being deleted, in any order.
    pub owners: &'a [Owner],
    /// Those among them that have texts embedded, or offer to embed.
    pub embedding: &'a [Owner],
    /// The `ChatProviders` that are sound; the older one first, which is the order of precedence.
    pub providers: &'a [ReadyProvider],
    /// The names of those that an index names.
    pub named: &'a [String],
    /// The Secrets with their keys that are there, each with its `uid/resourceVersion`.
    pub secrets: &'a [(String, String)],
    /// The lists of `ChatProviders` that are there, by their ConfigMap's name, each with its `uid/resourceVersion`.
    pub lists: &'a [(String, String)],
    /// The pods that follow such a list.
    pub pods: &'a [Arc<Pod>],
    /// Whether a resource that is being deleted still needs the pods' settings for its purge.
    pub purging: bool,
    /// `uid/resourceVersion` of the store's Secret; absent when there is none.
    pub store_secret: Option<&'a str>,
    /// Whether the token's Secret is there.
    pub has_token_secret: bool,
    /// The shared objects that are there: those with the operator's label and without a resource's. Secrets are not among them.
    pub existing: &'a [ObjectName],
}

impl Observed<'_> {
    fn owners_of(&self, kind: ResourceKind) -> Vec<Owner> {
        self.owners.iter().filter(|owner| owner.kind == kind).cloned().collect()
    }

    fn has(&self, kind: ResourceKind) -> bool {
        self.owners.iter().any(|owner| owner.kind == kind)
    }
}

/// What a namespace is to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The token's Secret is missing: first of all, create (never change) [`token_secret`] with a random token.
    pub make_token: bool,
    /// In the order of applying.
    pub children: Vec<Child>,
    /// What is there and no longer needed.
    pub delete: Vec<ObjectName>,
    /// Pods whose files have changed.
    pub notices: Vec<Notice>,
}

/// Plans what the resources of a namespace share.
///
/// They are planned whether the store's Secret is there or not: pods that need it wait for it, and those that run go on.
pub fn plan(observed: &Observed<'_>, settings: &Settings) -> Plan {
    let serving = !observed.owners.is_empty();
    let needed = serving || observed.purging;
    let mut children = Vec::new();
    if needed {
        children.extend(for_all_pods(observed, settings));
    }
    if serving {
        children.extend(servers::gateway(observed, settings));
    }
    if observed.has(ResourceKind::Dataset) {
        children.extend(servers::query(observed, settings));
    }
    if observed.has(ResourceKind::VectorIndex) {
        children.extend(servers::vectors(observed, settings));
    }
    if !observed.embedding.is_empty() {
        children.extend(servers::embed(observed, settings));
    }
    if observed.has(ResourceKind::ChatProvider) {
        children.extend(servers::chat(observed, settings));
    }
    let planned: Vec<ObjectName> = children.iter().map(Child::object_name).collect();
    // A user's token outlives the resources; the operator's own does too, since clients hold it.
    let delete = observed
        .existing
        .iter()
        .filter(|object| object.kind != Kind::Secret && !planned.contains(object))
        .cloned()
        .collect();
    let make_token = needed && !observed.has_token_secret;
    Plan { make_token, children, delete, notices: providers::notices(observed) }
}

/// The token's Secret, for a namespace whose user has made none. It is labelled, but nobody owns it.
pub fn token_secret(namespace: &str, settings: &Settings, token: &str) -> Child {
    let secret = Secret {
        metadata: meta::shared(namespace, &settings.token_secret, None, &[]),
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()))].into()),
        ..Secret::default()
    };
    Child::of(Kind::Secret, &secret)
}

fn for_all_pods(observed: &Observed<'_>, settings: &Settings) -> [Child; 2] {
    let Observed { namespace, owners, .. } = observed;
    let settings = ConfigMap {
        metadata: meta::shared(namespace, names::SETTINGS, None, owners),
        data: Some(pod::environment(settings, namespace)),
        ..ConfigMap::default()
    };
    let account = ServiceAccount {
        metadata: meta::shared(namespace, names::SERVICE_ACCOUNT, None, owners),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    [Child::of(Kind::ConfigMap, &settings), Child::of(Kind::ServiceAccount, &account)]
}
