//! Asking the other parts of an index, each held by another process.

use std::time::Duration;

use futures::future::try_join_all;
use lakehouse_contract::{
    ErrorBody, IndexName,
    vectors::{GetAnswer, IdsRequest, SearchAnswer, SearchRequest},
};
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, snapshot::ANSWER_BYTES};

/// How long a part may take.
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(3);
/// Where the number of a part stands in the URL.
const PART: &str = "{part}";

/// Why a URL leads to no peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidPeer(pub(crate) String);

/// The other parts.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    client: reqwest::Client,
    url: String,
    own: u32,
    parts: u32,
}

/// Who asks, and for which version.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) name: &'a IndexName,
    pub(crate) version: u64,
    /// The caller's own token goes with it.
    pub(crate) token: Option<&'a HeaderValue>,
}

impl Peers {
    /// `url` is that of a part, with `{part}` for its number.
    pub(crate) fn new(url: &str, own: u32, parts: u32) -> Result<Self, InvalidPeer> {
        if !url.starts_with("http://") || !url.contains(PART) {
            return Err(InvalidPeer(
                "the URL of the other parts is written as `http://host-{part}:port`, with `{part}` for the number of a part".into(),
            ));
        }
        let client = reqwest::Client::builder().connect_timeout(CONNECT).timeout(DEADLINE).build();
        let client =
            client.map_err(|error| InvalidPeer(format!("no client for the other parts: {error}")))?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), own, parts })
    }

    /// The same search in every other part.
    pub(crate) async fn search(&self, call: &Call<'_>, request: &SearchRequest) -> Result<Vec<SearchAnswer>> {
        self.ask(call, "search", request).await
    }

    /// The same ids from every other part.
    pub(crate) async fn get(&self, call: &Call<'_>, ids: Vec<String>) -> Result<Vec<GetAnswer>> {
        self.ask(call, "get", &IdsRequest { ids }).await
    }

    async fn ask<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        verb: &str,
        body: &B,
    ) -> Result<Vec<A>> {
        let others = (0..self.parts).filter(|part| *part != self.own);
        try_join_all(others.map(|part| self.ask_one(call, part, verb, body))).await
    }

    async fn ask_one<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        part: u32,
        verb: &str,
        body: &B,
    ) -> Result<A> {
        let Call { name, version, token } = call;
        let base = self.url.replace(PART, &part.to_string());
        let mut request = self
            .client
            .post(format!("{base}/vectors/index/{name}/{verb}?part={part}&version={version}"))
            .json(body);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, *token);
        }
        let failed = |message: String| Error::Part { name: (*name).clone(), part, message };
        let silent = |error: reqwest::Error| failed(error.without_url().to_string());
        let answer = request.send().await.map_err(silent)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(silent);
        }
        let said = answer.json::<ErrorBody>().await.map(|body| body.error);
        match said {
            Ok(error) if status == StatusCode::CONFLICT && error.code == "other_version" => {
                Err(Error::Changing((*name).clone()))
            }
            Ok(error) if status == StatusCode::PAYLOAD_TOO_LARGE && error.code == "too_large" => {
                Err(Error::AnswerTooLarge { limit: ANSWER_BYTES, list: "vectors" })
            }
            Ok(error) => Err(failed(format!("{}: {}", status.as_u16(), error.message))),
            Err(_) => Err(failed(format!("{}, without a word that is understood", status.as_u16()))),
        }
    }
}
