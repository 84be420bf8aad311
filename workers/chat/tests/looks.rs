//! What a look at a provider tells.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use common::{Chat, Seen, Upstream, answer, patiently, providers, quick};
use lakehouse_chat::Settings;
use serde_json::{Value, json};

#[tokio::test]
async fn a_look_tells_the_first_thing_in_the_way_until_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let upstream = looked_at(|seen, _| match seen.headers["authorization"].to_str().unwrap() {
        "Bearer sk-right" => answer(200, &json!({"data": [{"id": "b"}, {"id": "a"}]})),
        sent => answer(401, &json!({"error": {"message": format!("Incorrect API key: {sent}")}})),
    })
    .await;
    let chat = start(json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "keyFile": key}])).await;
    let told = chat.until(|up| up["probe"].is_object()).await;
    let failure = json!({"stage": "key", "message": "the key of `up` is not there yet"});
    assert_eq!((&told["probe"]["failure"], &told["probe"]["latency_ms"]), (&failure, &Value::Null));

    std::fs::write(&key, "sk-wrong").unwrap();
    let told = chat.until(|up| up["probe"]["failure"]["stage"] == "accept").await;
    let message = told["probe"]["failure"]["message"].as_str().unwrap();
    assert!(message.starts_with("`up` answered 401: Incorrect API key") && !message.contains("sk-wrong"));
    assert!(told["probe"]["latency_ms"].is_u64() && told["healthy"] == false, "{told}");

    std::fs::write(&key, "sk-right").unwrap();
    let told = chat.until(|up| up["probe"]["failure"].is_null()).await;
    assert_eq!((&told["models"], &told["healthy"]), (&json!(["a", "b"]), &json!(true)));
    assert!(upstream.seen().is_empty(), "nobody chatted");
}

#[tokio::test]
async fn one_that_is_gone_is_looked_at_again_until_it_is_back() {
    let upstream = looked_at(|_, nth| match nth {
        0 => answer(503, &json!({"error": {"message": "overloaded"}})),
        1 => answer(200, &json!({"models": "none"})),
        _ => answer(200, &json!({"models": [{"name": "m"}]})),
    })
    .await;
    let settings =
        Settings { look_every: Duration::from_millis(200), look_soon: Duration::from_millis(200), ..quick() };
    let chat = Chat::with(settings, json!([{"name": "up", "type": "Ollama", "url": upstream.url}])).await;
    let chat = Looked(chat);
    let told = chat.until(|up| up["probe"]["failure"]["stage"] == "reach").await;
    assert_eq!(told["probe"]["failure"]["message"], "`up` answered 503: overloaded");
    let told = chat.until(|up| up["probe"]["failure"]["stage"] == "models").await;
    assert_eq!(
        told["probe"]["failure"]["message"],
        "the answer of `up` cannot be read: it is no list of models"
    );
    let told = chat.until(|up| up["probe"]["failure"].is_null()).await;
    assert_eq!(told["models"], json!(["m"]));
}

#[tokio::test]
async fn who_names_the_models_himself_needs_no_list() {
    let upstream = looked_at(|_, _| answer(404, &json!({"error": "no such page"}))).await;
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "models": ["m"]}]);
    let told = start(list).await.until(|up| up["probe"].is_object()).await;
    assert_eq!(told["probe"]["failure"]["stage"], "models");
    assert_eq!((&told["healthy"], &told["models"]), (&json!(true), &json!(["m"])));
}

#[tokio::test]
async fn a_limit_of_requests_takes_no_list_away() {
    let upstream = looked_at(|_, nth| match nth {
        0 => answer(200, &json!({"data": [{"id": "m"}]})),
        _ => answer(429, &json!({"error": {"message": "slow down"}})),
    })
    .await;
    let settings = Settings { look_every: Duration::from_millis(20), ..quick() };
    let chat =
        Looked(Chat::with(settings, json!([{"name": "up", "type": "OpenAI", "url": upstream.url}])).await);
    let first = chat.until(|up| up["probe"].is_object()).await["probe"]["at"].clone();
    let told = chat.until(|up| up["probe"]["at"] != first).await;
    assert_eq!((&told["models"], &told["probe"]["failure"]), (&json!(["m"]), &Value::Null));
}

#[tokio::test]
async fn a_provider_is_looked_at_when_it_is_new_and_no_more_when_it_is_gone() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = looked_at(move |_, nth| {
        counted.store(nth + 1, Ordering::SeqCst);
        answer(200, &json!({"models": []}))
    })
    .await;
    let settings = Settings { look_every: Duration::from_millis(50), ..quick() };
    let chat = Looked(Chat::with(settings, json!([])).await);
    let list = json!([{"name": "up", "type": "Ollama", "url": upstream.url}]);
    chat.0.list.send(providers(list)).unwrap();
    chat.until(|up| up["probe"].is_object()).await;
    chat.0.list.send(providers(json!([]))).unwrap();
    patiently(async {
        while !chat.0.get("/chat/providers").await["providers"].as_array().unwrap().is_empty() {}
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let looks = count.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count.load(Ordering::SeqCst), looks);
}

/// An upstream whose looks are counted from zero.
async fn looked_at(look: impl Fn(Seen, usize) -> Response + Send + Sync + 'static) -> Upstream {
    let next = AtomicUsize::new(0);
    Upstream::looked_at(
        |_| Box::pin(async { answer(500, &json!({})) }),
        move |seen| look(seen, next.fetch_add(1, Ordering::SeqCst)),
    )
    .await
}

struct Looked(Chat);

/// Looks of its own accord come after the test.
async fn start(list: Value) -> Looked {
    let settings =
        Settings { look_every: Duration::from_mins(10), look_soon: Duration::from_mins(10), ..quick() };
    Looked(Chat::with(settings, list).await)
}

impl Looked {
    /// The only provider, once it is so.
    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        patiently(async {
            loop {
                let told = self.0.get("/chat/providers").await["providers"][0].clone();
                if is_so(&told) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }
}
