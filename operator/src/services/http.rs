//! Asks one pod one thing.

use std::time::Duration;

use axum::body::Bytes;
use lakehouse_contract::problem::ErrorBody;
use reqwest::{RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use super::tokens::Tokens;
use crate::watch::chain;

/// A pod that does not accept a connection in this time is asked again later.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest an answer may take: a manifest is one read of the bucket.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a pod gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none to ask.
    #[error("no {0} pod is ready")]
    NoPod(&'static str),
    /// The namespace's token cannot be read.
    #[error("the Secret with the token cannot be read: {0}")]
    Token(String),
    /// It cannot be reached, or what it says is none of its answers.
    #[error("{0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("{message}")]
    Answered {
        /// The HTTP status.
        status: StatusCode,
        /// The error's code.
        code: String,
        /// The error's sentence.
        message: String,
    },
}

impl Error {
    /// What was asked for does not exist, and who said so would know.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered { status: StatusCode::NOT_FOUND, code, .. } if code != "not_running")
    }

    /// What was to be made is there already, or is not in the state that was meant.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Answered { status: StatusCode::CONFLICT, .. })
    }

    /// The same would be answered again: what was asked for cannot be.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Answered { status, code, .. } => {
                let theirs = matches!(
                    *status,
                    StatusCode::BAD_REQUEST
                        | StatusCode::NOT_FOUND
                        | StatusCode::CONFLICT
                        | StatusCode::UNPROCESSABLE_ENTITY
                );
                theirs && code != "not_running"
            }
            _ => false,
        }
    }
}

/// The client of all pods.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    tokens: Tokens,
}

impl Http {
    pub(super) fn new(tokens: Tokens) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            // Pods are inside; what this process's environment says of proxies is for the outside.
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4);
        Ok(Self { client: client.build()?, tokens })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        namespace: &str,
        address: &str,
        path: &str,
    ) -> Result<T, Error> {
        self.send(namespace, self.client.get(format!("{address}{path}"))).await
    }

    /// Asks what may take longer than an answer usually does.
    pub(super) async fn get_patiently<T: DeserializeOwned>(
        &self,
        namespace: &str,
        address: &str,
        path: &str,
        patience: Duration,
    ) -> Result<T, Error> {
        self.send(namespace, self.client.get(format!("{address}{path}")).timeout(patience)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        namespace: &str,
        address: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Error> {
        let request = self.client.post(format!("{address}{path}"));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.send(namespace, request).await
    }

    /// Posts what may take longer than an answer usually does.
    pub(super) async fn post_patiently<T: DeserializeOwned>(
        &self,
        namespace: &str,
        address: &str,
        path: &str,
        body: &(impl Serialize + Sync),
        patience: Duration,
    ) -> Result<T, Error> {
        let request = self.client.post(format!("{address}{path}")).json(body).timeout(patience);
        self.send(namespace, request).await
    }

    pub(super) async fn put(
        &self,
        namespace: &str,
        address: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<(), Error> {
        let request = self.client.put(format!("{address}{path}")).json(body);
        self.exchange(namespace, request).await.map(drop)
    }

    pub(super) async fn delete(&self, namespace: &str, address: &str, path: &str) -> Result<(), Error> {
        self.exchange(namespace, self.client.delete(format!("{address}{path}"))).await.map(drop)
    }

    async fn send<T: DeserializeOwned>(&self, namespace: &str, request: RequestBuilder) -> Result<T, Error> {
        let body = self.exchange(namespace, request).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Unreachable(format!("the answer is none of ours: {error}")))
    }

    /// The body of an answer that is no error.
    async fn exchange(&self, namespace: &str, request: RequestBuilder) -> Result<Bytes, Error> {
        let request = match self.tokens.of(namespace).await? {
            Some(token) => request.bearer_auth(&*token),
            None => request,
        };
        let unreachable = |error: reqwest::Error| Error::Unreachable(chain(&error));
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Error::Answered { status, code: body.error.code, message: body.error.message },
            Err(_) => Error::Answered { status, code: String::new(), message: format!("HTTP {status}") },
        })
    }
}
