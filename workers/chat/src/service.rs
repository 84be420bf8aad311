//! chatd over HTTP: `POST /chat` and `GET /chat/providers`; the doors for the SDKs of others, whose `/v1` the gateway takes off:
//! OpenAI's `POST /chat/completions` and `GET /models`, Anthropic's `POST /messages`, and below `/ollama/api` those of Ollama.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use lakehouse_contract::chat::ProviderList;
use lakehouse_http::{Around, BodyLimit, Problem, RequestId, body};
use serde_json::Value;
use tokio::time::Instant;
use tower::util::MapResponseLayer;

use crate::{
    ChatError, Chatd,
    ask::{Ask, Door},
    chatd::{Answer, AnswerBody},
    door::{anthropic, ollama, openai},
    origin::Origin,
};

/// Who answered.
const PROVIDER: HeaderName = HeaderName::from_static("x-lakehouse-provider");

/// What Anthropic's clients try out, and which version of its API they speak.
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Tells proxies on the way to pass each piece on at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// chatd's routes.
pub fn router(chatd: Chatd) -> Router {
    let limit = BodyLimit(chatd.0.settings.max_body_bytes);
    let openais = Router::new()
        .route("/chat/completions", post(completions).layer(limit))
        .route("/models", get(models))
        .route("/models/{*id}", get(model))
        .layer(MapResponseLayer::new(in_openais_shape));
    let anthropics = Router::new()
        .route("/messages", post(messages).layer(limit))
        .route("/messages/count_tokens", post(count))
        .layer(Around::new(
            |request| RequestId::of(request.headers()),
            async |id, answer| in_anthropics_shape(&id, answer),
        ));
    let ollamas = Router::new()
        .route("/ollama/api/chat", post(ollamas_chat).layer(limit))
        .route("/ollama/api/tags", get(tags))
        .route("/ollama/api/version", get(version))
        .route("/ollama/api/{*path}", any(not_ollamas))
        .layer(MapResponseLayer::new(in_ollamas_shape));
    Router::new()
        .route("/chat", post(chat).layer(limit))
        .route("/chat/providers", get(providers))
        .merge(openais)
        .merge(anthropics)
        .merge(ollamas)
        .with_state(chatd)
}

async fn chat(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    answer(chatd, request, Ask::native).await
}

async fn completions(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    answer(chatd, request, Ask::openai).await
}

async fn messages(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    let beta = request.headers().get(BETA).cloned();
    answer(chatd, request, |body| Ok(Ask { beta, ..Ask::anthropic(body)? })).await
}

async fn count() -> Problem {
    anthropic::uncounted()
}

async fn ollamas_chat(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    answer(chatd, request, Ask::ollama).await
}

async fn answer(
    chatd: Chatd,
    request: Request,
    read: impl FnOnce(&[u8]) -> Result<Ask, ChatError>,
) -> Result<Response, Problem> {
    let (asked, origin) = (Instant::now(), Origin::of(&request));
    let body: Bytes = body::read(request.into_body(), chatd.0.settings.max_body_bytes).await?;
    let ask = Ask { origin, ..read(&body)? };
    // Thousands of streams may be open; none of them keeps its request twice.
    drop(body);
    let door = ask.door;
    let answer = chatd.answer(ask, asked).await?;
    Ok(written(door, answer))
}

fn written(door: Door, Answer { provider, body }: Answer) -> Response {
    let mut response = match body {
        AnswerBody::Whole(whole) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(whole)).into_response()
        }
        AnswerBody::Pieces(live) => {
            let headers = [
                (header::CONTENT_TYPE, door.stream_type()),
                (header::CACHE_CONTROL, "no-cache"),
                (BUFFERING, "no"),
            ];
            (headers, Body::from_stream(live.pieces())).into_response()
        }
    };
    if let Ok(provider) = HeaderValue::from_str(&provider) {
        response.headers_mut().insert(PROVIDER, provider);
    }
    response
}

async fn providers(State(chatd): State<Chatd>) -> axum::Json<ProviderList> {
    axum::Json(chatd.providers().await)
}

/// OpenAI and Anthropic have one path for it; Anthropic's clients say which version they speak.
async fn models(State(chatd): State<Chatd>, headers: HeaderMap) -> axum::Json<Value> {
    let models = chatd.models().await;
    if headers.contains_key(VERSION) {
        return axum::Json(anthropic::models(&models));
    }
    let data = models.iter().map(openai::model).collect::<Vec<_>>();
    axum::Json(serde_json::json!({"object": "list", "data": data}))
}

async fn model(
    State(chatd): State<Chatd>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<axum::Json<Value>, Problem> {
    let models = chatd.models().await;
    let found = models.iter().find(|model| model.name == id);
    let missing = || ChatError {
        field: Some("model".to_owned()),
        ..ChatError::new(crate::Kind::UnknownModel, format!("no provider lists the model `{id}`"))
    };
    let tell = if headers.contains_key(VERSION) { anthropic::model } else { openai::model };
    Ok(axum::Json(tell(found.ok_or_else(missing)?)))
}

async fn tags(State(chatd): State<Chatd>) -> axum::Json<Value> {
    axum::Json(ollama::tags(&chatd.models().await))
}

async fn version() -> axum::Json<Value> {
    axum::Json(serde_json::json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn not_ollamas(Path(path): Path<String>) -> Problem {
    ollama::unknown(&path)
}

/// Anthropic's clients look for its own error body, and for the id of the request under its own name.
fn in_anthropics_shape(id: &RequestId, response: Response) -> Response {
    let mut response = match response.extensions().get::<Problem>().cloned() {
        Some(problem) => anthropic::problem(problem, id),
        None => response,
    };
    response.headers_mut().insert(anthropic::REQUEST_ID, id.header());
    response
}

/// Ollama's clients look for its own error body.
fn in_ollamas_shape(response: Response) -> Response {
    match response.extensions().get::<Problem>().cloned() {
        Some(problem) => ollama::problem(problem),
        None => response,
    }
}

/// OpenAI's clients look for its own error body.
fn in_openais_shape(response: Response) -> Response {
    match response.extensions().get::<Problem>().cloned() {
        Some(problem) => openai::problem(problem),
        None => response,
    }
}
