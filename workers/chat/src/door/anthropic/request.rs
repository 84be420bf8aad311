//! Anthropic's messages in OpenAI's words, for providers that do not speak Anthropic's.
//!
//! What has no counterpart there is refused by its name. Left out is only what changes nothing about the answer: marks for a
//! cache, and earlier thoughts, which no other provider would take for its own.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ChatError,
    ask::{Ask, Fields},
    protocol::Protocol,
};

/// Fields that are told, or say nothing to others.
const TOLD: [&str; 14] = [
    "messages",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
    "output_config",
    "service_tier",
    "cache_control",
];

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
}

/// A block of any type.
#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    source: Option<Source>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    tool_use_id: Option<String>,
    content: Option<Content>,
    is_error: Option<bool>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Value>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
struct OutputConfig {
    format: Option<Value>,
    effort: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// The request in OpenAI's words, as `protocol` needs them.
pub(crate) fn translated(ask: &Ask, protocol: Protocol) -> Result<Ask, ChatError> {
    let fields = &ask.fields;
    if let Some((unknown, _)) = fields.iter().find(|(name, raw)| !TOLD.contains(name) && raw.get() != "null")
    {
        return Err(ChatError::field(
            unknown,
            "cannot be told to this model's provider, which is not Anthropic",
        ));
    }
    let mut told = Map::new();
    told.insert("messages".into(), conversation(fields)?.into());
    for (name, as_name, what) in [
        ("max_tokens", "max_tokens", "a whole number"),
        ("temperature", "temperature", "a number"),
        ("top_p", "top_p", "a number"),
        ("stop_sequences", "stop", "a list of texts"),
    ] {
        if let Some(value) = fields.get::<Value>(name, what)? {
            told.insert(as_name.into(), value);
        }
    }
    if let Some(top_k) = fields.get::<u64>("top_k", "a whole number")? {
        match protocol {
            Protocol::Ollama => told.insert("options".into(), json!({ "top_k": top_k })),
            Protocol::OpenAi | Protocol::Anthropic => told.insert("top_k".into(), top_k.into()),
        };
    }
    tools(fields, &mut told)?;
    thinking(fields, &mut told)?;
    output(fields, &mut told)?;
    if let Some(Value::String(user)) =
        fields.get::<Value>("metadata", "an object")?.as_ref().and_then(|metadata| metadata.get("user_id"))
    {
        told.insert("user".into(), user.as_str().into());
    }
    Ok(ask.told(Fields::of(&told)))
}

fn conversation(fields: &Fields) -> Result<Vec<Value>, ChatError> {
    let mut told = Vec::new();
    match fields.get::<Content>("system", "a text or a list of blocks of text")? {
        None => {}
        Some(Content::Text(text)) => told.push(json!({"role": "system", "content": text})),
        Some(Content::Blocks(blocks)) => {
            let texts = blocks.into_iter().enumerate();
            let texts: Vec<String> =
                texts.map(|(at, block)| text(&format!("system[{at}]"), block)).collect::<Result<_, _>>()?;
            told.push(json!({"role": "system", "content": texts.join("\n\n")}));
        }
    }
    let what = "a list of messages as Anthropic writes them";
    let messages: Vec<Message> = fields.get("messages", what)?.unwrap_or_default();
    for (at, Message { role, content }) in messages.into_iter().enumerate() {
        match content {
            Content::Text(text) => told.push(json!({"role": role, "content": text})),
            Content::Blocks(blocks) if role == "assistant" => told.push(assistant(at, blocks)?),
            Content::Blocks(blocks) => user(at, blocks, &mut told)?,
        }
    }
    Ok(told)
}

/// What the model said and called.
fn assistant(at: usize, blocks: Vec<Block>) -> Result<Value, ChatError> {
    let (mut said, mut calls) = (String::new(), Vec::new());
    for (place, block) in blocks.into_iter().enumerate() {
        let field = format!("messages[{at}].content[{place}]");
        match block.kind.as_str() {
            "thinking" | "redacted_thinking" => {}
            "tool_use" => {
                let (Some(id), Some(name)) = (block.id, block.name) else { return Err(lacks(&field)) };
                let arguments = block.input.unwrap_or_else(|| json!({})).to_string();
                calls.push(
                    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}),
                );
            }
            _ => said += &text(&field, block)?,
        }
    }
    let mut told = json!({"role": "assistant", "content": said});
    if !calls.is_empty() {
        told["tool_calls"] = calls.into();
    }
    Ok(told)
}

/// Results of functions are messages of their own.
fn user(at: usize, blocks: Vec<Block>, told: &mut Vec<Value>) -> Result<(), ChatError> {
    let mut parts = Vec::new();
    for (place, block) in blocks.into_iter().enumerate() {
        let field = format!("messages[{at}].content[{place}]");
        match block.kind.as_str() {
            "tool_result" => {
                if !parts.is_empty() {
                    told.push(json!({"role": "user", "content": std::mem::take(&mut parts)}));
                }
                told.push(result(&field, block)?);
            }
            "image" => {
                let url = image(&field, block.source)?;
                parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            _ => parts.push(json!({"type": "text", "text": text(&field, block)?})),
        }
    }
    if !parts.is_empty() {
        told.push(json!({"role": "user", "content": parts}));
    }
    Ok(())
}

fn result(field: &str, block: Block) -> Result<Value, ChatError> {
    let Block { tool_use_id: Some(id), content, is_error, .. } = block else { return Err(lacks(field)) };
    let content = match content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Blocks(blocks)) => {
            let texts = blocks.into_iter().enumerate();
            texts
                .map(|(at, block)| text(&format!("{field}.content[{at}]"), block))
                .collect::<Result<_, _>>()?
        }
    };
    // There is no mark for it elsewhere, so it is said.
    let content = if is_error == Some(true) { format!("The call failed: {content}") } else { content };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn text(field: &str, block: Block) -> Result<String, ChatError> {
    match (block.kind.as_str(), block.text) {
        ("text", Some(text)) => Ok(text),
        ("text", None) => Err(lacks(field)),
        (kind, _) => {
            let kind: String = kind.chars().take(32).collect();
            let sentence =
                format!("is `{kind}`, which cannot be told here to a provider that is not Anthropic");
            Err(ChatError::field(format!("{field}.type"), sentence))
        }
    }
}

fn image(field: &str, source: Option<Source>) -> Result<String, ChatError> {
    let Some(Source { kind, media_type, data, url }) = source else { return Err(lacks(field)) };
    match (kind.as_str(), media_type, data, url) {
        ("base64", Some(media), Some(data), _) => Ok(format!("data:{media};base64,{data}")),
        ("url", _, _, Some(url)) => Ok(url),
        _ => Err(ChatError::field(
            format!("{field}.source"),
            "must be `base64` with its media type, or a `url`",
        )),
    }
}

fn lacks(field: &str) -> ChatError {
    ChatError::field(field, "lacks what its type says")
}

fn tools(fields: &Fields, told: &mut Map<String, Value>) -> Result<(), ChatError> {
    let what = "a list of tools as Anthropic writes them";
    let tools: Vec<Tool> = fields.get("tools", what)?.unwrap_or_default();
    let mut functions = Vec::with_capacity(tools.len());
    for (at, Tool { kind, name, description, input_schema, strict }) in tools.into_iter().enumerate() {
        if kind.as_deref().is_some_and(|kind| kind != "custom") {
            let sentence = "is one of Anthropic's own tools, which this model's provider does not have";
            return Err(ChatError::field(format!("tools[{at}].type"), sentence));
        }
        let mut function = Map::new();
        function.insert("name".into(), name.into());
        function.extend(description.map(|description| ("description".into(), description.into())));
        function.extend(input_schema.map(|schema| ("parameters".into(), schema)));
        function.extend(strict.map(|strict| ("strict".into(), strict.into())));
        functions.push(json!({"type": "function", "function": function}));
    }
    if !functions.is_empty() {
        told.insert("tools".into(), functions.into());
    }
    let what = "`auto`, `any`, `none` or a tool as Anthropic writes it";
    let Some(Choice { kind, name, disable_parallel_tool_use }) = fields.get("tool_choice", what)? else {
        return Ok(());
    };
    let choice = match (kind.as_str(), name) {
        ("auto", _) => json!("auto"),
        ("any", _) => json!("required"),
        ("none", _) => json!("none"),
        ("tool", Some(name)) => json!({"type": "function", "function": {"name": name}}),
        _ => return Err(ChatError::field("tool_choice", format_args!("must be {what}"))),
    };
    told.insert("tool_choice".into(), choice);
    if disable_parallel_tool_use == Some(true) {
        told.insert("parallel_tool_calls".into(), false.into());
    }
    Ok(())
}

/// Whether to think is told; a budget of tokens for it is Anthropic's alone.
fn thinking(fields: &Fields, told: &mut Map<String, Value>) -> Result<(), ChatError> {
    let what = "`enabled`, `adaptive` or `disabled`, as Anthropic writes it";
    let Some(thinking) = fields.get::<Value>("thinking", what)? else { return Ok(()) };
    let think = match thinking["type"].as_str() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(ChatError::field("thinking", format_args!("must be {what}"))),
    };
    told.insert("think".into(), think.into());
    Ok(())
}

fn output(fields: &Fields, told: &mut Map<String, Value>) -> Result<(), ChatError> {
    let what = "an object with `format` or `effort`";
    let Some(OutputConfig { format, effort, more }) = fields.get("output_config", what)? else {
        return Ok(());
    };
    if let Some(unknown) = more.keys().next() {
        return Err(ChatError::field(
            format!("output_config.{unknown}"),
            "cannot be told to this model's provider",
        ));
    }
    if let Some(format) = format {
        let (Some("json_schema"), Some(schema)) = (format["type"].as_str(), format.get("schema")) else {
            return Err(ChatError::field(
                "output_config.format",
                "must be a `json_schema` with its `schema`",
            ));
        };
        let schema = json!({"name": "answer", "schema": schema});
        told.insert("response_format".into(), json!({"type": "json_schema", "json_schema": schema}));
    }
    if let Some(effort) = effort {
        told.insert("reasoning_effort".into(), effort.into());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_openais_words() {
        let told = of(json!({
            "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            "temperature": 0.5, "stop_sequences": ["END"], "top_k": 5, "metadata": {"user_id": "me"},
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "let me look"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [{"type": "text", "text": "dark"}]},
                    {"type": "text", "text": "well?"},
                ]},
            ],
            "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": true},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        }));
        let call =
            json!({"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}});
        let function = json!({"name": "look", "description": "looks", "parameters": {"type": "object"}});
        let expected = json!({
            "max_tokens": 9, "temperature": 0.5, "stop": ["END"], "top_k": 5, "user": "me", "think": true,
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ]},
                {"role": "assistant", "content": "let me look", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "t1", "content": "The call failed: dark"},
                {"role": "user", "content": [{"type": "text", "text": "well?"}]},
            ],
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "look"}}, "parallel_tool_calls": false,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        });
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn what_only_anthropic_has_is_refused_by_its_field() {
        let says = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
        let image = json!({"type": "image", "source": {"type": "url", "url": "https://x"}});
        for (body, field) in [
            (json!({"container": "c"}), "container"),
            (json!({"tools": [{"type": "web_search_20250305", "name": "w"}]}), "tools[0].type"),
            (json!({"output_config": {"task_budget": 1}}), "output_config.task_budget"),
            (json!({"thinking": 5}), "thinking"),
            (says(json!({"type": "document", "source": {"type": "text"}})), "messages[0].content[0].type"),
            (
                says(json!({"type": "tool_result", "tool_use_id": "t", "content": [image]})),
                "messages[0].content[0].content[0].type",
            ),
            (says(json!({"type": "image"})), "messages[0].content[0]"),
        ] {
            assert_eq!(of(body.clone()).unwrap_err().field.as_deref(), Some(field), "{body}");
        }
    }

    fn of(more: Value) -> Result<Value, ChatError> {
        let mut body =
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let ask = Ask::anthropic(body.to_string().as_bytes()).unwrap();
        let told = translated(&ask, Protocol::OpenAi)?;
        Ok(serde_json::from_slice(&told.fields.body(&[]).unwrap()).unwrap())
    }
}
