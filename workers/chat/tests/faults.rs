//! Whatever goes wrong has the right status, the provider's name and the upstream's words; in a stream it is the last event.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::time::Duration;

use axum::response::Response;
use common::{Chat, Upstream, answer, client, fed, next, patiently, piece, quick, say};
use lakehouse_chat::Settings;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};

#[tokio::test]
async fn an_upstreams_status_becomes_ours_with_its_words() {
    // Bodies as the providers document them.
    for (kind, prefix, status, body, expected, words) in [
        ("Ollama", "ollama/", 404, json!({"error": "model 'm' not found"}), 502, "model 'm' not found"),
        ("Ollama", "ollama/", 500, json!({"error": "model requires more memory"}), 502, "more memory"),
        (
            "OpenAI",
            "openai/",
            400,
            json!({"error": {"message": "Unsupported image", "type": "invalid_request_error", "param": null, "code": null}}),
            502,
            "Unsupported image",
        ),
        (
            "OpenAI",
            "openai/",
            401,
            json!({"error": {"message": "Incorrect API key provided: sk-1*****9.", "code": "invalid_api_key"}}),
            502,
            "Incorrect API key provided: [key]",
        ),
        (
            "OpenAI",
            "openai/",
            403,
            json!({"error": {"message": "Country not supported"}}),
            502,
            "Country not supported",
        ),
        (
            "OpenAI",
            "openai/",
            429,
            json!({"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}),
            429,
            "Rate limit reached",
        ),
        (
            "OpenRouter",
            "openrouter/",
            402,
            json!({"error": {"code": 402, "message": "Insufficient credits"}}),
            502,
            "Insufficient credits",
        ),
        (
            "Anthropic",
            "anthropic/",
            529,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            502,
            "Overloaded",
        ),
        ("OpenAI", "openai/", 301, json!({"message": "moved"}), 502, "answered 301"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "sk-hunter2").unwrap();
        let upstream = Upstream::start(move |_| {
            let mut told = answer(status, &body);
            told.headers_mut().insert("retry-after", "7".parse().unwrap());
            Box::pin(async move { told })
        })
        .await;
        let list = json!([{"name": "up", "type": kind, "url": upstream.url, "keyFile": key}]);
        let chat = Chat::start(list).await;
        for path in ["/chat", "/chat/completions"] {
            for stream in [false, true] {
                let told = chat.post(path, &say(&format!("{prefix}m"), json!({"stream": stream}))).await;
                assert_eq!(told.status().as_u16(), expected, "{kind} {status} {path}");
                assert_eq!(told.headers()["retry-after"], "7", "{kind} {status}");
                let told: Value = told.json().await.unwrap();
                let message = told["error"]["message"].as_str().unwrap();
                assert!(message.starts_with(&format!("`up` answered {status}")), "{message}");
                assert!(message.contains(words), "{message}");
                let upstream_status = match path {
                    "/chat" => &told["error"]["details"]["upstream_status"],
                    _ => &told["error"]["upstream_status"],
                };
                assert_eq!(*upstream_status, status);
            }
        }
    }
}

#[tokio::test]
async fn a_long_complaint_is_cut_and_no_part_of_the_key_is_left_at_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-hunter2").unwrap();
    for before in 990..1000 {
        let upstream = Upstream::start(move |_| {
            let said = format!("{}\nsk-hunter2 is wrong{}", "x".repeat(before - 1), "y".repeat(2000));
            Box::pin(async move { answer(400, &json!({"error": {"message": said}})) })
        })
        .await;
        let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "keyFile": key}]);
        let (_, told) = Chat::start(list).await.ask("/chat", &say("openai/m", json!({}))).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.len() < 1100 && !message.contains("sk-") && !message.contains('\n'), "{message}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for url in
        [format!("http://{gone}"), "http://nowhere.invalid".to_owned(), format!("https://{}", plain().await)]
    {
        let chat = Chat::start(json!([{"name": "up", "type": "Ollama", "url": url}])).await;
        let (status, told) = chat.ask("/chat", &say("ollama/m", json!({}))).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert_eq!((status, &told["error"]["details"]["provider"]), (502, &json!("up")), "{message}");
        assert!(message.starts_with("`up` cannot be reached: "), "{message}");
    }
}

#[tokio::test]
async fn each_kind_of_silence_is_504_and_says_which() {
    let silent = Upstream::start(|_| Box::pin(std::future::pending::<Response>())).await;
    let cases = [
        (json!({"firstTokenMs": 100}), true, "nothing came from `up` for 0.1 s"),
        (json!({"totalMs": 100}), true, "`up` took longer than the 0.1 s"),
        (json!({"totalMs": 100}), false, "`up` took longer than the 0.1 s"),
    ];
    for (limits, stream, words) in cases {
        let list = json!([{"name": "up", "type": "OpenAI", "url": silent.url, "limits": limits}]);
        let chat = Chat::start(list).await;
        let (status, told) = chat.ask("/chat/completions", &say("openai/m", json!({"stream": stream}))).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(words), "{message}");
        assert_eq!((status, &told["error"]["code"]), (504, &json!("timeout")));
    }
}

/// How a stream breaks after its first piece, and what the last event says.
#[tokio::test]
async fn a_broken_stream_ends_with_an_error_event() {
    for (how, code, words) in [
        ("cut", "provider_answer", "the answer of `up` broke off"),
        ("end", "provider_answer", "the answer of `up` broke off before its end"),
        ("nonsense", "provider_answer", "the answer of `up` cannot be read"),
        ("error", "provider_unavailable", "`up` answered 503: no workers"),
        ("silence", "timeout", "nothing came from `up` for 0.2 s"),
    ] {
        let (feeds, mut streams) = mpsc::channel(4);
        let upstream = Upstream::start(move |_| {
            let (feed, _, response) = fed();
            feeds.try_send(feed).unwrap();
            Box::pin(async move { response })
        })
        .await;
        let limits = json!({"idleMs": 200});
        let list = json!([{"name": "up", "type": "OpenAI", "url": upstream.url, "limits": limits}]);
        let chat = Chat::start(list).await;
        for path in ["/chat/completions", "/chat"] {
            let asked = say("openai/m", json!({"stream": true}));
            let (answer, feed) = tokio::join!(chat.post(path, &asked), async {
                let feed: mpsc::Sender<_> = streams.recv().await.unwrap();
                feed.send(Ok(format!("data: {}\n\n", piece("hi")))).await.unwrap();
                feed
            });
            let mut pieces = answer.bytes_stream();
            assert!(next(&mut pieces).await.unwrap().contains("hi"));
            match how {
                "cut" => feed.send(Err(())).await.unwrap(),
                "end" => feed.send(Ok("data: {\"choi".to_owned())).await.unwrap(),
                "nonsense" => feed.send(Ok("data: {\"choi\n\n".to_owned())).await.unwrap(),
                "error" => {
                    let error = json!({"error": {"message": "no workers", "code": 503}});
                    feed.send(Ok(format!("data: {error}\n\n"))).await.unwrap();
                }
                _ => {}
            }
            let kept = (how == "silence").then_some(feed);
            let ending = next(&mut pieces).await.unwrap();
            assert_eq!(
                next(&mut pieces).await,
                None,
                "{how}: the stream itself is well formed, and there is no `[DONE]`"
            );
            drop(kept);
            let told: Value = serde_json::from_str(ending.trim_start_matches("data: ").trim()).unwrap();
            let error = &told["error"];
            assert_eq!(error["code"], code, "{how} {path}: {ending}");
            assert!(error["message"].as_str().unwrap().starts_with(words), "{how} {path}: {ending}");
        }
    }
}

#[tokio::test]
async fn an_error_with_the_status_of_a_success_is_one() {
    let upstream = Upstream::start(|_| {
        let told = json!({"error": {"message": "Insufficient credits", "code": 402}});
        Box::pin(async move { answer(200, &told) })
    })
    .await;
    let chat = Chat::start(json!([{"name": "up", "type": "OpenRouter", "url": upstream.url}])).await;
    for (path, stream) in
        [("/chat", false), ("/chat", true), ("/chat/completions", false), ("/chat/completions", true)]
    {
        let (status, told) = chat.ask(path, &say("openrouter/m", json!({"stream": stream}))).await;
        assert_eq!(
            (status, &told["error"]["message"]),
            (502, &json!("`up` answered 402: Insufficient credits"))
        );
    }
}

#[tokio::test]
async fn a_callers_mistake_is_400_with_its_field_in_each_doors_shape() {
    let chat = Chat::start(json!([{"name": "up", "type": "Ollama", "url": "http://127.0.0.1:1"}])).await;
    let (status, told) = chat.ask("/chat", &json!({"model": "ollama/m"})).await;
    assert_eq!((status, &told["error"]["details"]["field"]), (400, &json!("messages")));
    assert_eq!(told["error"]["code"], "bad_request");
    let (status, told) = chat.ask("/chat/completions", &json!({"messages": []})).await;
    let expected = json!({
        "message": "`model` is missing", "type": "invalid_request_error", "param": "model", "code": "bad_request",
    });
    assert_eq!((status, &told["error"]), (400, &expected));
    let (status, told) = chat.ask("/chat/completions", &say("kimi/m", json!({}))).await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("model_not_found")));
    let (status, told) = chat.ask("/chat", &say("no_tier", json!({}))).await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("unknown_model")));
}

#[tokio::test]
async fn a_body_over_the_cap_is_413() {
    let settings = Settings { max_body_bytes: 1000, ..quick() };
    let chat = Chat::with(settings, json!([])).await;
    for path in ["/chat", "/chat/completions"] {
        let (status, told) = chat.ask(path, &say(&"m".repeat(2000), json!({}))).await;
        assert_eq!((status, &told["error"]["code"]), (413, &json!("too_large")), "{path}");
        assert!(told["error"]["message"].as_str().unwrap().contains("1000 bytes"));
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (lefts, mut streams) = mpsc::channel(4);
    let upstream = Upstream::start(move |_| {
        let (feed, left, response) = fed();
        lefts.try_send((feed, left)).unwrap();
        Box::pin(async move { response })
    })
    .await;
    let chat = Chat::start(json!([{"name": "up", "type": "OpenAI", "url": upstream.url}])).await;
    for first_piece in [true, false] {
        let url = format!("http://{}/chat/completions", chat.address);
        let request = client().post(url).body(say("openai/m", json!({"stream": true})).to_string()).send();
        let answer = tokio::spawn(request);
        let (feed, left) = patiently(streams.recv()).await.unwrap();
        if first_piece {
            feed.send(Ok(format!("data: {}\n\n", piece("hi")))).await.unwrap();
            drop(patiently(answer).await.unwrap().unwrap());
        } else {
            answer.abort();
        }
        let gone = Instant::now();
        patiently(left.notified()).await;
        assert!(gone.elapsed() < Duration::from_secs(1), "{first_piece}: {:?}", gone.elapsed());
    }
    let numbers = chat.metrics.text();
    assert!(numbers.contains("outcome=\"client_left\""), "{numbers}");
}

/// A server that speaks no TLS.
async fn plain() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    address
}
