//! A real Ollama with a tiny model: its text is noise; protocol, counts and ends are real.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{Chat, events, lines, say};
use lakehouse_parts::Ollama;
use serde_json::{Value, json};

#[tokio::test]
async fn a_real_ollama_answers_at_both_doors() {
    let ollama = tokio::task::spawn_blocking(Ollama::start).await.unwrap();
    let route = json!({"default": true});
    let list = json!([{"name": "home", "type": "Ollama", "url": ollama.url(), "route": route}]);
    let chat = Chat::start(list).await;
    let model = format!("{}:latest", Ollama::CHAT);

    let models = chat.get("/models").await;
    let ids: Vec<&Value> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert!(ids.contains(&&json!(model)), "{models}");

    let (status, whole) = chat.ask("/chat", &say(&model, json!({"max_tokens": 5, "temperature": 0.5}))).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!((&whole["provider"], &whole["finish_reason"]), (&json!("home"), &json!("length")));
    assert_eq!(whole["completion_tokens"], 5);
    assert!(whole["prompt_tokens"].as_u64().unwrap() > 0 && !whole["content"].as_str().unwrap().is_empty());

    let prefixed = format!("ollama/{model}");
    let told =
        lines(chat.post("/chat", &say(&prefixed, json!({"max_tokens": 5, "stream": true}))).await).await;
    let (done, pieces) = told.split_last().unwrap();
    assert!(!pieces.is_empty() && pieces.iter().all(|piece| piece["content"].is_string()), "{told:?}");
    assert_eq!(done["done"]["completion_tokens"], 5);

    let more = json!({"max_completion_tokens": 5, "stream": true, "stream_options": {"include_usage": true}});
    let told = events(chat.post("/chat/completions", &say(&model, more)).await).await;
    let usage: Value = serde_json::from_str(&told[told.len() - 2]).unwrap();
    assert_eq!((&usage["usage"]["completion_tokens"], told.last().unwrap().as_str()), (&json!(5), "[DONE]"));

    // Its grammar lets nothing through that is no JSON.
    let more = json!({"max_tokens": 20, "format": "json"});
    let (status, whole) = chat.ask("/chat", &say(&model, more)).await;
    assert_eq!(status, 200, "{whole}");
    assert!(whole["content"].as_str().unwrap().trim_start().starts_with('{'), "{whole}");

    let (status, told) = chat.ask("/chat", &say("nothing", json!({}))).await;
    assert_eq!((status, &told["error"]["details"]["upstream_status"]), (502, &json!(404)));
    assert_eq!(told["error"]["message"], "`home` answered 404: model 'nothing' not found");

    // It says itself what this model cannot do.
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let (status, told) = chat.ask("/chat/completions", &say(&model, json!({"tools": tools}))).await;
    assert_eq!((status, &told["error"]["provider"]), (502, &json!("home")));
    assert!(told["error"]["message"].as_str().unwrap().contains("does not support tools"), "{told}");
    let (status, told) = chat.ask("/chat", &say(&model, json!({"think": true}))).await;
    assert_eq!((status, &told["error"]["code"]), (502, &json!("provider_refused")), "{told}");
}
