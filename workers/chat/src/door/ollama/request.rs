//! Ollama's chat in OpenAI's words, for providers that do not speak Ollama's.
//!
//! What has no counterpart there is refused by its name. Left out is only what changes nothing about the answer: how long a model
//! stays loaded, and earlier thoughts.

use serde_json::{Map, Value, json};

use crate::{
    ChatError,
    ask::{Ask, Fields},
};

/// Fields that are told, or say nothing to others.
const TOLD: [&str; 6] = ["messages", "tools", "format", "think", "options", "keep_alive"];

/// Options, and OpenAI's names for them.
const OPTIONS: [(&str, &str); 7] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
];

/// The request in OpenAI's words.
pub(crate) fn translated(ask: &Ask) -> Result<Ask, ChatError> {
    let fields = &ask.fields;
    let elsewhere = "cannot be told to this model's provider, which is not Ollama";
    let says = |raw: &str| !["null", "false"].contains(&raw);
    if let Some((unknown, _)) = fields.iter().find(|(name, raw)| !TOLD.contains(name) && says(raw.get())) {
        return Err(ChatError::field(unknown, elsewhere));
    }
    let mut told = Map::new();
    told.insert("messages".into(), conversation(fields)?.into());
    for name in ["tools", "think"] {
        if let Some(value) = fields.get(name, "as Ollama writes it")? {
            told.insert(name.into(), value);
        }
    }
    if told.get("tools").is_some_and(|tools| tools.as_array().is_some_and(Vec::is_empty)) {
        told.remove("tools");
    }
    if let Some(format) = fields.get::<Value>("format", "\"json\" or a JSON schema")? {
        let format = match format {
            Value::String(word) if word.is_empty() => None,
            Value::String(word) if word == "json" => Some(json!({"type": "json_object"})),
            schema @ Value::Object(_) => {
                let schema = json!({"name": "answer", "schema": schema});
                Some(json!({"type": "json_schema", "json_schema": schema}))
            }
            _ => return Err(ChatError::field("format", "must be \"json\" or a JSON schema")),
        };
        told.extend(format.map(|format| ("response_format".into(), format)));
    }
    let options: Map<String, Value> = fields.get("options", "an object")?.unwrap_or_default();
    for (name, value) in options {
        if value.is_null() {
            continue;
        }
        if name == "num_predict" {
            // Below zero means without a limit.
            told.extend(value.as_u64().map(|limit| ("max_tokens".into(), limit.into())));
        } else if let Some((_, known)) = OPTIONS.iter().find(|(option, _)| *option == name) {
            told.insert((*known).into(), value);
        } else {
            return Err(ChatError::field(format!("options.{name}"), elsewhere));
        }
    }
    let mut told = Fields::of(&told);
    told.images_into_content()?;
    Ok(ask.told(told))
}

/// Calls have a text with their arguments and an id; a result without one belongs to the first call of its function that has none.
fn conversation(fields: &Fields) -> Result<Vec<Value>, ChatError> {
    let mut messages: Vec<Map<String, Value>> = fields.get("messages", "a list")?.unwrap_or_default();
    let mut waiting: Vec<(String, String)> = Vec::new();
    let mut made = 0_u32;
    for (at, message) in messages.iter_mut().enumerate() {
        message.remove("thinking");
        match message.get_mut("tool_calls") {
            None | Some(Value::Null) => {}
            Some(Value::Array(calls)) => {
                for (place, call) in calls.iter_mut().enumerate() {
                    let field = || format!("messages[{at}].tool_calls[{place}].function");
                    let Some(name) = call["function"]["name"].as_str().map(str::to_owned) else {
                        return Err(ChatError::field(field(), "has no `name`"));
                    };
                    let arguments = match call["function"].get("arguments") {
                        None | Some(Value::Null) => "{}".to_owned(),
                        Some(arguments @ Value::Object(_)) => arguments.to_string(),
                        Some(_) => {
                            return Err(ChatError::field(
                                format!("{}.arguments", field()),
                                "must be an object",
                            ));
                        }
                    };
                    let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
                    let id = id.map_or_else(|| format!("call_{made}"), str::to_owned);
                    made += 1;
                    waiting.push((name.clone(), id.clone()));
                    let function = json!({"name": name, "arguments": arguments});
                    *call = json!({"id": id, "type": "function", "function": function});
                }
            }
            Some(_) => return Err(ChatError::field(format!("messages[{at}].tool_calls"), "must be a list")),
        }
        if message.get("role").is_some_and(|role| role == "tool") {
            let text = |name: &str| message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            let (id, name) = (text("tool_call_id"), text("tool_name"));
            let place = waiting.iter().position(|(function, call)| match (id, name) {
                (Some(id), _) => call == id,
                (None, Some(name)) => function == name,
                (None, None) => true,
            });
            let Some(place) = place else {
                return Err(ChatError::field(
                    format!("messages[{at}]"),
                    "is the result of no call before it",
                ));
            };
            let (_, id) = waiting.remove(place);
            message.remove("tool_name");
            message.insert("tool_call_id".into(), id.into());
        }
    }
    Ok(messages.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_openais_words() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"a": 1}}});
        let told = of(json!({
            "messages": [
                {"role": "user", "content": "what is it?", "images": ["iVBORw0KGgo"]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call("f"), call("g")]},
                {"role": "tool", "tool_name": "g", "content": "two"},
                {"role": "tool", "content": "one"},
            ],
            "format": {"type": "object"}, "keep_alive": "5m", "think": "low",
            "options": {"num_predict": 9, "temperature": 0.5, "top_k": 5, "stop": ["END"], "seed": 7},
        }));
        let called = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{\"a\":1}"}});
        let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo"}});
        let expected = json!({
            "max_tokens": 9, "temperature": 0.5, "top_k": 5, "stop": ["END"], "seed": 7, "think": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]},
                {"role": "assistant", "content": "", "tool_calls": [called("call_0", "f"), called("call_1", "g")]},
                {"role": "tool", "tool_call_id": "call_1", "content": "two"},
                {"role": "tool", "tool_call_id": "call_0", "content": "one"},
            ],
        });
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn what_only_ollama_has_is_refused_by_its_field() {
        for (body, field) in [
            (json!({"options": {"num_ctx": 9}}), "options.num_ctx"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"format": 5}), "format"),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0]"),
        ] {
            assert_eq!(of(body.clone()).unwrap_err().field.as_deref(), Some(field), "{body}");
        }
        of(json!({"logprobs": false, "truncate": null, "options": {"num_predict": -1}})).unwrap();
    }

    fn of(more: Value) -> Result<Value, ChatError> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let told = translated(&Ask::ollama(body.to_string().as_bytes()).unwrap())?;
        Ok(serde_json::from_slice(&told.fields.body(&[]).unwrap()).unwrap())
    }
}
