//! A real Ollama with a tiny model: its text is noise; protocol, counts and ends are real.
//!
//! Noise may end at any token, since the end of a text is one of the model's tokens, and may show nothing at all, since Ollama
//! drops bytes that make no character. Only a grammar makes sure of text.
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
    assert!(whole["provider"] == "home" && whole["content"].is_string(), "{whole}");
    assert!(whole["prompt_tokens"].as_u64().unwrap() > 0, "{whole}");
    ended_within(5, &whole["finish_reason"], &whole["completion_tokens"]);

    // Its grammar lets nothing through that is no JSON.
    let prefixed = format!("ollama/{model}");
    let more = json!({"max_tokens": 5, "format": "json", "stream": true});
    let told = lines(chat.post("/chat", &say(&prefixed, more)).await).await;
    let (done, pieces) = told.split_last().unwrap();
    let text: String = pieces.iter().map(|piece| piece["content"].as_str().unwrap()).collect();
    assert!(text.trim_start().starts_with('{'), "{told:?}");
    ended_within(5, &done["done"]["finish_reason"], &done["done"]["completion_tokens"]);

    let more = json!({"max_completion_tokens": 5, "stream": true, "stream_options": {"include_usage": true}});
    let told = events(chat.post("/chat/completions", &say(&model, more)).await).await;
    assert_eq!(told.last().unwrap(), "[DONE]");
    let parsed = |back: usize| serde_json::from_str::<Value>(&told[told.len() - back]).unwrap();
    let (end, usage) = (parsed(3), parsed(2));
    ended_within(5, &end["choices"][0]["finish_reason"], &usage["usage"]["completion_tokens"]);

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

/// Either the limit ended the answer, and then it has so many tokens, or the model did, the end itself counted.
fn ended_within(limit: u64, finish: &Value, tokens: &Value) {
    let tokens = tokens.as_u64().unwrap();
    match finish.as_str().unwrap() {
        "length" => assert_eq!(tokens, limit),
        other => assert!(other == "stop" && (1..=limit).contains(&tokens), "{other} after {tokens} tokens"),
    }
}
