//! The native door: one object, or lines of pieces with the facts in the last one.

use bytes::{BufMut, BytesMut};
use lakehouse_contract::{
    chat::{ChatAnswer, ChatPiece},
    problem::ErrorDetail,
};
use lakehouse_http::Problem;

use super::{Labels, json};
use crate::{
    ChatError,
    event::{Collected, Event},
    protocol::openai::call,
};

/// An answer in pieces.
#[derive(Debug)]
pub(crate) struct Lines {
    labels: Labels,
    /// Calls, which are told whole, and facts, which are told at the end. Texts are gone by then.
    rest: Collected,
}

impl Lines {
    pub(super) fn new(labels: Labels) -> Self {
        Self { labels, rest: Collected::default() }
    }

    pub(super) fn write(&mut self, event: Event, out: &mut BytesMut) {
        match event {
            Event::Text(text) => line(&ChatPiece::Content(text), out),
            Event::Thinking(text) => line(&ChatPiece::Thinking(text), out),
            other => self.rest.add(other),
        }
    }

    pub(super) fn end(&mut self, out: &mut BytesMut) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.tools.is_empty() {
            line(&ChatPiece::ToolCalls(rest.tools.iter().map(call).collect()), out);
        }
        let told = Collected { tools: Vec::new(), ..rest };
        line(&ChatPiece::Done(answer(self.labels.clone(), told)), out);
    }
}

/// A whole answer.
pub(super) fn answer(labels: Labels, collected: Collected) -> ChatAnswer {
    let Labels { provider, model, asked } = labels;
    ChatAnswer {
        model,
        provider: provider.to_string(),
        content: collected.text,
        thinking: collected.thinking,
        tool_calls: collected.tools.iter().map(call).collect(),
        prompt_tokens: collected.usage.prompt_tokens,
        completion_tokens: collected.usage.completion_tokens,
        finish_reason: collected.finish.word().to_owned(),
        latency_ms: u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn failed(error: ChatError, out: &mut BytesMut) {
    let Problem { code, message, details, .. } = error.into();
    line(&ChatPiece::Error(ErrorDetail { code: code.to_owned(), message, details }), out);
}

fn line(piece: &ChatPiece, out: &mut BytesMut) {
    json(piece, out);
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        error::Kind,
        event::{Finish, Usage},
    };

    #[test]
    fn pieces_are_told_as_they_come_and_facts_at_the_end() {
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
        let told: Vec<Value> = String::from_utf8(out.to_vec())
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let function = json!({"name": "f", "arguments": "{\"a\":1}"});
        assert_eq!(told[0], json!({"thinking": "hm"}));
        assert_eq!(told[1], json!({"content": "hi\n"}));
        assert_eq!(told[2], json!({"tool_calls": [{"id": "c", "type": "function", "function": function}]}));
        let done = &told[3]["done"];
        assert_eq!(
            (&done["provider"], &done["completion_tokens"], &done["finish_reason"]),
            (&json!("up"), &json!(2), &json!("tool_calls"))
        );
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn the_last_piece_of_a_broken_answer_is_its_error() {
        let mut out = BytesMut::new();
        failed(ChatError::new(Kind::Timeout, "too slow").of(&"up".into()), &mut out);
        let told: Value = serde_json::from_slice(&out).unwrap();
        let error = json!({"code": "timeout", "message": "too slow", "details": {"provider": "up"}});
        assert_eq!(told, json!({ "error": error }));
    }
}
