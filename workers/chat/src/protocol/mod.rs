//! The providers' protocols: how a request is told to each, and how its answer, its list of models and its errors are read.
//!
//! ```text
//! a door ──► the same protocol: passed on ─────────────────────────────────► that door
//! any door ─► any protocol: translated ─► events ─► written in the way of ─► any door
//! ```

pub(crate) mod anthropic;
mod messages;
pub(crate) mod ollama;
pub(crate) mod openai;

use std::borrow::Cow;

use axum::http::HeaderValue;
use bytes::{Bytes, BytesMut};
use lakehouse_contract::provider::ProviderKind;
use serde_json::Value;

use crate::{
    ChatError,
    ask::{Ask, Door},
    door,
    event::{Event, Fault, Usage},
};

/// What is sent upstream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Below the provider's address.
    pub(crate) path: &'static str,
    pub(crate) body: Bytes,
    /// Whether the answer comes in pieces.
    pub(crate) stream: bool,
    /// What Anthropic's client tries out.
    pub(crate) beta: Option<HeaderValue>,
}

/// The families of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ollama,
    OpenAi,
    Anthropic,
}

impl Protocol {
    pub(crate) fn of(kind: ProviderKind) -> Self {
        match kind {
            ProviderKind::Ollama | ProviderKind::OllamaCloud => Self::Ollama,
            ProviderKind::Anthropic => Self::Anthropic,
            ProviderKind::OpenAI
            | ProviderKind::OpenRouter
            | ProviderKind::OpenCode
            | ProviderKind::Kimi
            | ProviderKind::Voyage => Self::OpenAi,
        }
    }

    /// Tells a request in this protocol.
    pub(crate) fn request(
        self,
        ask: &Ask,
        model: &str,
        kind: ProviderKind,
        own: bool,
    ) -> Result<Outgoing, ChatError> {
        let written = |body: Value| Bytes::from(body.to_string());
        let (path, body, stream, beta) = match (self, ask.door) {
            (Self::Anthropic, Door::Anthropic) => {
                ("/v1/messages", passed(ask, model)?, ask.stream, ask.beta.clone())
            }
            (Self::Ollama, Door::Ollama) => ("/api/chat", passed(ask, model)?, ask.stream, None),
            (Self::Anthropic, _) => {
                ("/v1/messages", written(anthropic::request(&*self.told(ask)?, model)?), true, None)
            }
            (Self::Ollama, _) => {
                ("/api/chat", written(ollama::request(&*self.told(ask)?, model)?), true, None)
            }
            (Self::OpenAi, _) => {
                let body = openai::request(&*self.told(ask)?, model, kind, own)?.into();
                ("/chat/completions", body, ask.stream, None)
            }
        };
        Ok(Outgoing { path, body, stream, beta })
    }

    /// A request in OpenAI's words, which those of all protocols are made from.
    fn told(self, ask: &Ask) -> Result<Cow<'_, Ask>, ChatError> {
        Ok(match ask.door {
            Door::Native | Door::OpenAi { .. } => Cow::Borrowed(ask),
            Door::Anthropic => Cow::Owned(door::anthropic::translated(ask, self)?),
            Door::Ollama => Cow::Owned(door::ollama::translated(ask)?),
        })
    }

    /// Whether an answer is passed on as it comes.
    pub(crate) fn passes(self, door: Door) -> bool {
        matches!(
            (self, door),
            (Self::OpenAi, Door::OpenAi { .. })
                | (Self::Anthropic, Door::Anthropic)
                | (Self::Ollama, Door::Ollama)
        )
    }

    /// Looks at a whole answer that is passed on: its tokens.
    pub(crate) fn glance(self, body: &[u8]) -> Result<Usage, Fault> {
        match self {
            Self::Ollama => ollama::glance(body),
            Self::OpenAi => openai::glance(body),
            Self::Anthropic => anthropic::glance(body),
        }
    }

    /// Where the list of models is.
    pub(crate) fn models_path(self) -> &'static str {
        match self {
            Self::Ollama => "/api/tags",
            Self::OpenAi => "/models",
            Self::Anthropic => "/v1/models?limit=1000",
        }
    }

    /// The list of models; `None` where the answer is none.
    pub(crate) fn models(self, body: &Value) -> Option<Vec<String>> {
        let (list, name) = match self {
            Self::Ollama => ("models", "name"),
            Self::OpenAi | Self::Anthropic => ("data", "id"),
        };
        let models = body.get(list)?.as_array()?.iter();
        Some(models.filter_map(|model| model.get(name)?.as_str().map(str::to_owned)).collect())
    }
}

/// Where a provider of a kind is when nobody says otherwise.
pub(crate) fn address(kind: ProviderKind) -> Option<&'static str> {
    match kind {
        ProviderKind::OllamaCloud => Some("https://ollama.com"),
        ProviderKind::OpenAI => Some("https://api.openai.com/v1"),
        ProviderKind::OpenRouter => Some("https://openrouter.ai/api/v1"),
        ProviderKind::OpenCode => Some("https://opencode.ai/zen/v1"),
        ProviderKind::Kimi => Some("https://api.moonshot.ai/v1"),
        ProviderKind::Anthropic => Some("https://api.anthropic.com"),
        ProviderKind::Ollama | ProviderKind::Voyage => None,
    }
}

/// Reads an answer in pieces, whatever the protocol.
#[derive(Debug)]
pub(crate) enum Decoder {
    Ollama(ollama::Decoder),
    OpenAi(openai::Decoder),
    Anthropic(anthropic::Decoder),
}

impl Decoder {
    pub(crate) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Ollama => Self::Ollama(ollama::Decoder::default()),
            Protocol::OpenAi => Self::OpenAi(openai::Decoder::default()),
            Protocol::Anthropic => Self::Anthropic(anthropic::Decoder::default()),
        }
    }

    /// Adds what is whole now to `events`.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Ollama(decoder) => decoder.push(bytes, events),
            Self::OpenAi(decoder) => decoder.push(bytes, events),
            Self::Anthropic(decoder) => decoder.push(bytes, events),
        }
    }

    /// The stream is over: was the answer whole?
    pub(crate) fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Ollama(decoder) => decoder.end(events),
            Self::OpenAi(decoder) => decoder.end(events),
            Self::Anthropic(decoder) => decoder.end(events),
        }
    }

    /// Whether the answer is whole, though the stream may not have ended.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Ollama(decoder) => decoder.is_done(),
            Self::OpenAi(decoder) => decoder.is_done(),
            Self::Anthropic(decoder) => decoder.is_done(),
        }
    }
}

/// Every field goes on as it came, with the provider's name of the model.
fn passed(ask: &Ask, model: &str) -> Result<Bytes, ChatError> {
    Ok(ask.fields.body(&[("model", model.into()), ("stream", ask.stream.into())])?.into())
}

/// Passes an answer in pieces on, where protocol and door are one.
#[derive(Debug)]
pub(crate) enum Passing {
    Ollama(ollama::Passing),
    OpenAi(openai::Passing),
    Anthropic(anthropic::Passing),
}

impl Passing {
    /// `None` where it has to be translated.
    pub(crate) fn new(protocol: Protocol, door: Door) -> Option<Self> {
        match (protocol, door) {
            (Protocol::OpenAi, Door::OpenAi { usage }) => Some(Self::OpenAi(openai::Passing::new(usage))),
            (Protocol::Anthropic, Door::Anthropic) => Some(Self::Anthropic(anthropic::Passing::default())),
            (Protocol::Ollama, Door::Ollama) => Some(Self::Ollama(ollama::Passing::default())),
            _ => None,
        }
    }

    /// Adds what is whole now to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        out.reserve(bytes.len());
        match self {
            Self::Ollama(passing) => passing.push(bytes, out),
            Self::OpenAi(passing) => passing.push(bytes, out),
            Self::Anthropic(passing) => passing.push(bytes, out),
        }
    }

    /// The stream is over: was the answer whole?
    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<(), Fault> {
        match self {
            Self::Ollama(passing) => passing.end(out),
            Self::OpenAi(passing) => passing.end(out),
            Self::Anthropic(passing) => passing.end(out),
        }
    }

    /// Whether the answer is whole, though the stream may not have ended.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Ollama(passing) => passing.is_done(),
            Self::OpenAi(passing) => passing.is_done(),
            Self::Anthropic(passing) => passing.is_done(),
        }
    }

    /// Tokens, as far as they are counted now.
    pub(crate) fn usage(&self) -> Usage {
        match self {
            Self::Ollama(passing) => passing.usage().unwrap_or_default(),
            Self::OpenAi(passing) => passing.usage().unwrap_or_default(),
            Self::Anthropic(passing) => passing.usage(),
        }
    }
}

/// An error in the middle of an answer.
pub(crate) fn said(error: &Value) -> Fault {
    let status = error.get("code").or_else(|| error.get("status_code")).and_then(Value::as_u64);
    Fault::Said {
        message: sentence(error).unwrap_or_else(|| "it reports an error without a message".to_owned()),
        status: status.and_then(|status| u16::try_from(status).ok()),
    }
}

/// What the body of an error says, in any of the shapes that are documented: all of it, as it was said.
pub(crate) fn complaint(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let told = if let Some(body) = &parsed {
        body.get("error").and_then(sentence).or_else(|| sentence(body))
    } else {
        let text = String::from_utf8_lossy(body);
        // A proxy's page says nothing that its status does not say.
        (!text.trim_start().starts_with('<')).then(|| text.trim().to_owned())
    };
    told.filter(|told| !told.is_empty()).unwrap_or_else(|| "no message came with it".to_owned())
}

/// The sentence of an error: a text, `message`, or `detail`. OpenRouter tells what its own upstream said beside it.
fn sentence(error: &Value) -> Option<String> {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let message = error.as_str().or_else(|| text("message")).or_else(|| text("detail"))?;
    let raw = error.pointer("/metadata/raw").and_then(Value::as_str);
    Some(match raw {
        Some(raw) => format!("{message}: {raw}"),
        None => message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bodies are those that the providers document.
    #[test]
    fn each_providers_errors_are_read() {
        for (body, told) in [
            (r#"{"error":"model 'x' not found"}"#, "model 'x' not found"),
            (
                r#"{"error":{"message":"Rate limit reached","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                "Rate limit reached",
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#,
                "Overloaded",
            ),
            (
                r#"{"error":{"code":502,"message":"Provider returned error","metadata":{"provider_name":"X","raw":"boom"}}}"#,
                "Provider returned error: boom",
            ),
            (r#"{"object":"error","message":"too long","type":"BadRequestError","code":400}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            ("upstream connect error\n", "upstream connect error"),
            ("<html><h1>502 Bad Gateway</h1></html>", "no message came with it"),
            ("", "no message came with it"),
        ] {
            assert_eq!(complaint(body.as_bytes()), told, "{body}");
        }
    }

    #[test]
    fn each_protocols_list_of_models_is_read() {
        let tags = r#"{"models":[{"name":"qwen3.5:latest","model":"qwen3.5:latest","size":1}]}"#;
        let list = r#"{"object":"list","data":[{"id":"gpt-5","object":"model"}]}"#;
        let read = |protocol: Protocol, body: &str| protocol.models(&serde_json::from_str(body).unwrap());
        assert_eq!(read(Protocol::Ollama, tags).unwrap(), ["qwen3.5:latest"]);
        assert_eq!(read(Protocol::OpenAi, list).unwrap(), ["gpt-5"]);
        assert_eq!(read(Protocol::Anthropic, list).unwrap(), ["gpt-5"]);
        assert_eq!(read(Protocol::OpenAi, tags), None);
    }
}
