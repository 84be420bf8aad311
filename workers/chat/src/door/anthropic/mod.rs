//! Anthropic's door: `message`, its events, and Anthropic's error body (docs.anthropic.com, API reference, Messages and Errors).

mod request;

use axum::{
    http::{HeaderName, StatusCode},
    response::Response,
};
use bytes::{BufMut, BytesMut};
use lakehouse_http::{Problem, RequestId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Labels, json as write_json};
use crate::{
    ChatError, ModelInfo,
    event::{Collected, Event, Finish, ToolCall, Usage},
};

pub(crate) use request::translated;

/// Anthropic's name for the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// An answer in pieces.
#[derive(Debug)]
pub(crate) struct Blocks {
    model: String,
    begun: bool,
    /// The number of the next block.
    next: u32,
    open: Option<Open>,
    /// What began after a call: more of its arguments may come between those of others, and a block that was ended cannot go
    /// on, so a call stays open to the end and what follows it waits.
    late: Vec<Late>,
    usage: Usage,
    finish: Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    /// The call with this index.
    Call(u32),
}

#[derive(Debug)]
enum Late {
    Text(String),
    Thinking(String),
    Call(ToolCall),
}

impl Blocks {
    pub(super) fn new(labels: &Labels) -> Self {
        Self {
            model: labels.model.clone(),
            begun: false,
            next: 0,
            open: None,
            late: Vec::new(),
            usage: Usage::default(),
            finish: Finish::Stop,
        }
    }

    pub(super) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match (event, self.open) {
            (Event::Usage(usage), _) => self.usage = usage,
            (Event::Finish(finish), _) => self.finish = finish,
            (Event::Arguments { index, json }, Some(Open::Call(open))) if index == open => {
                self.arguments(&json, out);
            }
            (Event::Arguments { index, json }, _) => {
                let calls = self.late.iter_mut().rev();
                let mut calls = calls.filter_map(|late| match late {
                    Late::Call(call) => Some(call),
                    Late::Text(_) | Late::Thinking(_) => None,
                });
                if let Some(call) = calls.find(|call| call.index == index) {
                    call.arguments += &json;
                }
            }
            (Event::Text(text), Some(Open::Call(_))) => match self.late.last_mut() {
                Some(Late::Text(last)) => *last += &text,
                _ => self.late.push(Late::Text(text)),
            },
            (Event::Thinking(text), Some(Open::Call(_))) => match self.late.last_mut() {
                Some(Late::Thinking(last)) => *last += &text,
                _ => self.late.push(Late::Thinking(text)),
            },
            (Event::Tool { index, id, name }, Some(Open::Call(_))) => {
                self.late.push(Late::Call(ToolCall { index, id, name, arguments: String::new() }));
            }
            (Event::Text(text), _) => self.text(&text, out),
            (Event::Thinking(text), _) => self.thinking(&text, out),
            (Event::Tool { index, id, name }, _) => self.call(index, &id, &name, out),
        }
    }

    pub(super) fn end(&mut self, out: &mut BytesMut) {
        self.begin(out);
        self.close(out);
        for late in std::mem::take(&mut self.late) {
            match late {
                Late::Text(text) => self.text(&text, out),
                Late::Thinking(text) => self.thinking(&text, out),
                Late::Call(ToolCall { index, id, name, arguments }) => {
                    self.call(index, &id, &name, out);
                    self.arguments(&arguments, out);
                }
            }
            self.close(out);
        }
        let delta = json!({"stop_reason": stop_reason(self.finish), "stop_sequence": null});
        let end = json!({"type": "message_delta", "delta": delta, "usage": tokens(self.usage)});
        event("message_delta", &end, out);
        event("message_stop", &json!({"type": "message_stop"}), out);
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            // The tokens of the prompt are known at the end, which is where most clients look for them.
            let message = message(&self.model, &[], None, Usage::default());
            event("message_start", &json!({"type": "message_start", "message": message}), out);
        }
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        self.open(Open::Text, || json!({"type": "text", "text": ""}), out);
        self.delta("text_delta", "text", text, out);
    }

    fn thinking(&mut self, text: &str, out: &mut BytesMut) {
        self.open(Open::Thinking, || json!({"type": "thinking", "thinking": "", "signature": ""}), out);
        self.delta("thinking_delta", "thinking", text, out);
    }

    fn call(&mut self, index: u32, id: &str, name: &str, out: &mut BytesMut) {
        let block = || json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        self.open(Open::Call(index), block, out);
    }

    fn arguments(&self, json: &str, out: &mut BytesMut) {
        if !json.is_empty() {
            self.delta("input_json_delta", "partial_json", json, out);
        }
    }

    fn open(&mut self, open: Open, block: impl FnOnce() -> Value, out: &mut BytesMut) {
        self.begin(out);
        if self.open == Some(open) {
            return;
        }
        self.close(out);
        self.open = Some(open);
        let start = json!({"type": "content_block_start", "index": self.next, "content_block": block()});
        event("content_block_start", &start, out);
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            event("content_block_stop", &json!({"type": "content_block_stop", "index": self.next}), out);
            self.next += 1;
        }
    }

    /// Most events are like this one, so it is written without a tree of values in between.
    fn delta(&self, kind: &str, name: &str, text: &str, out: &mut BytesMut) {
        out.put_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
        write_json(&self.next, out);
        out.put_slice(b",\"delta\":{\"type\":");
        write_json(&kind, out);
        out.put_u8(b',');
        write_json(&name, out);
        out.put_u8(b':');
        write_json(&text, out);
        out.put_slice(b"}}\n\n");
    }
}

fn event(name: &str, data: &Value, out: &mut BytesMut) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    write_json(data, out);
    out.put_slice(b"\n\n");
}

fn message(model: &str, content: &[Value], finish: Option<Finish>, usage: Usage) -> Value {
    json!({
        "id": format!("msg_{}", Uuid::now_v7().simple()),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": finish.map(stop_reason),
        "stop_sequence": null,
        "usage": tokens(usage),
    })
}

fn tokens(usage: Usage) -> Value {
    json!({"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens})
}

/// Which of its own words ended an answer is told by Anthropic alone.
fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::Filter => "refusal",
    }
}

/// A whole answer.
pub(super) fn whole(labels: &Labels, collected: &Collected) -> Value {
    let Collected { text, thinking, tools, usage, finish } = collected;
    let mut content = Vec::new();
    if !thinking.is_empty() {
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
    }
    if !text.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    content.extend(tools.iter().map(
        |call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": super::arguments(call)}),
    ));
    message(&labels.model, &content, Some(*finish), *usage)
}

/// The last event of a stream that broke off.
pub(super) fn failed(error: ChatError, out: &mut BytesMut) {
    event("error", &body(&error.into(), None), out);
}

/// `{"type":"error","error":{type,message},request_id}`
fn body(problem: &Problem, id: Option<&RequestId>) -> Value {
    let kind = match problem.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let mut error = json!({"type": kind, "message": problem.message, "code": problem.code});
    super::beside(problem, &mut error);
    let mut body = json!({"type": "error", "error": error});
    if let Some(id) = id {
        body["request_id"] = id.to_string().into();
    }
    body
}

/// A problem as Anthropic's clients read it.
pub(crate) fn problem(problem: Problem, id: &RequestId) -> Response {
    let written = body(&problem, Some(id));
    super::rewritten(problem, &written)
}

/// A list of models as Anthropic's clients read it. When a model was made is not known.
pub(crate) fn models(models: &[ModelInfo]) -> Value {
    let id = |model: Option<&ModelInfo>| model.map(|model| model.name.clone());
    json!({
        "data": models.iter().map(model).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": id(models.first()),
        "last_id": id(models.last()),
    })
}

pub(crate) fn model(model: &ModelInfo) -> Value {
    json!({
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": "1970-01-01T00:00:00Z",
        "owned_by": &*model.provider,
    })
}

/// Tokens are counted only by those who answer.
pub(crate) fn uncounted() -> Problem {
    let message = "tokens cannot be counted here without an answer; each answer has its counts in `usage`";
    Problem::not_found(message)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn blocks_begin_and_end_in_order_and_calls_that_are_mixed_are_sorted() {
        let told = told(vec![
            Event::Thinking("hm".into()),
            Event::Text("o".into()),
            Event::Text("k".into()),
            Event::Tool { index: 0, id: "a".into(), name: "f".into() },
            Event::Arguments { index: 0, json: "{\"x\"".into() },
            Event::Tool { index: 1, id: "b".into(), name: "g".into() },
            Event::Arguments { index: 1, json: "{\"y\":".into() },
            Event::Arguments { index: 0, json: ":1}".into() },
            Event::Text("late".into()),
            Event::Arguments { index: 1, json: "2}".into() },
            Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 2 }),
            Event::Finish(Finish::ToolCalls),
        ]);
        let shown: Vec<String> = told
            .iter()
            .map(|event| {
                let kind = event["type"].as_str().unwrap().trim_start_matches("content_block_");
                let delta = event["delta"].as_object().into_iter().flatten();
                let text = delta.filter(|(name, _)| *name != "type").filter_map(|(_, value)| value.as_str());
                let block = event["content_block"]["type"].as_str().unwrap_or_default();
                format!("{kind} {} {block}{}", event["index"], text.collect::<String>())
            })
            .collect();
        let expected = [
            "message_start null ",
            "start 0 thinking",
            "delta 0 hm",
            "stop 0 ",
            "start 1 text",
            "delta 1 o",
            "delta 1 k",
            "stop 1 ",
            "start 2 tool_use",
            "delta 2 {\"x\"",
            "delta 2 :1}",
            "stop 2 ",
            "start 3 tool_use",
            "delta 3 {\"y\":2}",
            "stop 3 ",
            "start 4 text",
            "delta 4 late",
            "stop 4 ",
            "message_delta null tool_use",
            "message_stop null ",
        ];
        assert_eq!(shown, expected);
        assert_eq!(told[18]["usage"], json!({"input_tokens": 3, "output_tokens": 2}));
    }

    #[test]
    fn an_answer_without_a_word_is_a_message_too() {
        let kinds: Vec<Value> = told(Vec::new()).iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["message_start", "message_delta", "message_stop"]);
    }

    #[test]
    fn a_whole_answer_has_its_blocks() {
        let mut collected = Collected { text: "hi".into(), finish: Finish::Length, ..Collected::default() };
        collected.add(Event::Tool { index: 0, id: "c".into(), name: "f".into() });
        let told = whole(&labels(), &collected);
        let call = json!({"type": "tool_use", "id": "c", "name": "f", "input": {}});
        assert_eq!(told["content"], json!([{"type": "text", "text": "hi"}, call]));
        assert_eq!((&told["stop_reason"], &told["role"]), (&json!("max_tokens"), &json!("assistant")));
    }

    #[test]
    fn errors_have_anthropics_shape() {
        let error = ChatError::new(Kind::RateLimited, "slow down").of(&"up".into());
        let expected = json!({"type": "error", "error": {
            "type": "rate_limit_error", "message": "slow down", "code": "rate_limited", "provider": "up",
        }});
        assert_eq!(body(&error.into(), None), expected);
    }

    /// The data of all events; each has its type as its name too.
    fn told(events: Vec<Event>) -> Vec<Value> {
        let mut blocks = Blocks::new(&labels());
        let mut out = BytesMut::new();
        for event in events {
            blocks.write(event, &mut out);
        }
        blocks.end(&mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let parse = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        };
        text.split_terminator("\n\n").map(parse).collect()
    }

    fn labels() -> Labels {
        Labels { provider: "up".into(), model: "m".into(), asked: Instant::now() }
    }
}
