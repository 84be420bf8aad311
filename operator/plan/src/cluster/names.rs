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
/// Deployment, Service and `PodDisruptionBudget` of the pods that serve indexes which no resource declares.
pub const VECTORS: &str = "lakehouse-vectors";
/// Deployment, Service and `PodDisruptionBudget` of the pods that turn text into vectors.
pub const EMBED: &str = "lakehouse-embed";
/// The ConfigMap that tells these pods of the `ChatProviders`.
pub const PROVIDERS: &str = "lakehouse-providers";
/// Deployment, Service and `PodDisruptionBudget` of the pods that language models are asked through, and the ConfigMap that tells
/// them of the `ChatProviders`.
pub const CHAT: &str = "lakehouse-chat";
/// The entry of the token Secret that the operator makes.
pub const TOKEN_KEY: &str = "token";

/// The Service in front of all pods of an index, and their Deployment where it has one shard.
pub fn vectors(index: &str) -> String {
    format!("{}-vectors", short(index))
}

/// Deployment of the pods that serve one of so many shards of an index, and their Service where there are more. The pods of another
/// number of shards have other names: while they change, neither asks the other.
pub(super) fn vectors_of_shard(index: &str, shard: u32, shards: u32) -> String {
    let all = vectors(index);
    if shards == 1 { all } else { format!("{all}-{}", shard_of(shard, shards)) }
}

/// A shard as a label says it.
pub(super) fn shard_of(shard: u32, shards: u32) -> String {
    format!("{shard}of{shards}")
}

/// Where searches of an index are answered.
pub fn index_endpoint(namespace: &str, index: &str) -> String {
    format!("{}/v1/vectors/index/{index}", endpoint(namespace))
}

/// Where pods of the namespace have texts embedded.
pub(super) fn embedd() -> String {
    format!("http://{EMBED}:{}", Role::Embedd.port())
}

/// Where the requests of a namespace are answered.
pub fn endpoint(namespace: &str) -> String {
    format!("http://{GATEWAY}.{namespace}.svc:{}", Role::Gateway.port())
}
