//! One request to a provider: in its turn, within its time, tried again where that may help, and understood.

use std::{error::Error as _, path::PathBuf, time::Duration};

use bytes::BytesMut;
use jiff::{Timestamp, fmt::rfc2822};
use lakehouse_contract::provider::{self, ProviderKind};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{EmbedError, Reason, deadline::Deadline, metrics::Metrics};

use super::{
    gate::Gate,
    protocol::{self, Protocol, Tag},
};

/// For one request where the configuration does not say.
const TOTAL: Duration = Duration::from_mins(1);
const CONNECT: Duration = Duration::from_secs(5);
/// A request is made so often at most.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; twice as long before each one after that.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that is passed on. More is a mistake, or at least no reason to be away for years.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// The most bytes of an answer: 256 vectors of 16,384 numbers have less.
const MAX_ANSWER: usize = 128 << 20;
/// As much of a provider's words as helps.
const MAX_WORDS: usize = 300;

/// Asks one provider.
#[derive(Debug)]
pub(super) struct Caller {
    name: String,
    kind: ProviderKind,
    base: Url,
    key_file: Option<PathBuf>,
    total: Duration,
    http: Client,
    gate: Gate,
    metrics: Metrics,
}

impl Caller {
    pub(super) fn new(config: &provider::Provider, metrics: Metrics) -> Result<Self, EmbedError> {
        let provider::Provider { name, kind, url, key_file, limits, .. } = config;
        let wrong = |what: String| {
            EmbedError::new(Reason::Unusable, format!("provider `{name}` cannot be asked: {what}"))
        };
        let url = url.as_deref().unwrap_or_else(|| protocol::default_url(*kind));
        let mut base = Url::parse(url).map_err(|error| wrong(format!("its url is none: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("its url must start with http:// or https://".to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("its url holds a password; a key belongs into a file of its own".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut http = Client::builder()
            .connect_timeout(limits.connect_ms.map_or(CONNECT, Duration::from_millis))
            // A key must not follow to where a provider points.
            .redirect(reqwest::redirect::Policy::none());
        if base.scheme() == "http" {
            // Nothing is verified, so no list of authorities need be on this machine.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| wrong(causes(&error)))?;
        Ok(Self {
            name: name.clone(),
            kind: *kind,
            base,
            key_file: key_file.clone(),
            total: limits.total_ms.map_or(TOTAL, Duration::from_millis),
            http,
            gate: Gate::new(limits),
            metrics,
        })
    }

    /// Its address, without a slash at the end.
    pub(super) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// One vector for each text, in their order.
    pub(super) async fn embed(
        &self,
        model: &str,
        texts: &[String],
        deadline: &Deadline,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let protocol = Protocol::of(self.kind);
        let body = protocol.body(model, texts);
        let answer = self.patiently(Method::POST, protocol.path(), Some(&body), deadline).await?;
        protocol.vectors(&answer, texts.len()).map_err(|wrong| self.bad_answer(&wrong))
    }

    /// The models that an Ollama server has.
    pub(super) async fn tags(&self, deadline: &Deadline) -> Result<Vec<Tag>, EmbedError> {
        let answer = self.patiently(Method::GET, "api/tags", None, deadline).await?;
        protocol::tags(&answer).map_err(|wrong| self.bad_answer(&wrong))
    }

    pub(super) fn bad_answer(&self, what: &str) -> EmbedError {
        let error = self.error(Reason::BadAnswer, &format!("answered with {what}"));
        self.metrics.failed(&self.name, protocol::label(self.kind), error.reason);
        error
    }

    async fn patiently(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: &Deadline,
    ) -> Result<BytesMut, EmbedError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let error = match self.once(method.clone(), path, body, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.retry_helps() || attempt == ATTEMPTS {
                return Err(error);
            }
            let wait = error.retry_after.unwrap_or_else(|| pause.mul_f64(rand::random_range(0.5..1.0)));
            if Instant::now() + wait >= deadline.now() {
                return Err(error);
            }
            sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: &Deadline,
    ) -> Result<BytesMut, EmbedError> {
        let turn = self.gate.enter(deadline).await.map_err(|turn| {
            let wait = turn.saturating_duration_since(Instant::now());
            let says = "is asked as often as its limits allow; there was no turn before the deadline";
            self.error(Reason::RateLimited, says).after(Some(wait))
        })?;
        let key = self.key().await?;
        let started = Instant::now();
        let exchange = timeout(self.total, self.exchange(method, path, body, key.as_deref()));
        let exchange = deadline.limit(exchange).await;
        drop(turn);
        let answer = exchange.and_then(Result::ok).unwrap_or_else(|| {
            let seconds = started.elapsed().as_secs_f64();
            Err(self.error(Reason::Timeout, &format!("did not answer within {seconds:.1} s")))
        });
        let kind = protocol::label(self.kind);
        self.metrics.asked(&self.name, kind, started.elapsed());
        if let Err(error) = &answer {
            self.metrics.failed(&self.name, kind, error.reason);
            if let (Reason::RateLimited, Some(pause)) = (error.reason, error.retry_after) {
                self.gate.hold(pause);
            }
        }
        answer
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<BytesMut, EmbedError> {
        let url = self.base.join(path).map_err(|error| self.error(Reason::Unusable, &error.to_string()))?;
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, self.bearer(key)?);
        }
        let response = request.send().await.map_err(|error| {
            let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
            let place = self.base.authority();
            self.error(Reason::Unavailable, &format!("at {place} {what}: {}", causes(&error)))
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = self.read(response).await?;
        if status.is_success() { Ok(answer) } else { Err(self.refusal(status, &headers, &answer, key)) }
    }

    async fn read(&self, mut response: Response) -> Result<BytesMut, EmbedError> {
        let mut answer = BytesMut::new();
        loop {
            let piece = response.chunk().await.map_err(|error| {
                let says = format!("broke off in the middle of its answer: {}", causes(&error));
                self.error(Reason::Unavailable, &says)
            })?;
            let Some(piece) = piece else { return Ok(answer) };
            if answer.len() + piece.len() > MAX_ANSWER {
                let says = format!("answered with more than {MAX_ANSWER} bytes");
                return Err(self.error(Reason::BadAnswer, &says));
            }
            answer.extend_from_slice(&piece);
        }
    }

    /// What a status and words mean.
    fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        answer: &[u8],
        key: Option<&str>,
    ) -> EmbedError {
        let words = words(answer, key);
        let reason = match status.as_u16() {
            400 | 413 | 422 if speaks_of_length(&words) => Reason::TooLong,
            401 | 403 => Reason::Credentials,
            404 => Reason::UnknownModel,
            408 | 504 => Reason::Timeout,
            429 => Reason::RateLimited,
            500.. => Reason::Unavailable,
            _ => Reason::Refused,
        };
        let code = status.as_u16();
        let says =
            if words.is_empty() { format!("answered {code}") } else { format!("answered {code}: {words}") };
        self.error(reason, &says).after(retry_after(headers))
    }

    /// Read for each request, so that a key that was exchanged is used at once.
    async fn key(&self) -> Result<Option<String>, EmbedError> {
        let Some(file) = &self.key_file else { return Ok(None) };
        let place = file.display();
        let key = tokio::fs::read_to_string(file).await.map_err(|error| {
            let says = format!("has no key: its file `{place}` cannot be read: {error}");
            self.error(Reason::Credentials, &says)
        })?;
        match key.trim() {
            "" => Err(self.error(Reason::Credentials, &format!("has no key: its file `{place}` is empty"))),
            key => Ok(Some(key.to_owned())),
        }
    }

    fn bearer(&self, key: &str) -> Result<HeaderValue, EmbedError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| self.error(Reason::Credentials, "has a key with a character that cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn error(&self, reason: Reason, says: &str) -> EmbedError {
        EmbedError::new(reason, format!("provider `{}` {says}", self.name))
    }
}

/// The sentence of an error body in one of the usual forms, else its text. The key is removed before anything is cut off, so that
/// no part of one is left at the end.
fn words(answer: &[u8], key: Option<&str>) -> String {
    let said = serde_json::from_slice::<Value>(answer).ok().and_then(|body| {
        let places = ["/error/message", "/error", "/message", "/detail", "/detail/0/msg"];
        places.iter().find_map(|place| body.pointer(place)?.as_str().map(str::to_owned))
    });
    let mut text = said.unwrap_or_else(|| String::from_utf8_lossy(answer).into_owned());
    if let Some(key) = key {
        text = text.replace(key, "…");
    }
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(MAX_WORDS) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// No protocol has a word of its own for a text that is too long.
fn speaks_of_length(words: &str) -> bool {
    let words = words.to_lowercase();
    [
        "context length",
        "context size",
        "context window",
        "maximum context",
        "too long",
        "too many tokens",
        "max_tokens",
        "token limit",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

/// In seconds, or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST_PAUSE));
    }
    let date = rfc2822::parse(text).ok()?.timestamp();
    let pause = date.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO);
    Some(pause.min(LONGEST_PAUSE))
}

/// The innermost cause says most: "connection refused", "dns error".
fn causes(error: &reqwest::Error) -> String {
    let mut words = String::new();
    let mut source = error.source();
    while let Some(error) = source {
        words = error.to_string();
        source = error.source();
    }
    if words.is_empty() { "the connection failed".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_error_are_found_in_every_usual_body() {
        for (body, said) in [
            (r#"{"error": {"message": "Incorrect API key", "code": 1}}"#, "Incorrect API key"),
            (r#"{"error": "model not found"}"#, "model not found"),
            (r#"{"detail": "Too many tokens"}"#, "Too many tokens"),
            (r#"{"detail": [{"msg": "field required"}]}"#, "field required"),
            ("<html>\n <b>Bad   Gateway", "<html> <b>Bad Gateway"),
            ("", ""),
        ] {
            assert_eq!(words(body.as_bytes(), None), said);
        }
        assert_eq!(words("ü".repeat(1_000).as_bytes(), None).chars().count(), MAX_WORDS + 1);
    }

    #[test]
    fn no_part_of_a_key_is_left_where_words_are_cut_off() {
        let body = format!("{} s3cret-key is wrong", "x".repeat(MAX_WORDS - 5));
        let words = words(body.as_bytes(), Some("s3cret-key"));
        assert!(words.contains('…') && !words.contains("s3"), "{words}");
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let asked = |text: &str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]))
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = Timestamp::now() + Duration::from_mins(2);
        let soon = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap();
        assert!((100..=120).contains(&asked(&soon).unwrap().as_secs()), "{soon}");
        assert_eq!(asked("soon"), None);
        assert_eq!(asked(&u64::MAX.to_string()), Some(LONGEST_PAUSE));
        assert_eq!(asked("Wed, 21 Oct 2099 07:28:00 GMT"), Some(LONGEST_PAUSE));
    }
}
