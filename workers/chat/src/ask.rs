//! What a client asks: the fields of the door that it came through, kept as the text that they came as.
//!
//! Checks what every provider needs: a model, messages, roles. What a field means is left to the provider that understands it.
//! The native door's fields are told in OpenAI's words at once; those of other doors only where a provider does not speak them.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{ChatError, error::Kind, origin::Origin};

/// Who speaks in OpenAI's messages, and in Ollama's and Anthropic's.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
const OLLAMAS_ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
const ANTHROPICS_ROLES: [&str; 2] = ["user", "assistant"];

/// The fields of the native door.
const NATIVE: [&str; 10] = [
    "model",
    "messages",
    "temperature",
    "max_tokens",
    "format",
    "think",
    "stream",
    "tools",
    "keep_alive",
    "options",
];

/// A request that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) door: Door,
    /// As the client names it.
    pub(crate) model: String,
    /// Whether the answer goes out in pieces.
    pub(crate) stream: bool,
    /// All but `model` and `stream`.
    pub(crate) fields: Fields,
    /// What Anthropic's clients try out, for a provider that knows it: `anthropic-beta`.
    pub(crate) beta: Option<HeaderValue>,
    pub(crate) origin: Origin,
}

/// Where a request came in, and so the shape of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `POST /chat`
    Native,
    /// `POST /chat/completions`
    OpenAi {
        /// Whether a stream ends with its tokens.
        usage: bool,
    },
    /// `POST /messages`
    Anthropic,
    /// `POST /ollama/api/chat`
    Ollama,
}

/// Fields of a JSON object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, ChatError> {
        if body.trim_ascii().is_empty() {
            return Err(ChatError::new(Kind::BadRequest, "the body is empty; a JSON object is expected"));
        }
        serde_json::from_slice(body).map_err(|error| {
            // What the parser says of data repeats it, and no prompt belongs into a log.
            let reason = if error.is_data() { "an object is expected".to_owned() } else { error.to_string() };
            ChatError::new(Kind::BadRequest, format!("the body is not the JSON that is expected: {reason}"))
        })
    }

    /// Fields of an object that was made here.
    pub(crate) fn of(object: &Map<String, Value>) -> Self {
        let mut fields = Self::default();
        object.iter().for_each(|(name, value)| fields.set(name, value));
        fields
    }

    /// A field, or `None` where it is absent or null; `what` it has to be is for the one who sent something else.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str, what: &str) -> Result<Option<T>, ChatError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let value = serde_json::from_str(raw.get());
        value.map(Some).map_err(|_| ChatError::field(name, format_args!("must be {what}")))
    }

    /// A field's text; `None` where it is absent or null.
    pub(crate) fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|raw| &**raw).filter(|raw| raw.get() != "null")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), &**raw))
    }

    /// A field's text, which is not among them any more.
    pub(crate) fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.0.remove(name).filter(|raw| raw.get() != "null")
    }

    /// An object of these fields, and of `more` before them where a name is the same.
    pub(crate) fn body(&self, more: &[(&str, Value)]) -> Result<Vec<u8>, ChatError> {
        let more: Vec<(&str, Box<RawValue>)> =
            more.iter().filter_map(|(name, value)| Some((*name, to_raw_value(value).ok()?))).collect();
        let all: BTreeMap<&str, &RawValue> =
            self.iter().chain(more.iter().map(|(name, raw)| (*name, &**raw))).collect();
        serde_json::to_vec(&all).map_err(|_| ChatError::field("messages", "cannot be written again"))
    }

    pub(crate) fn set(&mut self, name: &str, value: &Value) {
        // A value that was parsed can be written.
        if let Ok(raw) = to_raw_value(value) {
            self.0.insert(name.to_owned(), raw);
        }
    }
}

impl Ask {
    /// The body of `POST /chat/completions`.
    pub(crate) fn openai(body: &[u8]) -> Result<Self, ChatError> {
        #[derive(Deserialize)]
        struct StreamOptions {
            #[serde(default)]
            include_usage: Option<bool>,
        }
        let fields = Fields::parse(body)?;
        let options: Option<StreamOptions> = fields.get("stream_options", "an object")?;
        let usage = options.and_then(|options| options.include_usage).unwrap_or(false);
        Self::check(Door::OpenAi { usage }, fields, &ROLES)
    }

    /// The body of `POST /messages`, in Anthropic's words.
    pub(crate) fn anthropic(body: &[u8]) -> Result<Self, ChatError> {
        let fields = Fields::parse(body)?;
        let ask = Self::check(Door::Anthropic, fields, &ANTHROPICS_ROLES)?;
        match ask.fields.get::<u64>("max_tokens", "a whole number")? {
            None => Err(ChatError::field("max_tokens", "is missing")),
            Some(0) => Err(ChatError::field("max_tokens", "must be at least 1")),
            Some(_) => Ok(ask),
        }
    }

    /// The body of `POST /ollama/api/chat`, in Ollama's words. It streams where nothing is said about that.
    pub(crate) fn ollama(body: &[u8]) -> Result<Self, ChatError> {
        let mut fields = Fields::parse(body)?;
        if fields.raw("stream").is_none() {
            fields.set("stream", &true.into());
        }
        Self::check(Door::Ollama, fields, &OLLAMAS_ROLES)
    }

    /// The body of `POST /chat`, told in OpenAI's fields.
    pub(crate) fn native(body: &[u8]) -> Result<Self, ChatError> {
        let mut fields = Fields::parse(body)?;
        if let Some((unknown, _)) = fields.iter().find(|(name, _)| !NATIVE.contains(name)) {
            return Err(ChatError::field(
                unknown,
                format_args!("is not known here; the fields are `{}`", NATIVE.join("`, `")),
            ));
        }
        fields.get::<f64>("temperature", "a number")?;
        fields.get::<u64>("max_tokens", "a whole number")?;
        match fields.get::<Value>("think", "true, false or a level")? {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(level)) if ["low", "medium", "high"].contains(&level.as_str()) => {}
            Some(_) => {
                return Err(ChatError::field(
                    "think",
                    "must be true, false, \"low\", \"medium\" or \"high\"",
                ));
            }
        }
        match fields.get::<Value>("format", "\"json\" or a JSON schema")? {
            None => {}
            Some(Value::String(word)) if word == "json" => {
                fields.set("response_format", &json!({"type": "json_object"}));
            }
            Some(schema @ Value::Object(_)) => {
                let schema = json!({"name": "answer", "schema": schema});
                fields.set("response_format", &json!({"type": "json_schema", "json_schema": schema}));
            }
            Some(_) => return Err(ChatError::field("format", "must be \"json\" or a JSON schema")),
        }
        fields.take("format");
        let mut ask = Self::check(Door::Native, fields, &ROLES)?;
        ask.fields.images_into_content()?;
        Ok(ask)
    }

    fn check(door: Door, mut fields: Fields, roles: &[&str]) -> Result<Self, ChatError> {
        let model: Option<String> = fields.get("model", "a text")?;
        let model = model.ok_or_else(|| ChatError::field("model", "is missing"))?;
        if model.trim().is_empty() {
            return Err(ChatError::field("model", "is empty"));
        }
        let stream = fields.get("stream", "true or false")?.unwrap_or(false);
        messages(&fields, roles)?;
        fields.take("model");
        fields.take("stream");
        Ok(Self { door, model, stream, fields, beta: None, origin: Origin::default() })
    }

    /// The same request in other words.
    pub(crate) fn told(&self, fields: Fields) -> Self {
        let origin = self.origin.clone();
        Self { door: self.door, model: self.model.clone(), stream: self.stream, fields, beta: None, origin }
    }
}

impl Fields {
    /// Ollama writes images beside the text of a message; OpenAI as parts of it.
    pub(crate) fn images_into_content(&mut self) -> Result<(), ChatError> {
        let Some(raw) = self.raw("messages") else { return Ok(()) };
        if !raw.get().contains("\"images\"") {
            return Ok(());
        }
        let mut messages: Vec<Value> = self.get("messages", "a list")?.unwrap_or_default();
        for (at, message) in messages.iter_mut().enumerate() {
            let Some(message) = message.as_object_mut() else { continue };
            let images = match message.remove("images") {
                None | Some(Value::Null) => continue,
                Some(Value::Array(images)) => images,
                Some(_) => {
                    return Err(ChatError::field(format!("messages[{at}].images"), "must be a list"));
                }
            };
            let mut parts = match message.remove("content") {
                Some(Value::Array(parts)) => parts,
                Some(Value::String(text)) => vec![json!({"type": "text", "text": text})],
                _ => Vec::new(),
            };
            for (place, image) in images.into_iter().enumerate() {
                let field = || format!("messages[{at}].images[{place}]");
                let base64 =
                    image.as_str().ok_or_else(|| ChatError::field(field(), "must be a text in base64"))?;
                let media = media_type(base64).ok_or_else(|| {
                    ChatError::field(field(), "must be a PNG, JPEG, GIF or WebP image in base64")
                })?;
                let url = format!("data:{media};base64,{base64}");
                parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            message.insert("content".to_owned(), parts.into());
        }
        self.set("messages", &messages.into());
        Ok(())
    }
}

/// What an image is, by its first bytes in base64.
fn media_type(base64: &str) -> Option<&'static str> {
    let kinds = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
    ];
    kinds.into_iter().find_map(|(start, media)| base64.starts_with(start).then_some(media))
}

/// Every message has a role that there is, and something to say.
fn messages(fields: &Fields, roles: &[&str]) -> Result<(), ChatError> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(default, borrow)]
        role: Option<&'a RawValue>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
        #[serde(default, borrow)]
        tool_calls: Option<&'a RawValue>,
        #[serde(default, borrow)]
        function_call: Option<&'a RawValue>,
    }
    let raw = fields.raw("messages").ok_or_else(|| ChatError::field("messages", "is missing"))?;
    let messages: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| ChatError::field("messages", "must be a list"))?;
    if messages.is_empty() {
        return Err(ChatError::field("messages", "is empty"));
    }
    for (at, message) in messages.into_iter().enumerate() {
        let field = |name: &str| format!("messages[{at}].{name}");
        let is_object = message.get().starts_with('{');
        let head: Head<'_> = is_object
            .then(|| serde_json::from_str(message.get()).ok())
            .flatten()
            .ok_or_else(|| ChatError::field(format!("messages[{at}]"), "must be an object"))?;
        let role = head.role.ok_or_else(|| ChatError::field(field("role"), "is missing"))?.get();
        let role = role.trim_matches('"');
        if !roles.contains(&role) {
            let shown: String = role.chars().take(32).collect();
            let sentence = format!("is `{shown}`; it must be one of `{}`", roles.join("`, `"));
            return Err(ChatError::field(field("role"), sentence));
        }
        let calls = head.tool_calls.or(head.function_call);
        match head.content.map(RawValue::get) {
            Some(content) if content.starts_with(['"', '[']) => {}
            Some("null") | None if role == "assistant" && calls.is_some() => {}
            Some("null") | None => return Err(ChatError::field(field("content"), "is missing")),
            Some(_) => {
                return Err(ChatError::field(field("content"), "must be a text or a list of parts"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lakehouse_contract::chat::ChatRequest;

    use super::*;

    #[test]
    fn a_bad_request_is_told_by_its_field() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (body, field) in [
            (json!({"messages": hi}), "model"),
            (json!({"model": "", "messages": hi}), "model"),
            (json!({"model": 5, "messages": hi}), "model"),
            (json!({"model": "m"}), "messages"),
            (json!({"model": "m", "messages": []}), "messages"),
            (json!({"model": "m", "messages": "hi"}), "messages"),
            (json!({"model": "m", "messages": ["hi"]}), "messages[0]"),
            (json!({"model": "m", "messages": [{"content": "hi"}]}), "messages[0].role"),
            (json!({"model": "m", "messages": [{"role": "robot", "content": "hi"}]}), "messages[0].role"),
            (json!({"model": "m", "messages": [hi[0], {"role": "user"}]}), "messages[1].content"),
            (json!({"model": "m", "messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
            (json!({"model": "m", "messages": [{"role": "assistant"}]}), "messages[0].content"),
            (json!({"model": "m", "messages": hi, "stream": "yes"}), "stream"),
        ] {
            for read in [Ask::openai, Ask::native] {
                let error = read(body.to_string().as_bytes()).unwrap_err();
                assert_eq!((error.kind, error.field.as_deref()), (Kind::BadRequest, Some(field)), "{body}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_told_without_repeating_it() {
        for body in ["", "  ", "{", "\"secret\"", "[\"secret\"]", "{\"model\": secret}"] {
            let error = Ask::openai(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind, Kind::BadRequest);
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_native_door_knows_its_fields_and_no_others() {
        let native = |more: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Ask::native(body.to_string().as_bytes())
        };
        for (more, field) in [
            (json!({"top_k": 5}), "top_k"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"max_tokens": -1}), "max_tokens"),
            (json!({"format": "yaml"}), "format"),
            (json!({"think": "much"}), "think"),
        ] {
            assert_eq!(native(more.clone()).unwrap_err().field.as_deref(), Some(field), "{more}");
        }
        let ask = native(json!({"format": "json", "think": null, "stream": true})).unwrap();
        assert!(ask.stream);
        assert_eq!(ask.fields.raw("response_format").unwrap().get(), r#"{"type":"json_object"}"#);
    }

    #[test]
    fn the_contract_has_the_same_native_fields() {
        let full = json!({
            "model": "m", "messages": [], "temperature": 1.0, "max_tokens": 5, "format": "json", "think": true,
            "stream": true, "tools": [], "keep_alive": "5m", "options": {},
        });
        let request: ChatRequest = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(serde_json::to_value(request).unwrap(), full);
        assert_eq!(full.as_object().unwrap().len(), NATIVE.len());
    }

    #[test]
    fn images_beside_the_text_become_parts_of_it() {
        let body = |image: &str| {
            let message = json!({"role": "user", "content": "what is it?", "images": [image]});
            json!({"model": "m", "messages": [message]}).to_string()
        };
        let ask = Ask::native(body("iVBORw0KGgoAAA").as_bytes()).unwrap();
        let messages: Value = ask.fields.get("messages", "a list").unwrap().unwrap();
        let image =
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoAAA"}});
        assert_eq!(messages[0]["content"], json!([{"type": "text", "text": "what is it?"}, image]));
        let error = Ask::native(body("Qk0").as_bytes()).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("messages[0].images[0]"));
    }
}
