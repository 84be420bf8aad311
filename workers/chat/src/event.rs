//! An answer in pieces, whatever the protocol that it came in.

use std::time::Duration;

use serde::Deserialize;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// More of the text.
    Text(String),
    /// More of what the model thinks before it answers.
    Thinking(String),
    /// A function to call. Its arguments follow.
    Tool { index: u32, id: String, name: String },
    /// More of a call's arguments: pieces of one JSON text.
    Arguments { index: u32, json: String },
    /// Tokens, as far as they are counted now.
    Usage(Usage),
    /// Why the answer ends.
    Finish(Finish),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    /// Of the messages.
    pub(crate) prompt_tokens: u64,
    /// Of the answer.
    pub(crate) completion_tokens: u64,
}

/// What an answer tells of itself beside its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) usage: Usage,
    pub(crate) finish: Option<Finish>,
    /// The model, as the provider says it.
    pub(crate) model: Option<String>,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model had said all.
    #[default]
    Stop,
    /// It reached the limit of tokens.
    Length,
    /// It waits for the results of functions.
    ToolCalls,
    /// The provider did not let it go on.
    Filter,
}

impl Finish {
    /// OpenAI's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Filter => "content_filter",
        }
    }

    /// What OpenAI's word means; an unknown one is an end like others.
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "length" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::Filter,
            _ => Self::Stop,
        }
    }
}

/// A stream that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The upstream says so, in these words.
    Said { message: String, status: Option<u16> },
    /// What came is not what the protocol has.
    Malformed(String),
    /// It ended before its end.
    Truncated,
    /// Nothing came for so long.
    Silent(Duration),
    /// It took longer than it may.
    TooLong(Duration),
    /// The connection broke.
    Cut(String),
}

impl Fault {
    /// What the JSON parser says, without the text that it looked at: of a value of another type it says all of it before what it expected.
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        let said = match said.rsplit_once(", expected ") {
            Some((_, expected)) => format!("expected {expected}"),
            None => said,
        };
        Self::Malformed(format!("it is not the JSON that is expected ({said})"))
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) text: String,
    pub(crate) thinking: String,
    pub(crate) tools: Vec<ToolCall>,
    pub(crate) usage: Usage,
    pub(crate) finish: Finish,
}

/// A function that the model wants called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolCall {
    pub(crate) index: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

impl Collected {
    pub(crate) fn add(&mut self, event: Event) {
        match event {
            Event::Text(text) => self.text += &text,
            Event::Thinking(text) => self.thinking += &text,
            Event::Tool { index, id, name } => {
                self.tools.push(ToolCall { index, id, name, arguments: String::new() });
            }
            Event::Arguments { index, json } => {
                // From the end: an upstream may use an index again.
                if let Some(tool) = self.tools.iter_mut().rev().find(|tool| tool.index == index) {
                    tool.arguments += &json;
                }
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Finish(finish) => self.finish = finish,
        }
    }
}
