//! OpenAI's door: `chat.completion`, `chat.completion.chunk`, and OpenAI's error body (platform.openai.com, API reference, Chat).

use axum::{http::StatusCode, response::Response};
use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use lakehouse_http::Problem;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Labels, json as write_json};
use crate::{
    ChatError, ModelInfo,
    event::{Collected, Event, Finish, Usage},
    protocol::openai::call,
};

/// An answer in pieces.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// What every chunk begins with.
    head: Vec<u8>,
    wants_usage: bool,
    begun: bool,
    usage: Usage,
    finish: Finish,
}

impl Chunks {
    pub(super) fn new(labels: &Labels, wants_usage: bool) -> Self {
        let mut head = BytesMut::from(&b"data: "[..]);
        let facts = facts(labels, "chat.completion.chunk");
        write_json(&facts, &mut head);
        // The object goes on in each chunk.
        head.truncate(head.len() - 1);
        Self { head: head.to_vec(), wants_usage, begun: false, usage: Usage::default(), finish: Finish::Stop }
    }

    pub(super) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match event {
            Event::Text(text) => self.text("content", &text, out),
            // The name that most clients know.
            Event::Thinking(text) => self.text("reasoning_content", &text, out),
            Event::Tool { index, id, name } => {
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": index, "id": id, "type": "function", "function": function});
                self.delta(&json!({ "tool_calls": [call] }), out);
            }
            Event::Arguments { index, json } => {
                let call = json!({"index": index, "function": {"arguments": json}});
                self.delta(&json!({ "tool_calls": [call] }), out);
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Finish(finish) => self.finish = finish,
        }
    }

    pub(super) fn end(&mut self, out: &mut BytesMut) {
        let choice = json!({"index": 0, "delta": {}, "finish_reason": self.finish.word()});
        self.chunk(out, |out| write_json(&[choice], out));
        if self.wants_usage {
            out.put_slice(&self.head);
            out.put_slice(b",\"choices\":[],\"usage\":");
            write_json(&tokens(self.usage), out);
            out.put_slice(b"}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    /// Most chunks are like this one, so it is written without a tree of values in between.
    fn text(&mut self, name: &str, text: &str, out: &mut BytesMut) {
        let begins = !std::mem::replace(&mut self.begun, true);
        self.chunk(out, |out| {
            out.put_slice(b"[{\"index\":0,\"delta\":{");
            if begins {
                out.put_slice(b"\"role\":\"assistant\",");
            }
            write_json(&name, out);
            out.put_u8(b':');
            write_json(&text, out);
            out.put_slice(b"},\"finish_reason\":null}]");
        });
    }

    fn delta(&mut self, delta: &Value, out: &mut BytesMut) {
        let mut delta = delta.clone();
        if !std::mem::replace(&mut self.begun, true) {
            delta["role"] = "assistant".into();
        }
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        self.chunk(out, |out| write_json(&[choice], out));
    }

    fn chunk(&self, out: &mut BytesMut, choices: impl FnOnce(&mut BytesMut)) {
        out.put_slice(&self.head);
        out.put_slice(b",\"choices\":");
        choices(out);
        if self.wants_usage {
            out.put_slice(b",\"usage\":null");
        }
        out.put_slice(b"}\n\n");
    }
}

fn facts(labels: &Labels, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{}", Uuid::now_v7().simple()),
        "object": object,
        "created": Timestamp::now().as_second(),
        "model": labels.model,
    })
}

fn tokens(usage: Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens } = usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// A whole answer.
pub(super) fn completion(labels: &Labels, collected: &Collected) -> Value {
    let Collected { text, thinking, tools, usage, finish } = collected;
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    let content = if text.is_empty() && !tools.is_empty() { Value::Null } else { text.as_str().into() };
    message.insert("content".to_owned(), content);
    message.insert("refusal".to_owned(), Value::Null);
    if !thinking.is_empty() {
        message.insert("reasoning_content".to_owned(), thinking.as_str().into());
    }
    if !tools.is_empty() {
        message.insert("tool_calls".to_owned(), tools.iter().map(call).collect());
    }
    let mut whole = facts(labels, "chat.completion");
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish.word()});
    whole["choices"] = json!([choice]);
    whole["usage"] = tokens(*usage);
    whole
}

/// The last event of a stream that broke off. There is no `[DONE]` after it, for it is not done.
pub(super) fn failed(error: ChatError, out: &mut BytesMut) {
    out.put_slice(b"data: ");
    write_json(&body(&error.into()), out);
    out.put_slice(b"\n\n");
}

/// `{"error":{message,type,param,code}}`
fn body(problem: &Problem) -> Value {
    let status = problem.status;
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    // OpenAI's own words, where programs look for them.
    let code = match problem.code {
        "unknown_model" => "model_not_found",
        "rate_limited" => "rate_limit_exceeded",
        code => code,
    };
    let detail = |name: &str| problem.details.as_ref().and_then(|details| details.get(name)).cloned();
    let mut error = json!({
        "message": problem.message,
        "type": kind,
        "param": detail("field"),
        "code": code,
    });
    for name in ["provider", "upstream_status"] {
        if let Some(detail) = detail(name) {
            error[name] = detail;
        }
    }
    json!({ "error": error })
}

/// A model as OpenAI lists it, with what we know beside it.
pub(crate) fn model(model: &ModelInfo) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": &*model.provider,
        "model": model.model,
        "weak": model.weak,
        "tier": model.tier,
    })
}

/// A problem as OpenAI's clients read it.
pub(crate) fn problem(problem: Problem) -> Response {
    let written = body(&problem);
    super::rewritten(problem, &written)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_stream_has_the_role_once_the_end_and_the_tokens_where_they_are_wanted() {
        let told = |wants_usage| {
            let mut chunks = Chunks::new(&labels(), wants_usage);
            let mut out = BytesMut::new();
            for event in [
                Event::Text("h\"i".into()),
                Event::Tool { index: 0, id: "c".into(), name: "f".into() },
                Event::Arguments { index: 0, json: "{}".into() },
                Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 2 }),
                Event::Finish(Finish::ToolCalls),
            ] {
                chunks.write(event, &mut out);
            }
            chunks.end(&mut out);
            let text = String::from_utf8(out.to_vec()).unwrap();
            let mut events: Vec<String> = text
                .split_terminator("\n\n")
                .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
                .collect();
            assert_eq!(events.pop().unwrap(), "[DONE]");
            let parsed = events.iter().map(|event| serde_json::from_str(event).unwrap());
            parsed.collect::<Vec<Value>>()
        };
        let events = told(false);
        assert_eq!(events.len(), 4);
        assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "h\"i"}));
        assert_eq!(events[0]["object"], "chat.completion.chunk");
        let call =
            json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}});
        assert_eq!(events[1]["choices"][0]["delta"], json!({"tool_calls": [call]}));
        assert_eq!(events[2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], "{}");
        assert_eq!(events[3]["choices"][0]["finish_reason"], "tool_calls");
        assert!(events.iter().all(|event| event["id"] == events[0]["id"]));

        let events = told(true);
        assert!(events[0]["usage"].is_null() && events[0].get("usage").is_some());
        assert_eq!(events[4]["choices"], json!([]));
        assert_eq!(events[4]["usage"]["total_tokens"], 5);
    }

    #[test]
    fn an_answer_of_calls_alone_has_no_content() {
        let mut collected = Collected::default();
        collected.add(Event::Tool { index: 0, id: "c".into(), name: "f".into() });
        collected.add(Event::Arguments { index: 0, json: "{}".into() });
        let whole = completion(&labels(), &collected);
        assert!(whole["choices"][0]["message"]["content"].is_null());
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "f");
        let whole = completion(&labels(), &Collected::default());
        assert_eq!(whole["choices"][0]["message"]["content"], "");
    }

    #[test]
    fn errors_have_openais_shape() {
        let error = ChatError::field("messages", "is missing");
        let expected = json!({"error": {
            "message": "`messages` is missing", "type": "invalid_request_error", "param": "messages", "code": "bad_request",
        }});
        assert_eq!(body(&error.into()), expected);
        let error = ChatError::new(Kind::RateLimited, "slow down").after(std::time::Duration::from_secs(7));
        let response = problem(error.into());
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
        );
        let response = problem(ChatError::new(Kind::Credentials, "no").into());
        assert_eq!(response.headers()["x-should-retry"], "false");
    }

    fn labels() -> Labels {
        Labels { provider: "up".into(), model: "m".into(), asked: Instant::now() }
    }
}
