//! OpenAI's protocol, which most services speak: `POST …/chat/completions` (platform.openai.com, API reference, Chat).
//!
//! Through OpenAI's own door nothing is translated: every field goes on as the text that it came as, and every event of a stream
//! too. It is only looked at, so that tokens are counted and a broken stream is told from a whole one.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use lakehouse_contract::provider::ProviderKind;
use serde::Deserialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    ChatError,
    ask::{Ask, Door},
    event::{Collected, Event, Facts, Fault, Finish, ToolCall, Usage},
    wire::Sse,
};

/// Fields of other doors that OpenAI does not know.
const NOT_OPENAIS: [&str; 3] = ["think", "keep_alive", "options"];

/// The body of `POST …/chat/completions`. `own` says that it is for OpenAI itself, which has new names for old fields.
pub(crate) fn request(ask: &Ask, model: &str, kind: ProviderKind, own: bool) -> Result<Vec<u8>, ChatError> {
    let mut made: Map<String, Value> = Map::new();
    made.insert("model".to_owned(), model.into());
    made.insert("stream".to_owned(), ask.stream.into());
    if ask.stream {
        // Asked for always, since tokens are counted here; a client that did not ask does not get them.
        let options: Option<Map<String, Value>> = ask.fields.get("stream_options", "an object")?;
        let mut options = options.unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        made.insert("stream_options".to_owned(), options.into());
    }
    let translated = !matches!(ask.door, Door::OpenAi { .. });
    if translated && let Some((name, value)) = think(ask, kind)? {
        made.insert(name.to_owned(), value);
    }
    let made: Vec<(&str, Box<RawValue>)> =
        made.iter().filter_map(|(name, value)| Some((name.as_str(), to_raw_value(value).ok()?))).collect();
    let kept = ask.fields.iter().filter(|(name, _)| !(translated && NOT_OPENAIS.contains(name)));
    let renamed = kept.map(|(name, raw)| match name {
        "max_tokens" if translated && own => ("max_completion_tokens", raw),
        _ => (name, raw),
    });
    let body: BTreeMap<&str, &RawValue> =
        renamed.chain(made.iter().map(|(name, raw)| (*name, &**raw))).collect();
    serde_json::to_vec(&body).map_err(|_| ChatError::field("messages", "cannot be written again"))
}

/// How a provider is told whether to think.
fn think(ask: &Ask, kind: ProviderKind) -> Result<Option<(&'static str, Value)>, ChatError> {
    let Some(think) = ask.fields.get::<Value>("think", "true, false or a level")? else { return Ok(None) };
    let on = think != Value::Bool(false);
    Ok(match kind {
        ProviderKind::OpenRouter => Some(match &think {
            Value::String(level) => ("reasoning", json!({ "effort": level })),
            _ => ("reasoning", json!({ "enabled": on })),
        }),
        ProviderKind::Kimi => {
            let word = if on { "enabled" } else { "disabled" };
            Some(("thinking", json!({ "type": word })))
        }
        _ => match &think {
            Value::String(level) => Some(("reasoning_effort", level.as_str().into())),
            _ if on => Some(("reasoning_effort", "medium".into())),
            _ => None,
        },
    })
}

/// Passes a stream on.
#[derive(Debug)]
pub(crate) struct Passing {
    sse: Sse,
    state: Passed,
}

#[derive(Debug)]
struct Passed {
    /// Whether the client asked for tokens.
    wants_usage: bool,
    facts: Facts,
    done: bool,
}

/// An event, as far as it is looked at.
#[derive(Deserialize)]
struct Glance<'a> {
    #[serde(default, borrow)]
    choices: Option<Vec<GlanceChoice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GlanceChoice<'a> {
    #[serde(default, borrow)]
    finish_reason: Option<&'a RawValue>,
}

impl Glance<'_> {
    /// Why the answer ends, where it does.
    fn finish(&self) -> Option<Finish> {
        let mut reasons = self.choices.iter().flatten().filter_map(|choice| choice.finish_reason);
        reasons.next_back().map(|reason| Finish::of(reason.get().trim_matches('"')))
    }

    /// The model's name, where `known` is not that yet.
    fn model(&self, known: &mut Option<String>) {
        if known.is_none() {
            *known = self.model.and_then(|model| serde_json::from_str(model.get()).ok());
        }
    }

    /// What the provider says is wrong, if it says so: `{"error": …}`, or in vLLM's way `{"object": "error", "message": …}`.
    fn fault(&self, data: &[u8]) -> Option<Fault> {
        if let Some(error) = self.error {
            let error: Value = serde_json::from_str(error.get()).unwrap_or_default();
            return Some(super::said(&error));
        }
        if self.object.is_some_and(|object| object.get() == "\"error\"") {
            let error: Value = serde_json::from_slice(data).unwrap_or_default();
            return Some(super::said(&error));
        }
        None
    }
}

impl Passing {
    pub(crate) fn new(wants_usage: bool) -> Self {
        let state = Passed { wants_usage, facts: Facts::default(), done: false };
        Self { sse: Sse::default(), state }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        let Self { sse, state } = self;
        sse.push(bytes, |data| state.pass(data, out))
    }

    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<(), Fault> {
        let Self { sse, state } = self;
        match sse.end(|data| state.pass(data, out)) {
            Err(said @ Fault::Said { .. }) => return Err(said),
            _ if state.done => return Ok(()),
            _ if state.facts.finish.is_none() => return Err(Fault::Truncated),
            _ => {}
        }
        // Every choice had its end; some servers leave the last mark out, and clients wait for it.
        out.put_slice(b"data: [DONE]\n\n");
        Ok(())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.state.facts
    }
}

impl Passed {
    fn pass(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
        } else {
            let glance: Glance<'_> = serde_json::from_slice(data).map_err(|error| Fault::json(&error))?;
            if let Some(fault) = glance.fault(data) {
                return Err(fault);
            }
            self.facts.finish = glance.finish().or(self.facts.finish);
            glance.model(&mut self.facts.model);
            if let Some(usage) = glance.usage {
                self.facts.usage = usage;
                if glance.choices.is_none_or(|choices| choices.is_empty()) && !self.wants_usage {
                    return Ok(());
                }
            }
        }
        for line in data.split(|byte| *byte == b'\n') {
            out.put_slice(b"data: ");
            out.put_slice(line);
            out.put_u8(b'\n');
        }
        out.put_u8(b'\n');
        Ok(())
    }
}

/// Looks at a whole answer.
pub(crate) fn glance(body: &[u8]) -> Result<Facts, Fault> {
    let glance: Glance<'_> = serde_json::from_slice(body).map_err(|error| Fault::json(&error))?;
    if let Some(fault) = glance.fault(body) {
        return Err(fault);
    }
    if glance.choices.is_none() {
        return Err(Fault::Malformed("it has no `choices`".to_owned()));
    }
    let mut model = None;
    glance.model(&mut model);
    Ok(Facts { usage: glance.usage.unwrap_or_default(), finish: glance.finish(), model })
}

/// Reads a stream for another door than OpenAI's.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    sse: Sse,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Calls that have begun.
    calls: Vec<u32>,
    model: Option<String>,
    finished: bool,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default, alias = "message")]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// A piece of a message, or a whole one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    /// The name of most who have this.
    reasoning_content: Option<String>,
    /// OpenRouter's and Ollama's name for it.
    reasoning: Option<String>,
    tool_calls: Option<Vec<DeltaCall>>,
}

#[derive(Deserialize)]
struct DeltaCall {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<DeltaFunction>,
}

#[derive(Deserialize)]
struct DeltaFunction {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { sse, state } = self;
        sse.push(bytes, |data| state.chunk(data, events))
    }

    pub(crate) fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { sse, state } = self;
        match sse.end(|data| state.chunk(data, events)) {
            Err(said @ Fault::Said { .. }) => Err(said),
            _ if state.done || state.finished => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    pub(crate) fn model(&self) -> Option<&String> {
        self.state.model.as_ref()
    }
}

impl State {
    fn chunk(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        if data == b"[DONE]" {
            self.done = true;
        }
        if self.done {
            return Ok(());
        }
        let glance: Glance<'_> = serde_json::from_slice(data).map_err(|error| Fault::json(&error))?;
        if let Some(fault) = glance.fault(data) {
            return Err(fault);
        }
        glance.model(&mut self.model);
        let Chunk { choices, usage } = serde_json::from_slice(data).map_err(|error| Fault::json(&error))?;
        if let Some(Choice { delta, finish_reason }) = choices.unwrap_or_default().into_iter().next() {
            let Delta { content, refusal, reasoning_content, reasoning, tool_calls } =
                delta.unwrap_or_default();
            let said = |text: Option<String>| text.filter(|text| !text.is_empty());
            events.extend(said(reasoning_content.or(reasoning)).map(Event::Thinking));
            events.extend(said(content).map(Event::Text));
            events.extend(said(refusal).map(Event::Text));
            for (place, call) in (0..).zip(tool_calls.unwrap_or_default()) {
                self.call(place, call, events);
            }
            if let Some(reason) = finish_reason {
                self.finished = true;
                events.push(Event::Finish(Finish::of(&reason)));
            }
        }
        events.extend(usage.map(Event::Usage));
        Ok(())
    }

    fn call(&mut self, place: u32, call: DeltaCall, events: &mut Vec<Event>) {
        let index = call.index.unwrap_or(place);
        let (name, arguments) =
            call.function.map_or((None, None), |function| (function.name, function.arguments));
        if !self.calls.contains(&index) {
            self.calls.push(index);
            let id = call.id.unwrap_or_else(|| format!("call_{index}"));
            events.push(Event::Tool { index, id, name: name.unwrap_or_default() });
        }
        let arguments = arguments.filter(|json| !json.is_empty());
        events.extend(arguments.map(|json| Event::Arguments { index, json }));
    }
}

/// Reads a whole answer for another door than OpenAI's; `facts` are those of its glance.
pub(crate) fn collect(body: &[u8], facts: &Facts) -> Result<Collected, Fault> {
    let mut state = State::default();
    let mut events = Vec::new();
    state.chunk(body, &mut events)?;
    let mut collected = Collected { usage: facts.usage, ..Collected::default() };
    for event in events {
        collected.add(event);
    }
    Ok(collected)
}

/// A call as OpenAI writes it.
pub(crate) fn call(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_goes_on_as_it_came() {
        let body = r#"{"model":"p/x","messages":[{"role":"user","content":"hi","extra":1.50}],"seed":12345678901234567890,"new_field":{"b":1,"a":2}}"#;
        let ask = Ask::openai(body.as_bytes()).unwrap();
        let told = String::from_utf8(request(&ask, "x", ProviderKind::OpenAI, false).unwrap()).unwrap();
        for kept in
            [r#""new_field":{"b":1,"a":2}"#, r#""extra":1.50}"#, "12345678901234567890", r#""model":"x""#]
        {
            assert!(told.contains(kept), "{told}");
        }
        assert!(told.contains(r#""stream":false"#) && !told.contains("stream_options"), "{told}");
    }

    #[test]
    fn tokens_of_a_stream_are_asked_for_and_given_only_to_who_asked() {
        let body = r#"{"model":"x","stream":true,"messages":[{"role":"user","content":"hi"}],"stream_options":{"a":1}}"#;
        let ask = Ask::openai(body.as_bytes()).unwrap();
        let told: Value =
            serde_json::from_slice(&request(&ask, "x", ProviderKind::OpenAI, false).unwrap()).unwrap();
        assert_eq!(told["stream_options"], json!({"a": 1, "include_usage": true}));

        let last = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        let stream = format!("data: {PIECE}\n\ndata: {END}\n\ndata: {last}\n\ndata: [DONE]\n\n");
        let (out, passing, ended) = pass(&stream, true);
        assert_eq!((out, ended), (stream.clone(), Ok(())));
        assert_eq!(passing.facts().usage, Usage { prompt_tokens: 3, completion_tokens: 2 });
        let (out, passing, _) = pass(&stream, false);
        assert_eq!(out, format!("data: {PIECE}\n\ndata: {END}\n\ndata: [DONE]\n\n"));
        assert!(passing.facts().usage != Usage::default() && passing.is_done());
    }

    #[test]
    fn the_native_door_is_told_in_each_providers_words() {
        let think = |kind, think: Value| {
            let body = json!({
                "model": "m", "messages": [{"role": "user", "content": "hi"}], "think": think, "max_tokens": 5,
                "keep_alive": "5m", "options": {"a": 1}, "format": "json",
            });
            let ask = Ask::native(body.to_string().as_bytes()).unwrap();
            let mut told: Value = serde_json::from_slice(&request(&ask, "m", kind, true).unwrap()).unwrap();
            for field in ["model", "messages", "stream", "response_format", "max_completion_tokens"] {
                told.as_object_mut().unwrap().remove(field).unwrap();
            }
            told
        };
        assert_eq!(think(ProviderKind::OpenRouter, json!(true)), json!({"reasoning": {"enabled": true}}));
        assert_eq!(think(ProviderKind::OpenRouter, json!("low")), json!({"reasoning": {"effort": "low"}}));
        assert_eq!(think(ProviderKind::Kimi, json!(false)), json!({"thinking": {"type": "disabled"}}));
        assert_eq!(think(ProviderKind::OpenAI, json!(true)), json!({"reasoning_effort": "medium"}));
        assert_eq!(think(ProviderKind::OpenAI, json!(false)), json!({}));
    }

    #[test]
    fn a_stream_is_whole_when_every_answer_in_it_had_its_end() {
        let whole = format!("data: {PIECE}\n\ndata: {END}\n\n");
        let (out, _, ended) = pass(&whole, false);
        assert_eq!((out, ended), (format!("{whole}data: [DONE]\n\n"), Ok(())));
        for cut in [format!("data: {PIECE}\n\n"), format!("data: {PIECE}\n\ndata: {{\"cho")] {
            let (out, _, ended) = pass(&cut, false);
            assert_eq!((out, ended), (format!("data: {PIECE}\n\n"), Err(Fault::Truncated)), "{cut}");
        }
    }

    #[test]
    fn nothing_broken_is_passed_on() {
        for (broken, said) in [
            ("{\"choices\":[", None),
            (r#"{"error":{"message":"no credit","code":402}}"#, Some(("no credit", Some(402)))),
            (
                r#"{"object":"error","message":"out of memory","code":500}"#,
                Some(("out of memory", Some(500))),
            ),
        ] {
            let (out, _, ended) =
                pass(&format!("data: {PIECE}\n\ndata: {broken}\n\ndata: {PIECE}\n\n"), false);
            assert_eq!(out, format!("data: {PIECE}\n\n"));
            match said {
                None => assert!(matches!(ended, Err(Fault::Malformed(_)))),
                Some((message, status)) => {
                    assert_eq!(ended, Err(Fault::Said { message: message.into(), status }));
                }
            }
        }
    }

    #[test]
    fn a_stream_is_read_for_the_native_door() {
        let chunk =
            |delta: Value| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
        let stream = [
            chunk(json!({"role": "assistant", "content": "", "reasoning_content": "hm"})),
            chunk(json!({"content": "hi"})),
            chunk(
                json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}),
            ),
            chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
            format!("data: {END}\n\ndata: [DONE]\n\n"),
        ];
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        decoder.push(stream.concat().as_bytes(), &mut events).unwrap();
        decoder.end(&mut events).unwrap();
        let expected = [
            Event::Thinking("hm".into()),
            Event::Text("hi".into()),
            Event::Tool { index: 0, id: "c".into(), name: "f".into() },
            Event::Arguments { index: 0, json: "{}".into() },
            Event::Finish(Finish::Stop),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn a_whole_answer_is_read_for_the_native_door() {
        let message = json!({"role": "assistant", "content": "hi", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ]});
        let body = json!({
            "model": "m-1", "choices": [{"message": message, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        });
        let body = body.to_string();
        let facts = glance(body.as_bytes()).unwrap();
        let collected = collect(body.as_bytes(), &facts).unwrap();
        assert_eq!((collected.text.as_str(), collected.finish), ("hi", Finish::ToolCalls));
        assert_eq!(call(&collected.tools[0]), message["tool_calls"][0]);
        assert_eq!(collected.usage, Usage { prompt_tokens: 3, completion_tokens: 2 });
        assert_eq!((facts.finish, facts.model.as_deref()), (Some(Finish::ToolCalls), Some("m-1")));
        for bad in ["{}", "<html>", r#"{"error":{"message":"no"}}"#] {
            glance(bad.as_bytes()).unwrap_err();
        }
    }

    const PIECE: &str = r#"{"id":"1","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}"#;
    const END: &str = r#"{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

    fn pass(stream: &str, wants_usage: bool) -> (String, Passing, Result<(), Fault>) {
        let mut passing = Passing::new(wants_usage);
        let mut out = BytesMut::new();
        let ended = passing.push(stream.as_bytes(), &mut out).and_then(|()| passing.end(&mut out));
        (String::from_utf8(out.to_vec()).unwrap(), passing, ended)
    }
}
