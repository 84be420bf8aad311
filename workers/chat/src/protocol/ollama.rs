//! Ollama's own protocol: `POST /api/chat`, answered with lines of JSON (github.com/ollama/ollama, docs/api.md).
//!
//! Answers are always asked for in pieces: so a model that is silent is told from one that writes a long text.

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::messages::{self, Format, Message, Part, Role, TRANSLATED, ToolChoice};
use crate::{
    ChatError,
    ask::{Ask, Fields},
    event::{Event, Facts, Fault, Finish, Usage},
    wire::Ndjson,
};

/// The body of `POST /api/chat`.
pub(crate) fn request(ask: &Ask, model: &str) -> Result<Value, ChatError> {
    let fields = &ask.fields;
    messages::only_one(fields)?;
    let mut body = Map::new();
    for (name, raw) in fields.iter().filter(|(name, _)| !TRANSLATED.contains(name)) {
        body.insert(name.to_owned(), parse(raw));
    }
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    body.insert("messages".into(), conversation(&messages::conversation(fields)?)?);
    // A small budget of tokens is for the answer, so a model thinks only when it is told to.
    body.insert("think".into(), think(fields)?);
    let choice = messages::tool_choice(fields)?;
    if !messages::tools(fields, &choice)?.is_empty() {
        body.insert("tools".into(), tools(fields, &choice)?);
    }
    match messages::format(fields)? {
        None => {}
        Some(Format::Json) => {
            body.insert("format".into(), "json".into());
        }
        Some(Format::Schema(schema)) => {
            body.insert("format".into(), schema);
        }
    }
    if let Some(keep_alive) = fields.raw("keep_alive") {
        body.insert("keep_alive".into(), parse(keep_alive));
    }
    let options = options(fields)?;
    if !options.is_empty() {
        body.insert("options".into(), options.into());
    }
    Ok(body.into())
}

/// As the text was JSON once, it is so again.
fn parse(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

fn conversation(conversation: &[Message]) -> Result<Value, ChatError> {
    let mut written = Vec::with_capacity(conversation.len());
    for message in conversation {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let mut text = String::new();
        let mut images = Vec::new();
        for part in &message.parts {
            match part {
                Part::Text(more) => text += more,
                Part::Image { base64, .. } => images.push(base64.as_str()),
                Part::ImageUrl { field, .. } => {
                    let sentence = "must be `data:image/…;base64,…`: Ollama fetches no addresses";
                    return Err(ChatError::field(field, sentence));
                }
            }
        }
        let mut told = json!({"role": role, "content": text});
        if !images.is_empty() {
            told["images"] = json!(images);
        }
        if !message.calls.is_empty() {
            let calls = message.calls.iter().enumerate().map(|(index, call)| {
                let function = json!({"index": index, "name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "function": function})
            });
            told["tool_calls"] = calls.collect();
        }
        if let Some(id) = &message.answers {
            told["tool_call_id"] = id.as_str().into();
            // Older servers know a result by the function's name alone.
            let calls = conversation.iter().flat_map(|earlier| &earlier.calls);
            if let Some(call) = calls.into_iter().find(|call| call.id == *id) {
                told["tool_name"] = call.name.as_str().into();
            }
        }
        written.push(told);
    }
    Ok(written.into())
}

fn think(fields: &Fields) -> Result<Value, ChatError> {
    if let Some(think) = fields.raw("think") {
        return Ok(parse(think));
    }
    let effort: Option<String> = fields.get("reasoning_effort", "a text")?;
    Ok(match effort.as_deref() {
        None | Some("none" | "minimal") => false.into(),
        Some("low" | "medium" | "high") => effort.into(),
        Some(_) => true.into(),
    })
}

/// The functions as they came, less those that the choice leaves out.
fn tools(fields: &Fields, choice: &ToolChoice) -> Result<Value, ChatError> {
    let mut tools: Vec<Value> = fields.get("tools", "a list")?.unwrap_or_default();
    if let ToolChoice::Named(name) = choice {
        tools.retain(|tool| tool["function"]["name"] == name.as_str());
    }
    Ok(tools.into())
}

fn options(fields: &Fields) -> Result<Map<String, Value>, ChatError> {
    let mut options = Map::new();
    for (name, what) in [
        ("temperature", "a number"),
        ("top_p", "a number"),
        ("frequency_penalty", "a number"),
        ("presence_penalty", "a number"),
        ("seed", "a whole number"),
    ] {
        if let Some(number) = fields.get::<serde_json::Number>(name, what)? {
            options.insert(name.to_owned(), number.into());
        }
    }
    if let Some(limit) = messages::max_tokens(fields)? {
        options.insert("num_predict".to_owned(), limit.into());
    }
    let stops = messages::stops(fields)?;
    if !stops.is_empty() {
        options.insert("stop".to_owned(), stops.into());
    }
    // What is said in Ollama's own words wins.
    options.extend(fields.get::<Map<String, Value>>("options", "an object")?.unwrap_or_default());
    Ok(options)
}

/// Reads an answer.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    lines: Ndjson,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    tools: u32,
    model: Option<String>,
    done: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
    #[serde(default)]
    message: Option<Said>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: u64,
    #[serde(default)]
    eval_count: u64,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: String,
    #[serde(default)]
    thinking: String,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { lines, state } = self;
        lines.push(bytes, |line| state.line(line, events))
    }

    pub(crate) fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let Self { lines, state } = self;
        // A line that was cut is no JSON; that it was cut says more.
        let ended = lines.end(|line| state.line(line, events));
        match ended {
            Err(said @ Fault::Said { .. }) => Err(said),
            _ if state.done => Ok(()),
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

/// Passes an answer on. It is only looked at, so that tokens are counted and a broken stream is told from a whole one.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    lines: Ndjson,
    state: State,
    facts: Facts,
}

impl Passing {
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        let Self { lines, state, facts } = self;
        lines.push(bytes, |line| pass(state, facts, line, out))
    }

    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<(), Fault> {
        let Self { lines, state, facts } = self;
        match lines.end(|line| pass(state, facts, line, out)) {
            Err(said @ Fault::Said { .. }) => Err(said),
            _ if state.done => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }
}

fn pass(state: &mut State, facts: &mut Facts, line: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
    if state.done {
        return Ok(());
    }
    let mut events = Vec::new();
    state.line(line, &mut events)?;
    if state.done {
        *facts = told(&events, state);
    }
    out.put_slice(line);
    out.put_u8(b'\n');
    Ok(())
}

/// What the last line tells.
fn told(events: &[Event], state: &State) -> Facts {
    events.iter().fold(Facts { model: state.model.clone(), ..Facts::default() }, |facts, event| match event {
        Event::Usage(usage) => Facts { usage: *usage, ..facts },
        Event::Finish(finish) => Facts { finish: Some(*finish), ..facts },
        _ => facts,
    })
}

/// Looks at a whole answer that is passed on.
pub(crate) fn glance(body: &[u8]) -> Result<Facts, Fault> {
    let (mut state, mut events) = (State::default(), Vec::new());
    state.line(body, &mut events)?;
    if state.done { Ok(told(&events, &state)) } else { Err(Fault::Malformed("it has no end".to_owned())) }
}

impl State {
    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| Fault::json(&error))?;
        if let Some(error) = line.error {
            return Err(super::said(&error));
        }
        if self.model.is_none() {
            self.model = line.model.and_then(|model| serde_json::from_str(model.get()).ok());
        }
        if let Some(Said { content, thinking, tool_calls }) = line.message {
            if !thinking.is_empty() {
                events.push(Event::Thinking(thinking));
            }
            if !content.is_empty() {
                events.push(Event::Text(content));
            }
            for Call { id, function: Function { name, arguments } } in tool_calls.unwrap_or_default() {
                let index = self.tools;
                self.tools += 1;
                let id = if id.is_empty() { format!("call_{index}") } else { id };
                events.push(Event::Tool { index, id, name });
                let json = arguments.map_or_else(|| "{}".to_owned(), |arguments| arguments.get().to_owned());
                events.push(Event::Arguments { index, json });
            }
        }
        if line.done && !self.done {
            self.done = true;
            let finish = match line.done_reason.as_deref() {
                Some("length") => Finish::Length,
                _ if self.tools > 0 => Finish::ToolCalls,
                _ => Finish::Stop,
            };
            let (prompt_tokens, completion_tokens) = (line.prompt_eval_count, line.eval_count);
            events.push(Event::Usage(Usage { prompt_tokens, completion_tokens }));
            events.push(Event::Finish(finish));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_ollamas_words() {
        let told = request_of(json!({
            "model": "x", "temperature": 0.5, "max_completion_tokens": 9, "stop": "END", "seed": 7,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            "keep_alive": "5m", "options": {"num_ctx": 4096, "seed": 8}, "truncate": false, "user": "me",
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        }));
        let expected = json!({
            "model": "m", "stream": true, "think": false, "format": {"type": "object"}, "keep_alive": "5m", "truncate": false,
            "options": {"temperature": 0.5, "num_predict": 9, "stop": ["END"], "seed": 8, "num_ctx": 4096},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "what is it?", "images": ["AAAA"]},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": 1}}},
                ]},
                {"role": "tool", "content": "a cat", "tool_call_id": "c1", "tool_name": "look"},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        });
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn a_model_thinks_only_when_it_is_told_to() {
        for (field, value, expected) in [
            ("x", json!(1), json!(false)),
            ("think", json!(true), json!(true)),
            ("think", json!("high"), json!("high")),
            ("reasoning_effort", json!("low"), json!("low")),
            ("reasoning_effort", json!("none"), json!(false)),
        ] {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body[field] = value;
            assert_eq!(request_of(body).unwrap()["think"], expected, "{field}");
        }
    }

    #[test]
    fn what_ollama_cannot_do_is_refused_by_its_field() {
        let url = json!([{"type": "image_url", "image_url": {"url": "https://x/cat.png"}}]);
        let audio = json!([{"type": "input_audio", "input_audio": {}}]);
        for (body, field) in [
            (json!({"messages": [{"role": "user", "content": url}]}), "messages[0].content[0].image_url.url"),
            (json!({"messages": [{"role": "user", "content": audio}]}), "messages[0].content[0].type"),
            (json!({"messages": [{"role": "user", "content": "x"}], "n": 2}), "n"),
            (json!({"messages": [{"role": "user", "content": "x"}], "options": 5}), "options"),
        ] {
            let mut body = body;
            body["model"] = "m".into();
            assert_eq!(request_of(body).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn an_answer_is_read_with_thoughts_calls_and_tokens() {
        let lines = concat!(
            r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
            "\n",
            r#"{"model":"m","message":{"role":"assistant","content":"It is"},"done":false}"#,
            "\n",
            r#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}"#,
            "\n",
            r#"{"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":3}"#,
            "\n",
        );
        let expected = [
            Event::Thinking("hm".into()),
            Event::Text("It is".into()),
            Event::Tool { index: 0, id: "call_0".into(), name: "f".into() },
            Event::Arguments { index: 0, json: r#"{"a":1}"#.into() },
            Event::Usage(Usage { prompt_tokens: 5, completion_tokens: 3 }),
            Event::Finish(Finish::ToolCalls),
        ];
        assert_eq!(read(lines), (expected.to_vec(), Ok(())));
    }

    #[test]
    fn a_broken_answer_is_told_from_a_whole_one() {
        let piece = r#"{"message":{"content":"a"},"done":false}"#;
        let cases = [
            (format!("{piece}\n"), Fault::Truncated),
            (format!("{piece}\n{{\"mess"), Fault::Truncated),
            (
                format!("{piece}\n{{\"error\":\"out of memory\"}}"),
                Fault::Said { message: "out of memory".into(), status: None },
            ),
        ];
        for (text, fault) in cases {
            assert_eq!(read(&text), (vec![Event::Text("a".into())], Err(fault)), "{text}");
        }
        assert!(matches!(read(&format!("{piece}\nnonsense\n")).1, Err(Fault::Malformed(_))));
    }

    #[test]
    fn an_answer_is_passed_on_as_it_came_with_its_tokens_counted() {
        let piece = r#"{"model":"m","message":{"content":"a"},"logprobs":[1.50],"done":false}"#;
        let end = r#"{"model":"m","message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":3}"#;
        let usage = Usage { prompt_tokens: 5, completion_tokens: 3 };
        let (mut passing, mut out) = (Passing::default(), BytesMut::new());
        passing.push(format!("{piece}\n").as_bytes(), &mut out).unwrap();
        assert_eq!((passing.end(&mut out), passing.facts()), (Err(Fault::Truncated), &Facts::default()));
        passing.push(end.as_bytes(), &mut out).unwrap();
        let facts = Facts { usage, finish: Some(Finish::Stop), model: Some("m".into()) };
        assert_eq!((passing.end(&mut out), passing.facts()), (Ok(()), &facts));
        assert_eq!(out, format!("{piece}\n{end}\n"));
        let said = passing_error();
        assert_eq!(said, Err(Fault::Said { message: "out of memory".into(), status: None }));
        assert_eq!(glance(end.as_bytes()), Ok(facts));
        assert!(matches!(glance(piece.as_bytes()), Err(Fault::Malformed(_))));
    }

    fn passing_error() -> Result<(), Fault> {
        Passing::default().push(b"{\"error\":\"out of memory\"}\n", &mut BytesMut::new())
    }

    fn request_of(body: Value) -> Result<Value, ChatError> {
        request(&Ask::openai(body.to_string().as_bytes()).unwrap(), "m")
    }

    fn read(text: &str) -> (Vec<Event>, Result<(), Fault>) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let ended = decoder.push(text.as_bytes(), &mut events).and_then(|()| decoder.end(&mut events));
        (events, ended)
    }
}
