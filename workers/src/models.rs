//! Which models turn text into vectors in this process: the arguments that `up`, `serve` and the build Job share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use lakehouse_contract::provider::Providers;
use lakehouse_embed::{Embedd, Settings};
use lakehouse_http::Metrics;
use lakehouse_model::Models as Locals;
use lakehouse_store::Store;
use tokio::sync::watch;

/// Where nothing is said, texts are embedded by the words that they share.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct Models {
    /// A folder of sentence-transformer models, each in a folder of its name; those below `_models/` in the store need no flag
    #[arg(long = "models", env = "LAKEHOUSE_MODELS", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The model of texts that name none [default: local/lexical]
    #[arg(long, env = "LAKEHOUSE_EMBED_MODEL", value_name = "NAME")]
    embed_model: Option<String>,
    /// Texts whose vectors are remembered in memory; 0 for none [default: 10000]
    #[arg(long, env = "LAKEHOUSE_EMBED_CACHE", value_name = "COUNT")]
    embed_cache: Option<u64>,
}

impl Models {
    /// embedd with the local models and these providers. Weights that are fetched from the store lie below `cache`.
    pub(crate) fn embedd(
        &self,
        store: &Store,
        cache: &Path,
        providers: watch::Receiver<Providers>,
        metrics: &Metrics,
    ) -> Embedd {
        let mut settings = Settings::default();
        if let Some(model) = &self.embed_model {
            settings.default_model.clone_from(model);
        }
        if let Some(count) = self.embed_cache {
            settings.cache_entries = count;
        }
        let mut locals = Locals::new().with_bucket(store.clone(), cache.join("models"));
        if let Some(folder) = &self.folder {
            locals = locals.with_folder(folder.clone());
        }
        Embedd::new(settings, providers, Arc::new(locals), metrics)
    }
}
