//! `ChatProvider`: a route to language models.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{DeletionPolicy, KeyRef},
    rules::{DURATION, HTTP_URL},
};

/// A route to the language models of one upstream.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lakehouse.dev",
    version = "v1alpha1",
    kind = "ChatProvider",
    plural = "chatproviders",
    singular = "chatprovider",
    shortname = "lhc",
    category = "lakehouse",
    namespaced,
    status = "ChatProviderStatus",
    derive = "PartialEq",
    doc = "A route to the language models of one upstream.",
    validation = (
        "!has(self.spec.fallback) || !self.spec.fallback.exists(name, name == self.metadata.name)",
        "`spec.fallback`: a provider cannot be its own fallback"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Models", type_ = "integer", json_path = ".status.modelCount"),
    printcolumn(name = "Latency", type_ = "integer", description = "Milliseconds", json_path = ".status.latencyMs"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Probed", type_ = "date", json_path = ".status.lastProbe", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "self.type == 'Ollama' || has(self.apiKeySecretRef)",
        "this type needs a key: set `apiKeySecretRef` to the Secret that holds it"
    ),
    validation = ("self.type != 'Ollama' || has(self.url)", "an Ollama server has no well-known address: set `url`")
)]
pub struct ChatProviderSpec {
    /// The upstream's protocol.
    #[serde(rename = "type")]
    pub provider_type: ProviderType,
    /// The upstream's address; the type's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = HTTP_URL)]
    pub url: Option<String>,
    /// The Secret's entry that holds the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeyRef>,
    /// Which model names come here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Route")]
    pub route: Option<Route>,
    /// The models that may be asked for; those that the upstream lists when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub models: Vec<String>,
    /// Names for models, such as `local_fast: qwen3.5:latest`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub tiers: BTreeMap<String, String>,
    /// Models that the local hot path may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub weak_models: Vec<String>,
    /// What it offers for embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Embeddings")]
    pub embeddings: Option<Embeddings>,
    /// Providers to ask instead on 429, 5xx and timeouts, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub fallback: Vec<String>,
    /// How much may be asked of it, and how long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Limits")]
    pub limits: Option<Limits>,
    /// Takes the provider out of every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// A provider keeps no data; there for the sake of one spec for all resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeletionPolicy")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// The upstream's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProviderType {
    /// An Ollama server of your own.
    Ollama,
    /// ollama.com.
    OllamaCloud,
    /// OpenAI, or a service with its protocol.
    OpenAI,
    /// openrouter.ai.
    OpenRouter,
    /// opencode.ai.
    OpenCode,
    /// Moonshot's Kimi.
    Kimi,
    /// Anthropic.
    Anthropic,
    /// Voyage: embeddings only.
    Voyage,
}

/// Which model names come here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Names that start so, such as `openrouter/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub prefixes: Vec<String>,
    /// Names that end so, such as `:cloud`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub suffixes: Vec<String>,
    /// Whether the prefix is taken off before the upstream sees the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<bool>,
    /// Whether names that no provider claims come here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
}

/// What a provider offers for embeddings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Embeddings {
    /// Its models that turn text into vectors.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub models: Vec<String>,
}

/// How much may be asked of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_concurrent: Option<u32>,
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u32>,
    /// How long each step of a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeouts")]
    pub timeouts: Option<Timeouts>,
}

/// How long each step of a request may take, such as `30s`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// To connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = DURATION)]
    pub connect: Option<String>,
    /// Until the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = DURATION)]
    pub first_token: Option<String>,
    /// Between two tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = DURATION)]
    pub idle: Option<String>,
    /// All of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = DURATION)]
    pub total: Option<String>,
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatProviderStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `SecretResolved`, `Reachable`, `ModelsDiscovered`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The models that can be asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub models: Vec<String>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_count: Option<u32>,
    /// Changes whenever the Secret with the API key does; the key cannot be told from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<String>,
    /// How long the upstream took to answer at `lastProbe`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// When the upstream was last looked at, as of this status: it is written when there is news, and at least every 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<Time>,
    /// The upstream's address as it is called: `spec.url`, or the type's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}
