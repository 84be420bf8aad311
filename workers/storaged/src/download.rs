//! Objects on their way out.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, fmt::rfc2822};
use lakehouse_contract::Key;
use lakehouse_store::{ByteRange, Etag, Meta, Object};

use crate::{Storage, error::Error, range};

/// `GET /storage/get/{key}`
pub(crate) async fn get(
    State(storage): State<Arc<Storage>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let key = Key::parse(key)?;
    if headers.contains_key(header::IF_NONE_MATCH) {
        let meta = storage.store.head(&key).await?;
        if is_known(&headers, &meta.etag) {
            return Ok((StatusCode::NOT_MODIFIED, described(&meta)).into_response());
        }
    }
    let asked = range::of(&headers);
    let mut object = storage.store.get(&key, asked).await?;
    if asked.is_some() && is_other_version(&headers, &object.meta.etag) {
        object = storage.store.get(&key, None).await?;
        return Ok(answer(object, None));
    }
    Ok(answer(object, asked))
}

/// `HEAD /storage/get/{key}`: the headers of the whole object; the store is not asked for its content.
pub(crate) async fn head(
    State(storage): State<Arc<Storage>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let meta = storage.store.head(&Key::parse(key)?).await?;
    if is_known(&headers, &meta.etag) {
        return Ok((StatusCode::NOT_MODIFIED, described(&meta)).into_response());
    }
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(meta.size))];
    Ok((described(&meta), length).into_response())
}

fn answer(object: Object, asked: Option<ByteRange>) -> Response {
    let Object { meta, range: (start, end), body } = object;
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(end - start))];
    let whole = (described(&meta), length, Body::from_stream(body));
    if asked.is_none() {
        return whole.into_response();
    }
    let part = text(&format!("bytes {start}-{}/{}", end.saturating_sub(1), meta.size));
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, part)], whole).into_response()
}

/// The headers that say what an object is.
fn described(meta: &Meta) -> [(header::HeaderName, HeaderValue); 5] {
    [
        (header::ETAG, text(&quoted(&meta.etag))),
        (header::LAST_MODIFIED, http_date(meta.modified)),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        // Whoever wrote the object, no browser shall run it as a page of this origin.
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// The mark in the quotes that HTTP wants around it; some stores give them, some do not.
pub(crate) fn quoted(Etag(mark): &Etag) -> String {
    format!("\"{}\"", mark.trim_matches('"'))
}

fn http_date(time: Timestamp) -> HeaderValue {
    // Only years past 9999 have no such date.
    text(&rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default())
}

/// A header's value. An etag or a date with characters that no header takes stays empty.
pub(crate) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether the client's copy is this version (`If-None-Match`).
fn is_known(headers: &HeaderMap, etag: &Etag) -> bool {
    let current = quoted(etag);
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given
        .flat_map(|list| list.split(','))
        .map(|entry| entry.trim().trim_start_matches("W/"))
        .any(|entry| entry == "*" || entry == current)
}

/// Whether the client wants the range only of another version (`If-Range`).
fn is_other_version(headers: &HeaderMap, etag: &Etag) -> bool {
    headers.get(header::IF_RANGE).is_some_and(|wanted| wanted.as_bytes() != quoted(etag).as_bytes())
}
