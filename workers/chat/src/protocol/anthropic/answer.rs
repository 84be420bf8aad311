//! Anthropic's answers: a message in events, each of which says what it is.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    event::{Event, Facts, Fault, Finish},
    protocol,
    wire::Sse,
};

/// Reads an answer.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    sse: Sse,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    /// The block that is open, where it is a call: its number among the calls, and whether its arguments have begun.
    call: Option<(u32, bool)>,
    calls: u32,
    done: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    MessageStart {
        message: Start,
    },
    ContentBlockStart {
        content_block: Block,
    },
    ContentBlockDelta {
        delta: Delta,
    },
    ContentBlockStop,
    MessageDelta {
        delta: End,
        #[serde(default)]
        usage: Tokens,
    },
    MessageStop,
    Error {
        error: Value,
    },
    /// Pings, and what later versions add.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Tokens,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_creation: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct End {
    #[serde(default)]
    stop_reason: Option<String>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { sse, state } = self;
        sse.push(bytes, |data| state.said(data, events))
    }

    pub(crate) fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { sse, state } = self;
        match sse.end(|data| state.said(data, events)) {
            Err(said @ Fault::Said { .. }) => Err(said),
            _ if state.done => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    pub(crate) fn model(&self) -> Option<&String> {
        self.state.facts.model.as_ref()
    }
}

/// Passes an answer on. It is only looked at, so that tokens are counted and a broken stream is told from a whole one.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    sse: Sse,
    state: State,
}

impl Passing {
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        let Self { sse, state } = self;
        sse.push(bytes, |data| state.pass(data, out))
    }

    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<(), Fault> {
        let Self { sse, state } = self;
        match sse.end(|data| state.pass(data, out)) {
            Err(said @ Fault::Said { .. }) => Err(said),
            _ if state.done => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.state.facts
    }
}

/// Looks at a whole answer that is passed on.
pub(crate) fn glance(body: &[u8]) -> Result<Facts, Fault> {
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Whole {
        Message {
            #[serde(default)]
            model: Option<String>,
            #[serde(default)]
            stop_reason: Option<String>,
            #[serde(default)]
            usage: Tokens,
        },
        Error {
            error: Value,
        },
    }
    match serde_json::from_slice(body).map_err(|error| Fault::json(&error))? {
        Whole::Message { model, stop_reason, usage } => {
            let mut state = State::default();
            state.count(&usage);
            Ok(Facts { finish: stop_reason.as_deref().map(finish), model, ..state.facts })
        }
        Whole::Error { error } => Err(protocol::said(&error)),
    }
}

impl State {
    /// The name of an event is the type of its data.
    fn pass(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(rename = "type", borrow)]
            name: Cow<'a, str>,
        }
        if self.done {
            return Ok(());
        }
        self.said(data, &mut Vec::new())?;
        let Named { name } = serde_json::from_slice(data).map_err(|error| Fault::json(&error))?;
        out.put_slice(b"event: ");
        out.put_slice(name.as_bytes());
        out.put_u8(b'\n');
        for line in data.split(|byte| *byte == b'\n') {
            out.put_slice(b"data: ");
            out.put_slice(line);
            out.put_u8(b'\n');
        }
        out.put_u8(b'\n');
        Ok(())
    }

    fn said(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        match serde_json::from_slice(data).map_err(|error| Fault::json(&error))? {
            Said::MessageStart { message } => {
                self.count(&message.usage);
                self.facts.model = message.model;
            }
            Said::ContentBlockStart { content_block: Block::ToolUse { id, name } } => {
                let index = self.calls;
                self.calls += 1;
                self.call = Some((index, false));
                events.push(Event::Tool { index, id, name });
            }
            Said::ContentBlockStart { content_block: Block::Text { text } } if !text.is_empty() => {
                events.push(Event::Text(text));
            }
            Said::ContentBlockDelta { delta: Delta::Text { text } } => events.push(Event::Text(text)),
            Said::ContentBlockDelta { delta: Delta::Thinking { thinking } } => {
                events.push(Event::Thinking(thinking));
            }
            Said::ContentBlockDelta { delta: Delta::InputJson { partial_json: json } } => {
                if let Some((index, begun)) = self.call.as_mut().filter(|_| !json.is_empty()) {
                    *begun = true;
                    events.push(Event::Arguments { index: *index, json });
                }
            }
            Said::ContentBlockStop => {
                // A function without arguments is called with none; JSON has a word for that.
                if let Some((index, false)) = self.call.take() {
                    events.push(Event::Arguments { index, json: "{}".to_owned() });
                }
            }
            Said::MessageDelta { delta, usage } => {
                self.count(&usage);
                events.push(Event::Usage(self.facts.usage));
                if let Some(reason) = delta.stop_reason {
                    let finish = finish(&reason);
                    self.facts.finish = Some(finish);
                    events.push(Event::Finish(finish));
                }
            }
            Said::MessageStop => self.done = true,
            Said::Error { error } => return Err(protocol::said(&error)),
            Said::ContentBlockStart { .. } | Said::ContentBlockDelta { .. } | Said::Other => {}
        }
        Ok(())
    }

    /// Counts are told several times, each the sum so far. OpenAI's count of a prompt has the cached part in it.
    fn count(&mut self, tokens: &Tokens) {
        let usage = &mut self.facts.usage;
        if let Some(input) = tokens.input {
            let cached = tokens.cache_creation.unwrap_or(0) + tokens.cache_read.unwrap_or(0);
            usage.prompt_tokens = usage.prompt_tokens.max(input + cached);
        }
        usage.completion_tokens = tokens.output.unwrap_or(usage.completion_tokens);
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Filter,
        _ => Finish::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Usage;

    /// From the documentation's examples of a stream with thoughts and a call.
    #[test]
    fn an_answer_is_read_with_thoughts_calls_and_tokens() {
        let stream = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQ="}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Okay"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"location\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" \"Paris\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

"#;
        let arguments = |index, json: &str| Event::Arguments { index, json: json.into() };
        let expected = vec![
            Event::Thinking("hm".into()),
            Event::Text("Okay".into()),
            Event::Tool { index: 0, id: "toolu_1".into(), name: "get_weather".into() },
            arguments(0, "{\"location\":"),
            arguments(0, " \"Paris\"}"),
            Event::Tool { index: 1, id: "toolu_2".into(), name: "now".into() },
            arguments(1, "{}"),
            Event::Usage(Usage { prompt_tokens: 30, completion_tokens: 89 }),
            Event::Finish(Finish::ToolCalls),
        ];
        assert_eq!(read(stream), (expected, Ok(())));
        let cut = stream.split("event: message_stop").next().unwrap();
        assert_eq!(read(cut).1, Err(Fault::Truncated));
    }

    #[test]
    fn an_error_in_the_middle_is_told_in_anthropics_words() {
        let stream = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
        let fault = Fault::Said { message: "Overloaded".into(), status: None };
        assert_eq!(read(stream), (Vec::new(), Err(fault)));
    }

    #[test]
    fn an_answer_is_passed_on_as_it_came_with_its_tokens_counted() {
        let start = r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":7,"output_tokens":1}}}"#;
        let new = r#"{"type":"something_new","x":1.50}"#;
        let end =
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#;
        let whole = format!(
            "event: message_start\ndata: {start}\n\nevent: something_new\ndata: {new}\n\nevent: message_delta\ndata: {end}\n\n"
        );
        let pass = |stream: &str| {
            let (mut passing, mut out) = (Passing::default(), BytesMut::new());
            let ended = passing.push(stream.as_bytes(), &mut out).and_then(|()| passing.end(&mut out));
            (String::from_utf8(out.to_vec()).unwrap(), passing.facts().usage, ended)
        };
        let usage = Usage { prompt_tokens: 7, completion_tokens: 2 };
        assert_eq!(pass(&whole), (whole.clone(), usage, Err(Fault::Truncated)));
        let whole = whole + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        assert_eq!(pass(&whole), (whole.clone(), usage, Ok(())));
        let error = "data: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"no\"}}\n\n";
        let (out, _, ended) = pass(error);
        assert_eq!((out.as_str(), ended), ("", Err(Fault::Said { message: "no".into(), status: None })));
    }

    #[test]
    fn a_whole_answer_is_told_from_an_error() {
        let whole = r#"{"type":"message","model":"m","content":[],"stop_reason":"max_tokens","usage":{"input_tokens":7,"output_tokens":2}}"#;
        let usage = Usage { prompt_tokens: 7, completion_tokens: 2 };
        let facts = Facts { usage, finish: Some(Finish::Length), model: Some("m".into()) };
        assert_eq!(glance(whole.as_bytes()), Ok(facts));
        let error = r#"{"type":"error","error":{"type":"api_error","message":"no"}}"#;
        assert_eq!(glance(error.as_bytes()), Err(Fault::Said { message: "no".into(), status: None }));
        assert!(matches!(glance(b"{}"), Err(Fault::Malformed(_))));
    }

    fn read(text: &str) -> (Vec<Event>, Result<(), Fault>) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let ended = decoder.push(text.as_bytes(), &mut events).and_then(|()| decoder.end(&mut events));
        (events, ended)
    }
}
