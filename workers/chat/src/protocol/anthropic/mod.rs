//! Anthropic's protocol: `POST /v1/messages`, answered with server-sent events (docs.anthropic.com, API reference, Messages and
//! Streaming Messages).

mod answer;

use serde_json::{Map, Value, json, value::RawValue};

use super::messages::{self, Format, Message, Part, Role, TRANSLATED, Tool, ToolChoice};
use crate::{
    ChatError,
    ask::{Ask, Fields},
};

pub(crate) use answer::{Decoder, Passing, glance};

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

/// User and assistant take turns, and the results of functions are the user's. All results that follow one turn belong into
/// one message.
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

    fn with(more: Value) -> Value {
        let mut body = json!({"model": "x", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn request_of(body: Value) -> Result<Value, ChatError> {
        request(&Ask::openai(body.to_string().as_bytes()).unwrap(), "m")
    }
}
