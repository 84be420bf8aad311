//! A provider of a test's own, with OpenAI's protocol. It wants the key `sk-right`, has the model `m`, and does as it is told.

use std::sync::{Arc, Mutex, mpsc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::Notify};

/// Ends with its owner.
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    /// Tells when a client leaves in the middle of an answer.
    pub(crate) left: mpsc::Receiver<()>,
    _runtime: Runtime,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let (gone, left) = mpsc::channel();
        let kept = seen.clone();
        let models = get(async |headers: HeaderMap| {
            if headers[header::AUTHORIZATION] == "Bearer sk-right" {
                (StatusCode::OK, Json(json!({ "data": [{ "id": "m" }] })))
            } else {
                let error = json!({ "error": { "message": "Incorrect API key provided" } });
                (StatusCode::UNAUTHORIZED, Json(error))
            }
        });
        let chat = post(async move |headers: HeaderMap, body: Bytes| {
            kept.lock().unwrap().push(headers);
            let body: Value = serde_json::from_slice(&body).unwrap();
            said_to(body["messages"][0]["content"].as_str().unwrap(), gone.clone())
        });
        let routes = Router::new().route("/models", models).route("/chat/completions", chat);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, seen, left, _runtime: runtime }
    }

    /// The headers of the chats so far.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }
}

/// `slowly` gets a first piece and no other, `break off` half of an answer, `fail` and `down` an error, everything else an echo.
fn said_to(said: &str, gone: mpsc::Sender<()>) -> Response {
    struct Guard(mpsc::Sender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let piece = |text: &str| {
        let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
        let piece =
            json!({ "id": "1", "object": "chat.completion.chunk", "model": "m-2026", "choices": [choice] });
        format!("data: {piece}\n\n")
    };
    let end = json!({ "id": "1", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let usage = json!({ "id": "1", "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 2 } });
    let body = match said {
        "fail" => {
            let error = json!({ "error": { "message": "this prompt is no good" } });
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
        "down" => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "slowly" => {
            let pieces = futures::stream::unfold(
                (Some(piece("one")), Notify::new(), Guard(gone)),
                |(first, never, guard)| async move {
                    if first.is_none() {
                        never.notified().await;
                    }
                    Some((Ok::<_, std::io::Error>(first?), (None, never, guard)))
                },
            );
            Body::from_stream(pieces)
        }
        "break off" => Body::from(piece("half of")),
        said => {
            let said = piece(&format!("you said {said}"));
            Body::from(format!("{said}data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n"))
        }
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
