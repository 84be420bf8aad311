//! OpenAI's messages, tools and limits read in full, for protocols that write them in another way.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{ChatError, ask::Fields};

/// A message of the conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    /// Its place, for sentences about it.
    pub(crate) at: usize,
    pub(crate) role: Role,
    pub(crate) parts: Vec<Part>,
    pub(crate) calls: Vec<Call>,
    /// The call whose result it is.
    pub(crate) answers: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    #[default]
    User,
    Assistant,
    Tool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Image { media_type: String, base64: String },
    ImageUrl { field: String, url: String },
}

/// A function that the model called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// An object.
    pub(crate) arguments: Value,
}

/// A function that it may call.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tool {
    pub(crate) function: Function,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Option<Value>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// The shape that an answer has to have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    Json,
    Schema(Value),
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Option<Vec<RawCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<RawPart>),
}

#[derive(Deserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

#[derive(Deserialize)]
struct RawCall {
    #[serde(default)]
    id: String,
    function: RawFunction,
}

#[derive(Deserialize)]
struct RawFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// The conversation.
pub(crate) fn conversation(fields: &Fields) -> Result<Vec<Message>, ChatError> {
    let raw: Vec<Box<RawValue>> = fields.get("messages", "a list")?.unwrap_or_default();
    raw.iter().enumerate().map(|(at, raw)| message(at, raw)).collect()
}

fn message(at: usize, raw: &RawValue) -> Result<Message, ChatError> {
    let RawMessage { role, content, tool_calls, tool_call_id } = serde_json::from_str(raw.get())
        .map_err(|_| ChatError::field(format!("messages[{at}]"), "is not a message as OpenAI writes them"))?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => Role::User,
    };
    let parts = match content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![Part::Text(text)],
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(place, part)| self::part(&format!("messages[{at}].content[{place}]"), part))
            .collect::<Result<_, _>>()?,
    };
    let calls = tool_calls.unwrap_or_default().into_iter().enumerate();
    let calls = calls.map(|(place, call)| self::call(at, place, call)).collect::<Result<_, _>>()?;
    Ok(Message { at, role, parts, calls, answers: tool_call_id })
}

fn part(field: &str, part: RawPart) -> Result<Part, ChatError> {
    match (part.kind.as_str(), part.text, part.image_url) {
        ("text" | "refusal", Some(text), _) => Ok(Part::Text(text)),
        ("image_url", _, Some(ImageUrl { url })) => image(field, url),
        ("text" | "image_url", ..) => Err(ChatError::field(field, "lacks what its type says")),
        (kind, ..) => {
            let kind: String = kind.chars().take(32).collect();
            Err(ChatError::field(
                format!("{field}.type"),
                format_args!("is `{kind}`; this model's provider takes `text` and `image_url`"),
            ))
        }
    }
}

fn image(field: &str, url: String) -> Result<Part, ChatError> {
    let field = format!("{field}.image_url.url");
    let Some(data) = url.strip_prefix("data:") else { return Ok(Part::ImageUrl { field, url }) };
    let (media_type, base64) = data
        .split_once(";base64,")
        .ok_or_else(|| ChatError::field(field, "must be an address, or `data:image/…;base64,…`"))?;
    Ok(Part::Image { media_type: media_type.to_owned(), base64: base64.to_owned() })
}

fn call(at: usize, place: usize, call: RawCall) -> Result<Call, ChatError> {
    let RawCall { id, function: RawFunction { name, arguments } } = call;
    let arguments = match arguments {
        Value::String(text) if text.trim().is_empty() => Some(Value::Object(serde_json::Map::new())),
        Value::String(text) => serde_json::from_str(&text).ok(),
        Value::Null => Some(Value::Object(serde_json::Map::new())),
        other => Some(other),
    };
    let field = || format!("messages[{at}].tool_calls[{place}].function.arguments");
    let arguments = arguments
        .filter(Value::is_object)
        .ok_or_else(|| ChatError::field(field(), "must be the text of a JSON object"))?;
    Ok(Call { id, name, arguments })
}

/// The functions that may be called: none where the choice says so, one where it names it.
pub(crate) fn tools(fields: &Fields, choice: &ToolChoice) -> Result<Vec<Tool>, ChatError> {
    let what = "a list of functions as OpenAI writes them";
    let mut tools: Vec<Tool> = fields.get("tools", what)?.unwrap_or_default();
    match choice {
        ToolChoice::None => tools.clear(),
        ToolChoice::Named(name) => {
            tools.retain(|tool| tool.function.name == *name);
            if tools.is_empty() {
                return Err(ChatError::field("tool_choice", "names a function that is not among `tools`"));
            }
        }
        ToolChoice::Auto | ToolChoice::Required => {}
    }
    Ok(tools)
}

pub(crate) fn tool_choice(fields: &Fields) -> Result<ToolChoice, ChatError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Choice {
        Word(String),
        Named { function: Name },
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let what = "`none`, `auto`, `required` or a function's name as OpenAI writes it";
    match fields.get("tool_choice", what)? {
        None => Ok(ToolChoice::Auto),
        Some(Choice::Named { function }) => Ok(ToolChoice::Named(function.name)),
        Some(Choice::Word(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(ChatError::field("tool_choice", format_args!("must be {what}"))),
        },
    }
}

pub(crate) fn format(fields: &Fields) -> Result<Option<Format>, ChatError> {
    #[derive(Deserialize)]
    struct ResponseFormat {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        json_schema: Option<JsonSchema>,
    }
    #[derive(Deserialize)]
    struct JsonSchema {
        schema: Value,
    }
    let what = "a format as OpenAI writes it";
    let Some(ResponseFormat { kind, json_schema }) = fields.get("response_format", what)? else {
        return Ok(None);
    };
    match (kind.as_str(), json_schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(Format::Json)),
        ("json_schema", Some(JsonSchema { schema })) => Ok(Some(Format::Schema(schema))),
        _ => Err(ChatError::field("response_format", "must be `text`, `json_object` or a `json_schema`")),
    }
}

/// The most tokens of the answer: OpenAI has two names for it.
pub(crate) fn max_tokens(fields: &Fields) -> Result<Option<u64>, ChatError> {
    let what = "a whole number";
    match fields.get("max_completion_tokens", what)? {
        Some(limit) => Ok(Some(limit)),
        None => fields.get("max_tokens", what),
    }
}

/// Texts at which the answer ends.
pub(crate) fn stops(fields: &Fields) -> Result<Vec<String>, ChatError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    Ok(match fields.get("stop", "a text or a list of texts")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    })
}

/// Only one answer can be had from a provider that does not know OpenAI's `n`.
pub(crate) fn only_one(fields: &Fields) -> Result<(), ChatError> {
    match fields.get::<u64>("n", "a whole number")? {
        None | Some(1) => Ok(()),
        Some(_) => Err(ChatError::field("n", "must be 1: this model's provider gives one answer")),
    }
}

/// OpenAI's fields that are told in another way, or have no counterpart. All others go on as they came: they are meant for
/// the provider, or it will say that it does not know them.
pub(crate) const TRANSLATED: [&str; 36] = [
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "n",
    "stream_options",
    "reasoning_effort",
    "think",
    "user",
    "functions",
    "function_call",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "modalities",
    "audio",
    "verbosity",
    "web_search_options",
    "keep_alive",
    "options",
];
