//! The promise of everything that turns texts into vectors.

use std::sync::Arc;

use async_trait::async_trait;
use lakehouse_contract::embed::ModelIdentity;

use crate::EmbedError;

/// A vector. Shared, since the cache and every caller hold the same one.
pub type Vector = Arc<[f32]>;

/// Vectors and what made them.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The model that made every one of them.
    pub identity: ModelIdentity,
    /// In the order of the texts; finite numbers, each vector as long as the identity says.
    pub vectors: Vec<Vector>,
}

/// Turns texts into vectors: embedd in this process, or one behind a URL.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// All of the texts or an error; none may be empty. An empty `model` is the default one.
    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embedded, EmbedError>;

    /// Which model answers to a name now.
    async fn identity(&self, model: &str) -> Result<ModelIdentity, EmbedError>;
}
