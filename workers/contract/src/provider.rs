//! The upstreams of language and embedding models, as the operator hands them to embedd and chatd.
//!
//! A file in a ConfigMap; keys lie in files of their own, mounted from Secrets, and are read anew whenever they change.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// How much may be asked of it.
    #[serde(default)]
    pub limits: Limits,
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
