//! How everything in a namespace is called.

use lakehouse_contract::Role;
pub use lakehouse_contract::names::short;
pub(super) use lakehouse_contract::names::{digest, full_digest};

/// The owner of the fields that the operator applies.
pub const FIELD_MANAGER: &str = "lakehouse-operator";
/// Holds a Dataset back until its rows are removed.
pub const FINALIZER: &str = "lakehouse.dev/purge";

/// The ConfigMap with the environment of all pods.
pub const SETTINGS: &str = "lakehouse-settings";
/// The `ServiceAccount` of all pods; it may do nothing.
pub const SERVICE_ACCOUNT: &str = "lakehouse";
/// Deployment, Service and `PodDisruptionBudget` of the gateway.
pub const GATEWAY: &str = "lakehouse";
/// Deployment, Service and `PodDisruptionBudget` of the query pods.
pub const QUERY: &str = "lakehouse-query";
/// The headless Service that names every query pod.
pub const QUERY_PODS: &str = "lakehouse-query-pods";
/// The entry of the token Secret that the operator makes.
pub const TOKEN_KEY: &str = "token";

/// Where SQL of a namespace is answered.
pub fn endpoint(namespace: &str) -> String {
    format!("http://{GATEWAY}.{namespace}.svc:{}", Role::Gateway.port())
}
