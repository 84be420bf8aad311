//! Where requests go, and what arrives there.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{fmt::Write, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::StatusCode,
    response::IntoResponse,
    routing::{any, get, post},
};
use common::{Server, client, error_of, gateway, gateway_to};
use futures::{StreamExt, stream};
use lakehouse_gateway::{Owner, Settings, Upstream, Upstreams, router};
use lakehouse_http::Problem;
use tokio::net::TcpListener;

/// Says what arrived: the method, the path as it was sent, the headers and the body.
fn echo() -> Router {
    Router::new().route(
        "/{*rest}",
        any(|request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut text = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
            }
            text + "\n" + std::str::from_utf8(&body).unwrap()
        }),
    )
}

#[tokio::test]
async fn v1_is_stripped_before_the_base_path_is_joined() {
    let service = Server::start(echo()).await;
    let plain = gateway_to(&service.url("")).await;
    let based = gateway_to(&service.url("/api/")).await;
    for (gateway, path, arrives) in [
        (&plain, "/v1/storage/list?prefix=a%20b&x=", "/storage/list?prefix=a%20b&x="),
        (&based, "/v1/storage/get/a", "/api/storage/get/a"),
        (&based, "/v1/storage", "/api/storage"),
        (&based, "/v1/storage?x", "/api/storage?x"),
    ] {
        assert_eq!(first_line(&gateway.exchange("GET", path, "").await), format!("GET {arrives}"));
    }
}

#[tokio::test]
async fn an_index_that_has_a_service_of_its_own_is_asked_there() {
    let (shared, own) = (Server::start(echo()).await, Server::start(echo()).await);
    let port = own.address.port();
    let upstream = Upstream::http("--upstream", &shared.url("/shared")).unwrap();
    let upstream =
        upstream.with_indexes("--index-upstream", &format!("http://{{index}}:{port}/own")).unwrap();
    let upstreams = Upstreams::from([(Owner::Vectors, upstream)]);
    let gateway = Server::start(router(upstreams, &Settings::default())).await;
    for (path, arrives) in [
        ("/v1/vectors/index/localhost/search", "/own/vectors/index/localhost/search"),
        ("/v1/vectors/index/Nobody.Has.This/add", "/shared/vectors/index/Nobody.Has.This/add"),
        ("/v1/vectors/index", "/shared/vectors/index"),
    ] {
        assert_eq!(first_line(&gateway.exchange("POST", path, "").await), format!("POST {arrives}"));
    }
}

#[tokio::test]
async fn the_path_keeps_every_byte() {
    let service = Server::start(echo()).await;
    let gateway = gateway_to(&service.url("")).await;
    for rest in [
        "/storage/get/a%2Fb%20c",
        "/storage/get/%E2%82%AC/",
        "/storage//x",
        "/storage/get/a'\"|{}$&+;=:@",
        "/sql/",
    ] {
        let arrived = gateway.exchange("GET", &format!("/v1{rest}"), "").await;
        assert_eq!(first_line(&arrived), format!("GET {rest}"));
    }
}

#[tokio::test]
async fn no_path_climbs_out_of_the_base_path() {
    let service = Server::start(echo()).await;
    let gateway = gateway_to(&service.url("/api")).await;
    for path in
        ["/v1/storage/../../admin", "/v1/storage/%2e%2e/x", "/v1/storage/..%2f..%2fadmin", "/v1/../storage"]
    {
        let answer = gateway.exchange("GET", path, "").await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn each_path_belongs_to_its_service() {
    let owners = [
        Owner::Storage,
        Owner::Catalog,
        Owner::Ingest,
        Owner::Sql,
        Owner::Vectors,
        Owner::Embed,
        Owner::Matrix,
        Owner::Pathway,
        Owner::Chat,
    ];
    let by_name = |owner: Owner| (owner, Upstream::local(route_all(owner.service())));
    let gateway = gateway(owners.map(by_name).into()).await;
    for (path, service) in [
        ("storage/list", "storaged"),
        ("catalog/list", "catalogd"),
        ("ingest", "ingestd"),
        ("sql", "queryd"),
        ("vectors/index", "vectord"),
        ("embed", "embedd"),
        ("embeddings", "embedd"),
        ("matrix/search", "matrixd"),
        ("pathway/add", "pathwayd"),
        ("chat", "chatd"),
        ("chat/completions", "chatd"),
        ("models", "chatd"),
    ] {
        let answer = client().post(gateway.url(&format!("/v1/{path}"))).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), service, "{path}");
    }
}

fn route_all(name: &'static str) -> Router {
    Router::new().route("/{*rest}", any(move || async move { name }))
}

#[tokio::test]
async fn an_unknown_route_is_404_and_named_as_it_was_asked_for() {
    let gateway =
        gateway([(Owner::Sql, Upstream::local(Router::new().route("/sql", post(|| async {}))))].into()).await;
    for path in ["/v1", "/v1/", "/v1/nothing", "/v1/sql/nothing", "/sql", "/v2/sql", "/v1sql"] {
        let answer = client().get(gateway.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(error_of(answer).await, ("not_found".into(), format!("there is no route `{path}` here")));
    }
    let answer = client().get(gateway.url("/v1/sql")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(error_of(answer).await.0, "method_not_allowed");
}

#[tokio::test]
async fn a_service_that_does_not_run_here_is_404_and_says_so() {
    let gateway = gateway(Upstreams::new()).await;
    for (path, service) in
        [("vectors/index", "vectord"), ("chat/completions", "chatd"), ("embeddings", "embedd")]
    {
        let answer = client().post(gateway.url(&format!("/v1/{path}"))).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        let (code, message) = error_of(answer).await;
        assert!(code == "not_running" && message.contains(service), "{message}");
    }
}

#[tokio::test]
async fn headers_of_the_request_arrive_and_those_of_the_connection_do_not() {
    let service = Server::start(echo()).await;
    let gateway = gateway_to(&service.url("")).await;
    let more = "Authorization: Bearer t0ken\r\nX-Request-Id: r-7\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                TE: trailers\r\nX-Forwarded-For: 203.0.113.7\r\nAccept: text/csv\r\n";
    let arrived = gateway.exchange("GET", "/v1/sql", more).await;
    let host = service.address.to_string();
    for line in [
        "authorization: Bearer t0ken",
        "x-request-id: r-7",
        "x-forwarded-for: 203.0.113.7, 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: localhost",
        "accept: text/csv",
        &format!("host: {host}"),
    ] {
        assert!(arrived.lines().any(|arrived| arrived == line), "`{line}` is missing in:\n{arrived}");
    }
    for header in ["x-hop:", "te:"] {
        assert!(!arrived.contains(&format!("\n{header}")), "{arrived}");
    }
}

#[tokio::test]
async fn a_request_without_an_id_arrives_with_one() {
    let service = Server::start(echo()).await;
    let gateway = gateway_to(&service.url("")).await;
    let answer = client().get(gateway.url("/v1/sql")).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(answer.text().await.unwrap().contains(&format!("x-request-id: {id}\n")));
}

#[tokio::test]
async fn multipart_bodies_arrive_as_they_were_sent() {
    let service = Server::start(echo()).await;
    let gateway = gateway_to(&service.url("")).await;
    let form = reqwest::multipart::Form::new().text("file", "id,zip\n1,00501\n");
    let answer = client().post(gateway.url("/v1/ingest?name=a")).multipart(form).send().await.unwrap();
    let arrived = answer.text().await.unwrap();
    assert!(arrived.starts_with("POST /ingest?name=a\n"), "{arrived}");
    assert!(arrived.contains("content-type: multipart/form-data; boundary="), "{arrived}");
    assert!(arrived.contains("id,zip\n1,00501\n"), "{arrived}");
}

#[tokio::test]
async fn a_services_own_error_passes_through() {
    async fn refuse(Path(status): Path<u16>) -> axum::response::Response {
        let problem = Problem::new(StatusCode::from_u16(status).unwrap(), "its_own", "in its own words");
        ([("retry-after", "7")], problem).into_response()
    }
    let router = Router::new()
        .route("/sql/{status}", get(refuse))
        .route("/sql/plain", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") }));
    // Another server than ours answers plainly: no `serve` around this one.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let foreign = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let gateway = gateway_to(&format!("http://{address}")).await;
    for status in [400, 404, 409, 429, 500, 503] {
        let answer = client().get(gateway.url(&format!("/v1/sql/{status}"))).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()),
            (status, "7")
        );
        assert_eq!(error_of(answer).await, ("its_own".into(), "in its own words".into()));
    }
    let answer = client().get(gateway.url("/v1/sql/plain")).send().await.unwrap();
    assert_eq!(answer.status(), 418);
    assert_eq!(answer.text().await.unwrap(), "short and stout");
    foreign.abort();
}

#[tokio::test]
async fn redirects_and_empty_answers_pass_through() {
    let router = Router::new()
        .route("/storage/moved", get(|| async { axum::response::Redirect::temporary("/elsewhere") }))
        .route("/storage/none", get(|| async { StatusCode::NO_CONTENT }));
    let service = Server::start(router).await;
    let gateway = gateway_to(&service.url("")).await;
    let answer = gateway.exchange("GET", "/v1/storage/moved", "").await;
    assert!(answer.starts_with("HTTP/1.1 307 ") && answer.contains("location: /elsewhere"), "{answer}");
    assert!(gateway.exchange("GET", "/v1/storage/none", "").await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_502() {
    let settings = Settings { connect_patience: Duration::from_millis(300), ..Settings::default() };
    let upstreams =
        [(Owner::Sql, Upstream::http("URL", &format!("http://{}", closed_port().await)).unwrap())].into();
    let gateway = Server::start(router(upstreams, &settings)).await;
    let answer = client().get(gateway.url("/v1/sql")).send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(error_of(answer).await, ("bad_gateway".into(), "queryd cannot be reached".into()));
}

#[tokio::test]
async fn a_call_waits_for_a_service_that_is_about_to_come_back() {
    let address = closed_port().await;
    let gateway = gateway_to(&format!("http://{address}")).await;
    let call = tokio::spawn(client().post(gateway.url("/v1/sql")).body("SELECT 1").send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let echo = Router::new().route("/sql", axum::routing::post(|body: String| async { body }));
    let service = tokio::spawn(async { axum::serve(listener, echo).await });
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "SELECT 1");
    service.abort();
}

#[tokio::test]
async fn a_service_that_stays_silent_is_504() {
    let slow = Router::new().route("/sql", get(|| tokio::time::sleep(Duration::from_mins(1))));
    let service = Server::start(slow).await;
    let settings = Settings { idle_timeout: Duration::from_millis(200), ..Settings::default() };
    let upstreams = [(Owner::Sql, Upstream::http("URL", &service.url("")).unwrap())].into();
    let gateway = Server::start(router(upstreams, &settings)).await;
    let answer = client().get(gateway.url("/v1/sql")).send().await.unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(error_of(answer).await.0, "gateway_timeout");
}

#[tokio::test]
async fn a_model_thinks_for_as_long_as_chatd_lets_it() {
    const PAUSE: Duration = Duration::from_millis(300);
    async fn think() -> Body {
        tokio::time::sleep(PAUSE).await;
        Body::from_stream(stream::iter(["one", "two"]).then(|piece| async move {
            tokio::time::sleep(PAUSE).await;
            Ok::<_, std::io::Error>(piece)
        }))
    }
    let service = Server::start(Router::new().route("/chat", post(think))).await;
    let settings = Settings { idle_timeout: PAUSE / 3, ..Settings::default() };
    let upstreams = [(Owner::Chat, Upstream::http("URL", &service.url("")).unwrap())].into();
    let gateway = Server::start(router(upstreams, &settings)).await;
    let answer = client().post(gateway.url("/v1/chat")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "onetwo"));
}

#[tokio::test]
async fn a_body_over_the_gateways_cap_is_413() {
    let service = Server::start(Router::new().route("/sql", post(|_: Body| async {}))).await;
    let settings = Settings { max_body_bytes: 1000, ..Settings::default() };
    let upstreams = [(Owner::Sql, Upstream::http("URL", &service.url("")).unwrap())].into();
    let gateway = Server::start(router(upstreams, &settings)).await;
    let answer = client().post(gateway.url("/v1/sql")).body("x".repeat(1001)).send().await.unwrap();
    assert_eq!(answer.status(), 413);
}

/// The request line as the service saw it.
fn first_line(answer: &str) -> String {
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    body.lines().find(|line| line.contains(" /")).unwrap().to_owned()
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
