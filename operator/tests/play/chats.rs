//! Providers of language models as chatd's pods know them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lakehouse_contract::{
    chat::{Probe, ProbeFailure, ProbeStage, ProviderInfo, ProviderList},
    provider::{Provider, Providers},
};

/// What chatd reads, and what it sees of the world outside.
#[derive(Default)]
pub(crate) struct Chats {
    list: Providers,
    /// The providers whose keys have come.
    keys: BTreeSet<String>,
    /// What is in the way of a provider, by its name.
    troubles: BTreeMap<String, (ProbeStage, &'static str)>,
    /// How often the files were read anew.
    pub(crate) renewals: usize,
    /// How often somebody asked.
    pub(crate) asked: usize,
}

impl Chats {
    pub(super) fn renew(&mut self, list: Providers, keys: BTreeSet<String>) {
        (self.list, self.keys) = (list, keys);
        self.renewals += 1;
    }

    /// Something comes into a provider's way, or goes out of it.
    pub(crate) fn trouble(&mut self, provider: &str, trouble: Option<(ProbeStage, &'static str)>) {
        match trouble {
            Some(trouble) => self.troubles.insert(provider.to_owned(), trouble),
            None => self.troubles.remove(provider),
        };
    }

    pub(super) fn list(&mut self) -> ProviderList {
        self.asked += 1;
        let mut claimed = BTreeMap::new();
        let providers = self.list.providers.iter().map(|provider| self.info(provider, &mut claimed));
        ProviderList { providers: providers.collect() }
    }

    fn info(&self, provider: &Provider, claimed: &mut BTreeMap<String, String>) -> ProviderInfo {
        let name = &provider.name;
        let mut conflicts = Vec::new();
        let claims = |prefix: &&String| {
            let owner = claimed.entry((*prefix).clone()).or_insert_with(|| name.clone());
            if owner != name {
                conflicts.push(format!("the prefix `{prefix}` belongs to `{owner}`"));
            }
            owner == name
        };
        let prefixes = provider.route.prefixes.iter().filter(claims).cloned().collect();
        let has_key = provider.key_file.is_none() || self.keys.contains(name);
        let no_key = (ProbeStage::Key, "the file of the key is not there");
        let trouble = if has_key { self.troubles.get(name).copied() } else { Some(no_key) };
        let failure = trouble.map(|(stage, message)| ProbeFailure { stage, message: message.to_owned() });
        ProviderInfo {
            name: name.clone(),
            kind: provider.kind,
            digest: provider.digest(),
            endpoint: provider.url.clone().unwrap_or_else(|| "https://cloud.example".to_owned()),
            default: provider.route.default,
            prefixes,
            suffixes: provider.route.suffixes.clone(),
            models: if failure.is_none() { vec!["tiny-chat".to_owned()] } else { Vec::new() },
            tiers: provider.tiers.clone(),
            weak_models: provider.weak_models.clone(),
            fallback: provider.fallback.clone(),
            healthy: failure.is_none(),
            in_flight: 0,
            conflicts,
            error: failure.as_ref().map(|failure| failure.message.clone()),
            // Each look is a new one.
            probe: Some(Probe { at: Timestamp::now(), latency_ms: failure.is_none().then_some(3), failure }),
        }
    }
}
