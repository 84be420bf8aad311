//! A model that anybody can compute, an upstream that fails as told, and an embedd over both.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use lakehouse_contract::{
    embed::ModelIdentity,
    provider::{Provider, ProviderKind, Providers},
};
use lakehouse_embed::{EmbedError, Embedd, LocalModel, Locals, Settings, Vector};
use lakehouse_http::Metrics;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// `local/length`: a text's vector is its length and the half of it. Remembers what it was asked.
#[derive(Debug)]
pub struct Length {
    identity: ModelIdentity,
    pub asked: Mutex<Vec<Vec<String>>>,
    pub takes: Duration,
}

impl Length {
    pub fn new() -> Arc<Self> {
        Self::slow(Duration::ZERO)
    }

    /// Each list takes so long.
    pub fn slow(takes: Duration) -> Arc<Self> {
        let identity = ModelIdentity {
            model: "local/length".into(),
            digest: "length-v1".into(),
            dimension: 2,
            normalised: false,
        };
        Arc::new(Self { identity, asked: Mutex::default(), takes })
    }

    /// How often each text was embedded, in alphabetical order.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.asked.lock().unwrap().iter().flatten().cloned().collect();
        texts.sort();
        texts
    }
}

impl LocalModel for Length {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vector>, EmbedError> {
        self.asked.lock().unwrap().push(texts.iter().map(|&text| text.to_owned()).collect());
        std::thread::sleep(self.takes);
        Ok(texts.iter().map(|text| Vector::from([text.len() as f32, text.len() as f32 / 2.0])).collect())
    }
}

#[derive(Debug)]
pub struct Only(pub Arc<Length>);

#[async_trait]
impl Locals for Only {
    async fn names(&self) -> Vec<String> {
        vec!["length".into()]
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<dyn LocalModel>>, EmbedError> {
        let model: Arc<dyn LocalModel> = self.0.clone();
        Ok((name == "length").then_some(model))
    }
}

/// What an upstream does instead of answering as it should.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with a status, a `Retry-After` and a body.
    Says(u16, Option<&'static str>, String),
    /// Never answers.
    Hangs,
    /// Refuses requests with a text of this kind, for ever.
    Refuses(&'static str),
    /// Answers as it should.
    Works,
}

/// A provider of OpenAI's, Voyage's and Ollama's protocols on a port of its own: a text's vector is its length, 1 and 0.
pub struct Upstream {
    pub url: String,
    pub script: Arc<Script>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub struct Script {
    acts: Mutex<VecDeque<Act>>,
    refused: Mutex<Option<&'static str>>,
    /// Path, authorization and body of each request.
    pub seen: Mutex<Vec<(String, String, Value)>>,
    /// How many requests wait for their answer now, and did at most.
    busy: Mutex<(usize, usize)>,
}

impl Upstream {
    pub async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let script = Arc::new(Script { acts: Mutex::new(acts.into_iter().collect()), ..Script::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(script.clone());
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, script, task }
    }

    pub fn then(&self, act: Act) {
        self.script.acts.lock().unwrap().push_back(act);
    }

    pub fn requests(&self) -> usize {
        self.script.seen.lock().unwrap().len()
    }

    pub fn most_at_once(&self) -> usize {
        self.script.busy.lock().unwrap().1
    }

    /// A provider of this kind at this address.
    pub fn provider(&self, name: &str, kind: ProviderKind) -> Provider {
        let provider = json!({ "name": name, "type": kind, "url": self.url, "embeddings": ["m"] });
        serde_json::from_value(provider).unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = said(request.headers());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    script.seen.lock().unwrap().push((path.clone(), authorization, body.clone()));
    if path == "/api/tags" {
        return json!({"models": [{"name": "m:latest", "digest": "abc"}]}).to_string().into_response();
    }
    let act = script.acts.lock().unwrap().pop_front().unwrap_or(Act::Works);
    if let Act::Refuses(mark) = act {
        *script.refused.lock().unwrap() = Some(mark);
    }
    match act {
        Act::Says(status, retry_after, body) => {
            let mut response = Response::builder().status(status);
            if let Some(pause) = retry_after {
                response = response.header("retry-after", pause);
            }
            response.body(Body::from(body)).unwrap()
        }
        Act::Hangs => std::future::pending().await,
        Act::Works | Act::Refuses(_) => {
            {
                let mut busy = script.busy.lock().unwrap();
                busy.0 += 1;
                busy.1 = busy.1.max(busy.0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            script.busy.lock().unwrap().0 -= 1;
            embeddings(&script, &path, &body)
        }
    }
}

fn embeddings(script: &Script, path: &str, body: &Value) -> Response {
    let texts: Vec<&str> =
        body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    if let Some(mark) = *script.refused.lock().unwrap()
        && texts.iter().any(|text| text.contains(mark))
    {
        let says = json!({"error": {"message": "this model's maximum context length is 8 tokens"}});
        return (StatusCode::BAD_REQUEST, says.to_string()).into_response();
    }
    let vectors = texts.iter().map(|text| json!([text.len(), 1, 0]));
    let answer = if path.ends_with("/api/embed") {
        json!({ "embeddings": vectors.collect::<Vec<_>>() })
    } else {
        let item = |(index, embedding)| json!({ "index": index, "embedding": embedding });
        json!({ "data": vectors.enumerate().map(item).collect::<Vec<_>>() })
    };
    answer.to_string().into_response()
}

fn said(headers: &HeaderMap) -> String {
    headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// An embedd with these providers and `local/length`, which is the default.
pub struct Fixture {
    pub embedd: Embedd,
    pub length: Arc<Length>,
    pub providers: watch::Sender<Providers>,
    pub metrics: Metrics,
}

impl Fixture {
    pub fn new(providers: impl IntoIterator<Item = Provider>) -> Self {
        Self::with(Settings::default(), Length::new(), providers)
    }

    pub fn with(
        mut settings: Settings,
        length: Arc<Length>,
        providers: impl IntoIterator<Item = Provider>,
    ) -> Self {
        // Another test of this binary may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let providers = Providers { providers: providers.into_iter().collect() };
        let (sender, receiver) = watch::channel(providers);
        settings.default_model = "local/length".into();
        let metrics = Metrics::default();
        let embedd = Embedd::new(settings, receiver, Arc::new(Only(length.clone())), &metrics);
        Self { embedd, length, providers: sender, metrics }
    }
}

pub fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Vectors as plain lists.
pub fn plain(vectors: &[Vector]) -> Vec<Vec<f32>> {
    vectors.iter().map(|vector| vector.to_vec()).collect()
}
