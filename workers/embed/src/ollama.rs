//! `POST /ollama/api/embed`, which the gateway offers below `/v1`:
//! [the embeddings of Ollama](https://github.com/ollama/ollama/blob/main/docs/api.md) by any model of ours.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use lakehouse_http::{Problem, body};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Embedd, Embedded, service::few};

/// What speaks of how Ollama runs a model, such as `keep_alive`, changes no vector and is let through.
#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    model: Option<String>,
    input: Input,
    #[serde(default)]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    embeddings: Vec<&'a [f32]>,
}

pub(crate) async fn embed(
    State(embedd): State<Embedd>,
    body::Json(asked): body::Json<Asked>,
) -> Result<Response, Problem> {
    let Asked { model, input, dimensions } = asked;
    let texts = match input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    let Embedded { identity, vectors } = few(&embedd, model.as_deref(), &texts).await?;
    if let Some(dimensions) = dimensions
        && dimensions != identity.dimension
    {
        return Err(Problem::bad_request(format!(
            "`dimensions` is {dimensions}, but vectors of `{}` have {} numbers and are not shortened",
            identity.model, identity.dimension
        )));
    }
    let embeddings = vectors.iter().map(|vector| &**vector).collect();
    Ok(Json(Answer { model: &identity.model, embeddings }).into_response())
}

/// Ollama's clients look for its own error body.
pub(crate) fn in_ollamas_shape(mut response: Response) -> Response {
    if let Some(problem) = response.extensions().get::<Problem>().cloned() {
        let body = json!({"error": problem.message, "code": problem.code});
        response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
        *response.body_mut() = body.to_string().into();
    }
    response
}
