//! What the Datasets of a namespace share: settings, a service account, the gateway, the query pods.
//!
//! Receives who needs them and what of the users' Secrets is known by name; hands on the objects in the order of applying, and what of
//! an earlier plan is to be removed.

use super::{Child, ObjectName, Owner, Settings};

/// What is known of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its name.
    pub namespace: &'a str,
    /// The Datasets that are not being deleted, in any order.
    pub owners: &'a [Owner],
    /// Whether a Dataset that is being deleted still needs the pods' settings for its purge.
    pub purging: bool,
    /// `uid/resourceVersion` of the store's Secret; absent when there is none.
    pub store_secret: Option<&'a str>,
    /// Whether the token's Secret is there.
    pub has_token_secret: bool,
    /// The shared objects that are there: those with the operator's label and without a Dataset's. Secrets are not among them.
    pub existing: &'a [ObjectName],
}

/// What a namespace is to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order of applying.
    pub children: Vec<Child>,
    /// The token's Secret is missing: create (never change) [`token_secret`] with a random token, before the children.
    pub make_token: bool,
    /// What is there and no longer needed.
    pub delete: Vec<ObjectName>,
}

/// Plans what the Datasets of a namespace share.
pub fn plan(observed: &Observed<'_>, settings: &Settings) -> Plan {
    let _ = (observed, settings);
    Plan::default()
}

/// The token's Secret, for a namespace whose user has made none. It is labelled, but nobody owns it.
pub fn token_secret(namespace: &str, settings: &Settings, token: &str) -> Child {
    let _ = token;
    let metadata = super::meta::shared(namespace, &settings.token_secret, None, &[]);
    Child::of(super::Kind::Secret, &k8s_openapi::api::core::v1::Secret { metadata, ..Default::default() })
}
