//! What a model in this process offers to embedd.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use lakehouse_contract::embed::ModelIdentity;

use crate::{EmbedError, Vector};

/// A model that runs here. Its answer to a text depends on nothing but the text.
pub trait LocalModel: fmt::Debug + Send + Sync + 'static {
    /// Its full name is `local/<name>`.
    fn identity(&self) -> &ModelIdentity;

    /// One vector for each text, in their order. Blocks; embedd calls it where that disturbs nobody.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vector>, EmbedError>;

    /// Whether a short text costs no more than the way to another thread.
    fn is_quick(&self) -> bool {
        false
    }
}

/// The models that run here, by their names without `local/`.
#[async_trait]
pub trait Locals: fmt::Debug + Send + Sync + 'static {
    /// Those that can be named, in alphabetical order.
    async fn names(&self) -> Vec<String>;

    /// The model of this name, loaded when it is first asked for; `None` where there is none.
    async fn get(&self, name: &str) -> Result<Option<Arc<dyn LocalModel>>, EmbedError>;
}
