//! Talks to a running lakehouse over HTTP.
//!
//! Receives where it is and the token from the command line; hands on answers, or one sentence that says what is wrong.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use lakehouse_contract::{
    DatasetName, ErrorBody, IndexName,
    chat::{ChatAnswer, ChatRequest, ProviderList},
    ingest::{IngestAnswer, Progress},
    sql::SqlRequest,
    vectors::{SearchAnswer, SearchRequest},
};
use reqwest::{
    Body, RequestBuilder, Response, StatusCode, Url,
    header::{self, HeaderValue},
};
use serde::de::DeserializeOwned;

/// A connection that takes longer will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers that a service has at hand. Queries and uploads take what they take; the service ends those.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A text is embedded before it is searched for, perhaps by a slow model.
const SEARCH_TIMEOUT: Duration = Duration::from_mins(2);
/// As much of a foreign error page as helps.
const MAX_FOREIGN_TEXT: usize = 300;

/// Where commands ask when nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:3110";

/// Where the lakehouse is, and the right to ask it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connection {
    /// Where a lakehouse answers
    #[arg(long, env = "LAKEHOUSE_URL", value_name = "URL", default_value = DEFAULT_SERVER)]
    #[arg(value_parser = server_url)]
    server: Url,

    /// A file with the bearer token; without it, the token is taken from the variable `LAKEHOUSE_TOKEN`
    #[arg(long, env = "LAKEHOUSE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connection {
    /// The server as a person would write it, without the slash that every URL ends with.
    pub(crate) fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// Reads the token and makes ready to ask; nothing is sent yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let token = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the token file {}", path.display()))?;
                Some(bearer(&text).with_context(|| format!("the token file {}", path.display()))?)
            }
            None => match std::env::var("LAKEHOUSE_TOKEN") {
                Ok(text) if !text.trim().is_empty() => Some(bearer(&text).context("LAKEHOUSE_TOKEN")?),
                Ok(_) | Err(_) => None,
            },
        };
        Ok(Client::new(self.server.clone(), token)?)
    }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; an example is http://127.0.0.1:3110"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it must start with http:// or https://; an example is http://127.0.0.1:3110".to_owned());
    }
    Ok(url)
}

/// The header's value. An error says nothing of the token itself.
fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let token = token.trim();
    anyhow::ensure!(!token.is_empty(), "holds no token");
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| anyhow::anyhow!("holds a character that no token can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why there is no answer. Each is one sentence for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection came about.
    #[error("nothing answers at {server} ({cause}); is `lakehouse up` running?")]
    Unreachable {
        /// Where it was tried.
        server: Url,
        /// What the system said.
        cause: String,
    },
    /// The connection broke, or the answer is not what this version understands.
    #[error("the exchange with {server} failed: {cause}")]
    Broken {
        /// Who answered.
        server: Url,
        /// What went wrong.
        cause: String,
    },
    /// A token is wanted.
    #[error("{message} (401); the token goes into LAKEHOUSE_TOKEN or into a file named by --token-file")]
    Unauthorized {
        /// The service's sentence.
        message: String,
    },
    /// The service said no, in its own sentence.
    #[error("{message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The sentence.
        message: String,
    },
}

/// Asks one lakehouse.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<HeaderValue>,
}

impl Client {
    fn new(server: Url, token: Option<HeaderValue>) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would carry the token to whoever it names.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lakehouse/", env!("CARGO_PKG_VERSION")));
        if server.scheme() == "http" {
            // Without TLS there is no need of the system's certificates, which a bare container does not have.
            builder = builder.tls_certs_only([]);
        }
        match builder.build() {
            Ok(http) => Ok(Self { http, server, token }),
            Err(error) => Err(Error::Broken { server, cause: root_cause(&error) }),
        }
    }

    /// `POST /v1/sql`; `accept` chooses the answer's form.
    pub(crate) async fn sql(&self, request: &SqlRequest, accept: &'static str) -> Result<Response, Error> {
        let url = self.url(&["v1", "sql"]);
        self.send(self.http.post(url).header(header::ACCEPT, accept).json(request)).await
    }

    /// `POST /v1/vectors/index/{name}/search`
    pub(crate) async fn search(
        &self,
        index: &IndexName,
        request: &SearchRequest,
    ) -> Result<SearchAnswer, Error> {
        let url = self.url(&["v1", "vectors", "index", index.as_str(), "search"]);
        let response = self.send(self.http.post(url).timeout(SEARCH_TIMEOUT).json(request)).await?;
        self.json(response).await
    }

    /// `POST /v1/chat` for a whole answer. A model takes what it takes; the service ends what is too long.
    pub(crate) async fn chat(&self, request: &ChatRequest) -> Result<ChatAnswer, Error> {
        let response = self.chat_stream(request).await?;
        self.json(response).await
    }

    /// `POST /v1/chat` for an answer in lines.
    pub(crate) async fn chat_stream(&self, request: &ChatRequest) -> Result<Response, Error> {
        self.send(self.http.post(self.url(&["v1", "chat"])).json(request)).await
    }

    /// `GET /v1/models`: OpenAI's list.
    pub(crate) async fn models(&self) -> Result<serde_json::Value, Error> {
        self.get(self.url(&["v1", "models"])).await
    }

    /// `GET /v1/chat/providers`
    pub(crate) async fn chat_providers(&self) -> Result<ProviderList, Error> {
        self.get(self.url(&["v1", "chat", "providers"])).await
    }

    /// `POST /v1/ingest?name=` with a body of this many bytes.
    pub(crate) async fn ingest(
        &self,
        name: &DatasetName,
        media_type: &'static str,
        bytes: u64,
        body: Body,
    ) -> Result<IngestAnswer, Error> {
        let mut url = self.url(&["v1", "ingest"]);
        url.query_pairs_mut().append_pair("name", name.as_str());
        let request = self.http.post(url).header(header::CONTENT_LENGTH, bytes);
        let response = self.send(request.header(header::CONTENT_TYPE, media_type).body(body)).await?;
        self.json(response).await
    }

    /// `GET /v1/ingest/progress?name=`
    pub(crate) async fn progress(&self, name: &DatasetName) -> Result<Vec<Progress>, Error> {
        let mut url = self.url(&["v1", "ingest", "progress"]);
        url.query_pairs_mut().append_pair("name", name.as_str());
        self.get(url).await
    }

    /// Resources under `/apis/lakehouse.dev/v1alpha1`, as the Kubernetes API would answer.
    pub(crate) async fn resources<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        self.get(self.url(&[&["apis", "lakehouse.dev", "v1alpha1"], path].concat())).await
    }

    /// The answer's body as `T`.
    pub(crate) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let bytes = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    /// The next piece of an answer's body; `None` after the last.
    pub(crate) async fn piece(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, Error> {
        response.chunk().await.map_err(|error| self.broken(&error))
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, Error> {
        let response = self.send(self.http.get(url).timeout(ANSWER_TIMEOUT)).await?;
        self.json(response).await
    }

    /// The server's address with these segments behind its own path.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Error> {
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Err(Error::Unreachable { server: self.server.clone(), cause: root_cause(&error) });
            }
            Err(error) => return Err(self.broken(&error)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let message = if let Ok(body) = serde_json::from_str::<ErrorBody>(&text) {
            body.error.message
        } else {
            // Not our services' form: a proxy, or another server on this port.
            let text: String = text.chars().take(MAX_FOREIGN_TEXT).collect();
            format!("{} answered {status}: {}", self.server, text.trim())
        };
        Err(match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized { message },
            status => Error::Refused { status, message },
        })
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::Broken { server: self.server.clone(), cause: root_cause(error) }
    }
}

/// The innermost error: `Connection refused` and not the five layers around it.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::{Json, Router, http::HeaderMap, routing};
    use lakehouse_contract::sql::SqlAnswer;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn silence_is_told_with_what_to_do() {
        let port = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = sql(&client(&format!("http://127.0.0.1:{port}"), None)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("nothing answers at http://127.0.0.1:{port}/")), "{error}");
        assert!(
            error.contains("Connection refused") && error.ends_with("is `lakehouse up` running?"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_services_sentence() {
        let body = ErrorBody::new("bad_request", "Parser Error: syntax error at or near \"SELEC\"");
        let refuse = routing::post(async move || (StatusCode::BAD_REQUEST, Json(body)));
        let server = serve(Router::new().route("/v1/sql", refuse)).await;
        let error = sql(&client(&server, None)).await.unwrap_err();
        assert_eq!(error.to_string(), "Parser Error: syntax error at or near \"SELEC\"");
    }

    #[tokio::test]
    async fn a_stranger_on_the_port_is_named() {
        let server = serve(Router::new()).await;
        let error = sql(&client(&server, None)).await.unwrap_err().to_string();
        assert!(error.contains(&server) && error.contains("404"), "{error}");
    }

    #[tokio::test]
    async fn the_token_is_sent_and_a_missing_one_is_asked_for() {
        let guard = routing::post(async |headers: HeaderMap| {
            if headers.get("authorization").is_some_and(|value| value == "Bearer s3cret") {
                Ok(Json(json!({"columns": [], "rows": [], "row_count": 0})))
            } else {
                Err((StatusCode::UNAUTHORIZED, Json(ErrorBody::new("unauthorized", "a token is needed"))))
            }
        });
        let server = serve(Router::new().route("/v1/sql", guard)).await;
        sql(&client(&server, Some("s3cret\n"))).await.unwrap();
        let error = sql(&client(&server, None)).await.unwrap_err().to_string();
        assert!(error.contains("a token is needed") && error.contains("LAKEHOUSE_TOKEN"), "{error}");
    }

    #[tokio::test]
    async fn a_path_of_the_server_is_kept() {
        let answer = routing::post(async || Json(json!({"columns": [], "rows": [], "row_count": 0})));
        let server = serve(Router::new().route("/lake/v1/sql", answer)).await;
        sql(&client(&format!("{server}/lake/"), None)).await.unwrap();
    }

    #[test]
    fn an_unusable_token_is_not_repeated() {
        let error = format!("{:#}", bearer("s3\u{1}cret").unwrap_err());
        assert!(!error.contains("cret"), "{error}");
        assert!(bearer(" \n").is_err());
    }

    #[test]
    fn an_address_without_scheme_is_refused_with_an_example() {
        for text in ["127.0.0.1:3110", "localhost:3110", "ftp://host", "http://"] {
            assert!(server_url(text).unwrap_err().contains("http://127.0.0.1:3110"), "{text}");
        }
    }

    async fn sql(client: &Client) -> Result<SqlAnswer, Error> {
        let response = client.sql(&SqlRequest::default(), "application/json").await?;
        client.json(response).await
    }

    /// A client of `server`.
    pub(crate) fn client(server: &str, token: Option<&str>) -> Client {
        // The first test that comes here installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(server_url(server).unwrap(), token.map(|token| bearer(token).unwrap())).unwrap()
    }

    /// Serves until the test's runtime ends; the answer is the address.
    pub(crate) async fn serve(routes: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }
}
