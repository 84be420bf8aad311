//! The upstreams of language and embedding models, as the operator hands them to embedd and chatd.
//!
//! A file in a ConfigMap; keys lie in files of their own, mounted from Secrets, and are read anew whenever they change.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::names::digest;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Providers {
    /// Where two claim the same name, the first has it.
    pub providers: Vec<Provider>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    /// The ChatProvider's name.
    pub name: String,
    /// Its protocol.
    #[serde(rename = "type")]
    pub kind: ProviderKind,
    /// Its address; the kind's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The file with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Its models that turn text into vectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<String>,
    /// Which models' names come to it.
    #[serde(default, skip_serializing_if = "Route::is_default")]
    pub route: Route,
    /// The models that may be asked for; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Names for its models.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, String>,
    /// Its models that the local hot path may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weak_models: Vec<String>,
    /// Names of the providers to ask instead on 429, 5xx and timeouts, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// How much may be asked of it.
    #[serde(default)]
    pub limits: Limits,
}

impl Provider {
    /// Changes whenever anything of it does: by this a service tells which state of the file it has read.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("plain data with text keys always has a JSON form");
        digest(&[&text])
    }
}

/// Which models' names come to a provider. Where neither a prefix nor a suffix is set, those of its kind are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Route {
    /// Names that start so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Names that end so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suffixes: Vec<String>,
    /// Whether the prefix is taken off before the upstream sees the name.
    pub strip_prefix: bool,
    /// Whether names that nobody claims come here.
    pub default: bool,
}

impl Default for Route {
    fn default() -> Self {
        Self { prefixes: Vec::new(), suffixes: Vec::new(), strip_prefix: true, default: false }
    }
}

impl Route {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A provider's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderKind {
    /// An Ollama server of one's own.
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

/// How much may be asked of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Milliseconds to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// Milliseconds until the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// Milliseconds between two tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Milliseconds for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}
