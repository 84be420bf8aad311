//! queryd over HTTP: `POST /sql`, `GET /sql/views` and `POST /sql/refresh`.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use lakehouse_contract::sql::SqlRequest;
use lakehouse_http::{Json, Problem};

use crate::{Engine, Format, Views};

/// queryd's routes.
pub fn router(engine: Engine) -> Router {
    Router::new()
        .route("/sql", post(sql))
        .route("/sql/views", get(views))
        .route("/sql/refresh", post(refresh))
        .with_state(engine)
}

async fn sql(
    State(engine): State<Engine>,
    headers: HeaderMap,
    Json(request): Json<SqlRequest>,
) -> Result<Response, Problem> {
    let format = format(&headers).ok_or_else(not_acceptable)?;
    let answer = engine.query(request, format).await?;
    let body = match format {
        Format::Json => Body::from(answer.bytes().await?),
        // An error in the stream makes the server cut the connection: no reader takes a part for the whole.
        Format::Arrow | Format::Csv => Body::from_stream(answer),
    };
    Ok(([(header::CONTENT_TYPE, format.media_type())], body).into_response())
}

async fn views(State(engine): State<Engine>) -> axum::Json<Views> {
    axum::Json(engine.views())
}

/// Follows the catalogue at once. The work goes on when the caller leaves: others wait for the same rows.
async fn refresh(State(engine): State<Engine>) -> Result<axum::Json<Views>, Problem> {
    let work = tokio::spawn({
        let engine = engine.clone();
        async move { engine.refresh().await }
    });
    match work.await {
        Ok(refreshed) => refreshed?,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => return Err(Problem::unavailable("the service is stopping", 1)),
        },
    }
    Ok(axum::Json(engine.views()))
}

/// What the caller can read best, as its `Accept` says; JSON when it does not say.
fn format(headers: &HeaderMap) -> Option<Format> {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if accept.is_empty() {
        return Some(Format::Json);
    }
    let ranges = accept.iter().flat_map(|value| value.split(',')).filter_map(|range| {
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let format = match media.trim().to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => Format::Json,
            "application/vnd.apache.arrow.stream" => Format::Arrow,
            "text/*" | "text/csv" => Format::Csv,
            _ => return None,
        };
        let quality = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
        let quality: f32 = quality.map_or(Some(1.0), |q| q.trim().parse().ok())?;
        Some((quality, format))
    });
    // The first of equals wins.
    let wanted = ranges.filter(|(quality, _)| *quality > 0.0);
    wanted.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, format)| format)
}

fn not_acceptable() -> Problem {
    Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        "an answer can be application/json, application/vnd.apache.arrow.stream or text/csv",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_what_the_caller_reads_best() {
        let cases = [
            (None, Some(Format::Json)),
            (Some("*/*"), Some(Format::Json)),
            (Some("text/csv"), Some(Format::Csv)),
            (Some("application/vnd.apache.arrow.stream"), Some(Format::Arrow)),
            (Some("text/html, text/csv;q=0.5, application/json;q=0.9"), Some(Format::Json)),
            (Some("application/json;q=0, text/csv"), Some(Format::Csv)),
            (Some("image/png"), None),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(format(&headers), expected, "{accept:?}");
        }
    }
}
