//! Who gets in, on a real socket.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{fs, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use common::{Log, Server, client, error_of, patiently};
use lakehouse_http::{Auth, Service, Settings, serve};
use reqwest::header;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_caller_without_the_token_gets_401_and_the_challenge() {
    let server = guarded(Auth::none().with_tokens(Some("primary,secondary"), None).unwrap()).await;
    let get = |token: Option<&'static str>| {
        let request = client().get(server.url("/hello"));
        match token {
            Some(token) => request.bearer_auth(token).send(),
            None => request.send(),
        }
    };
    for token in ["primary", "secondary"] {
        assert_eq!(get(Some(token)).await.unwrap().status(), 200);
    }
    for token in [None, Some("wrong"), Some("primary,secondary")] {
        let answer = get(token).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        assert_eq!(error_of(answer).await.0, "unauthorized");
    }
}

#[tokio::test]
async fn unknown_routes_tell_strangers_nothing() {
    let server = guarded(Auth::none().with_tokens(Some("primary"), None).unwrap()).await;
    let answer = client().get(server.url("/nowhere")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_caller_from_elsewhere_gets_403() {
    let auth = Auth::none().with_tokens(Some("primary"), None).unwrap().with_networks("10.0.0.0/8").unwrap();
    let server = guarded(auth).await;
    let answer = client().get(server.url("/hello")).bearer_auth("primary").send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(error_of(answer).await.0, "forbidden");
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(client().get(server.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_token_is_rotated_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "old\n").unwrap();
    let server = guarded(Auth::none().with_tokens(None, Some(file.clone())).unwrap()).await;
    assert_eq!(status(&server, "old").await, 200);

    fs::write(&file, "new\nold\n").unwrap();
    until(&server, "new", 200).await;
    assert_eq!(status(&server, "old").await, 200, "both are valid while callers change over");

    fs::write(&file, "new\n").unwrap();
    until(&server, "old", 401).await;
    assert_eq!(status(&server, "new").await, 200);

    fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(status(&server, "new").await, 200, "the last good tokens stay valid");
}

#[tokio::test]
async fn no_log_line_holds_a_token() {
    let log = Log::capture();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "s3cret-one").unwrap();
    let server = guarded(Auth::none().with_tokens(Some("s3cret-two"), Some(file.clone())).unwrap()).await;
    for token in ["s3cret-one", "s3cret-two", "s3cret-three"] {
        status(&server, token).await;
    }
    fs::write(&file, "s3cret-föur").unwrap();
    log.line("last good tokens").await;
    assert!(log.text().contains("answered 401"));
    assert!(!log.text().contains("s3cret"), "{}", log.text());
}

#[tokio::test]
async fn a_server_without_a_token_does_not_start_beyond_loopback() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let service = Service::new("testd", Router::new());
    let refused = patiently(serve(listener, service, Settings::default(), std::future::pending())).await;
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains("LAKEHOUSE_TOKEN") && sentence.contains("0.0.0.0:"), "{sentence}");
}

#[tokio::test]
async fn a_web_page_cannot_use_a_server_without_a_token() {
    let server = guarded(Auth::none()).await;
    let post = || client().post(server.url("/act"));
    assert_eq!(post().send().await.unwrap().status(), 200);
    assert_eq!(post().header("origin", "https://evil.example").send().await.unwrap().status(), 403);
    assert_eq!(post().header("host", "evil.example").send().await.unwrap().status(), 403);
}

async fn guarded(auth: Auth) -> Server {
    let router = Router::new().route("/hello", get(|| async { "hello" })).route("/act", post(|| async {}));
    Server::with(Service::new("testd", router), Settings { auth, ..Settings::default() }).await
}

async fn status(server: &Server, token: &str) -> u16 {
    let answer = client().get(server.url("/hello")).bearer_auth(token).send().await.unwrap();
    answer.status().as_u16()
}

async fn until(server: &Server, token: &str, wanted: u16) {
    patiently(async {
        while status(server, token).await != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
