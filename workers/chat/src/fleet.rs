//! All providers and where names go, as the list is now. A new list makes a new fleet; what did not change in it is taken over,
//! and streams keep the provider that they began with.

use std::sync::Arc;

use lakehouse_contract::provider::Providers;
use tracing::{info, warn};

use crate::{
    ChatError, Settings, look,
    metrics::Numbers,
    route::{self, Table},
    upstream::Upstream,
};

#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) table: Table,
    /// In the order of the table.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
}

/// A provider to ask, and for which model.
pub(crate) type Candidate = (Arc<Upstream>, String);

impl Fleet {
    /// Needs a tokio runtime: new providers are looked at from now on.
    pub(crate) fn new(
        providers: &Providers,
        before: Option<&Self>,
        settings: &Settings,
        numbers: &Numbers,
    ) -> Self {
        let configs: Vec<_> =
            providers.providers.iter().filter(|provider| route::chats(provider)).cloned().collect();
        let table = Table::new(&configs);
        let upstreams: Vec<_> = configs
            .into_iter()
            .map(|config| {
                let known =
                    before.and_then(|fleet| fleet.upstreams.iter().find(|known| known.config == config));
                known.cloned().unwrap_or_else(|| {
                    let upstream = Arc::new(Upstream::new(config, settings, numbers));
                    let (every, soon) = (settings.look_every, settings.look_soon);
                    tokio::spawn(look::follow(Arc::downgrade(&upstream), every, soon));
                    upstream
                })
            })
            .collect();
        for (place, upstream) in upstreams.iter().enumerate() {
            for conflict in table.conflicts(place) {
                warn!(provider = %upstream.name, "`{}` does not get all that it claims: {conflict}", upstream.name);
            }
        }
        info!(providers = upstreams.len(), "Models come from {} providers", upstreams.len());
        Self { table, upstreams }
    }

    /// Who is asked for a model, in order.
    pub(crate) fn candidates(&self, model: &str) -> Result<Vec<Candidate>, ChatError> {
        let first = self.table.route(model)?;
        let instead = self.table.fallbacks(&first, model);
        let all = std::iter::once(first).chain(instead);
        Ok(all.map(|target| (self.upstreams[target.provider].clone(), target.model)).collect())
    }
}
