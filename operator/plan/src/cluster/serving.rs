//! Whether SQL is answered from a Dataset's published version, by what the pods are and say.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use lakehouse_contract::DatasetManifest;

use crate::status::ServedFacts;

/// What a query pod says of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It was asked and did not answer; the error.
    Unreachable(String),
    /// It answers queries, but has no such dataset yet.
    Absent,
    /// Queries see this version.
    Version(u64),
    /// It cannot read the version; the error.
    Damaged(String),
}

/// What is observed of the pods that answer SQL.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The Deployments of gateway and query pods, as far as they are there.
    pub deployments: &'a [Arc<Deployment>],
    /// The gateway's pods.
    pub gateway: &'a [Arc<Pod>],
    /// The query pods, and what each says of the dataset.
    pub query: &'a [(Arc<Pod>, View)],
    /// The published version.
    pub manifest: Option<&'a DatasetManifest>,
}

/// Whether a pod takes requests: it is ready and not about to end.
pub fn is_ready(pod: &Pod) -> bool {
    let _ = pod;
    false
}

/// Whether the published version is served, and why not.
pub fn facts(observed: &Observed<'_>) -> ServedFacts {
    let _ = observed;
    ServedFacts::NotYet
}
