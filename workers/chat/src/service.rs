//! chatd over HTTP: `POST /chat` and `GET /chat/providers`; OpenAI's `POST /chat/completions` and `GET /models`, whose `/v1` the
//! gateway takes off.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use lakehouse_contract::chat::ProviderList;
use lakehouse_http::{BodyLimit, Problem, body};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    ChatError, Chatd,
    ask::{Ask, Door},
    chatd::{Answer, AnswerBody},
    door::openai,
};

/// Who answered.
const PROVIDER: HeaderName = HeaderName::from_static("x-lakehouse-provider");

/// Tells proxies on the way to pass each piece on at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// chatd's routes.
pub fn router(chatd: Chatd) -> Router {
    let limit = BodyLimit(chatd.0.settings.max_body_bytes);
    let openais = Router::new()
        .route("/chat/completions", post(completions).layer(limit))
        .route("/models", get(models))
        .route("/models/{*id}", get(model))
        .layer(from_fn(in_openais_shape));
    Router::new()
        .route("/chat", post(chat).layer(limit))
        .route("/chat/providers", get(providers))
        .merge(openais)
        .with_state(chatd)
}

async fn chat(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    answer(chatd, request, Ask::native).await
}

async fn completions(State(chatd): State<Chatd>, request: Request) -> Result<Response, Problem> {
    answer(chatd, request, Ask::openai).await
}

async fn answer(
    chatd: Chatd,
    request: Request,
    read: fn(&[u8]) -> Result<Ask, ChatError>,
) -> Result<Response, Problem> {
    let asked = Instant::now();
    let body: Bytes = body::read(request.into_body(), chatd.0.settings.max_body_bytes).await?;
    let ask = read(&body)?;
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

async fn models(State(chatd): State<Chatd>) -> axum::Json<Value> {
    let data = chatd.models().await.iter().map(openai::model).collect::<Vec<_>>();
    axum::Json(serde_json::json!({"object": "list", "data": data}))
}

async fn model(State(chatd): State<Chatd>, Path(id): Path<String>) -> Result<axum::Json<Value>, Problem> {
    let models = chatd.models().await;
    let found = models.iter().find(|model| model.name == id);
    let missing = || ChatError {
        field: Some("model".to_owned()),
        ..ChatError::new(crate::Kind::UnknownModel, format!("no provider lists the model `{id}`"))
    };
    Ok(axum::Json(openai::model(found.ok_or_else(missing)?)))
}

/// OpenAI's clients look for its own error body.
async fn in_openais_shape(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    match response.extensions().get::<Problem>().cloned() {
        Some(problem) => openai::problem(problem),
        None => response,
    }
}
