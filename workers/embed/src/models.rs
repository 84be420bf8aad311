//! Which model answers to a name.
//!
//! `local/<name>` is a model of this process, `<provider>/<model>` one of a provider; a bare name is the first provider's that
//! lists it, else a local one; no name is the default.

use std::sync::{Arc, Mutex, PoisonError};

use lakehouse_contract::{
    embed::{ModelIdentity, ModelList},
    provider::Providers,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    EmbedError, LocalModel, Locals, Reason,
    metrics::Metrics,
    providers::{Provider, Remote},
};

/// What stands before the names of this process's models.
pub(crate) const LOCAL: &str = "local";

/// All models that can be named now.
#[derive(Debug)]
pub(crate) struct Models {
    default: String,
    locals: Arc<dyn Locals>,
    configured: Mutex<Configured>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Configured {
    source: watch::Receiver<Providers>,
    providers: Arc<[Arc<Provider>]>,
}

/// What embeds.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    Local(Arc<dyn LocalModel>),
    Remote(Arc<Remote>),
}

impl Model {
    /// The identity that vectors of now are kept under.
    pub(crate) async fn identity(&self, deadline: Instant) -> Result<ModelIdentity, EmbedError> {
        match self {
            Self::Local(model) => Ok(model.identity().clone()),
            Self::Remote(remote) => remote.identity(deadline).await,
        }
    }

    /// The same; the provider is asked whether it still works.
    pub(crate) async fn identity_now(&self, deadline: Instant) -> Result<ModelIdentity, EmbedError> {
        match self {
            Self::Local(model) => Ok(model.identity().clone()),
            Self::Remote(remote) => remote.identity_now(deadline).await,
        }
    }
}

impl Models {
    pub(crate) fn new(
        default: String,
        mut source: watch::Receiver<Providers>,
        locals: Arc<dyn Locals>,
        metrics: Metrics,
    ) -> Self {
        let providers = provide(&source.borrow_and_update(), &[], &metrics);
        Self { default, locals, configured: Mutex::new(Configured { source, providers }), metrics }
    }

    pub(crate) async fn resolve(&self, name: &str) -> Result<Model, EmbedError> {
        let name = if name.is_empty() { self.default.as_str() } else { name };
        let providers = self.providers();
        let model = match name.split_once('/') {
            Some((LOCAL, name)) => self.locals.get(name).await?.map(Model::Local),
            prefixed => match named(&providers, prefixed).or_else(|| listing(&providers, name)) {
                Some(remote) => Some(Model::Remote(remote?)),
                None => self.locals.get(name).await?.map(Model::Local),
            },
        };
        match model {
            Some(model) => Ok(model),
            None => Err(self.unknown(name).await),
        }
    }

    pub(crate) async fn list(&self) -> ModelList {
        let locals = self.locals.names().await;
        let mut models: Vec<String> = locals.into_iter().map(|name| format!("{LOCAL}/{name}")).collect();
        for provider in self.providers().iter() {
            models.extend(provider.listed().map(|model| provider.full_name(model)));
        }
        models.sort();
        models.dedup();
        ModelList { default: self.default.clone(), models }
    }

    async fn unknown(&self, name: &str) -> EmbedError {
        let ModelList { models, default: _ } = self.list().await;
        let message = format!("there is no model `{name}`; known are {}", models.join(", "));
        EmbedError { known: models, ..EmbedError::new(Reason::UnknownModel, message) }
    }

    /// As the configuration is now. A provider that did not change stays what it is, with all that it counts and knows.
    fn providers(&self) -> Arc<[Arc<Provider>]> {
        let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        // An error says that there will be no change any more.
        if configured.source.has_changed().unwrap_or(false) {
            let Configured { source, providers } = &mut *configured;
            *providers = provide(&source.borrow_and_update(), providers, &self.metrics);
        }
        configured.providers.clone()
    }
}

fn provide(wanted: &Providers, current: &[Arc<Provider>], metrics: &Metrics) -> Arc<[Arc<Provider>]> {
    let unchanged = |config| current.iter().find(|provider| provider.config() == config).cloned();
    let provide = |config| unchanged(config).unwrap_or_else(|| Provider::new(config, metrics.clone()));
    wanted.providers.iter().map(provide).collect()
}

/// `<provider>/<model>`, where there is such a provider.
fn named(providers: &[Arc<Provider>], name: Option<(&str, &str)>) -> Option<Result<Arc<Remote>, EmbedError>> {
    let (prefix, model) = name?;
    let provider = providers.iter().find(|provider| provider.config().name == prefix)?;
    Some(provider.remote(model))
}

/// The first provider's that lists the name.
fn listing(providers: &[Arc<Provider>], name: &str) -> Option<Result<Arc<Remote>, EmbedError>> {
    let provider = providers.iter().find(|provider| provider.lists(name))?;
    Some(provider.remote(name))
}
