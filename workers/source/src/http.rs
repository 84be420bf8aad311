//! Sources behind a URL.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION},
    redirect::Policy,
};
use tracing::debug;
use url::Url;

use crate::{Error, Local, Reading, Spool, without_secrets};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence in the middle of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Waits between tries, in seconds; one try more than there are waits.
const WAITS: [u64; 3] = [1, 3, 9];

/// Longer chains of redirects are taken for circles.
const MOST_REDIRECTS: usize = 10;
/// The most of an error answer that is read, in bytes, and shown, in characters.
const READ_BYTES: usize = 4 << 10;
const SHOWN_CHARS: usize = 300;

pub(crate) fn client() -> Result<Client, Error> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        // `send` follows them: reqwest would hand all headers but a few well-known ones to whoever a redirect names.
        .redirect(Policy::none())
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
    let response = send(client, url, headers, seen).await?;
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

/// Asks for `url` and follows its redirects. Its headers, its user and its password stay with its scheme, host and port.
async fn send(
    client: &Client,
    url: &Url,
    headers: &HeaderMap,
    seen: Option<&str>,
) -> Result<Response, Error> {
    let shown = without_secrets(url);
    let etag = seen.filter(|seen| is_strong_etag(seen)).and_then(|seen| HeaderValue::from_str(seen).ok());
    let mut at = url.clone();
    let mut secrets = Some(headers);
    for _ in 0..=MOST_REDIRECTS {
        let mut request = client.get(at.clone());
        if let Some(secrets) = secrets {
            request = request.headers(secrets.clone());
        }
        if let Some(etag) = &etag {
            request = request.header(IF_NONE_MATCH, etag.clone());
        }
        let response = request.send().await.map_err(|error| Error::Unreachable(failure(&shown, error)))?;
        let Some(location) = location(&response) else { return Ok(response) };
        let mut next = target(&at, location).map_err(|why| {
            Error::Unreachable(format!("{shown} redirects to {why}, which is not followed"))
        })?;
        if next.origin() != url.origin() {
            secrets = None;
        }
        if secrets.is_some() && next.username().is_empty() {
            // Neither can fail for a URL with a host.
            let _ = next.set_username(url.username());
            let _ = next.set_password(url.password());
        }
        at = next;
    }
    Err(Error::Unreachable(format!("{shown} redirects more than {MOST_REDIRECTS} times")))
}

/// Where an answer redirects to, as it says it.
fn location(response: &Response) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| redirects)?.to_str().ok()
}

/// The URL that a redirect names, or in words why nobody should ask there.
fn target(from: &Url, location: &str) -> Result<Url, String> {
    let next = from.join(location).map_err(|error| format!("what is no URL ({error})"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        _ => Err(without_secrets(&next)),
    }
}

/// Longer tags name nothing that a status could show.
const LONGEST_ETAG: usize = 256;

/// An entity tag that promises the same bytes (RFC 9110, 8.8.3); a weak one starts with `W/`.
fn is_strong_etag(text: &str) -> bool {
    (3..=LONGEST_ETAG).contains(&text.len()) && text.starts_with('"') && text.ends_with('"')
}

async fn refusal(shown: &str, response: Response) -> Error {
    let status = response.status();
    let body = if tells_people(response.headers()) { beginning(response).await } else { String::new() };
    let first: String = body.trim().chars().take(SHOWN_CHARS).filter(|c| !c.is_control()).collect();
    let says = if first.is_empty() { String::new() } else { format!(": {first}") };
    let message = format!("{shown} answers {status}{says}");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound(message),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied(message),
        _ => Error::Unreachable(message),
    }
}

/// As much of an answer as is worth reading; a longer one is left where it is.
async fn beginning(response: Response) -> String {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    while body.len() < READ_BYTES
        && let Some(Ok(piece)) = pieces.next().await
    {
        body.extend_from_slice(&piece[..piece.len().min(READ_BYTES - body.len())]);
    }
    String::from_utf8_lossy(&body).into_owned()
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
    use axum::{Router, body::Body, response::Redirect, routing::get};
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[test]
    fn only_a_tag_that_promises_the_same_bytes_is_a_digest() {
        assert!(is_strong_etag("\"5d41402abc4b2a76b9719d911017c592\""));
        for text in ["W/\"1\"", "\"\"", "1", "", &format!("\"{}\"", "x".repeat(LONGEST_ETAG))] {
            assert!(!is_strong_etag(text), "{text}");
        }
    }

    #[test]
    fn a_redirect_does_not_leave_the_encryption() {
        let from = Url::parse("https://a.example/x/y.csv").unwrap();
        let plain = Url::parse("http://a.example/x/y.csv").unwrap();
        assert_eq!(target(&from, "z.csv").unwrap().as_str(), "https://a.example/x/z.csv");
        assert_eq!(target(&plain, "https://b.example/").unwrap().as_str(), "https://b.example/");
        assert_eq!(target(&plain, "//b.example/").unwrap().as_str(), "http://b.example/");
        assert_eq!(target(&from, "http://a.example/?sig=secret").unwrap_err(), "http://a.example/?…");
        for location in ["ftp://a.example/", "file:///etc/passwd", "https://"] {
            assert!(target(&plain, location).is_err(), "{location}");
        }
    }

    #[tokio::test]
    async fn a_circle_of_redirects_ends() {
        let url = serve(Router::new().fallback(get(|| async { Redirect::permanent("/again") }))).await;
        let error = send(&client().unwrap(), &url, &HeaderMap::new(), None).await.unwrap_err();
        assert!(error.to_string().ends_with("redirects more than 10 times"), "{error}");
    }

    #[tokio::test]
    async fn an_error_answer_without_an_end_is_read_as_far_as_it_is_shown() {
        let endless = async || {
            let says = stream::iter([Ok::<_, Error>(Bytes::from("no such tenant. ".repeat(1000)))]);
            (StatusCode::BAD_REQUEST, Body::from_stream(says.chain(stream::pending())))
        };
        let url = serve(Router::new().fallback(get(endless))).await;
        let response = send(&client().unwrap(), &url, &HeaderMap::new(), None).await.unwrap();
        let error = tokio::time::timeout(Duration::from_secs(20), refusal("it", response)).await.unwrap();
        let says = error.to_string();
        assert!(says.starts_with("it answers 400 Bad Request: no such tenant. no such"), "{says}");
        assert!(says.len() < 2 * SHOWN_CHARS, "{says}");
    }

    #[tokio::test]
    async fn only_a_digest_is_a_mismatch() {
        for (status, is_fitting) in [
            (400, (|error| matches!(error, Error::Unreachable(_))) as fn(&Error) -> bool),
            (422, |error| matches!(error, Error::Unreachable(_))),
            (429, |error| matches!(error, Error::Unreachable(_))),
            (503, |error| matches!(error, Error::Unreachable(_))),
            (403, |error| matches!(error, Error::Denied(_))),
            (410, |error| matches!(error, Error::NotFound(_))),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let url = serve(Router::new().fallback(get(move || async move { status }))).await;
            let response = send(&client().unwrap(), &url, &HeaderMap::new(), None).await.unwrap();
            let error = refusal("it", response).await;
            assert!(is_fitting(&error), "{error:?}");
        }
    }

    async fn serve(app: Router) -> Url {
        // Only one test can be the first to install it; the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a.csv", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Url::parse(&url).unwrap()
    }
}
