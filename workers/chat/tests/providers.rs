//! Each provider gets requests in its own words, and its answers come back in those of the door.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{Chat, Upstream, answer, completion, events, last_pieces, lines, ndjson, piece, say, sse};
use serde_json::{Value, json};

#[tokio::test]
async fn openais_door_passes_everything_on_to_openais_protocol() {
    let upstream = Upstream::start(|seen| {
        Box::pin(async move {
            if seen.body["stream"] == true {
                let mut all = vec![piece("he"), piece("llo")];
                all.extend(last_pieces());
                return sse(&all);
            }
            let mut whole = completion("hello");
            whole["system_fingerprint"] = "fp_1".into();
            answer(200, &whole)
        })
    })
    .await;
    let chat = Chat::start(json!([{"name": "up", "type": "OpenRouter", "url": upstream.url}])).await;
    let more = json!({
        "tools": [{"type": "function", "function": {"name": "f", "strict": true}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}],
        "provider": {"order": ["a"]},
    });
    let (status, whole) = chat.ask("/chat/completions", &say("openrouter/vendor/m", more.clone())).await;
    assert_eq!((status, &whole["system_fingerprint"]), (200, &json!("fp_1")));
    let seen = upstream.last();
    assert_eq!((seen.path.as_str(), &seen.body["model"]), ("/chat/completions", &json!("vendor/m")));
    for field in ["tools", "response_format", "messages", "provider"] {
        assert_eq!(seen.body[field], more[field], "{field}");
    }

    let mut stream = say("openrouter/vendor/m", json!({"stream": true}));
    let told = chat.post("/chat/completions", &stream).await;
    assert_eq!(told.headers()["content-type"], "text/event-stream");
    assert_eq!(told.headers()["x-lakehouse-provider"], "up");
    let [end, usage, done] = last_pieces();
    assert_eq!(events(told).await, [piece("he"), piece("llo"), end.clone(), done.clone()]);
    assert_eq!(upstream.last().body["stream_options"], json!({"include_usage": true}));
    stream["stream_options"] = json!({"include_usage": true});
    let told = events(chat.post("/chat/completions", &stream).await).await;
    assert_eq!(told, [piece("he"), piece("llo"), end, usage, done]);
}

#[tokio::test]
async fn the_native_door_reads_openais_protocol() {
    let upstream = Upstream::start(|seen| {
        Box::pin(async move {
            if seen.body["stream"] == true {
                let mut all = vec![piece("he"), piece("llo")];
                all.extend(last_pieces());
                return sse(&all);
            }
            answer(200, &completion("hello"))
        })
    })
    .await;
    let chat = Chat::start(json!([{"name": "up", "type": "Kimi", "url": upstream.url}])).await;
    let (status, whole) = chat.ask("/chat", &say("kimi/m", json!({"format": "json", "max_tokens": 9}))).await;
    assert_eq!(status, 200, "{whole}");
    assert!(whole["latency_ms"].is_u64());
    let expected = json!({
        "model": "m", "provider": "up", "content": "hello", "prompt_tokens": 7, "completion_tokens": 2,
        "finish_reason": "stop", "latency_ms": whole["latency_ms"],
    });
    assert_eq!(whole, expected);
    let seen = upstream.last().body;
    assert_eq!((&seen["response_format"]["type"], &seen["max_tokens"]), (&json!("json_object"), &json!(9)));

    let told = lines(chat.post("/chat", &say("kimi/m", json!({"stream": true}))).await).await;
    assert_eq!(told[..2], [json!({"content": "he"}), json!({"content": "llo"})]);
    assert_eq!((&told[2]["done"]["prompt_tokens"], &told[2]["done"]["provider"]), (&json!(7), &json!("up")));
}

#[tokio::test]
async fn ollama_is_spoken_natively() {
    let upstream = Upstream::start(|_| {
        Box::pin(async {
            ndjson(&[
                json!({"model": "m", "message": {"role": "assistant", "content": "he"}, "done": false}),
                json!({"model": "m", "message": {"role": "assistant", "content": "llo"}, "done": false}),
                json!({
                    "model": "m", "message": {"role": "assistant", "content": ""}, "done": true,
                    "done_reason": "length", "prompt_eval_count": 7, "eval_count": 2,
                }),
            ])
        })
    })
    .await;
    let chat = Chat::start(json!([{"name": "home", "type": "Ollama", "url": upstream.url}])).await;
    let more = json!({"max_tokens": 2, "format": "json", "keep_alive": "1m", "options": {"num_ctx": 512}});
    let (status, whole) = chat.ask("/chat", &say("ollama/m", more)).await;
    assert_eq!(
        (status, &whole["content"], &whole["finish_reason"]),
        (200, &json!("hello"), &json!("length"))
    );
    let seen = upstream.last();
    let expected = json!({
        "model": "m", "stream": true, "think": false, "format": "json", "keep_alive": "1m",
        "options": {"num_predict": 2, "num_ctx": 512}, "messages": [{"role": "user", "content": "hi"}],
    });
    assert_eq!((seen.path.as_str(), seen.body), ("/api/chat", expected));
    assert!(seen.headers.get("authorization").is_none(), "the client's own token is not the upstream's");

    let (_, whole) = chat.ask("/chat/completions", &say("ollama/m", json!({}))).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "hello");
    assert_eq!(whole["usage"], json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}));

    let stream = say("ollama/m", json!({"stream": true, "stream_options": {"include_usage": true}}));
    let told = events(chat.post("/chat/completions", &stream).await).await;
    let parsed: Vec<Value> = told[..4].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(parsed[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "he"}));
    assert_eq!(parsed[2]["choices"][0]["finish_reason"], "length");
    assert_eq!((&parsed[3]["usage"]["total_tokens"], told[4].as_str()), (&json!(9), "[DONE]"));
}

#[tokio::test]
async fn anthropic_is_spoken_natively_with_its_own_headers() {
    let upstream = Upstream::start(|_| {
        Box::pin(async {
            let text = |text: &str| json!({"type": "text_delta", "text": text});
            let events = [
                json!({"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "content_block_delta", "index": 0, "delta": text("he")}),
                json!({"type": "content_block_delta", "index": 0, "delta": text("llo")}),
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
                json!({"type": "message_stop"}),
            ];
            sse(&events.map(|event| event.to_string()))
        })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-ant-1").unwrap();
    let list = json!([{"name": "claude", "type": "Anthropic", "url": upstream.url, "keyFile": key}]);
    let chat = Chat::start(list).await;
    let (status, whole) = chat.ask("/chat/completions", &say("anthropic/m", json!({}))).await;
    assert_eq!((status, &whole["choices"][0]["message"]["content"]), (200, &json!("hello")));
    assert_eq!(whole["usage"]["total_tokens"], 9);
    let seen = upstream.last();
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(
        (&seen.headers["x-api-key"], &seen.headers["anthropic-version"]),
        (&"sk-ant-1".parse().unwrap(), &"2023-06-01".parse().unwrap())
    );
    let content = json!([{"type": "text", "text": "hi"}]);
    assert_eq!(seen.body["messages"], json!([{"role": "user", "content": content}]));

    let told = lines(chat.post("/chat", &say("anthropic/m", json!({"stream": true}))).await).await;
    assert_eq!(told[1], json!({"content": "llo"}));
    assert_eq!(told[2]["done"]["completion_tokens"], 2);
}

#[tokio::test]
async fn models_are_listed_under_the_names_that_lead_to_them() {
    let ollama = Upstream::looked_at(
        |_| Box::pin(async { answer(404, &json!({})) }),
        |_| answer(200, &json!({"models": [{"name": "qwen3.5:latest"}, {"name": "x:cloud"}]})),
    )
    .await;
    let down = "http://127.0.0.1:1";
    let chat = Chat::start(json!([
        {"name": "home", "type": "Ollama", "url": ollama.url, "route": {"default": true},
         "tiers": {"local_fast": "qwen3.5:latest"}, "weakModels": ["qwen3.5:latest"]},
        {"name": "router", "type": "OpenRouter", "url": down, "models": ["a/b"]},
        {"name": "late", "type": "OpenRouter", "url": down},
        {"name": "voyage", "type": "Voyage"},
    ]))
    .await;
    let list = chat.get("/models").await;
    let told: Vec<(&str, &str, bool)> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            let text = |name: &str| model[name].as_str().unwrap();
            (text("id"), text("owned_by"), model["weak"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("local_fast", "home", true),
        ("qwen3.5:latest", "home", true),
        ("ollama/x:cloud", "home", false),
        ("openrouter/a/b", "router", false),
    ];
    assert_eq!(told, expected);
    assert_eq!(chat.get("/models/openrouter/a/b").await["model"], "a/b");
    let missing = chat.get("/models/nothing").await;
    assert_eq!(
        (&missing["error"]["code"], &missing["error"]["param"]),
        (&json!("model_not_found"), &json!("model"))
    );

    let providers = chat.get("/chat/providers").await["providers"].clone();
    let names: Vec<&Value> = providers.as_array().unwrap().iter().map(|provider| &provider["name"]).collect();
    assert_eq!(names, ["home", "router", "late"]);
    assert_eq!((&providers[0]["healthy"], &providers[0]["default"]), (&json!(true), &json!(true)));
    assert_eq!(providers[0]["models"], json!(["qwen3.5:latest", "x:cloud"]));
    assert_eq!(providers[2]["conflicts"], json!(["the prefix `openrouter/` belongs to `router`"]));
    assert!(providers[2]["error"].as_str().unwrap().contains("`late` cannot be reached"), "{}", providers[2]);
}
