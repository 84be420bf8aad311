//! What every request gets: an id, a line in the log, numbers, and errors in one shape.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, Query},
    routing::{get, post},
};
use common::{Log, Server, client, error_of};
use futures::StreamExt;
use lakehouse_http::{Problem, Service, Settings};
use reqwest::{Method, header};

#[tokio::test]
async fn the_callers_id_is_echoed() {
    let server = Server::start(hello()).await;
    let answer = client().get(server.url("/hello")).header("x-request-id", "build-7").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "build-7");
}

#[tokio::test]
async fn a_request_without_an_id_gets_one() {
    let server = Server::start(hello()).await;
    let first = client().get(server.url("/hello")).send().await.unwrap();
    let second = client().get(server.url("/nowhere")).send().await.unwrap();
    assert_eq!(first.headers()["x-request-id"].len(), 32);
    assert_ne!(first.headers()["x-request-id"], second.headers()["x-request-id"]);
}

#[tokio::test]
async fn an_unknown_route_is_404_with_our_body() {
    let server = Server::start(hello()).await;
    let answer = client().get(server.url("/nowhere?x=1")).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let (code, message) = error_of(answer).await;
    assert_eq!((code.as_str(), message.as_str()), ("not_found", "there is no route `/nowhere` here"));
}

#[tokio::test]
async fn a_wrong_method_is_405_with_allow_and_our_body() {
    let server = Server::start(hello()).await;
    let answer = client().delete(server.url("/hello")).send().await.unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.headers()[header::ALLOW], "GET,HEAD");
    assert_eq!(error_of(answer).await.0, "method_not_allowed");
}

#[tokio::test]
async fn an_extractors_refusal_has_our_body() {
    let router = Router::new()
        .route("/number/{n}", get(|Path(n): Path<u32>| async move { n.to_string() }))
        .route("/query", get(|Query(_): Query<std::collections::BTreeMap<String, u32>>| async {}));
    let server = Server::start(router).await;
    for path in ["/number/x", "/query?n=x"] {
        let answer = client().get(server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(error_of(answer).await.0, "bad_request");
    }
}

#[tokio::test]
async fn a_panic_is_500_and_the_service_lives() {
    async fn burst() -> &'static str {
        panic!("out of cheese")
    }
    let log = Log::capture();
    let router = hello().route("/panic", get(burst));
    let server = Server::start(router).await;
    let answer = client().get(server.url("/panic")).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    let (code, message) = error_of(answer).await;
    assert_eq!(code, "internal");
    assert!(!message.contains("cheese"), "{message}");
    assert!(log.line("/panic answered 500").await.contains("the handler panicked: out of cheese"));
    assert_eq!(client().get(server.url("/hello")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_log_tells_a_request_and_its_cause_without_the_query() {
    let log = Log::capture();
    let cause = || std::io::Error::other("disk on fire");
    let router = Router::new().route(
        "/fails",
        post(move |_: String| async move { Problem::bad_gateway("the store failed").because(cause()) }),
    );
    let server = Server::start(router).await;
    let request = client().post(server.url("/fails?token=hunter2")).body("12345");
    let answer = request.header("x-request-id", "r-1").send().await.unwrap();
    let body = answer.text().await.unwrap();
    assert!(!body.contains("disk on fire"), "{body}");
    let line = log.line("POST /fails answered 502").await;
    for part in ["WARN", "status=502", "received=5", "id=r-1", "remote=127.0.0.1:", "disk on fire"] {
        assert!(line.contains(part), "`{part}` is missing in: {line}");
    }
    assert!(line.contains(&format!("sent={}", body.len())) && line.contains("duration_ms="), "{line}");
    assert!(!log.text().contains("hunter2"));
}

#[tokio::test]
async fn probes_are_logged_at_debug_and_requests_at_info() {
    let log = Log::capture();
    let server = Server::start(hello()).await;
    for path in ["/livez", "/hello"] {
        client().get(server.url(path)).send().await.unwrap().text().await.unwrap();
    }
    assert!(log.line("GET /livez answered").await.contains("DEBUG"));
    assert!(log.line("GET /hello answered").await.contains("INFO"));
}

#[tokio::test]
async fn a_client_that_leaves_is_logged_as_499() {
    let log = Log::capture();
    let router = Router::new().route("/slow", get(|| tokio::time::sleep(Duration::from_mins(1))));
    let server = Server::start(router).await;
    let mut raw = server.connect().await;
    raw.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(raw);
    log.line("GET /slow answered 499").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_by_the_log() {
    let log = Log::capture();
    let pieces = || {
        let late = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(std::io::Error::other("bucket gone"))
        });
        Body::from_stream(futures::stream::iter([Ok("half")]).chain(late))
    };
    let server = Server::start(Router::new().route("/half", get(move || async move { pieces() }))).await;
    let answer = client().get(server.url("/half")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap_err();
    assert!(log.line("GET /half answered 500").await.contains("bucket gone"));
}

#[tokio::test]
async fn metrics_count_requests_by_route_template_and_status() {
    let service = Service::new("testd", hello().route("/by/{name}", post(|body: String| async { body })));
    let server = Server::with(service, Settings::default()).await;
    for name in ["a", "b"] {
        client()
            .post(server.url(&format!("/by/{name}")))
            .body("123")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
    }
    client().get(server.url("/nowhere")).send().await.unwrap().text().await.unwrap();
    let odd = Method::from_bytes(b"BREW").unwrap();
    client().request(odd, server.url("/hello")).send().await.unwrap().text().await.unwrap();
    let answer = client().get(server.url("/metrics")).send().await.unwrap();
    assert!(
        answer.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text")
    );
    let text = answer.text().await.unwrap();
    for line in [
        r#"lakehouse_http_requests_total{service="testd",method="POST",route="/by/{name}",status="200"} 2"#,
        r#"lakehouse_http_requests_total{service="testd",method="GET",route="unmatched",status="404"} 1"#,
        r#"lakehouse_http_requests_total{service="testd",method="other",route="/hello",status="405"} 1"#,
        r#"lakehouse_http_request_duration_seconds_count{service="testd",method="POST",route="/by/{name}"} 2"#,
        r#"lakehouse_http_requests_in_flight{service="testd"} 1"#,
        r#"lakehouse_http_received_bytes_total{service="testd"} 6"#,
    ] {
        assert!(text.contains(line), "`{line}` is missing in:\n{text}");
    }
}

#[tokio::test]
async fn a_service_adds_metrics_of_its_own() {
    use lakehouse_http::metrics::prometheus_client::metrics::counter::Counter;
    let service = Service::new("testd", hello());
    let metrics = lakehouse_http::Metrics::default();
    let views = Counter::<u64>::default();
    metrics.register(|registry| registry.register("query_views", "Views that were made", views.clone()));
    views.inc();
    let server = Server::with(service.with_metrics(metrics), Settings::default()).await;
    let text = client().get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("lakehouse_query_views_total 1"), "{text}");
}

fn hello() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}
