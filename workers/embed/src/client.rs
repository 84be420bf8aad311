//! The client of an embedd in another process.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lakehouse_contract::{
    ErrorBody,
    embed::{EmbedAnswer, EmbedRequest, IdentityRequest, ModelIdentity},
};
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{EmbedError, Embedded, Embedder, Reason, Vector, service::MAX_TEXTS};

/// embedd ends a list of texts after a minute itself, with a sentence; this is for one that cannot.
const TIMEOUT: Duration = Duration::from_secs(75);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of text in one request, well below what embedd takes.
const MAX_BYTES: usize = 8 << 20;

/// Asks an embedd over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct HttpEmbedder {
    base: Url,
    http: Client,
    authorization: Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>,
}

impl fmt::Debug for HttpEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpEmbedder").field(&self.base.as_str()).finish()
    }
}

impl HttpEmbedder {
    /// A client of the embedd at `url`, such as `http://lakehouse-embed:3216`. What `authorization` says is asked for each
    /// request, so that a token is exchanged without a restart.
    pub fn new(
        url: &str,
        authorization: impl Fn() -> Option<HeaderValue> + Send + Sync + 'static,
    ) -> Result<Self, EmbedError> {
        let wrong = |what: String| EmbedError::new(Reason::Unusable, format!("embedd at `{url}`: {what}"));
        let mut base = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if base.scheme() != "http" || !base.has_host() {
            return Err(wrong("it is written as http://host:port".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_certs_only([])
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { base, http, authorization: Arc::new(authorization) })
    }

    async fn embed_part(&self, model: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
        let model = (!model.is_empty()).then(|| model.to_owned());
        let request = EmbedRequest { texts: texts.to_vec(), model };
        let EmbedAnswer { model: _, dimension: _, vectors, identity } = self.ask("embed", &request).await?;
        let dimension = identity.dimension as usize;
        if vectors.len() != texts.len() || vectors.iter().any(|vector| vector.len() != dimension) {
            return Err(EmbedError::new(
                Reason::BadAnswer,
                format!("embedd answered with other than {} vectors of {dimension} numbers", texts.len()),
            ));
        }
        Ok(Embedded { identity, vectors: vectors.into_iter().map(Vector::from).collect() })
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, EmbedError> {
        let place = self.base.authority();
        let url =
            self.base.join(path).map_err(|error| EmbedError::new(Reason::Unusable, error.to_string()))?;
        let mut request = self.http.post(url).json(body);
        if let Some(authorization) = (self.authorization)() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| {
            let (reason, what) = match (error.is_timeout(), error.is_connect()) {
                (_, true) => (Reason::Unavailable, "cannot be reached"),
                (true, false) => (Reason::Timeout, "did not answer in time"),
                (false, false) => (Reason::Unavailable, "broke off"),
            };
            EmbedError::new(reason, format!("embedd at {place} {what}"))
        })?;
        if !response.status().is_success() {
            return Err(refusal(place, response).await);
        }
        response.json().await.map_err(|error| {
            let error = error.without_url();
            let reason = if error.is_decode() { Reason::BadAnswer } else { Reason::Unavailable };
            EmbedError::new(reason, format!("embedd at {place}: its answer cannot be read: {error}"))
        })
    }
}

#[async_trait]
impl Embedder for HttpEmbedder {
    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
        let mut parts = parts(texts).into_iter();
        // An empty list is sent too: embedd has the sentence for it.
        let first = parts.next().unwrap_or_default();
        let mut all = self.embed_part(model, first).await?;
        for part in parts {
            let from = all.vectors.len();
            let Embedded { identity, vectors } = self
                .embed_part(model, part)
                .await
                .map_err(|error| EmbedError { item: error.item.map(|item| item + from), ..error })?;
            if identity != all.identity {
                let says = format!("model `{}` changed in the middle of a list of texts", identity.model);
                return Err(EmbedError::new(Reason::Unavailable, says));
            }
            all.vectors.extend(vectors);
        }
        Ok(all)
    }

    async fn identity(&self, model: &str) -> Result<ModelIdentity, EmbedError> {
        let model = (!model.is_empty()).then(|| model.to_owned());
        self.ask("embed/identity", &IdentityRequest { model }).await
    }
}

/// embedd's own sentence and reason; of whoever else answers, the status.
async fn refusal(place: &str, response: Response) -> EmbedError {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse().ok());
    let body: Option<ErrorBody> = response.json().await.ok();
    let Some(ErrorBody { error }) = body else {
        let reason = if status.is_server_error() { Reason::Unavailable } else { Reason::Refused };
        return EmbedError::new(reason, format!("embedd at {place} answered {status}"));
    };
    let reason = Reason::from_code(&error.code).unwrap_or(match status.as_u16() {
        401 | 403 => Reason::Credentials,
        500.. => Reason::Unavailable,
        _ => Reason::Refused,
    });
    let details = error.details.unwrap_or_default();
    let known = details["known"].as_array().into_iter().flatten();
    EmbedError {
        reason,
        message: error.message,
        item: details["index"].as_u64().and_then(|index| usize::try_from(index).ok()),
        retry_after: retry_after.map(Duration::from_secs),
        known: known.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    }
}

fn parts(texts: &[String]) -> Vec<&[String]> {
    let mut parts = Vec::new();
    let mut rest = texts;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |text: &&String| {
            bytes += text.len();
            bytes <= MAX_BYTES
        };
        let count = rest.iter().take(MAX_TEXTS).take_while(fits).count().max(1);
        let (part, others) = rest.split_at(count);
        parts.push(part);
        rest = others;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_what_embedd_takes() {
        let short = vec!["x".to_owned(); MAX_TEXTS + 1];
        assert_eq!(parts(&short).iter().map(|part| part.len()).collect::<Vec<_>>(), [MAX_TEXTS, 1]);
        let long = vec!["x".repeat(MAX_BYTES / 2); 3];
        assert_eq!(parts(&long).iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 1]);
        let longest = vec!["x".repeat(2 * MAX_BYTES), "x".to_owned()];
        assert_eq!(parts(&longest).iter().map(|part| part.len()).collect::<Vec<_>>(), [1, 1]);
    }
}
