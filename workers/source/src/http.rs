//! Sources behind a URL.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH},
};
use tracing::debug;
use url::Url;

use crate::{Error, Local, Reading, Spool, without_secrets};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence in the middle of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Waits between tries, in seconds; one try more than there are waits.
const WAITS: [u64; 3] = [1, 3, 9];

/// The most of an error answer that is shown.
const SHOWN_BYTES: usize = 300;

pub(crate) fn client() -> Result<Client, Error> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("lakehouse/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Unreachable(format!("no HTTP client could be made: {error}")))
}

/// Fetches `url` unless it still has the digest `seen`. Passing failures are tried again with growing waits.
pub(crate) async fn read(
    client: &Client,
    spool: &Spool,
    url: &Url,
    headers: &HeaderMap,
    sha256: Option<&str>,
    seen: Option<&str>,
    copied: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Reading, Error> {
    let mut waits = WAITS.iter();
    loop {
        let error = match fetch(client, spool, url, headers, sha256, seen, copied).await {
            Err(error @ Error::Unreachable(_)) => error,
            settled => return settled,
        };
        let Some(&wait) = waits.next() else { return Err(error) };
        debug!("{error}; trying again in {wait} s");
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}

async fn fetch(
    client: &Client,
    spool: &Spool,
    url: &Url,
    headers: &HeaderMap,
    sha256: Option<&str>,
    seen: Option<&str>,
    copied: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Reading, Error> {
    let shown = without_secrets(url);
    let mut request = client.get(url.clone()).headers(headers.clone());
    if let Some(etag) =
        seen.filter(|seen| is_strong_etag(seen)).and_then(|seen| HeaderValue::from_str(seen).ok())
    {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let response = request.send().await.map_err(|error| Error::Unreachable(failure(&shown, error)))?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(Reading::Unchanged);
    }
    if !response.status().is_success() {
        return Err(refusal(&shown, response).await);
    }
    let etag =
        response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).filter(|etag| is_strong_etag(etag));
    let etag = etag.map(str::to_owned);
    let total = response.content_length();

    let mut copy = spool.create().await?;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Error::Unreachable(failure(&shown, error)))?;
        copy.write(&piece).await?;
        copied(copy.bytes(), total);
    }
    let (path, digest, bytes) = copy.finish().await?;
    if let Some(expected) = sha256
        && digest.strip_prefix("sha256:") != Some(expected)
    {
        return Err(Error::Mismatch(format!(
            "spec.source.http.sha256 is {expected}, but what {shown} gives has {digest}"
        )));
    }
    let digest = etag.unwrap_or(digest);
    if seen == Some(digest.as_str()) {
        return Ok(Reading::Unchanged);
    }
    Ok(Reading::Here(Local::spooled(path, digest, bytes)))
}

/// Longer tags name nothing that a status could show.
const LONGEST_ETAG: usize = 256;

/// An entity tag that promises the same bytes (RFC 9110, 8.8.3); a weak one starts with `W/`.
fn is_strong_etag(text: &str) -> bool {
    (3..=LONGEST_ETAG).contains(&text.len()) && text.starts_with('"') && text.ends_with('"')
}

async fn refusal(shown: &str, response: Response) -> Error {
    let status = response.status();
    let body = if tells_people(response.headers()) {
        response.text().await.unwrap_or_default()
    } else {
        String::new()
    };
    let first: String = body.trim().chars().take(SHOWN_BYTES).filter(|c| !c.is_control()).collect();
    let says = if first.is_empty() { String::new() } else { format!(": {first}") };
    let message = format!("{shown} answers {status}{says}");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound(message),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied(message),
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            Error::Mismatch(message)
        }
        _ => Error::Unreachable(message),
    }
}

/// Whether an error answer is a sentence. HTML is a page for browsers; XML is what buckets answer, with the id of the request, so it
/// would be another message at every try.
fn tells_people(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !media_type.contains("html") && !media_type.contains("xml")
}

/// A failure with its causes and without the URL, which may hold secrets.
fn failure(shown: &str, error: reqwest::Error) -> String {
    use std::{error::Error as _, fmt::Write};
    let error = error.without_url();
    let mut text = format!("{shown} cannot be read: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_that_promises_the_same_bytes_is_a_digest() {
        assert!(is_strong_etag("\"5d41402abc4b2a76b9719d911017c592\""));
        for text in ["W/\"1\"", "\"\"", "1", "", &format!("\"{}\"", "x".repeat(LONGEST_ETAG))] {
            assert!(!is_strong_etag(text), "{text}");
        }
    }
}
