//! Anthropic's protocol: `POST /v1/messages`, answered with server-sent events (docs.anthropic.com, API reference, Messages and
//! Streaming Messages).

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::messages::{self, Format, Message, Part, Role, TRANSLATED, Tool, ToolChoice};
use crate::{
    ChatError,
    ask::{Ask, Fields},
    event::{Event, Fault, Finish, Usage},
    wire::Sse,
};

/// The version that this file was written against.
pub(crate) const VERSION: &str = "2023-06-01";

/// Anthropic wants a limit in every request; this is the one of those that bring none.
const MAX_TOKENS: u64 = 4096;

/// The smallest budget for thoughts.
const MIN_BUDGET: u64 = 1024;

/// The body of `POST /v1/messages`.
pub(crate) fn request(ask: &Ask, model: &str) -> Result<Value, ChatError> {
    let fields = &ask.fields;
    messages::only_one(fields)?;
    let mut body = Map::new();
    for (name, raw) in fields.iter().filter(|(name, _)| !TRANSLATED.contains(name)) {
        body.insert(name.to_owned(), parse(raw));
    }
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    let conversation = messages::conversation(fields)?;
    let mut system = system(&conversation);
    match messages::format(fields)? {
        None => {}
        // There is no such mode; asked like this, the models keep to it.
        Some(Format::Json) => {
            system.push(
                "Answer with one JSON object and nothing else: no words before or after it, no fences."
                    .into(),
            );
        }
        Some(Format::Schema(schema)) => {
            body.insert("output_config".into(), json!({"format": {"type": "json_schema", "schema": schema}}));
        }
    }
    if !system.is_empty() {
        body.insert("system".into(), system.join("\n\n").into());
    }
    body.insert("messages".into(), turns(&conversation));
    let limit = messages::max_tokens(fields)?;
    let budget = budget(fields, limit)?;
    body.insert("max_tokens".into(), limit.unwrap_or(MAX_TOKENS + budget.unwrap_or(0)).into());
    if let Some(budget) = budget {
        body.insert("thinking".into(), json!({"type": "enabled", "budget_tokens": budget}));
    }
    for name in ["temperature", "top_p"] {
        if let Some(number) = fields.get::<serde_json::Number>(name, "a number")? {
            body.insert(name.to_owned(), number.into());
        }
    }
    let stops = messages::stops(fields)?;
    if !stops.is_empty() {
        body.insert("stop_sequences".into(), stops.into());
    }
    if let Some(user) = fields.get::<String>("user", "a text")? {
        body.insert("metadata".into(), json!({ "user_id": user }));
    }
    let choice = messages::tool_choice(fields)?;
    let tools = messages::tools(fields, &ToolChoice::Auto)?;
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into_iter().map(tool).collect());
        body.insert("tool_choice".into(), tool_choice(fields, &choice)?);
    }
    Ok(body.into())
}

/// As the text was JSON once, it is so again.
fn parse(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

/// What the system says is no message here.
fn system(conversation: &[Message]) -> Vec<String> {
    let said = conversation.iter().filter(|message| message.role == Role::System);
    said.map(text).filter(|text| !text.is_empty()).collect()
}

fn text(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Image { .. } | Part::ImageUrl { .. } => None,
    });
    texts.collect()
}

/// User and assistant take turns, and the results of functions are the user's. All results that follow one turn belong into one message.
fn turns(conversation: &[Message]) -> Value {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in conversation {
        let (role, blocks) = match message.role {
            Role::System => continue,
            Role::User => ("user", blocks(message)),
            Role::Assistant => {
                let calls = message.calls.iter().map(|call| {
                    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
                });
                ("assistant", blocks(message).into_iter().chain(calls).collect())
            }
            Role::Tool => {
                let id = message.answers.as_deref().unwrap_or_default();
                let result = json!({"type": "tool_result", "tool_use_id": id, "content": blocks(message)});
                ("user", vec![result])
            }
        };
        match turns.last_mut() {
            Some((last, all)) if *last == role => all.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

fn blocks(message: &Message) -> Vec<Value> {
    let blocks = message.parts.iter().filter_map(|part| match part {
        // Empty texts are refused, and say nothing.
        Part::Text(text) if text.is_empty() => None,
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::Image { media_type, base64 } => {
            let source = json!({"type": "base64", "media_type": media_type, "data": base64});
            Some(json!({"type": "image", "source": source}))
        }
        Part::ImageUrl { url, .. } => Some(json!({"type": "image", "source": {"type": "url", "url": url}})),
    });
    blocks.collect()
}

fn tool(tool: Tool) -> Value {
    let function = tool.function;
    let schema = function.parameters.unwrap_or_else(|| json!({"type": "object"}));
    let mut told = json!({"name": function.name, "input_schema": schema});
    if let Some(description) = function.description {
        told["description"] = description.into();
    }
    told
}

fn tool_choice(fields: &Fields, choice: &ToolChoice) -> Result<Value, ChatError> {
    let mut told = match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => return Ok(json!({"type": "none"})),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if fields.get("parallel_tool_calls", "true or false")? == Some(false) {
        told["disable_parallel_tool_use"] = true.into();
    }
    Ok(told)
}

/// Tokens for thoughts, where some are asked for.
fn budget(fields: &Fields, limit: Option<u64>) -> Result<Option<u64>, ChatError> {
    let think: Option<Value> = fields.get("think", "true, false or a level")?;
    let effort: Option<String> = fields.get("reasoning_effort", "a text")?;
    let level = match &think {
        Some(Value::Bool(true)) => Some("medium"),
        Some(Value::String(level)) => Some(level.as_str()),
        Some(_) => None,
        None => effort.as_deref().filter(|effort| !["none", "minimal"].contains(effort)),
    };
    let Some(level) = level else { return Ok(None) };
    let wanted = match level {
        "low" => MIN_BUDGET,
        "medium" => 4 * MIN_BUDGET,
        _ => 16 * MIN_BUDGET,
    };
    match limit {
        // The limit counts thoughts too, and something has to be left for the answer.
        Some(limit) if limit <= MIN_BUDGET => Err(ChatError::field(
            "max_tokens",
            format_args!("must be over {MIN_BUDGET} for this model to think before it answers"),
        )),
        Some(limit) => Ok(Some(wanted.min((limit / 2).max(MIN_BUDGET)))),
        None => Ok(Some(wanted)),
    }
}

/// Reads an answer.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    sse: Sse,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    usage: Usage,
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
}

impl State {
    fn said(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        match serde_json::from_slice(data).map_err(|error| Fault::json(&error))? {
            Said::MessageStart { message } => self.count(&message.usage),
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
                events.push(Event::Usage(self.usage));
                if let Some(reason) = delta.stop_reason {
                    events.push(Event::Finish(finish(&reason)));
                }
            }
            Said::MessageStop => self.done = true,
            Said::Error { error } => return Err(super::said(&error)),
            Said::ContentBlockStart { .. } | Said::ContentBlockDelta { .. } | Said::Other => {}
        }
        Ok(())
    }

    /// Counts are told several times, each the sum so far. OpenAI's count of a prompt has the cached part in it.
    fn count(&mut self, tokens: &Tokens) {
        if let Some(input) = tokens.input {
            let cached = tokens.cache_creation.unwrap_or(0) + tokens.cache_read.unwrap_or(0);
            self.usage.prompt_tokens = self.usage.prompt_tokens.max(input + cached);
        }
        self.usage.completion_tokens = tokens.output.unwrap_or(self.usage.completion_tokens);
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
#[allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_anthropics_words() {
        let told = request_of(json!({
            "model": "x", "max_tokens": 50, "temperature": 0.5, "stop": ["END"], "user": "me", "top_k": 5,
            "parallel_tool_calls": false, "tool_choice": "required", "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "developer", "content": "and kind"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what are they?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://x/cat.png"}},
                ]},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": ""}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
                {"role": "tool", "tool_call_id": "c2", "content": "a dog"},
                {"role": "user", "content": "well?"},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "description": "looks"}}],
        }));
        let expected = json!({
            "model": "m", "stream": true, "max_tokens": 50, "temperature": 0.5, "stop_sequences": ["END"], "top_k": 5,
            "metadata": {"user_id": "me"}, "system": "be brief\n\nand kind",
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "what are they?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://x/cat.png"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
                    {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "a cat"}]},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "a dog"}]},
                    {"type": "text", "text": "well?"},
                ]},
            ],
            "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        });
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn json_is_asked_for_in_the_way_that_there_is() {
        let schema = json!({"type": "object"});
        let asked = |format: Value| request_of(with(json!({ "response_format": format }))).unwrap();
        let told = asked(json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}));
        assert_eq!(told["output_config"], json!({"format": {"type": "json_schema", "schema": schema}}));
        let told = asked(json!({"type": "json_object"}));
        assert!(told["system"].as_str().unwrap().contains("JSON"));
    }

    #[test]
    fn thoughts_have_a_budget_below_the_limit() {
        let told = |more: Value| request_of(with(more));
        assert_eq!(told(json!({})).unwrap()["max_tokens"], MAX_TOKENS);
        assert!(told(json!({"think": false})).unwrap().get("thinking").is_none());
        let thinking = told(json!({"think": true})).unwrap();
        assert_eq!(
            (&thinking["thinking"]["budget_tokens"], &thinking["max_tokens"]),
            (&json!(4096), &json!(8192))
        );
        let thinking = told(json!({"reasoning_effort": "high", "max_tokens": 3000})).unwrap();
        assert_eq!(thinking["thinking"]["budget_tokens"], 1500);
        assert_eq!(told(json!({"think": true, "max_tokens": 100})).unwrap_err().field.unwrap(), "max_tokens");
    }

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

    fn with(more: Value) -> Value {
        let mut body = json!({"model": "x", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
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
