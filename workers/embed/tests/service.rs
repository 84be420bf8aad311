//! embedd's answers, through its router and through its client.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use lakehouse_contract::provider::ProviderKind;
use lakehouse_embed::{Embedd, Embedder, HttpEmbedder, Reason, router};
use lakehouse_http::{Auth, Service, Settings, serve};
use serde_json::{Value, json};
use support::{Act, Fixture, Upstream, plain, texts};
use tokio::{net::TcpListener, task::JoinHandle};
use tower::ServiceExt;

#[tokio::test]
async fn texts_become_vectors_with_the_identity_of_the_model() {
    let fixture = Fixture::new([]);
    let (status, answer) = post(&fixture, "/embed", json!({"texts": ["ab", "c"]})).await;
    let identity =
        json!({"model": "local/length", "digest": "length-v1", "dimension": 2, "normalised": false});
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({
            "model": "local/length",
            "dimension": 2,
            "vectors": [[2.0, 1.0], [1.0, 0.5]],
            "identity": identity,
        })
    );
    let (_, named) = post(&fixture, "/embed/identity", json!({"model": "length"})).await;
    let (_, default) = post(&fixture, "/embed/identity", json!({})).await;
    assert_eq!((&named, &default), (&identity, &identity));
    post(&fixture, "/embed", json!({"texts": ["ab"], "model": ""})).await;
    let (_, counted) = call(&fixture, Method::GET, "/embed/stats", String::new()).await;
    assert_eq!((&counted["hits"], &counted["misses"], &counted["size"]), (&json!(1), &json!(2), &json!(2)));
    let (_, models) = call(&fixture, Method::GET, "/embed/models", String::new()).await;
    assert_eq!(models, json!({"default": "local/length", "models": ["local/length"]}));
}

#[tokio::test]
async fn a_callers_mistake_is_named_with_its_place() {
    let fixture = Fixture::new([]);
    let many = vec!["x"; 4_097];
    for (path, body, status, code, says, details) in [
        ("/embed", json!({"texts": []}), 400, "empty_list", "`texts` is empty", Value::Null),
        ("/embed", json!({"texts": ["a", ""]}), 400, "empty_text", "texts[1]", json!({"index": 1})),
        ("/embed", json!({"texts": many}), 400, "too_many_texts", "4097 texts", Value::Null),
        ("/embed", json!({"texts": "a"}), 400, "bad_request", "expected a sequence", Value::Null),
        ("/embed", json!({"text": ["a"]}), 400, "bad_request", "unknown field `text`", Value::Null),
        (
            "/embed",
            json!({"texts": ["a"], "model": "nobody"}),
            404,
            "unknown_model",
            "there is no model `nobody`; known are local/length",
            json!({"known": ["local/length"]}),
        ),
        (
            "/embed/identity",
            json!({"model": "no/body"}),
            404,
            "unknown_model",
            "`no/body`",
            json!({"known": ["local/length"]}),
        ),
        ("/embeddings", json!({"input": ["a", ""]}), 400, "empty_text", "texts[1]", json!({"index": 1})),
        ("/embeddings", json!({"input": [[1, 2]]}), 400, "bad_request", "lists of tokens", Value::Null),
        ("/embeddings", json!({"input": [1, 2]}), 400, "bad_request", "lists of tokens", Value::Null),
        (
            "/embeddings",
            json!({"input": "a", "dimensions": 1}),
            400,
            "bad_request",
            "`dimensions` is 1",
            Value::Null,
        ),
        (
            "/embeddings",
            json!({"input": "a", "encoding_format": "hex"}),
            400,
            "bad_request",
            "`hex`",
            Value::Null,
        ),
    ] {
        let (answered, answer) = post(&fixture, path, body).await;
        let error = &answer["error"];
        assert_eq!(
            (answered.as_u16(), &error["code"], &error["details"]),
            (status, &json!(code), &details),
            "{answer}"
        );
        assert!(error["message"].as_str().unwrap().contains(says), "{answer}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_cap_is_a_413() {
    let fixture = Fixture::new([]);
    let long = json!({"texts": ["x".repeat(16 << 20)]}).to_string();
    assert_eq!(call(&fixture, Method::POST, "/embed", long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let long = json!({"model": "x".repeat(64 << 10)}).to_string();
    assert_eq!(call(&fixture, Method::POST, "/embed/identity", long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn clients_of_openai_get_the_answer_they_know() {
    let fixture = Fixture::new([]);
    let (status, answer) =
        post(&fixture, "/embeddings", json!({"input": ["ab", "c"], "model": "length", "user": "u"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [2.0, 1.0]},
                {"object": "embedding", "index": 1, "embedding": [1.0, 0.5]},
            ],
            "model": "local/length",
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        })
    );
    let packed = json!({"input": "ab", "encoding_format": "base64", "dimensions": 2});
    let (_, answer) = post(&fixture, "/embeddings", packed).await;
    // 2 and 1 as little-endian floats.
    assert_eq!(answer["data"][0]["embedding"], json!("AAAAQAAAgD8="));
}

#[tokio::test]
async fn an_upstreams_failure_has_its_own_status() {
    for (act, kind, status, code) in [
        (Act::Says(429, Some("3600"), "slow down".into()), ProviderKind::OpenAI, 429, "rate_limited"),
        (Act::Says(401, None, "who are you".into()), ProviderKind::OpenAI, 502, "provider_credentials"),
        (Act::Says(200, None, "{}".into()), ProviderKind::Ollama, 502, "provider_answer"),
        (Act::Says(418, None, "teapot".into()), ProviderKind::Voyage, 502, "provider_refused"),
    ] {
        let upstream = Upstream::start([act]).await;
        let fixture = Fixture::new([upstream.provider("cloud", kind)]);
        let response =
            ask(&fixture, Method::POST, "/embed", json!({"texts": ["a"], "model": "m"}).to_string()).await;
        assert_eq!(response.status(), status);
        let retry_after = response.headers().get("retry-after").cloned();
        assert_eq!(retry_after, (status == 429).then(|| HeaderValue::from_static("3600")));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["error"]["code"], code);
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("provider `cloud` answered"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_client_hears_what_embedd_says() {
    let fixture = Fixture::new([]);
    let (server, client) = served(&fixture.embedd, "right").await;
    let embedded = client.embed("", &texts(["ab", "c"])).await.unwrap();
    assert_eq!(embedded, fixture.embedd.embed("", &texts(["ab", "c"])).await.unwrap());
    assert_eq!(plain(&embedded.vectors), [[2.0, 1.0], [1.0, 0.5]]);
    assert_eq!(client.identity("").await.unwrap(), embedded.identity);
    for list in [texts(["a", ""]).as_slice(), &[]] {
        let said = client.embed("", list).await.unwrap_err();
        assert_eq!(said, fixture.embedd.embed("", list).await.unwrap_err());
    }
    let said = client.embed("nobody", &texts(["a"])).await.unwrap_err();
    assert_eq!(said, fixture.embedd.embed("nobody", &texts(["a"])).await.unwrap_err());
    server.abort();
}

#[tokio::test]
async fn the_client_takes_lists_of_any_length() {
    let fixture = Fixture::new([]);
    let (server, client) = served(&fixture.embedd, "right").await;
    let mut list: Vec<String> = (0..5_000).map(|number| "x".repeat(1 + number % 7)).collect();
    let embedded = client.embed("", &list).await.unwrap();
    assert!(
        embedded
            .vectors
            .iter()
            .zip(&list)
            .all(|(vector, text)| vector[..] == [text.len() as f32, text.len() as f32 / 2.0])
    );
    assert_eq!(embedded.vectors.len(), 5_000);
    list[4_500].clear();
    assert_eq!(client.embed("", &list).await.unwrap_err().item, Some(4_500));
    server.abort();
}

#[tokio::test]
async fn the_client_says_whether_a_retry_helps() {
    let fixture = Fixture::new([]);
    let (server, client) = served_as(&fixture.embedd, "right", "wrong").await;
    let error = client.embed("", &texts(["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.retry_helps()), (Reason::Credentials, false));
    server.abort();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = HttpEmbedder::new(&format!("http://{free}"), || None).unwrap();
    let error = nobody.embed("", &texts(["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.retry_helps()), (Reason::Unavailable, true));
    assert!(error.message.starts_with("embedd at 127.0.0.1:"), "{error}");
    assert!(HttpEmbedder::new("lakehouse-embed:3216", || None).is_err());
}

/// A server of this embedd and a client of it.
async fn served(embedd: &Embedd, token: &'static str) -> (JoinHandle<()>, HttpEmbedder) {
    served_as(embedd, token, token).await
}

async fn served_as(
    embedd: &Embedd,
    token: &'static str,
    said: &'static str,
) -> (JoinHandle<()>, HttpEmbedder) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Service::new("embedd", router(embedd.clone()));
    let settings =
        Settings { auth: Auth::none().with_tokens(Some(token), None).unwrap(), ..Settings::default() };
    let server = tokio::spawn(async {
        serve(listener, service, settings, std::future::pending()).await.unwrap();
    });
    let authorization = move || HeaderValue::from_str(&format!("Bearer {said}")).ok();
    (server, HttpEmbedder::new(&url, authorization).unwrap())
}

async fn post(fixture: &Fixture, path: &str, body: Value) -> (StatusCode, Value) {
    call(fixture, Method::POST, path, body.to_string()).await
}

async fn call(fixture: &Fixture, method: Method, path: &str, body: String) -> (StatusCode, Value) {
    let response = ask(fixture, method, path, body).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn ask(fixture: &Fixture, method: Method, path: &str, body: String) -> axum::response::Response {
    let router: Router = router(fixture.embedd.clone());
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    router.oneshot(request).await.unwrap()
}
