//! The doors that a request comes in through: what an answer looks like at each, in pieces, whole, and when it fails.

pub(crate) mod anthropic;
pub(crate) mod native;
pub(crate) mod ollama;
pub(crate) mod openai;

use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use lakehouse_http::Problem;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    ChatError,
    ask::{Ask, Door},
    event::{Collected, Event, ToolCall},
};

/// The SDKs of OpenAI and Anthropic heed it before they look at the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What an answer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    pub(crate) provider: Arc<str>,
    /// As the provider knows it.
    pub(crate) model: String,
    /// When the request came.
    pub(crate) asked: Instant,
}

/// Writes an answer in pieces.
#[derive(Debug)]
pub(crate) enum Writer {
    Native(native::Lines),
    OpenAi(openai::Chunks),
    Anthropic(anthropic::Blocks),
    Ollama(ollama::Lines),
}

impl Writer {
    pub(crate) fn new(door: Door, labels: Labels) -> Self {
        match door {
            Door::Native => Self::Native(native::Lines::new(labels)),
            Door::OpenAi { usage } => Self::OpenAi(openai::Chunks::new(&labels, usage)),
            Door::Anthropic => Self::Anthropic(anthropic::Blocks::new(&labels)),
            Door::Ollama => Self::Ollama(ollama::Lines::new(labels)),
        }
    }

    pub(crate) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match self {
            Self::Native(lines) => lines.write(event, out),
            Self::OpenAi(chunks) => chunks.write(event, out),
            Self::Anthropic(blocks) => blocks.write(event, out),
            Self::Ollama(lines) => lines.write(event, out),
        }
    }

    /// The answer is whole.
    pub(crate) fn end(&mut self, out: &mut BytesMut) {
        match self {
            Self::Native(lines) => lines.end(out),
            Self::OpenAi(chunks) => chunks.end(out),
            Self::Anthropic(blocks) => blocks.end(out),
            Self::Ollama(lines) => lines.end(out),
        }
    }
}

impl Ask {
    /// The last piece of an answer that broke off.
    pub(crate) fn failed(door: Door, error: ChatError, out: &mut BytesMut) {
        match door {
            Door::Native => native::failed(error, out),
            Door::OpenAi { .. } => openai::failed(error, out),
            Door::Anthropic => anthropic::failed(error, out),
            Door::Ollama => ollama::failed(error, out),
        }
    }

    /// A whole answer.
    pub(crate) fn whole(door: Door, labels: Labels, collected: Collected) -> Bytes {
        let mut out = BytesMut::new();
        match door {
            Door::Native => json(&native::answer(labels, collected), &mut out),
            Door::OpenAi { .. } => json(&openai::completion(&labels, &collected), &mut out),
            Door::Anthropic => json(&anthropic::whole(&labels, &collected), &mut out),
            Door::Ollama => json(&ollama::whole(&labels, &collected), &mut out),
        }
        out.freeze()
    }
}

impl Door {
    /// The media type of an answer in pieces.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Self::Native | Self::Ollama => "application/x-ndjson",
            Self::OpenAi { .. } | Self::Anthropic => "text/event-stream",
        }
    }
}

/// A call's arguments where an object is wanted. What a model wrote that is none stays the text that it is.
fn arguments(call: &ToolCall) -> Value {
    match call.arguments.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

/// What a door's error body has besides: who failed, with which status, at which field.
fn beside(problem: &Problem, error: &mut Value) {
    for name in ["provider", "upstream_status", "field"] {
        if let Some(detail) = problem.details.as_ref().and_then(|details| details.get(name)) {
            error[name] = detail.clone();
        }
    }
}

/// A problem with a door's own body.
fn rewritten(problem: Problem, body: &Value) -> Response {
    // 502 is for an upstream's failure, also one that no retry helps against; SDKs try again after a 502 unless they are told.
    let hopeless = matches!(problem.code, "provider_refused" | "provider_credentials");
    // The problem's own answer has the headers, and what the log needs.
    let mut response = problem.into_response();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    if hopeless {
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    *response.body_mut() = body.to_string().into();
    response
}

/// Appends a value as JSON.
fn json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value)
        .expect("texts, numbers and maps with text keys can be written");
}
