//! Limits in size and time: a client can neither fill the memory nor hold a connection for ever.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    io::Error,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use common::{Log, Server, client, error_of};
use futures::StreamExt;
use lakehouse_http::{BodyLimit, Json, Service, Settings, body};
use serde_json::Value;

#[tokio::test]
async fn a_body_over_the_routes_cap_is_413_by_its_content_length() {
    let server = Server::start(counting(100)).await;
    let head = "POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 101\r\nconnection: close\r\n\r\n";
    let mut raw = server.connect().await;
    raw.send(head).await;
    // Not one byte of the body was sent.
    let answer = raw.until("too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("100 bytes"), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_over_the_routes_cap_is_413_by_counting() {
    let server = Server::start(counting(100)).await;
    for (pieces, status) in [(10, 200), (11, 413)] {
        let answer = client().post(server.url("/count")).body(chunked(pieces)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_route_without_a_cap_has_the_servers() {
    let settings = Settings { body_limit: 50, ..Settings::default() };
    let server = Server::with(Service::new("testd", counting(100)), settings).await;
    for body in [reqwest::Body::from("x".repeat(60)), chunked(6)] {
        let answer = client().post(server.url("/count-default")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 413);
        let (code, message) = error_of(answer).await;
        assert!(code == "too_large" && message.contains("50 bytes"), "{message}");
    }
    // The route's own cap wins over the server's.
    let answer = client().post(server.url("/count")).body("x".repeat(60)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "60");
}

#[tokio::test]
async fn a_json_body_is_capped_as_its_route_says() {
    let router = Router::new().route(
        "/json",
        post(|Json(value): Json<Value>| async move { value.to_string() }).layer(BodyLimit(20)),
    );
    let server = Server::start(router).await;
    let post = |body: &'static str| client().post(server.url("/json")).body(body).send();
    assert_eq!(post(r#"{"a":1}"#).await.unwrap().text().await.unwrap(), r#"{"a":1}"#);
    assert_eq!(post(r#"{"a":"0123456789012345"}"#).await.unwrap().status(), 413);
    for (body, says) in [("", "the body is empty"), ("{\"a\":", "EOF while parsing")] {
        let answer = post(body).await.unwrap();
        assert_eq!(answer.status(), 400);
        let message = error_of(answer).await.1;
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_gets_its_413() {
    let server = Server::start(counting(100)).await;
    let size = 8 << 20;
    let mut raw = server.connect().await;
    raw.send(&format!("POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n")).await;
    raw.send(&"x".repeat(size)).await;
    assert!(raw.until("too_large").await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_never_sends_a_body_over_the_cap() {
    let server = Server::start(counting(100)).await;
    let head =
        "POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 101\r\nexpect: 100-continue\r\n\r\n";
    let mut raw = server.connect().await;
    raw.send(head).await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    let settings = Settings { body_idle_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::with(Service::new("testd", counting(100)), settings).await;
    let mut raw = server.connect().await;
    raw.send("POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12345").await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
}

#[tokio::test]
async fn a_slow_body_that_keeps_coming_is_no_stall() {
    let settings = Settings { body_idle_timeout: Duration::from_millis(300), ..Settings::default() };
    let server = Server::with(Service::new("testd", counting(100)), settings).await;
    let mut raw = server.connect().await;
    raw.send("POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nconnection: close\r\n\r\n")
        .await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.send("x").await;
    }
    assert!(raw.rest().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_stops_reading_an_answer_is_cut() {
    let log = Log::capture();
    let endless =
        || async { Body::from_stream(futures::stream::repeat_with(|| Ok::<_, Error>("x".repeat(1 << 16)))) };
    let settings = Settings { answer_idle_timeout: Duration::from_millis(200), ..Settings::default() };
    let service = Service::new("testd", Router::new().route("/endless", get(endless)));
    let server = Server::with(service, settings).await;
    let mut raw = server.connect().await;
    raw.send("GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    log.line("GET /endless answered 499").await;
}

#[tokio::test]
async fn a_body_as_large_as_the_cap_reaches_an_extractor() {
    let router = Router::new().route("/length", post(|body: String| async move { body.len().to_string() }));
    let server = Server::start(router).await;
    let answer = client().post(server.url("/length")).body("x".repeat(3 << 20)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), (3 << 20).to_string());
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let settings = Settings { head_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::with(Service::new("testd", counting(100)), settings).await;
    for start in ["", "GET /livez HTTP/1.1\r\nhost: local"] {
        let started = Instant::now();
        let answer = server.exchange(start).await;
        assert!(!answer.contains("200"), "{answer}");
        assert!(started.elapsed() >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let settings = Settings { max_head_bytes: 1000, ..Settings::default() };
    let server = Server::with(Service::new("testd", counting(100)), settings).await;
    let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx-filler: {}\r\n\r\n", "x".repeat(1000));
    assert!(server.exchange(&head).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_body_that_is_cut_short_does_not_reach_the_handlers_end() {
    let server = Server::start(counting(100)).await;
    let mut raw = server.connect().await;
    raw.send("POST /count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12345").await;
    tokio::io::AsyncWriteExt::shutdown(&mut raw.0).await.unwrap();
    assert!(!raw.rest().await.contains("200"));
}

/// `/count` has a cap of its own, `/count-default` has none; both read the body as a stream.
fn counting(limit: u64) -> Router {
    async fn count(body: Body) -> Result<String, lakehouse_http::Problem> {
        Ok(body::read(body, u64::MAX).await?.len().to_string())
    }
    Router::new()
        .route("/count", post(count).layer(BodyLimit(limit)))
        .route("/count-default", post(count))
        .route("/hello", get(|| async { "hello" }))
}

/// Pieces of ten bytes each.
fn chunked(pieces: usize) -> reqwest::Body {
    let pieces = futures::stream::iter(std::iter::repeat_n("0123456789", pieces));
    reqwest::Body::wrap_stream(pieces.map(Ok::<_, Error>))
}
