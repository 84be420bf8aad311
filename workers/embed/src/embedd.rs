//! embedd in process: from a name and texts to vectors.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use lakehouse_contract::{
    embed::{EmbedStats, ModelIdentity, ModelList},
    provider::Providers,
};
use lakehouse_http::Metrics;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

use crate::{
    EmbedError, Embedded, Embedder, Locals, Reason,
    board::{Board, Found, Waiting},
    cache::Cache,
    flight::Pilot,
    metrics,
    models::{Model, Models},
};

/// How embedd works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Texts in the cache; 0 turns it off.
    pub cache_entries: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// What answers to an empty name.
    pub default_model: String,
    /// For a whole list of texts.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_entries: 10_000,
            cache_bytes: 256 << 20,
            default_model: "local/lexical".to_owned(),
            deadline: Duration::from_mins(1),
        }
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Embedd(Arc<Inner>);

struct Inner {
    deadline: Duration,
    models: Models,
    board: Arc<Board>,
    pilot: Pilot,
}

impl fmt::Debug for Embedd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedd").field("models", &self.0.models).finish_non_exhaustive()
    }
}

impl Embedd {
    /// A service with the models of `providers`, as they are configured at each moment, and of `locals`.
    pub fn new(
        settings: Settings,
        providers: watch::Receiver<Providers>,
        locals: Arc<dyn Locals>,
        metrics: &Metrics,
    ) -> Self {
        let Settings { cache_entries, cache_bytes, default_model, deadline } = settings;
        let metrics = metrics::Metrics::register(metrics);
        let board = Board::new(Cache::new(cache_entries, cache_bytes), metrics.clone());
        let models = Models::new(default_model, providers, locals, metrics.clone());
        // A model that computes uses every core by itself.
        let pilot = Pilot { computing: Arc::new(Semaphore::new(1)), metrics };
        Self(Arc::new(Inner { deadline, models, board, pilot }))
    }

    /// Hits and misses so far.
    pub fn stats(&self) -> EmbedStats {
        self.0.board.stats()
    }

    /// The models that can be named now.
    pub async fn models(&self) -> ModelList {
        self.0.models.list().await
    }

    async fn embed_before(
        &self,
        model: &str,
        texts: &[String],
        deadline: Instant,
    ) -> Result<Embedded, EmbedError> {
        let model = self.0.models.resolve(model).await?;
        let identity = model.identity(deadline).await?;
        let found = self.find(&model, &identity, texts, deadline);
        let vectors = if found.waiting.is_empty() {
            found.vectors.into_iter().flatten().collect()
        } else {
            Box::pin(landed(found)).await?
        };
        Ok(Embedded { identity, vectors })
    }

    fn find(&self, model: &Model, identity: &ModelIdentity, texts: &[String], deadline: Instant) -> Found {
        self.0.board.find(identity, texts, deadline, |texts, claim| {
            let (pilot, model, identity) = (self.0.pilot.clone(), model.clone(), identity.clone());
            Box::pin(async move { pilot.fly(&model, &identity, texts, &claim).await })
        })
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, EmbedError>>,
    ) -> Result<T, EmbedError> {
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            let seconds = self.0.deadline.as_secs_f64();
            Err(EmbedError::new(Reason::Timeout, format!("there was no answer within {seconds} s")))
        })
    }
}

#[async_trait]
impl Embedder for Embedd {
    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
        check(texts)?;
        let deadline = Instant::now() + self.0.deadline;
        self.within(deadline, self.embed_before(model, texts, deadline)).await
    }

    async fn identity(&self, model: &str) -> Result<ModelIdentity, EmbedError> {
        let deadline = Instant::now() + self.0.deadline;
        let asked = async { self.0.models.resolve(model).await?.identity_now(deadline).await };
        self.within(deadline, asked).await
    }
}

fn check(texts: &[String]) -> Result<(), EmbedError> {
    if texts.is_empty() {
        return Err(EmbedError::new(Reason::EmptyList, "`texts` is empty; at least one text is needed"));
    }
    match texts.iter().position(String::is_empty) {
        Some(at) => Err(EmbedError::new(Reason::EmptyText, format!("texts[{at}] is empty")).at(at)),
        None => Ok(()),
    }
}

/// Waits for all flights. Of several refusals, that of the first text is told.
async fn landed(found: Found) -> Result<Vec<crate::Vector>, EmbedError> {
    let Found { mut vectors, waiting } = found;
    let landings = waiting.into_iter().map(|Waiting { flight, texts }| async move { (flight.await, texts) });
    let mut refused: Option<(usize, EmbedError)> = None;
    for (outcome, texts) in join_all(landings).await {
        for (at, place) in texts {
            match &outcome[place] {
                Ok(vector) => vectors[at] = Some(vector.clone()),
                Err(error) if refused.as_ref().is_none_or(|(first, _)| at < *first) => {
                    refused = Some((at, error.clone()));
                }
                Err(_) => {}
            }
        }
    }
    match refused {
        None => Ok(vectors.into_iter().flatten().collect()),
        // The flight says that it was this one text; the caller wants to know which of his it is.
        Some((at, error)) if error.item.is_some() => {
            let message = format!("texts[{at}]: {}", error.message);
            Err(EmbedError { message, ..error }.at(at))
        }
        Some((_, error)) => Err(error),
    }
}
