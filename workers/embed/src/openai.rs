//! `POST /embeddings`, which the gateway offers as `/v1/embeddings`:
//! [the embeddings of `OpenAI`](https://platform.openai.com/docs/api-reference/embeddings) by any model of ours.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use lakehouse_http::{Problem, body};
use serde::{Deserialize, Serialize};

use crate::{Embedd, Embedded, service::few};

/// Further fields, such as `user`, mean nothing here and are let through.
#[derive(Deserialize)]
pub(crate) struct Request {
    input: Input,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    encoding_format: Encoding,
    #[serde(default)]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
    /// Lists of tokens, and whatever else may come.
    Other(serde::de::IgnoredAny),
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Float(&'a [f32]),
    Base64(String),
}

/// Tokens are not counted: models of this process and texts from the cache cost none. Clients want the fields to be there.
#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

pub(crate) async fn embeddings(
    State(embedd): State<Embedd>,
    body::Json(request): body::Json<Request>,
) -> Result<Response, Problem> {
    let Request { input, model, encoding_format, dimensions } = request;
    let texts = match input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
        Input::Other(_) => {
            let says =
                "`input` must be a text or a list of texts; lists of tokens are those of one model's own";
            return Err(Problem::bad_request(says));
        }
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
    let data = vectors.iter().enumerate().map(|(index, vector)| Item {
        object: "embedding",
        index,
        embedding: match encoding_format {
            Encoding::Float => Numbers::Float(vector),
            Encoding::Base64 => Numbers::Base64(base64_of(vector)),
        },
    });
    let answer = Answer {
        object: "list",
        data: data.collect(),
        model: &identity.model,
        usage: Usage { prompt_tokens: 0, total_tokens: 0 },
    };
    Ok(Json(answer).into_response())
}

/// Little-endian 32-bit numbers.
fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
