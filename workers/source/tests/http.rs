//! What a source behind a URL promises, over a real socket.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use lakehouse_source::{Error, Reader, Reading, Source};
use url::Url;

const CONTENT: &str = "id,name\n1,a\n";

#[tokio::test]
async fn a_source_with_an_etag_is_copied_once() {
    let server = Server::start().await;
    let source = server.source("/etag.csv", None);
    let Reading::Here(local) = server.read(&source, None).await.unwrap() else {
        panic!("nothing was read before")
    };
    assert_eq!(std::fs::read_to_string(&local.path).unwrap(), CONTENT);
    assert_eq!(local.digest, "\"v1\"");

    assert!(matches!(server.read(&source, Some("\"v1\"")).await.unwrap(), Reading::Unchanged));
    assert_eq!(server.bodies(), 1, "the second look got a 304");
    assert!(matches!(server.read(&source, Some("\"v0\"")).await.unwrap(), Reading::Here(_)));
}

#[tokio::test]
async fn a_source_without_an_etag_is_known_by_its_hash() {
    let server = Server::start().await;
    let source = server.source("/plain.csv", None);
    let Reading::Here(local) = server.read(&source, None).await.unwrap() else {
        panic!("nothing was read before")
    };
    assert!(local.digest.starts_with("sha256:"));
    let digest = local.digest.clone();
    assert!(matches!(server.read(&source, Some(&digest)).await.unwrap(), Reading::Unchanged));
}

#[tokio::test]
async fn content_with_another_hash_than_promised_is_refused() {
    let server = Server::start().await;
    let source = server.source("/plain.csv", Some("00ff"));
    let error = server.read(&source, None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Mismatch(says) if says.contains("00ff") && says.contains("sha256:")),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_source_says_what_the_server_says() {
    let server = Server::start().await;
    let error = server.read(&server.source("/none.csv", None), None).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(says) if says.contains("404") && says.contains("no such file here"))
    );
}

#[tokio::test]
async fn a_page_for_browsers_is_no_sentence() {
    let server = Server::start().await;
    let error = server.read(&server.source("/page.csv", None), None).await.unwrap_err();
    assert!(error.to_string().ends_with("/page.csv answers 404 Not Found"), "{error}");
}

#[tokio::test]
async fn a_source_that_wants_credentials_is_denied_without_showing_them() {
    let server = Server::start().await;
    let mut source = server.source("/private.csv?token=hidden", None);
    let error = server.read(&source, None).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");

    if let Source::Http { headers, .. } = &mut source {
        headers.insert(header::AUTHORIZATION, "Bearer right".parse().unwrap());
    }
    assert!(matches!(server.read(&source, None).await.unwrap(), Reading::Here(_)));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let server = Server::start().await;
    let reading = server.read(&server.source("/flaky.csv", None), None).await.unwrap();
    assert!(matches!(reading, Reading::Here(_)));
}

#[tokio::test]
async fn a_redirect_hands_no_secret_to_another_server() {
    let (server, other) = (Server::start().await, Server::start().await);
    let ask = async |to: &str| {
        let mut source = server.source(&format!("/moved.csv?to={to}"), None);
        if let Source::Http { url, headers, .. } = &mut source {
            url.set_username("me").unwrap();
            url.set_password(Some("hidden")).unwrap();
            headers.insert("x-api-key", "hidden".parse().unwrap());
        }
        let Reading::Here(local) = server.read(&source, None).await.unwrap() else {
            panic!("it was not seen")
        };
        std::fs::read_to_string(&local.path).unwrap()
    };
    let own = server.base.join("/secrets.csv").unwrap();
    let others = other.base.join("/secrets.csv").unwrap();
    let back = other.base.join(&format!("/moved.csv?to={own}")).unwrap();
    let all = "authorization: Basic bWU6aGlkZGVu\nx-api-key: hidden";
    assert_eq!(ask("/secrets.csv").await, all);
    assert_eq!(ask(own.as_str()).await, all);
    assert_eq!(ask(others.as_str()).await, "");
    assert_eq!(ask(back.as_str()).await, "", "who left does not come back as the same");
}

struct Server {
    base: Url,
    bodies: Arc<AtomicUsize>,
    reader: Reader,
    _spool: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bodies = Arc::new(AtomicUsize::new(0));
        let app = Router::new()
            .route("/etag.csv", get(with_etag))
            .route("/plain.csv", get(|| async { CONTENT }))
            .route("/private.csv", get(private))
            .route("/flaky.csv", get(flaky))
            .route("/moved.csv", get(moved))
            .route("/secrets.csv", get(secrets))
            .route("/page.csv", get(|| async { (StatusCode::NOT_FOUND, Html("<h1>Not found</h1>")) }))
            .fallback(|| async { (StatusCode::NOT_FOUND, "no such file here") })
            .with_state(bodies.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let spool = tempfile::tempdir().unwrap();
        Self { base, bodies, reader: Reader::new(spool.path()).unwrap(), _spool: spool }
    }

    fn source(&self, path: &str, sha256: Option<&str>) -> Source {
        let url = self.base.join(path).unwrap();
        Source::Http { url, headers: HeaderMap::new(), sha256: sha256.map(str::to_owned) }
    }

    async fn read(&self, source: &Source, seen: Option<&str>) -> Result<Reading, Error> {
        self.reader.read(source, seen, &|_, _| {}).await
    }

    fn bodies(&self) -> usize {
        self.bodies.load(Ordering::SeqCst)
    }
}

async fn with_etag(State(bodies): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Response {
    if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen == "\"v1\"") {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    bodies.fetch_add(1, Ordering::SeqCst);
    ([(header::ETAG, "\"v1\"")], CONTENT).into_response()
}

async fn private(headers: HeaderMap) -> Response {
    match headers.get(header::AUTHORIZATION) {
        Some(token) if token == "Bearer right" => CONTENT.into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn moved(Query(query): Query<HashMap<String, String>>) -> Redirect {
    Redirect::temporary(&query["to"])
}

/// What a request tells of its sender's secrets.
async fn secrets(headers: HeaderMap) -> String {
    let named =
        ["authorization", "x-api-key"].into_iter().filter_map(|name| Some((name, headers.get(name)?)));
    let lines: Vec<_> = named.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.join("\n")
}

async fn flaky(State(tries): State<Arc<AtomicUsize>>) -> Response {
    if tries.fetch_add(1, Ordering::SeqCst) == 0 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    CONTENT.into_response()
}
