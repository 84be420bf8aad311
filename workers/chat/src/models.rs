//! Which models there are, and how their providers are.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use lakehouse_contract::chat::{ProbeStage, ProviderInfo, ProviderList};

use crate::{Chatd, fleet::Fleet, look::Look, upstream::Upstream};

/// How long the first look at a provider is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name to ask for.
    pub name: String,
    /// Who has it.
    pub provider: Arc<str>,
    /// As the provider knows it.
    pub model: String,
    /// Whether the local hot path may use it.
    pub weak: bool,
    /// Whether the name is a tier.
    pub tier: bool,
}

impl Chatd {
    /// Every model under a name that leads to it, tiers first. A provider that does not answer has none.
    pub async fn models(&self) -> Vec<ModelInfo> {
        let fleet = self.0.fleet.load_full();
        let looks = looks(&fleet).await;
        let mut models = Vec::new();
        for (tier, place) in fleet.table.tiers() {
            let upstream = &fleet.upstreams[place];
            models.push(info(upstream, tier.to_owned(), &upstream.config.tiers[tier], true));
        }
        for (place, (upstream, look)) in fleet.upstreams.iter().zip(&looks).enumerate() {
            for model in offered(upstream, look.as_ref()) {
                if let Some(name) = fleet.table.public_name(place, model) {
                    models.push(info(upstream, name, model, false));
                }
            }
        }
        models
    }

    /// Every provider: what it claims, what it has, and how it is.
    pub async fn providers(&self) -> ProviderList {
        let fleet = self.0.fleet.load_full();
        let looks = looks(&fleet).await;
        let (table, numbers) = (&fleet.table, &self.0.numbers);
        let told = fleet.upstreams.iter().zip(looks).enumerate().map(|(place, (upstream, look))| {
            let models = offered(upstream, look.as_ref()).to_vec();
            let config = &upstream.config;
            let probe = look.map(|look| look.probe);
            let failure = probe.as_ref().and_then(|probe| probe.failure.as_ref());
            // Who names the models himself does not need the provider's list.
            let hurts =
                failure.filter(|failure| failure.stage != ProbeStage::Models || config.models.is_empty());
            let error = upstream.complaint().or(hurts.map(|failure| failure.message.clone()));
            ProviderInfo {
                name: config.name.clone(),
                kind: config.kind,
                digest: config.digest(),
                endpoint: upstream.endpoint(),
                default: table.is_default(place),
                prefixes: table.prefixes(place).to_vec(),
                suffixes: table.suffixes(place).to_vec(),
                models,
                tiers: config.tiers.clone(),
                weak_models: config.weak_models.clone(),
                fallback: config.fallback.clone(),
                healthy: error.is_none() && !upstream.is_resting(),
                in_flight: numbers.in_flight(&config.name),
                conflicts: table.conflicts(place).to_vec(),
                error,
                probe,
            }
        });
        ProviderList { providers: told.collect() }
    }
}

/// The last look at each provider; nothing where the first one takes too long.
async fn looks(fleet: &Fleet) -> Vec<Option<Look>> {
    join_all(fleet.upstreams.iter().map(|upstream| upstream.looks.last(PATIENCE))).await
}

/// The allow-list, or what the provider lists.
fn offered<'a>(upstream: &'a Upstream, look: Option<&'a Look>) -> &'a [String] {
    match (upstream.config.models.as_slice(), look) {
        ([], Some(Look { models: Ok(models), .. })) => models,
        (allowed, _) => allowed,
    }
}

fn info(upstream: &Upstream, name: String, model: &str, tier: bool) -> ModelInfo {
    let weak = upstream.config.weak_models.iter().any(|weak| weak == model);
    ModelInfo { name, provider: upstream.name.clone(), model: model.to_owned(), weak, tier }
}
