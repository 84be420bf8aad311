//! Health, readiness, and the graceful end.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use common::{Server, client, error_of, patiently};
use lakehouse_http::{Late, Readiness, Service, Settings};
use tokio::net::TcpStream;

#[tokio::test]
async fn health_names_the_service() {
    let server = Server::start(Router::new()).await;
    let answer = client().get(server.url("/health")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), r#"{"service":"testd","status":"ok"}"#);
    assert_eq!(client().get(server.url("/livez")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_service_is_ready_when_nothing_holds_it_back() {
    let readiness = Readiness::default();
    readiness.hold("queryd", "2 of 3 views are loaded");
    let service = Service::new("testd", Router::new()).with_readiness(readiness.clone());
    let server = Server::with(service, Settings::default()).await;
    let answer = client().get(server.url("/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let (code, message) = error_of(answer).await;
    assert_eq!((code.as_str(), message.as_str()), ("not_ready", "queryd: 2 of 3 views are loaded"));
    readiness.release("queryd");
    assert_eq!(client().get(server.url("/readyz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn routes_that_come_late_are_told_of_until_they_are_there() {
    let (late, readiness) = (Late::default(), Readiness::default());
    readiness.hold("store", "the bucket cannot be reached");
    let service = Service::late("testd", late.clone()).with_readiness(readiness.clone());
    let server = Server::with(service, Settings::default()).await;
    let ask = async |path: &str| client().get(server.url(path)).send().await.unwrap();
    assert_eq!(ask("/livez").await.status(), 200);
    assert_eq!(ask("/readyz").await.status(), 503);
    let early = ask("/slow").await;
    assert_eq!(early.status(), 503);
    assert_eq!(early.headers()["retry-after"], "2");
    assert_eq!(error_of(early).await.1, "store: the bucket cannot be reached");

    late.set(slow(Duration::ZERO));
    readiness.release("store");
    assert_eq!(ask("/readyz").await.status(), 200);
    assert_eq!(ask("/slow").await.text().await.unwrap(), "done");
    assert_eq!(error_of(ask("/none").await).await.1, "there is no route `/none` here");
    let numbers = ask("/metrics").await.text().await.unwrap();
    assert!(numbers.contains("route=\"/slow\""), "{numbers}");
}

#[tokio::test]
async fn a_draining_server_says_so_while_it_still_serves() {
    let settings = Settings { drain_notice: Duration::from_secs(30), ..Settings::default() };
    let mut server = Server::with(Service::new("testd", slow(Duration::ZERO)), settings).await;
    server.stop();
    patiently(async {
        while client().get(server.url("/readyz")).send().await.unwrap().status() != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let answer = client().get(server.url("/slow")).send().await.unwrap();
    assert_eq!(answer.headers()["connection"], "close", "the client's next request goes elsewhere");
    assert_eq!(answer.text().await.unwrap(), "done");
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_the_end() {
    let mut server = Server::start(slow(Duration::from_millis(500))).await;
    let mut idle = server.connect().await;
    let answer = tokio::spawn(client().get(server.url("/slow")).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop();
    assert_eq!(idle.rest().await, "", "an idle connection is closed at once");
    TcpStream::connect(server.address).await.expect_err("the listener is closed");
    assert!(!server.has_ended());
    assert_eq!(answer.await.unwrap().unwrap().text().await.unwrap(), "done");
    patiently(server.ended()).await;
}

#[tokio::test]
async fn a_request_past_the_deadline_is_cut() {
    let settings = Settings { drain_deadline: Duration::from_millis(300), ..Settings::default() };
    let mut server = Server::with(Service::new("testd", slow(Duration::from_mins(1))), settings).await;
    let answer = tokio::spawn(client().get(server.url("/slow")).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = Instant::now();
    server.stop();
    patiently(server.ended()).await;
    assert!(stopped.elapsed() >= Duration::from_millis(300));
    answer.await.unwrap().unwrap_err();
}

fn slow(time: Duration) -> Router {
    let done = move || async move {
        tokio::time::sleep(time).await;
        "done"
    };
    Router::new().route("/slow", get(done))
}
