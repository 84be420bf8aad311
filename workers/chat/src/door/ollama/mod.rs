//! Ollama's door: one object, or lines of them with the counts in the last one, and Ollama's error body
//! (github.com/ollama/ollama, docs/api.md).

mod request;

use axum::response::Response;
use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use lakehouse_http::Problem;
use serde_json::{Map, Value, json};

use super::{Labels, json as write_json};
use crate::{
    ChatError, ModelInfo,
    event::{Collected, Event, Finish, ToolCall},
};

pub(crate) use request::translated;

/// An answer in pieces.
#[derive(Debug)]
pub(crate) struct Lines {
    labels: Labels,
    /// Calls, which are told whole, and counts, which are told at the end. Texts are gone by then.
    rest: Collected,
}

impl Lines {
    pub(super) fn new(labels: Labels) -> Self {
        Self { labels, rest: Collected::default() }
    }

    pub(super) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match event {
            Event::Text(text) => self.piece(&json!({"role": "assistant", "content": text}), out),
            Event::Thinking(text) => {
                self.piece(&json!({"role": "assistant", "content": "", "thinking": text}), out);
            }
            other => self.rest.add(other),
        }
    }

    pub(super) fn end(&mut self, out: &mut BytesMut) {
        let mut rest = std::mem::take(&mut self.rest);
        if !rest.tools.is_empty() {
            let calls = calls(&std::mem::take(&mut rest.tools));
            self.piece(&json!({"role": "assistant", "content": "", "tool_calls": calls}), out);
        }
        line(&whole(&self.labels, &rest), out);
    }

    fn piece(&self, message: &Value, out: &mut BytesMut) {
        let mut piece = facts(&self.labels);
        piece.insert("message".into(), message.clone());
        piece.insert("done".into(), false.into());
        line(&piece.into(), out);
    }
}

fn facts(labels: &Labels) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("model".into(), labels.model.as_str().into());
    facts.insert("created_at".into(), Timestamp::now().to_string().into());
    facts
}

fn line(value: &Value, out: &mut BytesMut) {
    write_json(value, out);
    out.put_u8(b'\n');
}

fn calls(tools: &[ToolCall]) -> Value {
    let told = tools.iter().enumerate().map(|(index, call)| {
        let function = json!({"index": index, "name": call.name, "arguments": super::arguments(call)});
        json!({"id": call.id, "function": function})
    });
    told.collect()
}

/// A whole answer, and the last line of one in pieces. How long loading took is known to Ollama alone.
pub(super) fn whole(labels: &Labels, collected: &Collected) -> Value {
    let Collected { text, thinking, tools, usage, finish } = collected;
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), text.as_str().into());
    if !thinking.is_empty() {
        message.insert("thinking".into(), thinking.as_str().into());
    }
    if !tools.is_empty() {
        message.insert("tool_calls".into(), calls(tools));
    }
    let reason = match finish {
        // Ollama has no word of its own for calls.
        Finish::Stop | Finish::ToolCalls => "stop",
        Finish::Length | Finish::Filter => finish.word(),
    };
    let mut whole = facts(labels);
    whole.insert("message".into(), message.into());
    whole.insert("done".into(), true.into());
    whole.insert("done_reason".into(), reason.into());
    let nanoseconds = u64::try_from(labels.asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
    whole.insert("total_duration".into(), nanoseconds.into());
    whole.insert("prompt_eval_count".into(), usage.prompt_tokens.into());
    whole.insert("eval_count".into(), usage.completion_tokens.into());
    whole.into()
}

/// The last line of a stream that broke off.
pub(super) fn failed(error: ChatError, out: &mut BytesMut) {
    line(&body(&error.into()), out);
}

/// `{"error": …}`
fn body(problem: &Problem) -> Value {
    let mut body = json!({"error": problem.message, "code": problem.code});
    super::beside(problem, &mut body);
    body
}

/// A problem as Ollama's clients read it.
pub(crate) fn problem(problem: Problem) -> Response {
    let written = body(&problem);
    super::rewritten(problem, &written)
}

/// A list of models as Ollama's clients read it. Their sizes and digests are known to Ollama alone.
pub(crate) fn tags(models: &[ModelInfo]) -> Value {
    let told = models.iter().map(
        |model| json!({"name": model.name, "model": model.name, "details": {"family": &*model.provider}}),
    );
    json!({"models": told.collect::<Vec<_>>()})
}

/// What else an Ollama can do, this door cannot.
pub(crate) fn unknown(path: &str) -> Problem {
    Problem::not_found(format!(
        "`/api/{path}` is not offered here; `/api/chat`, `/api/tags`, `/api/embed` and `/api/version` are"
    ))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::event::Usage;

    #[test]
    fn pieces_are_told_as_they_come_and_counts_at_the_end() {
        let labels = Labels { provider: "up".into(), model: "m".into(), asked: Instant::now() };
        let mut lines = Lines::new(labels);
        let mut out = BytesMut::new();
        for event in [
            Event::Thinking("hm".into()),
            Event::Text("hi\n".into()),
            Event::Tool { index: 0, id: "c".into(), name: "f".into() },
            Event::Arguments { index: 0, json: "{\"a\":".into() },
            Event::Arguments { index: 0, json: "1}".into() },
            Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 2 }),
            Event::Finish(Finish::ToolCalls),
        ] {
            lines.write(event, &mut out);
        }
        lines.end(&mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told[0]["message"], json!({"role": "assistant", "content": "", "thinking": "hm"}));
        assert_eq!(told[1]["message"]["content"], "hi\n");
        let function = json!({"index": 0, "name": "f", "arguments": {"a": 1}});
        assert_eq!(told[2]["message"]["tool_calls"], json!([{"id": "c", "function": function}]));
        assert!(told[..3].iter().all(|piece| piece["done"] == false && piece["model"] == "m"));
        let end = &told[3];
        assert_eq!((&end["done"], &end["done_reason"]), (&json!(true), &json!("stop")));
        assert_eq!((&end["prompt_eval_count"], &end["eval_count"]), (&json!(3), &json!(2)));
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn errors_have_ollamas_shape() {
        let error = ChatError::field("messages", "is missing");
        let expected = json!({"error": "`messages` is missing", "code": "bad_request", "field": "messages"});
        assert_eq!(body(&error.into()), expected);
    }
}
