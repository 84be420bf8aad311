//! One error body for whatever a router answers by itself: unknown routes, wrong methods, extractors that refuse.

use axum::{
    Router,
    body::to_bytes,
    extract::{MatchedPath, OriginalUri, Request},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{Around, Problem, Template};

/// The longest sentence that an extractor says.
const MAX_SENTENCE: usize = 4096;

/// Marks an answer that was made elsewhere: it is passed on as it is, whatever its error body looks like.
#[derive(Clone, Copy, Debug)]
pub struct AsIs;

/// A router whose every error has our body. [`crate::serve`] does this to a service's router; a gateway that calls a router
/// without a socket does it itself.
pub fn with_error_bodies(router: Router) -> Router {
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(Around::new(matched, async |matched, answer| {
            tell_template(matched, in_our_words(answer).await)
        }))
}

fn matched(request: &Request) -> Option<MatchedPath> {
    request.extensions().get().cloned()
}

/// Notes the template of the matched route on the answer, unless a router further inside did.
fn tell_template(matched: Option<MatchedPath>, mut response: Response) -> Response {
    if let (Some(path), None) = (matched, response.extensions().get::<Template>()) {
        response.extensions_mut().insert(Template(path.as_str().to_owned()));
    }
    response
}

async fn unknown_route(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is no route `{}` here", uri.path()))
}

/// The router adds `Allow`.
async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("`{}` does not take {method}; the `Allow` header names what it takes", uri.path()),
    )
}

/// Extractors of axum refuse with a line of plain text; it becomes the message.
async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_ours = response.extensions().get::<Problem>().is_some();
    let is_foreign = response.extensions().get::<AsIs>().is_some();
    if !is_error || is_ours || is_foreign || !is_plain(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_SENTENCE).await.unwrap_or_default();
    let sentence = String::from_utf8_lossy(&text);
    let message = match sentence.trim() {
        "" => status.canonical_reason().unwrap_or("the request failed"),
        sentence => sentence,
    };
    let mut replaced = Problem::new(status, code(status), message).into_response();
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            replaced.headers_mut().append(name, value.clone());
        }
    }
    replaced
}

fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// The word for a status that came without one.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_client_error() => "bad_request",
        _ => "internal",
    }
}
