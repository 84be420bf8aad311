//! The doors that a request comes in through: what an answer looks like at each, in pieces, whole, and when it fails.

pub(crate) mod native;
pub(crate) mod openai;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    ChatError,
    ask::{Ask, Door},
    event::{Collected, Event},
};

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
}

impl Writer {
    pub(crate) fn new(door: Door, labels: Labels) -> Self {
        match door {
            Door::Native => Self::Native(native::Lines::new(labels)),
            Door::OpenAi { usage } => Self::OpenAi(openai::Chunks::new(&labels, usage)),
        }
    }

    pub(crate) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match self {
            Self::Native(lines) => lines.write(event, out),
            Self::OpenAi(chunks) => chunks.write(event, out),
        }
    }

    /// The answer is whole.
    pub(crate) fn end(&mut self, out: &mut BytesMut) {
        match self {
            Self::Native(lines) => lines.end(out),
            Self::OpenAi(chunks) => chunks.end(out),
        }
    }
}

impl Ask {
    /// The last piece of an answer that broke off.
    pub(crate) fn failed(door: Door, error: ChatError, out: &mut BytesMut) {
        match door {
            Door::Native => native::failed(error, out),
            Door::OpenAi { .. } => openai::failed(error, out),
        }
    }

    /// A whole answer.
    pub(crate) fn whole(door: Door, labels: Labels, collected: Collected) -> Bytes {
        let mut out = BytesMut::new();
        match door {
            Door::Native => json(&native::answer(labels, collected), &mut out),
            Door::OpenAi { .. } => json(&openai::completion(&labels, &collected), &mut out),
        }
        out.freeze()
    }
}

impl Door {
    /// The media type of an answer in pieces.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Self::Native => "application/x-ndjson",
            Self::OpenAi { .. } => "text/event-stream",
        }
    }
}

/// Appends a value as JSON.
fn json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value)
        .expect("texts, numbers and maps with text keys can be written");
}
