//! A chatd behind a socket, and upstreams behind others: fakes that speak the protocols as their providers document them.
#![allow(dead_code, reason = "each test file uses its part of these helpers")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]

pub(crate) mod clouds;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, future::BoxFuture, stream};
use lakehouse_chat::{Chatd, Settings, router};
use lakehouse_contract::provider::Providers;
use lakehouse_http::{Metrics, Service, serve};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

/// A request that an upstream got.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// An upstream that answers as functions say, until it is dropped.
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Answers chats so, and lists no models.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static,
    {
        Self::looked_at(answer, |_| StatusCode::NOT_FOUND.into_response()).await
    }

    /// Answers chats by the first function, and looks (`GET`) by the second. Looks come in their own time, so they are not remembered.
    pub(crate) async fn looked_at<F, L>(answer: F, look: L) -> Self
    where
        F: Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static,
        L: Fn(Seen) -> Response + Send + Sync + 'static,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, answer, look) = (seen.clone(), Arc::new(answer), Arc::new(look));
        let handler = move |request: Request| {
            let (kept, answer, look) = (kept.clone(), answer.clone(), look.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let seen = Seen {
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                if parts.method == Method::GET {
                    return look(seen);
                }
                kept.lock().unwrap().push(seen.clone());
                answer(seen).await
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    /// Answers every request with the next of these, and the last one for ever.
    pub(crate) async fn scripted(answers: Vec<fn() -> Response>) -> Self {
        let next = Mutex::new(0);
        Self::start(move |_| {
            let mut next = next.lock().unwrap();
            let answer = answers[(*next).min(answers.len() - 1)];
            *next += 1;
            Box::pin(async move { answer() })
        })
        .await
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with a status and a JSON body.
pub(crate) fn answer(status: u16, body: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body.clone())).into_response()
}

/// A whole stream of server-sent events.
pub(crate) fn sse(events: &[String]) -> Response {
    let text = events.iter().fold(String::new(), |text, data| text + "data: " + data + "\n\n");
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

/// A whole stream of lines.
pub(crate) fn ndjson(lines: &[Value]) -> Response {
    let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

/// A stream that the test feeds; it is cut when it is told `Err`, and ends when the sender is dropped. Tells when it is dropped itself.
pub(crate) fn fed() -> (mpsc::Sender<Result<String, ()>>, Arc<Notify>, Response) {
    struct Guard(Arc<Notify>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (sender, pieces) = mpsc::channel(16);
    let left = Arc::new(Notify::new());
    let guard = Guard(left.clone());
    let body = stream::unfold((pieces, guard), |(mut pieces, guard)| async move {
        let piece: Result<String, ()> = pieces.recv().await?;
        Some((piece.map_err(|()| std::io::Error::other("cut")), (pieces, guard)))
    });
    (sender, left, ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response())
}

/// A piece of text as OpenAI streams it.
pub(crate) fn piece(text: &str) -> String {
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})
        .to_string()
}

/// The end of a stream of OpenAI's.
pub(crate) fn last_pieces() -> [String; 3] {
    let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9});
    [
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})
            .to_string(),
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage})
            .to_string(),
        "[DONE]".to_owned(),
    ]
}

/// A whole answer of OpenAI's.
pub(crate) fn completion(text: &str) -> Value {
    let message = json!({"role": "assistant", "content": text});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    })
}

/// A chatd behind a socket, until it is dropped.
pub(crate) struct Chat {
    pub(crate) address: SocketAddr,
    pub(crate) list: watch::Sender<Providers>,
    pub(crate) metrics: Metrics,
    task: JoinHandle<()>,
}

impl Chat {
    /// With these providers, and limits that fit a test.
    pub(crate) async fn start(providers: Value) -> Self {
        Self::with(quick(), providers).await
    }

    pub(crate) async fn with(settings: Settings, list: Value) -> Self {
        crypto();
        let metrics = settings.metrics.clone();
        let (list, receiver) = watch::channel(providers(list));
        let service = Service::new("chatd", router(Chatd::new(settings, receiver)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ends = std::future::pending();
        let task = tokio::spawn(async move {
            serve(listener, service, lakehouse_http::Settings::default(), ends).await.unwrap();
        });
        Self { address, list, metrics, task }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = client().post(format!("http://{}{path}", self.address)).body(body.to_string());
        patiently(request.send()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = patiently(client().get(format!("http://{}{path}", self.address)).send()).await.unwrap();
        answer.json().await.unwrap()
    }

    /// Status and body of a request.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.post(path, body).await;
        (answer.status().as_u16(), patiently(answer.json()).await.unwrap())
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Limits under which a test need not wait.
pub(crate) fn quick() -> Settings {
    Settings {
        retries: 0,
        backoff: Duration::from_millis(5),
        key_poll: Duration::from_millis(20),
        ..Settings::default()
    }
}

pub(crate) fn providers(list: Value) -> Providers {
    serde_json::from_value(json!({ "providers": list })).unwrap()
}

/// A request of one message.
pub(crate) fn say(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The data of all events of an answer.
pub(crate) async fn events(answer: reqwest::Response) -> Vec<String> {
    let text = patiently(answer.text()).await.unwrap();
    text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
}

/// The lines of an answer.
pub(crate) async fn lines(answer: reqwest::Response) -> Vec<Value> {
    let text = patiently(answer.text()).await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The next bytes of an answer.
pub(crate) async fn next(
    pieces: &mut (impl StreamExt<Item = reqwest::Result<bytes::Bytes>> + Unpin),
) -> Option<String> {
    let piece = patiently(pieces.next()).await?.unwrap();
    Some(String::from_utf8(piece.to_vec()).unwrap())
}

pub(crate) fn client() -> reqwest::Client {
    crypto();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn crypto() {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// No test waits for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
