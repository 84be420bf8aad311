//! An embedding provider of a test's own, with Ollama's protocol: it counts texts, and fails as told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

/// What embedd asks for to learn of a model, and nobody counts.
const TRIAL: &str = "identity";

/// Ends with its owner.
pub(crate) struct Ollama {
    pub(crate) url: String,
    state: Arc<Mutex<Fake>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Fake {
    /// How often each text was embedded.
    texts: HashMap<String, usize>,
    digest: String,
    /// The status of every further answer, where it is not 200.
    fails: Option<StatusCode>,
    /// How long an answer takes.
    slow: Duration,
}

impl Ollama {
    /// A server with the model `tiny`, of four numbers.
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(Fake { digest: "1".repeat(64), ..Fake::default() }));
        let routes = Router::new()
            .route("/api/embed", post(embed))
            .route("/api/tags", get(tags))
            .with_state(Arc::clone(&state));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, state, _runtime: runtime }
    }

    /// Texts that were embedded so far, each as often as it was.
    pub(crate) fn embedded(&self) -> usize {
        self.state.lock().unwrap().texts.values().sum()
    }

    /// The most often that any text was embedded.
    pub(crate) fn most(&self) -> usize {
        self.state.lock().unwrap().texts.values().copied().max().unwrap_or(0)
    }

    /// Answers with this status from now on.
    pub(crate) fn fail(&self, status: u16) {
        self.state.lock().unwrap().fails = Some(StatusCode::from_u16(status).unwrap());
    }

    /// Answers again.
    pub(crate) fn recover(&self) {
        self.state.lock().unwrap().fails = None;
    }

    /// Each answer takes so long from now on.
    pub(crate) fn slow(&self, wait: Duration) {
        self.state.lock().unwrap().slow = wait;
    }

    /// The model's weights are others now.
    pub(crate) fn change_weights(&self) {
        self.state.lock().unwrap().digest = "2".repeat(64);
    }

    /// The ChatProvider `ollama` that is this server.
    pub(crate) fn resource(&self) -> String {
        format!(
            "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: ollama}}\n\
             spec: {{type: Ollama, url: \"{}\", embeddings: {{models: [tiny]}}}}\n---\n",
            self.url
        )
    }
}

async fn tags(State(state): State<Arc<Mutex<Fake>>>) -> Response {
    let state = state.lock().unwrap();
    match state.fails {
        Some(status) => (status, Json(json!({ "error": "not now" }))).into_response(),
        None => {
            Json(json!({ "models": [{ "name": "tiny:latest", "digest": state.digest }] })).into_response()
        }
    }
}

async fn embed(State(state): State<Arc<Mutex<Fake>>>, Json(request): Json<Value>) -> Response {
    let texts: Vec<String> = serde_json::from_value(request["input"].clone()).unwrap();
    let slow = state.lock().unwrap().slow;
    tokio::time::sleep(slow).await;
    let mut state = state.lock().unwrap();
    if let Some(status) = state.fails {
        return (status, Json(json!({ "error": "not now" }))).into_response();
    }
    for text in texts.iter().filter(|text| *text != TRIAL) {
        *state.texts.entry(text.clone()).or_default() += 1;
    }
    let seed = f32::from(state.digest.as_bytes()[0]);
    let vectors: Vec<[f32; 4]> = texts.iter().map(|text| vector(text, seed)).collect();
    Json(json!({ "model": "tiny", "embeddings": vectors })).into_response()
}

/// Says something about the text's letters.
#[allow(clippy::cast_precision_loss, reason = "short texts")]
fn vector(text: &str, seed: f32) -> [f32; 4] {
    let count = |letter: char| text.chars().filter(|c| *c == letter).count() as f32;
    let sum: u32 = text.bytes().map(u32::from).sum();
    [seed, count('e') + 1.0, count('r'), (sum % 97) as f32]
}
