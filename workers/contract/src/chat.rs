//! Language models by name: the native bodies of chatd.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{problem::ErrorDetail, provider::ProviderKind};

/// `POST /chat`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// A model's name as the routes know it, or a tier.
    #[serde(default)]
    pub model: String,
    /// Each `{role, content}` as OpenAI writes them; `images` may hold base64, as Ollama has it.
    #[serde(default)]
    pub messages: Vec<Value>,
    /// How freely it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The most tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// `"json"`, or a JSON schema that the answer has to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// Whether a model that can think does so first, or how much: `true`, `false`, `"low"`, `"medium"`, `"high"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Value>,
    /// An answer in pieces: lines of [`ChatPiece`], the last one a [`ChatAnswer`] or an error.
    #[serde(default)]
    pub stream: bool,
    /// Functions that the model may call, as OpenAI writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// How long Ollama keeps the model in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// Ollama's own settings of a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
}

/// The answer to a chat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatAnswer {
    /// The model as its provider knows it.
    pub model: String,
    /// Who answered: not always the first that was asked.
    pub provider: String,
    /// The text. Empty at the end of an answer in pieces.
    pub content: String,
    /// What it thought before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// The functions it wants called, as OpenAI writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Value>,
    /// Tokens of the messages.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    pub finish_reason: String,
    /// From the request to the end of the answer.
    pub latency_ms: u64,
}

/// A line of an answer in pieces. The last one has `done` or `error`; a stream without either is not whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatPiece {
    /// More of the text.
    Content(String),
    /// More of what it thinks.
    Thinking(String),
    /// Functions it wants called, each whole.
    ToolCalls(Vec<Value>),
    /// The end.
    Done(ChatAnswer),
    /// The end that nobody wanted.
    Error(ErrorDetail),
}

/// `GET /chat/providers`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderList {
    /// In the order of precedence.
    pub providers: Vec<ProviderInfo>,
}

/// What is known of a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// Its name.
    pub name: String,
    /// Its protocol.
    #[serde(rename = "type")]
    pub kind: ProviderKind,
    /// Which state of the file it has: [`Provider::digest`](crate::provider::Provider::digest).
    #[serde(default)]
    pub digest: String,
    /// Where it is.
    pub endpoint: String,
    /// Whether names that nobody claims go there.
    pub default: bool,
    /// Names that start so go there.
    pub prefixes: Vec<String>,
    /// Names that end so go there.
    pub suffixes: Vec<String>,
    /// The models that can be asked for, as the provider knows them.
    pub models: Vec<String>,
    /// Names for its models.
    pub tiers: BTreeMap<String, String>,
    /// Its models that the local hot path may use.
    pub weak_models: Vec<String>,
    /// Who is asked instead.
    pub fallback: Vec<String>,
    /// Whether it answers, as far as is known.
    pub healthy: bool,
    /// Requests that it works on.
    pub in_flight: u64,
    /// Routes that it claims and an earlier provider has, each as a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// What went wrong when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it answered when it was last looked at; nothing before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// A look at a provider: is its key there, does it answer, what does it list?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// When it ended.
    pub at: Timestamp,
    /// How long the provider took to answer. Absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// The first thing that is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ProbeFailure>,
}

/// What is in the way of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// Where it is.
    pub stage: ProbeStage,
    /// One sentence, with the upstream's own words.
    pub message: String,
}

/// The steps of a probe, in their order. Those before the one that failed went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeStage {
    /// The key's file is not there, or holds none.
    Key,
    /// The provider cannot be reached, or does not work.
    Reach,
    /// It answers, but does not accept the key.
    Accept,
    /// It answers, but its models cannot be read from that.
    Models,
}
