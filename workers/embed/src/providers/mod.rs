//! Models behind a URL.
//!
//! Receives a provider's configuration; hands on vectors and identities of its models, or an error with its name and its words.

mod call;
mod gate;
mod protocol;

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lakehouse_contract::{
    embed::ModelIdentity,
    provider::{self, ProviderKind},
};
use tokio::time::Instant;
use tracing::debug;

use crate::{EmbedError, Reason, Vector, deadline::Deadline, metrics::Metrics};

use call::Caller;
use protocol::Protocol;

/// So long what a provider said about a model holds.
const FRESH: Duration = Duration::from_secs(10);
/// So long a known model's provider has to say that the model is as it was.
const CHECK: Duration = Duration::from_secs(1);
/// So long a model that only an embedding tells about counts as working.
const TRIED: Duration = Duration::from_mins(5);
/// Requests at the same time where the configuration does not say.
const MAX_CONCURRENT: u32 = 8;
/// The most bytes of text in one request.
const PIECE_BYTES: usize = 256 << 10;
/// What a model is tried with. Always the same, so that equal models have equal identities.
const TRIAL: &str = "identity";
/// How far from one the length of a normalised vector may be.
const ROUNDING: f64 = 1e-3;

/// One upstream, for as long as its configuration stays the same.
#[derive(Debug)]
pub(crate) struct Provider {
    config: provider::Provider,
    /// How it is asked, or why it cannot be.
    caller: Result<Caller, EmbedError>,
    /// Models that have worked.
    remotes: Mutex<HashMap<String, Arc<Remote>>>,
}

/// A model of a provider.
#[derive(Debug)]
pub(crate) struct Remote {
    provider: Arc<Provider>,
    model: String,
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    identity: ModelIdentity,
    /// When the provider last confirmed it.
    at: Instant,
    /// When the provider was last asked, though it may not have answered.
    asked: Instant,
}

impl Provider {
    pub(crate) fn new(config: &provider::Provider, metrics: Metrics) -> Arc<Self> {
        let caller = Caller::new(config, metrics);
        Arc::new(Self { config: config.clone(), caller, remotes: Mutex::default() })
    }

    pub(crate) fn config(&self) -> &provider::Provider {
        &self.config
    }

    pub(crate) fn full_name(&self, model: &str) -> String {
        format!("{}/{model}", self.config.name)
    }

    pub(crate) fn listed(&self) -> impl Iterator<Item = &str> {
        self.config.embeddings.iter().map(String::as_str)
    }

    pub(crate) fn lists(&self, model: &str) -> bool {
        self.listed().any(|listed| self.same(listed, model))
    }

    /// A model by the provider's own name for it. Where the configuration lists models, others are unknown.
    pub(crate) fn remote(self: &Arc<Self>, model: &str) -> Result<Arc<Remote>, EmbedError> {
        if model.is_empty() || (self.listed().next().is_some() && !self.lists(model)) {
            let known: Vec<String> = self.listed().map(|model| self.full_name(model)).collect();
            let message = format!(
                "provider `{}` has no embedding model `{model}`; it lists {}",
                self.config.name,
                known.join(", ")
            );
            return Err(EmbedError { known, ..EmbedError::new(Reason::UnknownModel, message) });
        }
        if let Some(remote) = self.remotes().get(model) {
            return Ok(remote.clone());
        }
        Ok(Arc::new(Remote { provider: self.clone(), model: model.to_owned(), known: Mutex::default() }))
    }

    fn caller(&self) -> Result<&Caller, EmbedError> {
        self.caller.as_ref().map_err(EmbedError::clone)
    }

    /// Ollama takes a name without a tag for the latest.
    fn same(&self, one: &str, other: &str) -> bool {
        let tagged = |name: &str| match self.config.kind {
            ProviderKind::Ollama | ProviderKind::OllamaCloud if !name.contains(':') => {
                format!("{name}:latest")
            }
            _ => name.to_owned(),
        };
        one == other || tagged(one) == tagged(other)
    }

    fn remotes(&self) -> MutexGuard<'_, HashMap<String, Arc<Remote>>> {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// What vectors of now are kept under. A provider that does not answer soon is believed to be as it was: texts that are in the
    /// cache need it not, and shall not wait for it.
    pub(crate) async fn identity(self: &Arc<Self>, deadline: Instant) -> Result<ModelIdentity, EmbedError> {
        match self.known() {
            Some(known) if self.is_fixed() || known.asked.elapsed() < FRESH => Ok(known.identity),
            Some(known) => match self.digest(deadline.min(Instant::now() + CHECK)).await {
                Err(error) if error.retry_helps() => {
                    debug!(%error, model = known.identity.model, "The model's digest could not be asked for");
                    if let Some(known) = &mut *self.lock() {
                        known.asked = Instant::now();
                    }
                    Ok(known.identity)
                }
                digest => self.identified(digest?, deadline).await,
            },
            None => self.ask(deadline).await,
        }
    }

    /// The same; fails when the provider does not work now.
    pub(crate) async fn identity_now(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<ModelIdentity, EmbedError> {
        let holds = if self.is_fixed() { TRIED } else { FRESH };
        match self.known() {
            Some(known) if known.at.elapsed() < holds => Ok(known.identity),
            Some(_) if self.is_fixed() => {
                self.forget();
                self.ask(deadline).await
            }
            Some(_) | None => self.ask(deadline).await,
        }
    }

    /// One piece of a list: one request, tried again where that may help.
    pub(crate) async fn embed(
        &self,
        texts: &[String],
        identity: &ModelIdentity,
        deadline: &Deadline,
    ) -> Result<Vec<Vector>, EmbedError> {
        let caller = self.provider.caller()?;
        let vectors = caller.embed(&self.model, texts, deadline).await?;
        if let Some(other) = vectors.iter().find(|vector| vector.len() != identity.dimension as usize) {
            // It may be another model by now: the next request asks.
            self.forget();
            return Err(caller.bad_answer(&format!(
                "a vector of {} numbers from model `{}`, which has {}",
                other.len(),
                self.model,
                identity.dimension
            )));
        }
        Ok(vectors.into_iter().map(Vector::from).collect())
    }

    /// Parts of a list that fit into a request each.
    pub(crate) fn pieces(&self, texts: &[String]) -> Vec<Range<usize>> {
        pieces(texts, Protocol::of(self.provider.config.kind).max_texts())
    }

    pub(crate) fn max_concurrent(&self) -> usize {
        self.provider.config.limits.max_concurrent.unwrap_or(MAX_CONCURRENT).max(1) as usize
    }

    /// Whether the digest is the address and the name, so that it never changes.
    fn is_fixed(&self) -> bool {
        !matches!(self.provider.config.kind, ProviderKind::Ollama | ProviderKind::OllamaCloud)
    }

    async fn ask(self: &Arc<Self>, deadline: Instant) -> Result<ModelIdentity, EmbedError> {
        let digest = self.digest(deadline).await?;
        self.identified(digest, deadline).await
    }

    async fn digest(&self, deadline: Instant) -> Result<String, EmbedError> {
        let caller = self.provider.caller()?;
        if self.is_fixed() {
            return Ok(format!("{} {}", caller.base(), self.model));
        }
        self.installed(caller, deadline).await
    }

    /// What a digest stands for; a new one is tried.
    async fn identified(
        self: &Arc<Self>,
        digest: String,
        deadline: Instant,
    ) -> Result<ModelIdentity, EmbedError> {
        let known = self.known().map(|known| known.identity).filter(|known| known.digest == digest);
        let identity = match known {
            Some(identity) => identity,
            None => self.tried(self.provider.caller()?, digest, deadline).await?,
        };
        let now = Instant::now();
        *self.lock() = Some(Known { identity: identity.clone(), at: now, asked: now });
        self.provider.remotes().entry(self.model.clone()).or_insert_with(|| self.clone());
        Ok(identity)
    }

    /// The digest of a model that Ollama has.
    async fn installed(&self, caller: &Caller, deadline: Instant) -> Result<String, EmbedError> {
        let tags = caller.tags(&Deadline::at(deadline)).await?;
        if let Some(found) = tags.iter().find(|tag| self.provider.same(&tag.name, &self.model)) {
            return Ok(format!("sha256:{}", found.digest));
        }
        let known: Vec<String> = tags.iter().map(|tag| self.provider.full_name(&tag.name)).collect();
        let message = format!(
            "provider `{}` has no model `{}` (`ollama pull` brings it); it has {}",
            self.provider.config.name,
            self.model,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        );
        Err(EmbedError { known, ..EmbedError::new(Reason::UnknownModel, message) })
    }

    async fn tried(
        &self,
        caller: &Caller,
        digest: String,
        deadline: Instant,
    ) -> Result<ModelIdentity, EmbedError> {
        let vectors = caller.embed(&self.model, &[TRIAL.to_owned()], &Deadline::at(deadline)).await?;
        let vector = vectors.first().map(Vec::as_slice).unwrap_or_default();
        let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        let dimension = u32::try_from(vector.len()).unwrap_or(u32::MAX);
        Ok(ModelIdentity {
            model: self.provider.full_name(&self.model),
            digest,
            dimension,
            normalised: (length - 1.0).abs() < ROUNDING,
        })
    }

    fn known(&self) -> Option<Known> {
        self.lock().clone()
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pieces(texts: &[String], max_texts: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, text) in texts.iter().enumerate() {
        if at > start && (at - start == max_texts || bytes + text.len() > PIECE_BYTES) {
            pieces.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += text.len();
    }
    pieces.push(start..texts.len());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_is_waited_for_a_moment_and_not_by_every_request() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Connections are taken, and nobody reads from them.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = serde_json::json!({"name": "home", "type": "Ollama", "url": url, "embeddings": ["m"]});
        let config = serde_json::from_value(config).unwrap();
        let metrics = Metrics::register(&lakehouse_http::Metrics::default());
        let remote = Provider::new(&config, metrics).remote("m").unwrap();
        let (model, digest) = ("home/m".to_owned(), "sha256:abc".to_owned());
        let identity = ModelIdentity { model, digest, dimension: 3, normalised: false };
        let now = Instant::now();
        *remote.lock() = Some(Known { identity: identity.clone(), at: now, asked: now });
        tokio::time::advance(2 * FRESH).await;
        let (start, deadline) = (Instant::now(), Instant::now() + Duration::from_mins(1));
        for _ in 0..3 {
            assert_eq!(remote.identity(deadline).await.unwrap(), identity);
            assert!(start.elapsed() < 2 * CHECK, "{:?}", start.elapsed());
        }
        // Nobody is told that it works.
        assert!(remote.identity_now(deadline).await.unwrap_err().retry_helps());
    }

    #[test]
    fn a_piece_has_neither_too_many_texts_nor_too_many_bytes() {
        let short = vec!["x".to_owned(); 5];
        assert_eq!(pieces(&short, 2), [0..2, 2..4, 4..5]);
        let long =
            vec!["x".repeat(PIECE_BYTES / 2 + 1), "x".to_owned(), "x".repeat(PIECE_BYTES), "x".to_owned()];
        assert_eq!(pieces(&long, 100), [0..2, 2..3, 3..4]);
        assert_eq!(pieces(&["x".repeat(2 * PIECE_BYTES)], 100).len(), 1);
    }
}
