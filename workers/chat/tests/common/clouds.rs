//! The clouds that no test can reach, at one address: `/openai`, `/anthropic` and `/ollama` speak as their providers document it.
//!
//! The model's name says what happens: `talk` answers, `tools` calls a function and tells its result, `json` keeps to a schema,
//! `image` says which images it saw, and others fail as they are called.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::response::Response;
use serde_json::{Value, json};

use super::{Seen, Upstream, answer, completion, fed, last_pieces, ndjson, piece, sse};

/// What a model says.
enum Said {
    Text(String),
    Call,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cloud {
    OpenAi,
    Anthropic,
    Ollama,
}

/// Starts them.
pub(crate) async fn start() -> Upstream {
    let left = Arc::new(AtomicUsize::new(0));
    let (chats, looks) = (left.clone(), left);
    Upstream::looked_at(
        move |seen| {
            let left = chats.clone();
            Box::pin(async move { asked(&seen, left) })
        },
        move |seen| asked(&seen, looks.clone()),
    )
    .await
}

fn asked(seen: &Seen, left: Arc<AtomicUsize>) -> Response {
    let (name, path) = seen.path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let cloud = match name {
        "openai" => Cloud::OpenAi,
        "anthropic" => Cloud::Anthropic,
        "ollama" => Cloud::Ollama,
        // How many streams their client left.
        _ => return answer(200, &json!({"left": left.load(Ordering::Relaxed)})),
    };
    cloud.answer(path, seen, left)
}

impl Cloud {
    fn answer(self, path: &str, seen: &Seen, left: Arc<AtomicUsize>) -> Response {
        match path {
            "models" | "v1/models" => {
                return answer(200, &json!({"object": "list", "data": [{"id": "talk"}]}));
            }
            "api/tags" => return answer(200, &json!({"models": [{"name": "talk"}]})),
            _ => {}
        }
        let streams = seen.body["stream"] == true;
        match seen.body["model"].as_str().unwrap_or_default() {
            "limited" => {
                let mut told =
                    self.error(429, "rate_limit_error", "Number of requests has exceeded your limit");
                told.headers_mut().insert("retry-after", "7".parse().unwrap());
                told
            }
            "denied" => self.error(401, "authentication_error", "invalid x-api-key"),
            "down" => self.error(503, "overloaded_error", "Overloaded"),
            "broken" => self.begun("hel", Some(()), left),
            "endless" => self.begun("hel", None, left),
            "tools" => self.told(
                &result(&seen.body).map_or(Said::Call, |text| Said::Text(format!("It is {text}."))),
                streams,
            ),
            "json" => {
                let body = &seen.body;
                let schemas = [
                    &body["response_format"]["json_schema"],
                    &body["output_config"]["format"],
                    &body["format"],
                ];
                let has = schemas.iter().any(|schema| schema.to_string().contains("\"city\""));
                let text = if has { "{\"city\":\"Paris\"}" } else { "no schema came" };
                self.told(&Said::Text(text.to_owned()), streams)
            }
            "image" => {
                let whole = seen.body["messages"].to_string();
                let images = whole.matches("iVBORw0KGgo").count();
                self.told(&Said::Text(format!("{images} image")), streams)
            }
            "talk" => self.told(&Said::Text("hello".to_owned()), streams),
            other => self.error(404, "not_found_error", &format!("model: {other}")),
        }
    }

    fn error(self, status: u16, kind: &str, message: &str) -> Response {
        answer(
            status,
            &match self {
                Self::OpenAi => {
                    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
                }
                Self::Anthropic => {
                    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
                }
                Self::Ollama => json!({ "error": message }),
            },
        )
    }

    /// A stream of one piece, which breaks off with an error or goes on for ever.
    fn begun(self, text: &str, breaks: Option<()>, left: Arc<AtomicUsize>) -> Response {
        let (feed, gone, mut response) = fed();
        let (first, error) = match self {
            Self::OpenAi => {
                let error = json!({"error": {"message": "The server had an error", "type": "server_error"}});
                (format!("data: {}\n\n", piece(text)), format!("data: {error}\n\n"))
            }
            Self::Anthropic => {
                let events = message(
                    &json!({"type": "text", "text": ""}),
                    &[json!({"type": "text_delta", "text": text})],
                    "",
                );
                let error =
                    json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
                let first: Vec<String> =
                    events[..3].iter().map(|event| format!("data: {event}\n\n")).collect();
                (first.concat(), format!("event: error\ndata: {error}\n\n"))
            }
            Self::Ollama => {
                response.headers_mut().insert("content-type", "application/x-ndjson".parse().unwrap());
                let line =
                    json!({"model": "m", "message": {"role": "assistant", "content": text}, "done": false});
                (format!("{line}\n"), format!("{}\n", json!({"error": "an error was encountered"})))
            }
        };
        feed.try_send(Ok(first)).unwrap();
        if breaks.is_some() {
            feed.try_send(Ok(error)).unwrap();
        }
        tokio::spawn(async move {
            gone.notified().await;
            left.fetch_add(1, Ordering::Relaxed);
            drop(feed);
        });
        response
    }

    fn told(self, said: &Said, streams: bool) -> Response {
        match (self, streams) {
            (Self::OpenAi, _) => openai(said, streams),
            (Self::Anthropic, _) => anthropic(said, streams),
            (Self::Ollama, _) => ollama(said, streams),
        }
    }
}

/// The result of a function, in any of the three ways to tell one.
fn result(body: &Value) -> Option<String> {
    let last = body["messages"].as_array()?.last()?;
    let content = &last["content"];
    let text = |content: &Value| content.as_str().or_else(|| content[0]["text"].as_str()).map(str::to_owned);
    match (last["role"].as_str()?, content[0]["type"].as_str()) {
        ("tool", _) => text(content),
        ("user", Some("tool_result")) => text(&content[0]["content"]),
        _ => None,
    }
}

const ARGUMENTS: [&str; 2] = ["{\"city\":", "\"Paris\"}"];

fn openai(said: &Said, streams: bool) -> Response {
    let call = |arguments: &str| json!([{"index": 0, "id": "call_7", "type": "function", "function": {"name": "weather", "arguments": arguments}}]);
    if !streams {
        let mut whole = completion("");
        let choice = &mut whole["choices"][0];
        match said {
            Said::Text(text) => choice["message"]["content"] = text.as_str().into(),
            Said::Call => {
                choice["message"] =
                    json!({"role": "assistant", "content": null, "tool_calls": call(&ARGUMENTS.concat())});
                choice["finish_reason"] = "tool_calls".into();
            }
        }
        return answer(200, &whole);
    }
    let [end, usage, done] = last_pieces();
    let mut events: Vec<String> = match said {
        Said::Text(text) => text.chars().map(|letter| piece(&letter.to_string())).collect(),
        Said::Call => {
            let chunk = |delta: Value| {
                let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
                let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]});
                chunk.to_string()
            };
            let more =
                |json: &str| chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": json}}]}));
            vec![chunk(json!({"tool_calls": call("")})), more(ARGUMENTS[0]), more(ARGUMENTS[1])]
        }
    };
    events.push(if matches!(said, Said::Call) { end.replace("\"stop\"", "\"tool_calls\"") } else { end });
    events.extend([usage, done]);
    sse(&events)
}

/// The events of a message of one block.
fn message(block: &Value, deltas: &[Value], reason: &str) -> Vec<Value> {
    let start = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": null,
        "stop_sequence": null, "usage": {"input_tokens": 7, "output_tokens": 1},
    });
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
    ];
    events.extend(
        deltas.iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    let end = json!({"stop_reason": reason, "stop_sequence": null});
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": end, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ]);
    events
}

fn anthropic(said: &Said, streams: bool) -> Response {
    let call = |input: Value| json!({"type": "tool_use", "id": "toolu_7", "name": "weather", "input": input});
    let reason = if matches!(said, Said::Call) { "tool_use" } else { "end_turn" };
    if !streams {
        let block = match said {
            Said::Text(text) => json!({"type": "text", "text": text}),
            Said::Call => call(json!({"city": "Paris"})),
        };
        let whole = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "content": [block], "model": "m", "stop_reason": reason,
            "stop_sequence": null, "usage": {"input_tokens": 7, "output_tokens": 2},
        });
        return answer(200, &whole);
    }
    let events = match said {
        Said::Text(text) => {
            let deltas: Vec<Value> = text
                .chars()
                .map(|letter| json!({"type": "text_delta", "text": letter.to_string()}))
                .collect();
            message(&json!({"type": "text", "text": ""}), &deltas, reason)
        }
        Said::Call => {
            let deltas = ARGUMENTS.map(|json| json!({"type": "input_json_delta", "partial_json": json}));
            message(&call(json!({})), &deltas, reason)
        }
    };
    sse(&events.iter().map(Value::to_string).collect::<Vec<_>>())
}

fn ollama(said: &Said, streams: bool) -> Response {
    let line = |message: Value| json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false});
    let texts = |text: &str| json!({"role": "assistant", "content": text});
    let call =
        json!({"id": "call_7", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}});
    let call = json!({"role": "assistant", "content": "", "tool_calls": [call]});
    let mut end = line(texts(""));
    end["done"] = true.into();
    end["done_reason"] = "stop".into();
    end["prompt_eval_count"] = 7.into();
    end["eval_count"] = 2.into();
    if !streams {
        end["message"] = match said {
            Said::Text(text) => texts(text),
            Said::Call => call,
        };
        return answer(200, &end);
    }
    let mut lines: Vec<Value> = match said {
        Said::Text(text) => text.chars().map(|letter| line(texts(&letter.to_string()))).collect(),
        Said::Call => vec![line(call)],
    };
    lines.push(end);
    ndjson(&lines)
}
