//! One provider at work: its address, key, connections, limits, and how it has been.

use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use lakehouse_contract::provider::{Provider, ProviderKind};
use reqwest::{Client, Response, redirect};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use url::Url;

use crate::{
    ChatError, Settings,
    breaker::{Breaker, Resting},
    error::Kind,
    event::Fault,
    gate::{Gate, Place, Refusal},
    key::Key,
    look::Looks,
    metrics::Numbers,
    protocol::{self, Outgoing, Protocol},
    settings::Timeouts,
};

/// The most of an error's body that is read.
const MAX_COMPLAINT: usize = 64 << 10;

/// The longest sentence of an upstream that is repeated, in characters.
const MAX_SENTENCE: usize = 1000;

/// The most of a list of models that is read.
const MAX_LIST: usize = 16 << 20;

/// The most of a whole answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// How long a list of models may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Below the time after which most servers close an idle connection.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// A provider.
pub(crate) struct Upstream {
    pub(crate) config: Provider,
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) timeouts: Timeouts,
    /// Where it is, or why it cannot be asked.
    link: Result<Link, String>,
    key: Option<Key>,
    gate: Gate,
    breaker: Breaker,
    pub(crate) looks: Looks,
    numbers: Numbers,
}

#[derive(Debug)]
struct Link {
    client: Client,
    base: Url,
}

impl Upstream {
    pub(crate) fn new(config: Provider, settings: &Settings, numbers: &Numbers) -> Self {
        let timeouts = settings.timeouts.with(&config.limits);
        Self {
            name: config.name.as_str().into(),
            protocol: Protocol::of(config.kind),
            timeouts,
            link: Link::new(&config, timeouts.connect),
            key: config.key_file.clone().map(|file| Key::open(&config.name, file)),
            gate: Gate::new(&config.limits, settings),
            breaker: Breaker::new(settings.breaker_failures, settings.breaker_rest),
            looks: Looks::default(),
            numbers: numbers.clone(),
            config,
        }
    }

    /// Where it is, for people.
    pub(crate) fn endpoint(&self) -> String {
        match &self.link {
            Ok(link) => link.base.as_str().trim_end_matches('/').to_owned(),
            Err(_) => String::new(),
        }
    }

    /// The host and the port where it is.
    pub(crate) fn address(&self) -> Option<(&str, u16)> {
        let base = &self.link.as_ref().ok()?.base;
        Some((base.host_str()?, base.port_or_known_default()?))
    }

    /// Whether it is OpenAI itself.
    pub(crate) fn is_openai(&self) -> bool {
        let own = |link: &Link| link.base.host_str() == Some("api.openai.com");
        self.config.kind == ProviderKind::OpenAI && self.link.as_ref().is_ok_and(own)
    }

    /// Reads its key's file again. Another key is tried at once.
    pub(crate) fn refresh_key(&self) {
        if self.key.as_ref().is_some_and(Key::refresh) {
            self.looks.again();
        }
    }

    /// What is wrong with it, as far as is known.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.link.as_ref().err().cloned().or_else(|| self.breaker.complaint())
    }

    pub(crate) fn is_resting(&self) -> bool {
        !self.breaker.is_closed()
    }

    /// Waits for the right to ask it.
    pub(crate) async fn enter(&self) -> Result<Place, ChatError> {
        self.breaker.enter().map_err(|Resting { failures, said, pause }| {
            let message = format!(
                "`{}` is left alone for a while after {failures} failures in a row: {said}",
                self.name
            );
            self.error(Kind::Resting, message).after(pause)
        })?;
        self.gate.enter().await.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> ChatError {
        match refusal {
            Refusal::Busy { waiting } => {
                let message =
                    format!("`{}` has no place free, and {waiting} requests wait for one", self.name);
                self.error(Kind::Busy, message).after(Duration::from_secs(1))
            }
            Refusal::Rate { limit, pause } => {
                let message = format!("`{}` may be asked {limit} times in a minute, and was", self.name);
                self.error(Kind::RateLimited, message).after(pause)
            }
        }
    }

    /// It works.
    pub(crate) fn worked(&self) {
        self.breaker.success();
        self.numbers.resting(&self.name, false);
    }

    /// A request to it came to nothing.
    pub(crate) fn failed(&self, error: &ChatError) {
        if error.is_outage() {
            if self.breaker.failure(&error.message) {
                self.numbers.resting(&self.name, true);
                warn!(provider = %self.name, %error, "`{}` is left alone for a while", self.name);
            }
        } else if error.upstream_status.is_some() {
            // It said no, so it is there.
            self.worked();
        }
    }

    /// Sends a request and waits, until `deadline`, for an answer that is no error.
    pub(crate) async fn send(&self, outgoing: &Outgoing, deadline: Deadline) -> Result<Response, ChatError> {
        self.gate.turn().await.map_err(|refusal| self.refused(refusal))?;
        let link = self.link()?;
        let mut headers = self.headers()?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accepts = match (self.protocol, outgoing.stream) {
            (Protocol::Ollama, _) => "application/x-ndjson",
            (_, true) => "text/event-stream",
            (_, false) => "application/json",
        };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accepts));
        if let Some(beta) = &outgoing.beta {
            headers.insert(HeaderName::from_static("anthropic-beta"), beta.clone());
        }
        headers.extend(outgoing.trace.clone());
        let request = link.client.post(link.url(outgoing.path)).headers(headers).body(outgoing.body.clone());
        self.answer(request, deadline).await
    }

    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        deadline: Deadline,
    ) -> Result<Response, ChatError> {
        let answer = match timeout_at(deadline.at, request.send()).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.fault(deadline.fault())),
        };
        if answer.status().is_success() { Ok(answer) } else { Err(self.declined(answer, deadline).await) }
    }

    /// The error of an answer that is one.
    async fn declined(&self, mut answer: Response, deadline: Deadline) -> ChatError {
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let mut body = Vec::new();
        while body.len() < MAX_COMPLAINT
            && let Ok(Ok(Some(piece))) = timeout_at(deadline.at, answer.chunk()).await
        {
            body.extend_from_slice(&piece);
        }
        self.rejection(status, &protocol::complaint(&body)).after(retry_after)
    }

    fn rejection(&self, status: StatusCode, said: &str) -> ChatError {
        let kind = match status.as_u16() {
            401 | 403 => Kind::Credentials,
            429 => Kind::RateLimited,
            408 | 500.. => Kind::Unavailable,
            _ => Kind::Refused,
        };
        let message = format!("`{}` answered {}: {}", self.name, status.as_u16(), self.repeated(said));
        ChatError { upstream_status: Some(status.as_u16()), ..self.error(kind, message) }
    }

    /// What the caller reads of a stream that cannot go on.
    pub(crate) fn fault(&self, fault: Fault) -> ChatError {
        let name = &self.name;
        match fault {
            Fault::Said { message, status: Some(status) } if (400..600).contains(&status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                self.rejection(status, &message)
            }
            Fault::Said { message, .. } => {
                let message = format!("`{name}` failed: {}", self.repeated(&message));
                self.error(Kind::Unavailable, message)
            }
            Fault::Malformed(what) => {
                self.error(Kind::Broken, format!("the answer of `{name}` cannot be read: {what}"))
            }
            Fault::Truncated => {
                self.error(Kind::Broken, format!("the answer of `{name}` broke off before its end"))
            }
            Fault::Cut(how) => self.error(Kind::Broken, format!("the answer of `{name}` broke off: {how}")),
            Fault::Silent(span) => {
                let message = format!("nothing came from `{name}` for {} s", span.as_secs_f64());
                self.error(Kind::Timeout, message)
            }
            Fault::TooLong(span) => {
                let message = format!("`{name}` took longer than the {} s that it may", span.as_secs_f64());
                self.error(Kind::Timeout, message)
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ChatError {
        let name = &self.name;
        if error.is_timeout() {
            let span = self.timeouts.connect.as_secs_f64();
            return self.error(Kind::Timeout, format!("`{name}` accepted no connection within {span} s"));
        }
        let what =
            if error.is_connect() { "cannot be reached" } else { "closed the connection without an answer" };
        self.error(Kind::Unavailable, format!("`{name}` {what}: {}", innermost(error)))
    }

    /// An answer that came whole where pieces were asked for: an error with the status of a success, most likely.
    pub(crate) async fn unstreamed(&self, answer: Response, deadline: Deadline) -> ChatError {
        let body = match self.body(answer, deadline, MAX_COMPLAINT).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.fault(match parsed.get("error") {
            Some(error) => protocol::said(error),
            None => Fault::Malformed("it is no stream".to_owned()),
        })
    }

    /// The whole answer to a request for one.
    pub(crate) async fn whole(&self, answer: Response, deadline: Deadline) -> Result<Vec<u8>, ChatError> {
        self.body(answer, deadline, MAX_ANSWER).await
    }

    async fn body(
        &self,
        mut answer: Response,
        deadline: Deadline,
        most: usize,
    ) -> Result<Vec<u8>, ChatError> {
        let mut body = Vec::new();
        loop {
            match timeout_at(deadline.at, answer.chunk()).await {
                Ok(Ok(Some(piece))) if body.len() + piece.len() <= most => body.extend_from_slice(&piece),
                Ok(Ok(Some(_))) => {
                    return Err(self.fault(Fault::Malformed(format!("it has more than {most} bytes"))));
                }
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(self.fault(Fault::Cut(innermost(&error)))),
                Err(_) => return Err(self.fault(deadline.fault())),
            }
        }
    }

    /// Its models, as it lists them, and when it began to answer.
    pub(crate) async fn list(&self) -> Result<(Instant, Vec<String>), ChatError> {
        let link = self.link()?;
        let deadline = Deadline::silence(LIST_TIMEOUT);
        let request = link.client.get(link.url(self.protocol.models_path())).headers(self.headers()?);
        let answer = self.answer(request, deadline).await?;
        let answered = Instant::now();
        let body = self.body(answer, deadline, MAX_LIST).await?;
        let parsed: Option<Value> = serde_json::from_slice(&body).ok();
        let mut models = parsed
            .and_then(|body| self.protocol.models(&body))
            .ok_or_else(|| self.fault(Fault::Malformed("it is no list of models".to_owned())))?;
        models.sort_unstable();
        models.dedup();
        Ok((answered, models))
    }

    fn headers(&self) -> Result<HeaderMap, ChatError> {
        let mut headers = HeaderMap::new();
        let (name, prefix) = match self.protocol {
            Protocol::Anthropic => (HeaderName::from_static("x-api-key"), ""),
            Protocol::Ollama | Protocol::OpenAi => (header::AUTHORIZATION, "Bearer "),
        };
        if self.protocol == Protocol::Anthropic {
            let version = HeaderValue::from_static(protocol::anthropic::VERSION);
            headers.insert(HeaderName::from_static("anthropic-version"), version);
        }
        if let Some(key) = &self.key {
            let value = key.header(prefix).ok_or_else(|| {
                self.error(Kind::Credentials, format!("the key of `{}` is not there yet", self.name))
            })?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn link(&self) -> Result<&Link, ChatError> {
        self.link.as_ref().map_err(|why| self.error(Kind::Unavailable, format!("`{}` {why}", self.name)))
    }

    /// What it said, fit for a caller and a log. The key goes before the text is cut: a part of a key is too much of it.
    fn repeated(&self, said: &str) -> String {
        let said = self.key.as_ref().map_or_else(|| said.to_owned(), |key| key.scrub(said));
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SENTENCE).collect()
    }

    fn error(&self, kind: Kind, message: String) -> ChatError {
        ChatError::new(kind, message).of(&self.name)
    }
}

impl Link {
    fn new(config: &Provider, connect: Duration) -> Result<Self, String> {
        let address = config.url.as_deref().or_else(|| protocol::address(config.kind));
        let address = address.ok_or("has no address")?;
        let base = Url::parse(address).map_err(|error| format!("has an address that is none: {error}"))?;
        if !["http", "https"].contains(&base.scheme()) || base.cannot_be_a_base() {
            return Err("has an address that is neither http nor https".to_owned());
        }
        let client = Client::builder()
            .connect_timeout(connect)
            .pool_idle_timeout(POOL_IDLE)
            // A key goes to whom it is for, and to nobody else.
            .redirect(redirect::Policy::none())
            // Streams share a connection in HTTP/2, up to a number that the other side sets; the next one would wait unseen.
            .http1_only()
            .user_agent(concat!("lakehouse/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("cannot be asked: {}", innermost(&error)))?;
        Ok(Self { client, base })
    }

    /// A path, and maybe a query, below the base, which may have a path of its own.
    fn url(&self, below: &str) -> Url {
        let (path, query) = below.split_once('?').map_or((below, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// When a step is over at the latest, and what it means that it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    span: Duration,
    /// Whether it ends the whole request, or only a silence.
    is_total: bool,
}

impl Deadline {
    /// The end of a silence that begins now.
    pub(crate) fn silence(span: Duration) -> Self {
        Self { at: Instant::now() + span, span, is_total: false }
    }

    /// The end of a request that began at `start`.
    pub(crate) fn total(start: Instant, span: Duration) -> Self {
        Self { at: start + span, span, is_total: true }
    }

    /// Whichever is sooner.
    pub(crate) fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn fault(&self) -> Fault {
        if self.is_total { Fault::TooLong(self.span) } else { Fault::Silent(self.span) }
    }
}

/// What is at the bottom of an error: reqwest's own sentences repeat the address, and say nothing else.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut source = error.source();
    let mut said = None;
    while let Some(error) = source {
        said = Some(error.to_string());
        source = error.source();
    }
    said.unwrap_or_else(|| "the request failed".to_owned())
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        let read =
            |value: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]));
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(read("Wed, 21 Oct 2099 07:28:00 GMT").unwrap() > Duration::from_hours(24));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
