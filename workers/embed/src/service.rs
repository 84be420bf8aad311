//! embedd over HTTP: our own bodies, and those of `OpenAI` and Ollama for clients that speak them.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use lakehouse_contract::embed::{EmbedRequest, EmbedStats, IdentityRequest, ModelIdentity, ModelList};
use lakehouse_http::{BodyLimit, Problem, body};
use serde::Serialize;
use serde_json::json;
use tower::util::MapResponseLayer;

use crate::{EmbedError, Embedd, Embedded, Embedder, Reason, ollama, openai};

/// The most texts of one request, which bounds its answer.
pub(crate) const MAX_TEXTS: usize = 4_096;
/// The most bytes of a request with texts.
const EMBED_LIMIT: u64 = 16 << 20;
/// The most bytes of a request without.
const IDENTITY_LIMIT: u64 = 64 << 10;

/// embedd's routes.
pub fn router(embedd: Embedd) -> Router {
    let ollamas = Router::new()
        .route("/ollama/api/embed", post(ollama::embed).layer(BodyLimit(EMBED_LIMIT)))
        .layer(MapResponseLayer::new(ollama::in_ollamas_shape));
    Router::new()
        .merge(ollamas)
        .route("/embed", post(embed).layer(BodyLimit(EMBED_LIMIT)))
        .route("/embed/identity", post(identity).layer(BodyLimit(IDENTITY_LIMIT)))
        .route("/embed/models", get(models))
        .route("/embed/stats", get(stats))
        .route("/embeddings", post(openai::embeddings).layer(BodyLimit(EMBED_LIMIT)))
        .with_state(embedd)
}

/// [`lakehouse_contract::embed::EmbedAnswer`], without a copy of each vector.
#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    dimension: u32,
    vectors: Vec<&'a [f32]>,
    identity: &'a ModelIdentity,
}

async fn embed(
    State(embedd): State<Embedd>,
    body::Json(EmbedRequest { texts, model }): body::Json<EmbedRequest>,
) -> Result<Response, Problem> {
    let Embedded { identity, vectors } = few(&embedd, model.as_deref(), &texts).await?;
    let answer = Answer {
        model: &identity.model,
        dimension: identity.dimension,
        vectors: vectors.iter().map(|vector| &**vector).collect(),
        identity: &identity,
    };
    Ok(Json(answer).into_response())
}

/// As many texts as one answer may be about.
pub(crate) async fn few(
    embedd: &Embedd,
    model: Option<&str>,
    texts: &[String],
) -> Result<Embedded, EmbedError> {
    if texts.len() > MAX_TEXTS {
        let message =
            format!("{} texts are more than the {MAX_TEXTS} that one request may have", texts.len());
        return Err(EmbedError::new(Reason::TooMany, message));
    }
    embedd.embed(model.unwrap_or_default(), texts).await
}

async fn identity(
    State(embedd): State<Embedd>,
    body::Json(IdentityRequest { model }): body::Json<IdentityRequest>,
) -> Result<Json<ModelIdentity>, Problem> {
    Ok(Json(embedd.identity(model.as_deref().unwrap_or_default()).await?))
}

async fn models(State(embedd): State<Embedd>) -> Json<ModelList> {
    Json(embedd.models().await)
}

async fn stats(State(embedd): State<Embedd>) -> Json<EmbedStats> {
    Json(embedd.stats())
}

impl From<EmbedError> for Problem {
    fn from(error: EmbedError) -> Self {
        let status = match error.reason {
            Reason::EmptyList | Reason::EmptyText | Reason::TooLong | Reason::TooMany => {
                StatusCode::BAD_REQUEST
            }
            Reason::UnknownModel => StatusCode::NOT_FOUND,
            Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Reason::Refused | Reason::Credentials | Reason::Unavailable | Reason::BadAnswer => {
                StatusCode::BAD_GATEWAY
            }
            Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Reason::Unusable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut problem = Self::new(status, error.reason.code(), error.message.clone());
        // A part of a second is rounded up, so that who waits as told is not too early.
        problem.retry_after = error.retry_after.map(|pause| {
            u32::try_from(pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).unwrap_or(u32::MAX)
        });
        if let Some(item) = error.item {
            problem = problem.details(json!({ "index": item }));
        } else if !error.known.is_empty() {
            problem = problem.details(json!({ "known": error.known }));
        }
        problem
    }
}
