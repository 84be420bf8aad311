//! Retries, fallbacks, limits, changed lists and keys: nothing that was sent to a client is sent twice, and no stream is dropped.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use common::{
    Chat, Upstream, answer, completion, fed, lines, next, patiently, piece, providers, quick, say, sse,
};
use futures::{StreamExt, stream::FuturesUnordered};
use lakehouse_chat::Settings;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

fn fine() -> Response {
    answer(200, &completion("hello"))
}

fn down() -> Response {
    answer(503, &json!({"error": {"message": "down"}}))
}

fn limited() -> Response {
    let mut told = answer(429, &json!({"error": {"message": "slow down"}}));
    told.headers_mut().insert("retry-after", "1".parse().unwrap());
    told
}

fn refused() -> Response {
    answer(400, &json!({"error": {"message": "no such field"}}))
}

/// A stream that breaks before its first piece.
fn empty() -> Response {
    ([("content-type", "text/event-stream")], ": hello\n\n").into_response()
}

fn streamed() -> Response {
    let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    sse(&[piece("hi"), json!({ "choices": [choice] }).to_string(), "[DONE]".to_owned()])
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let settings = || Settings { retries: 2, ..quick() };
    for (script, stream, tries, status) in [
        (vec![down as fn() -> Response, down, fine], false, 3, 200),
        (vec![down, down, down, fine], false, 3, 502),
        (vec![refused, fine], false, 1, 502),
        (vec![empty, streamed], true, 2, 200),
    ] {
        let upstream = Upstream::scripted(script).await;
        let chat =
            Chat::with(settings(), json!([{"name": "up", "type": "OpenAI", "url": upstream.url}])).await;
        let told = chat.post("/chat/completions", &say("openai/m", json!({"stream": stream}))).await;
        assert_eq!((told.status().as_u16(), upstream.seen().len()), (status, tries));
    }
}

#[tokio::test]
async fn a_pause_that_the_upstream_asks_for_is_kept_or_passed_on() {
    let upstream = Upstream::scripted(vec![limited, fine]).await;
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url}]);
    let chat = Chat::with(Settings { retries: 1, ..quick() }, list.clone()).await;
    let asked = Instant::now();
    let (status, _) = chat.ask("/chat", &say("openai/m", json!({}))).await;
    assert_eq!((status, upstream.seen().len()), (200, 2));
    assert!(asked.elapsed() >= Duration::from_secs(1));

    let upstream = Upstream::scripted(vec![limited, fine]).await;
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url}]);
    let settings = Settings { retries: 1, max_pause: Duration::from_millis(500), ..quick() };
    let chat = Chat::with(settings, list).await;
    let told = chat.post("/chat", &say("openai/m", json!({}))).await;
    assert_eq!((told.status().as_u16(), &told.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_fallback_answers_until_the_first_is_back() {
    let first = Upstream::scripted(vec![down, down, fine]).await;
    let second = Upstream::scripted(vec![fine]).await;
    let settings = Settings { breaker_failures: 2, breaker_rest: Duration::from_secs(4), ..quick() };
    let chat = Chat::with(
        settings,
        json!([
            {"name": "first", "type": "OpenAI", "url": first.url, "fallback": ["second"], "tiers": {"judge": "big"}},
            {"name": "second", "type": "Kimi", "url": second.url, "tiers": {"judge": "large"}},
        ]),
    )
    .await;
    let ask = async || chat.ask("/chat", &say("judge", json!({}))).await.1["provider"].clone();
    assert_eq!((ask().await, ask().await), (json!("second"), json!("second")));
    assert_eq!(second.last().body["model"], "large");
    // Twice is enough: it is left alone now, and the list says so.
    assert_eq!(ask().await, "second");
    assert_eq!(first.seen().len(), 2);
    let told = chat.get("/chat/providers").await;
    assert_eq!(told["providers"][0]["healthy"], false);
    assert_eq!(told["providers"][0]["error"], "`first` answered 503: down");
    tokio::time::sleep(Duration::from_millis(4100)).await;
    assert_eq!(ask().await, "first");
    let numbers = chat.metrics.text();
    assert!(numbers.contains("lakehouse_chat_fallbacks_total{provider=\"first\"} 3"), "{numbers}");
    assert!(
        numbers.contains(
            "lakehouse_chat_tokens_total{provider=\"first\",model=\"big\",key=\"\",direction=\"out\"} 2"
        ),
        "{numbers}"
    );
}

#[tokio::test]
async fn no_fallback_helps_a_request_that_is_refused_and_all_failures_are_told() {
    let second = Upstream::scripted(vec![down]).await;
    let list = |first: &Upstream| {
        json!([
            {"name": "first", "type": "OpenAI", "url": first.url, "fallback": ["second"]},
            {"name": "second", "type": "Kimi", "url": second.url},
        ])
    };
    let first = Upstream::scripted(vec![refused]).await;
    let chat = Chat::start(list(&first)).await;
    let (status, told) = chat.ask("/chat", &say("openai/m", json!({}))).await;
    assert_eq!((status, &told["error"]["code"]), (502, &json!("provider_refused")));
    assert!(second.seen().is_empty());

    let first = Upstream::scripted(vec![limited]).await;
    let chat = Chat::start(list(&first)).await;
    let (status, told) = chat.ask("/chat", &say("openai/m", json!({}))).await;
    assert_eq!(status, 429);
    assert_eq!(told["error"]["message"], "`first` answered 429: slow down; `second` answered 503: down");
}

#[tokio::test]
async fn a_provider_gets_no_more_at_once_than_it_may_and_the_queue_is_bounded() {
    let (feeds, mut streams) = mpsc::channel(4);
    let upstream = Upstream::start(move |_| {
        let (feed, _, response) = fed();
        feeds.try_send(feed).unwrap();
        Box::pin(async move { response })
    })
    .await;
    let limits = json!({"maxConcurrent": 1});
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "limits": limits}]);
    let chat = Chat::with(Settings { max_queue: 1, ..quick() }, list).await;
    // One has the place, one waits, and the others are refused at once.
    let asked = (0..5).map(|_| async {
        let told = chat.post("/chat", &say("openai/m", json!({"stream": true}))).await;
        match told.status().as_u16() {
            200 => lines(told).await,
            status => {
                assert_eq!((status, &told.headers()["retry-after"]), (503, &"1".parse().unwrap()));
                Vec::new()
            }
        }
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    for _ in 0..3 {
        assert!(patiently(asked.next()).await.unwrap().is_empty());
    }
    let whole = format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", piece("hi"), json!({"choices": []}));
    for count in 1..=2 {
        let feed = patiently(streams.recv()).await.unwrap();
        assert_eq!(upstream.seen().len(), count);
        feed.send(Ok(whole.clone())).await.unwrap();
        drop(feed);
        assert_eq!(patiently(asked.next()).await.unwrap()[0], json!({"content": "hi"}));
    }
}

#[tokio::test]
async fn the_minutes_requests_are_counted() {
    let upstream = Upstream::scripted(vec![fine]).await;
    let limits = json!({"requestsPerMinute": 2});
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "limits": limits}]);
    let chat = Chat::with(Settings { queue_timeout: Duration::from_millis(50), ..quick() }, list).await;
    for _ in 0..2 {
        assert_eq!(chat.ask("/chat", &say("openai/m", json!({}))).await.0, 200);
    }
    let told = chat.post("/chat", &say("openai/m", json!({}))).await;
    let pause: u32 = told.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(told.status() == 429 && (55..=60).contains(&pause), "{pause}");
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn the_list_changes_without_a_restart_and_without_a_dropped_stream() {
    let (feeds, mut streams) = mpsc::channel(4);
    let old = Upstream::start(move |_| {
        let (feed, _, response) = fed();
        feeds.try_send(feed).unwrap();
        Box::pin(async move { response })
    })
    .await;
    let new = Upstream::scripted(vec![fine]).await;
    let chat = Chat::start(json!([{"name": "old", "type": "OpenAI", "url": old.url}])).await;
    let asked = say("openai/m", json!({"stream": true}));
    let (answer, feed) = tokio::join!(chat.post("/chat/completions", &asked), async {
        let feed: mpsc::Sender<Result<String, ()>> = streams.recv().await.unwrap();
        feed.send(Ok(format!("data: {}\n\n", piece("one")))).await.unwrap();
        feed
    });
    let mut pieces = answer.bytes_stream();
    assert!(next(&mut pieces).await.unwrap().contains("one"));

    chat.list.send(providers(json!([{"name": "new", "type": "OpenAI", "url": new.url}]))).unwrap();
    patiently(async {
        while chat.get("/chat/providers").await["providers"][0]["name"] != "new" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(chat.ask("/chat", &say("openai/m", json!({}))).await.1["provider"], "new");
    feed.send(Ok(format!("data: {}\n\n", piece("two")))).await.unwrap();
    assert!(next(&mut pieces).await.unwrap().contains("two"));

    chat.list.send(providers(json!([]))).unwrap();
    patiently(async {
        while chat.ask("/chat", &say("openai/m", json!({}))).await.0 != 404 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    feed.send(Ok("data: [DONE]\n\n".to_owned())).await.unwrap();
    assert_eq!(next(&mut pieces).await.unwrap(), "data: [DONE]\n\n");
}

#[tokio::test]
async fn a_changed_key_is_followed_and_shown_nowhere() {
    let upstream = Upstream::start(|seen| {
        Box::pin(async move {
            if seen.headers.get("authorization").is_some_and(|value| value == "Bearer sk-right-hunter2") {
                return fine();
            }
            let sent = seen.headers["authorization"].to_str().unwrap().to_owned();
            answer(401, &json!({"error": {"message": format!("Incorrect API key: {sent}")}}))
        })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "keyFile": key}]);
    let chat = Chat::start(list).await;
    let ask = async || chat.ask("/chat", &say("openai/m", json!({}))).await;
    let message = |told: Value| told["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message(ask().await.1), "the key of `up` is not there yet");
    assert!(upstream.seen().is_empty(), "nobody is asked without the key");

    std::fs::write(&key, "sk-wrong-hunter2\n").unwrap();
    patiently(async {
        while upstream.seen().is_empty() {
            let (status, told) = ask().await;
            assert_eq!(status, 502);
            assert!(!told.to_string().contains("hunter2"), "{told}");
        }
    })
    .await;
    std::fs::write(&key, "sk-right-hunter2\n").unwrap();
    patiently(async {
        while ask().await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let told = chat.get("/chat/providers").await.to_string();
    assert!(!told.contains("hunter2"), "{told}");
}
