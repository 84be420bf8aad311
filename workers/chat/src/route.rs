//! Which provider a model's name goes to, and what the provider knows it by. Pure.
//!
//! ```text
//! tier ─► longest prefix ─► known prefix of nobody: 404 ─► longest suffix ─► known suffix of nobody: 404 ─► default ─► 404
//! ```
//! Where two providers claim the same, the first in the list has it, and the other is told.

use std::collections::BTreeMap;

use lakehouse_contract::provider::{Provider, ProviderKind};

use crate::{ChatError, error::Kind};

/// Prefixes that mean a kind of provider even where there is none: a name with one of them never goes to the default.
const KNOWN_PREFIXES: [&str; 5] = ["ollama/", "ollama_cloud/", "openrouter/", "opencode/", "kimi/"];

/// Likewise for suffixes.
const KNOWN_SUFFIXES: [&str; 1] = [":cloud"];

/// Where names go.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
    prefixes: BTreeMap<String, usize>,
    suffixes: BTreeMap<String, usize>,
    tiers: BTreeMap<String, usize>,
    default: Option<usize>,
}

/// A provider as routing sees it.
#[derive(Clone, Debug, Default)]
struct Entry {
    name: String,
    strip_prefix: bool,
    models: Vec<String>,
    tiers: BTreeMap<String, String>,
    weak: Vec<String>,
    fallback: Vec<String>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    conflicts: Vec<String>,
}

/// A provider, and what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its place among the providers that the table was made of.
    pub provider: usize,
    /// The model as it knows it.
    pub model: String,
    /// Whether the local hot path may use it.
    pub weak: bool,
}

/// Whether a provider has language models at all.
pub(crate) fn chats(provider: &Provider) -> bool {
    provider.kind != ProviderKind::Voyage
}

impl Table {
    /// A table of providers, all of which chat.
    pub fn new(providers: &[Provider]) -> Self {
        let mut table = Self::default();
        for (place, provider) in providers.iter().enumerate() {
            table.add(place, provider);
        }
        table
    }

    fn add(&mut self, place: usize, provider: &Provider) {
        let route = &provider.route;
        let (prefixes, suffixes) = match (route.prefixes.as_slice(), route.suffixes.as_slice()) {
            ([], []) => own_claims(provider.kind),
            (prefixes, suffixes) => (prefixes.to_vec(), suffixes.to_vec()),
        };
        let mut entry = Entry {
            name: provider.name.clone(),
            strip_prefix: route.strip_prefix,
            models: provider.models.clone(),
            tiers: provider.tiers.clone(),
            weak: provider.weak_models.clone(),
            fallback: provider.fallback.clone(),
            ..Entry::default()
        };
        let holder = |place: usize| self.entries[place].name.clone();
        let mut claim = |claims: &mut BTreeMap<String, usize>, what: &str, name: &str| {
            if let Some(&earlier) = claims.get(name) {
                if earlier != place {
                    entry.conflicts.push(format!("the {what} `{name}` belongs to `{}`", holder(earlier)));
                }
                return earlier == place;
            }
            claims.insert(name.to_owned(), place);
            true
        };
        let kept = |names: Vec<String>, claimed: Vec<bool>| -> Vec<String> {
            names.into_iter().zip(claimed).filter_map(|(name, kept)| kept.then_some(name)).collect()
        };
        let has: Vec<bool> = prefixes.iter().map(|name| claim(&mut self.prefixes, "prefix", name)).collect();
        let has_suffix: Vec<bool> =
            suffixes.iter().map(|name| claim(&mut self.suffixes, "suffix", name)).collect();
        // A fallback has a model of its own for the tier that it stands in for.
        let stands_in = |tier: &String| {
            let holder = self.tiers.get(tier).map(|&place| &self.entries[place]);
            holder.is_some_and(|holder| holder.fallback.contains(&provider.name))
        };
        let own: Vec<&String> = provider.tiers.keys().filter(|tier| !stands_in(tier)).collect();
        for tier in own {
            claim(&mut self.tiers, "tier", tier);
        }
        if route.default {
            match self.default {
                None => self.default = Some(place),
                Some(earlier) => {
                    entry.conflicts.push(format!("the default is `{}`", holder(earlier)));
                }
            }
        }
        entry.prefixes = kept(prefixes, has);
        entry.suffixes = kept(suffixes, has_suffix);
        self.entries.push(entry);
    }

    /// Where a name goes.
    pub fn route(&self, name: &str) -> Result<Target, ChatError> {
        if let Some(&provider) = self.tiers.get(name) {
            let entry = &self.entries[provider];
            // What a tier stands for was set beside the allow-list, so it needs no second permission.
            return Ok(entry.target(provider, &entry.tiers[name]));
        }
        let (provider, model) = self.claimed(name)?;
        let entry = &self.entries[provider];
        if model.is_empty() {
            return Err(unknown(format!("`{name}` names no model after its prefix")));
        }
        if !entry.allows(model) && !entry.models.iter().any(|allowed| allowed == name) {
            let (holder, known) = (&entry.name, entry.models.join("`, `"));
            return Err(unknown(format!("`{holder}` does not offer `{model}`; it offers `{known}`")));
        }
        Ok(entry.target(provider, model))
    }

    fn claimed<'a>(&self, name: &'a str) -> Result<(usize, &'a str), ChatError> {
        let longest = |claims: &BTreeMap<String, usize>, fits: &dyn Fn(&str) -> bool| {
            let fitting = claims.iter().filter(|(claim, _)| fits(claim));
            fitting.max_by_key(|(claim, _)| claim.len()).map(|(claim, &provider)| (claim.len(), provider))
        };
        if let Some((length, provider)) = longest(&self.prefixes, &|claim| name.starts_with(claim)) {
            let stripped = if self.entries[provider].strip_prefix { &name[length..] } else { name };
            return Ok((provider, if name.len() == length { "" } else { stripped }));
        }
        if let Some(known) = KNOWN_PREFIXES.iter().find(|known| name.starts_with(**known)) {
            return Err(unknown(format!("no provider is set up for names that start with `{known}`")));
        }
        if let Some((_, provider)) = longest(&self.suffixes, &|claim| name.ends_with(claim)) {
            return Ok((provider, name));
        }
        if let Some(known) = KNOWN_SUFFIXES.iter().find(|known| name.ends_with(**known)) {
            return Err(unknown(format!("no provider is set up for names that end with `{known}`")));
        }
        match self.default {
            Some(provider) => Ok((provider, name)),
            None if self.entries.is_empty() => {
                Err(unknown(format!("no provider has the model `{name}`; there is no ChatProvider here yet")))
            }
            None => {
                let prefixes: Vec<&str> = self.prefixes.keys().map(String::as_str).collect();
                Err(unknown(format!(
                    "no provider has the model `{name}`, and none is the default; names start with `{}`",
                    prefixes.join("`, `")
                )))
            }
        }
    }

    /// Who is asked instead, in order. Each for its own model of the tier or the name that was `asked`, else for the same
    /// model; one that does not offer it is left out.
    pub fn fallbacks(&self, target: &Target, asked: &str) -> Vec<Target> {
        let mut instead: Vec<Target> = Vec::new();
        for name in &self.entries[target.provider].fallback {
            let Some(provider) = self.entries.iter().position(|entry| entry.name == *name) else { continue };
            let known = provider == target.provider || instead.iter().any(|other| other.provider == provider);
            let entry = &self.entries[provider];
            let alias = entry.tiers.get(asked).or_else(|| entry.tiers.get(&target.model));
            if !known && (alias.is_some() || entry.allows(&target.model)) {
                instead.push(entry.target(provider, alias.unwrap_or(&target.model)));
            }
        }
        instead
    }

    /// The name under which clients reach a provider's model; `None` where none leads there.
    pub fn public_name(&self, provider: usize, model: &str) -> Option<String> {
        let entry = &self.entries[provider];
        let bare = std::iter::once(model.to_owned());
        let prefixed = entry.prefixes.iter().map(|prefix| format!("{prefix}{model}"));
        let suffixed = entry.suffixes.iter().map(|suffix| format!("{model}{suffix}"));
        let leads = |name: &String| {
            self.route(name).is_ok_and(|target| target.provider == provider && target.model == *model)
        };
        bare.chain(prefixed).chain(suffixed).find(leads)
    }

    /// Prefixes that a provider has.
    pub fn prefixes(&self, provider: usize) -> &[String] {
        &self.entries[provider].prefixes
    }

    /// Suffixes that a provider has.
    pub fn suffixes(&self, provider: usize) -> &[String] {
        &self.entries[provider].suffixes
    }

    /// Whether names that nobody claims go to it.
    pub fn is_default(&self, provider: usize) -> bool {
        self.default == Some(provider)
    }

    /// Tiers and the providers that have them.
    pub fn tiers(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tiers.iter().map(|(tier, &provider)| (tier.as_str(), provider))
    }

    /// What a provider claims and does not have, each as a sentence.
    pub fn conflicts(&self, provider: usize) -> &[String] {
        &self.entries[provider].conflicts
    }
}

impl Entry {
    fn allows(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }

    fn target(&self, provider: usize, model: &str) -> Target {
        let weak = self.weak.iter().any(|weak| weak == model);
        Target { provider, model: model.to_owned(), weak }
    }
}

/// What a provider gets where its route says nothing.
fn own_claims(kind: ProviderKind) -> (Vec<String>, Vec<String>) {
    let (prefix, suffix) = match kind {
        ProviderKind::Ollama => ("ollama/", None),
        ProviderKind::OllamaCloud => ("ollama_cloud/", Some(":cloud")),
        ProviderKind::OpenAI => ("openai/", None),
        ProviderKind::OpenRouter => ("openrouter/", None),
        ProviderKind::OpenCode => ("opencode/", None),
        ProviderKind::Kimi => ("kimi/", None),
        ProviderKind::Anthropic => ("anthropic/", None),
        ProviderKind::Voyage => return (Vec::new(), Vec::new()),
    };
    (vec![prefix.to_owned()], suffix.into_iter().map(str::to_owned).collect())
}

fn unknown(message: String) -> ChatError {
    ChatError { field: Some("model".to_owned()), ..ChatError::new(Kind::UnknownModel, message) }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "`json!` in a call reads better without a `&`")]
mod tests {
    use lakehouse_contract::provider::Providers;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_name_goes_where_the_contract_says() {
        let table = all();
        for (name, expected) in [
            ("ollama/qwen3.5:latest", "home qwen3.5:latest"),
            ("ollama_cloud/kimi-k2.6", "cloud kimi-k2.6"),
            ("kimi-k2.6:cloud", "cloud kimi-k2.6:cloud"),
            ("openrouter/anthropic/claude-opus-4.5", "router anthropic/claude-opus-4.5"),
            ("opencode/big-pickle", "code big-pickle"),
            ("kimi/kimi-k2.6", "moon kimi-k2.6"),
            ("qwen3.5:latest", "home qwen3.5:latest"),
            // Nobody knows the prefix, so it is part of the name.
            ("vendor/model", "home vendor/model"),
            ("openai/gpt-5", "home openai/gpt-5"),
            // A prefix says more than a suffix.
            ("ollama/x:cloud", "home x:cloud"),
            ("local_fast", "home qwen3.5:latest"),
            ("cloud_judge", "cloud kimi-k2.6"),
        ] {
            assert_eq!(shown(&table, name), expected, "{name}");
        }
    }

    #[test]
    fn a_known_prefix_or_suffix_without_its_provider_is_404_and_never_the_default() {
        let table = table(json!([{"name": "own", "type": "OpenAI", "route": {"default": true}}]));
        for name in ["ollama/x", "ollama_cloud/x", "x:cloud", "openrouter/a/b", "opencode/x", "kimi/x"] {
            let error = table.route(name).unwrap_err();
            assert_eq!(error.kind, Kind::UnknownModel, "{name}");
            assert!(error.message.starts_with("no provider is set up for names that"), "{error}");
        }
        assert_eq!(shown(&table, "anything/else"), "own anything/else");
    }

    #[test]
    fn without_a_default_a_bare_name_is_404() {
        let table = table(json!([{"name": "own", "type": "Ollama", "url": "http://h"}]));
        assert!(shown(&table, "x").contains("names start with `ollama/`"));
        assert!(shown(&Table::default(), "x").contains("no ChatProvider"));
        assert!(shown(&table, "ollama/").contains("names no model"));
    }

    #[test]
    fn the_longest_prefix_wins_and_is_stripped_only_where_wanted() {
        let table = table(json!([
            {"name": "a", "type": "OpenAI", "route": {"prefixes": ["x/"]}},
            {"name": "b", "type": "OpenAI", "route": {"prefixes": ["x/y/"], "stripPrefix": false}},
        ]));
        assert_eq!(shown(&table, "x/m"), "a m");
        assert_eq!(shown(&table, "x/y/m"), "b x/y/m");
    }

    #[test]
    fn an_allow_list_names_what_it_allows_and_tiers_need_no_place_on_it() {
        let table = table(json!([{
            "name": "a", "type": "Kimi", "models": ["m1", "m2"], "tiers": {"judge": "m3"}, "weakModels": ["m2"],
        }]));
        assert_eq!(shown(&table, "kimi/m1"), "a m1");
        assert_eq!(shown(&table, "judge"), "a m3");
        assert_eq!(shown(&table, "kimi/m4"), "`a` does not offer `m4`; it offers `m1`, `m2`");
        assert!(table.route("kimi/m2").unwrap().weak && !table.route("kimi/m1").unwrap().weak);
    }

    #[test]
    fn the_first_in_the_list_keeps_what_two_claim() {
        let table = table(json!([
            {"name": "old", "type": "Ollama", "url": "http://a", "route": {"default": true}, "tiers": {"t": "m"}},
            {"name": "new", "type": "Ollama", "url": "http://b", "route": {"default": true}, "tiers": {"t": "n"}},
        ]));
        assert_eq!((shown(&table, "ollama/x"), shown(&table, "t")), ("old x".into(), "old m".into()));
        assert!(table.conflicts(0).is_empty() && table.is_default(0) && !table.is_default(1));
        let told = [
            "the prefix `ollama/` belongs to `old`",
            "the tier `t` belongs to `old`",
            "the default is `old`",
        ];
        assert_eq!(table.conflicts(1), told);
        assert!(table.prefixes(1).is_empty());
    }

    #[test]
    fn a_fallback_may_have_a_model_of_the_tier_that_it_stands_in_for() {
        let table = table(json!([
            {"name": "a", "type": "OpenAI", "tiers": {"fast": "m"}, "fallback": ["b"]},
            {"name": "b", "type": "Kimi", "tiers": {"fast": "k"}},
            {"name": "c", "type": "OpenRouter", "tiers": {"fast": "r"}},
        ]));
        assert!(table.conflicts(1).is_empty());
        assert_eq!(table.conflicts(2), ["the tier `fast` belongs to `a`"]);
    }

    #[test]
    fn a_fallback_is_asked_for_its_own_model_of_the_tier_or_name() {
        let table = table(json!([
            {"name": "a", "type": "OpenAI", "tiers": {"fast": "m"}, "fallback": ["b", "c", "a", "nobody", "d", "b"]},
            {"name": "b", "type": "Kimi", "tiers": {"fast": "k"}},
            {"name": "c", "type": "OpenRouter", "models": ["other"]},
            {"name": "d", "type": "OpenRouter", "route": {"prefixes": ["d/"]}, "tiers": {"m": "vendor/m"}},
        ]));
        let instead = |asked: &str| {
            let target = table.route(asked).unwrap();
            let shown = |target: Target| (target.provider, target.model);
            table.fallbacks(&target, asked).into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(instead("fast"), [(1, "k".to_owned()), (3, "vendor/m".to_owned())]);
        assert_eq!(instead("openai/z"), [(1, "z".to_owned()), (3, "z".to_owned())]);
    }

    #[test]
    fn a_public_name_leads_back_to_its_model() {
        let table = all();
        assert_eq!(table.public_name(0, "qwen3.5:latest").unwrap(), "qwen3.5:latest");
        assert_eq!(table.public_name(0, "x:cloud").unwrap(), "ollama/x:cloud");
        assert_eq!(table.public_name(2, "a/b").unwrap(), "openrouter/a/b");
        assert_eq!(table.public_name(1, "kimi-k2.6").unwrap(), "ollama_cloud/kimi-k2.6");
    }

    fn all() -> Table {
        table(json!([
            {"name": "home", "type": "Ollama", "url": "http://h", "route": {"default": true},
             "tiers": {"local_fast": "qwen3.5:latest"}},
            {"name": "cloud", "type": "OllamaCloud", "tiers": {"cloud_judge": "kimi-k2.6"}},
            {"name": "router", "type": "OpenRouter"},
            {"name": "code", "type": "OpenCode"},
            {"name": "moon", "type": "Kimi"},
        ]))
    }

    fn table(providers: Value) -> Table {
        let Providers { providers } = serde_json::from_value(json!({ "providers": providers })).unwrap();
        Table::new(&providers)
    }

    /// `provider model`, or what the error says.
    fn shown(table: &Table, name: &str) -> String {
        match table.route(name) {
            Ok(target) => format!("{} {}", table.entries[target.provider].name, target.model),
            Err(error) => error.message,
        }
    }
}
