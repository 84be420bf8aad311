//! Checks a ChatProvider once, and carries the proof in a type.
//!
//! Hands on a [`ReadyProvider`], which the services are told of, and what is wrong with the names by which resources refer to one.

use std::collections::BTreeMap;

use lakehouse_contract::provider::{Limits, Provider, ProviderKind, Route};
use lakehouse_crds::{
    ChatProvider,
    chat_provider::{Limits as SpecLimits, Route as SpecRoute, Timeouts},
    common::KeyRef,
};
use url::Url;

use crate::{Problem, Reason, Refusal, convert, dataset, status::Failure};

/// A ChatProvider that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyProvider {
    /// The resource's name.
    pub name: String,
    /// The resource's namespace.
    pub namespace: String,
    /// Where its key is.
    pub key: Option<KeyRef>,
    /// Whether it is taken out of everything.
    pub suspend: bool,
    kind: ProviderKind,
    url: Option<Url>,
    embeddings: Vec<String>,
    route: Route,
    models: Vec<String>,
    tiers: BTreeMap<String, String>,
    weak_models: Vec<String>,
    fallback: Vec<String>,
    limits: Limits,
}

impl ReadyProvider {
    /// Whether it offers models for embeddings.
    pub fn embeds(&self) -> bool {
        !self.embeddings.is_empty()
    }

    /// Whether it offers language models.
    pub fn chats(&self) -> bool {
        self.kind != ProviderKind::Voyage
    }

    /// Its models for embeddings.
    pub fn embeddings(&self) -> &[String] {
        &self.embeddings
    }

    /// The models that may be asked for; any when empty.
    pub fn allowed(&self) -> &[String] {
        &self.models
    }

    /// Its address, where the spec says one.
    pub fn url(&self) -> Option<&str> {
        self.url.as_ref().map(|url| url.as_str().trim_end_matches('/'))
    }

    /// As a service is told of it, with the file that its key is in.
    pub fn provider(&self, key_file: Option<std::path::PathBuf>) -> Provider {
        Provider {
            name: self.name.clone(),
            kind: self.kind,
            url: self.url().map(str::to_owned),
            key_file,
            embeddings: self.embeddings.clone(),
            route: self.route.clone(),
            models: self.models.clone(),
            tiers: self.tiers.clone(),
            weak_models: self.weak_models.clone(),
            fallback: self.fallback.clone(),
            limits: self.limits,
        }
    }
}

/// Why the ChatProvider that an index names cannot embed, as far as the resources tell. `has_secret` knows the namespace's Secrets.
pub fn failure(
    name: &str,
    namespace: &str,
    provider: Option<&ChatProvider>,
    has_secret: impl Fn(&str) -> bool,
) -> Option<Failure> {
    let named = format!("The ChatProvider `{name}`, which `spec.embedding.provider` names,");
    let Some(provider) = provider else {
        let message = format!("{named} is not in the namespace `{namespace}`.");
        return Some(Failure::new(Reason::ProviderMissing, message));
    };
    match check(provider) {
        Err(refusal) => Some(Failure::new(refusal.reason(), format!("{named} is refused: {refusal}"))),
        Ok(ReadyProvider { suspend: true, .. }) => {
            Some(Failure::new(Reason::ProviderMissing, format!("{named} is suspended.")))
        }
        Ok(ReadyProvider { key: Some(key), .. }) if !has_secret(&key.name) => {
            let message = format!(
                "The Secret `{}` with the key of the ChatProvider `{name}` is not in the namespace `{namespace}`. Create it \
                 with the entry `{}`.",
                key.name, key.key
            );
            Some(Failure::new(Reason::SecretMissing, message))
        }
        Ok(_) => None,
    }
}

/// Why nobody can be asked instead of a provider whose spec names `names` as its fallback; the first such name. `find` knows the
/// namespace's `ChatProviders`.
pub fn fallback_failure<'a>(
    provider: &ReadyProvider,
    find: impl Fn(&str) -> Option<&'a ChatProvider>,
) -> Option<Failure> {
    provider.fallback.iter().find_map(|name| {
        let why = match find(name).map(check) {
            None => format!("is not in the namespace `{}`", provider.namespace),
            Some(Err(refusal)) => format!("is refused: {refusal}"),
            Some(Ok(other)) if other.suspend => "is suspended".to_owned(),
            Some(Ok(other)) if !other.chats() => "has no language models".to_owned(),
            Some(Ok(_)) => return None,
        };
        let message = format!("The ChatProvider `{name}`, which `spec.fallback` names, {why}.");
        Some(Failure::new(Reason::ProviderMissing, message))
    })
}

/// Checks a ChatProvider. Every problem is found, not only the first.
pub fn check(provider: &ChatProvider) -> Result<ReadyProvider, Refusal> {
    let mut problems = Vec::new();
    let spec = &provider.spec;
    let name = provider.metadata.name.clone().unwrap_or_default();
    if name == "local" {
        let sentence = "`local` stands for the models that run inside the service; choose another name";
        problems.push(Problem::new("metadata.name", Reason::InvalidName, sentence));
    }
    let kind = convert::provider(spec.provider_type);
    if kind != ProviderKind::Ollama && spec.api_key_secret_ref.is_none() {
        let sentence = "this type needs a key: set it to the Secret that holds the key";
        problems.push(Problem::new("spec.apiKeySecretRef", Reason::InvalidSpec, sentence));
    }
    if let Some(key) = &spec.api_key_secret_ref
        && !is_entry(&key.key)
    {
        let sentence = "cannot be an entry of a Secret: letters, digits, `-`, `_` and `.`";
        problems.push(Problem::new("spec.apiKeySecretRef.key", Reason::InvalidSpec, sentence));
    }
    let url = spec.url.as_ref().and_then(|url| {
        let address =
            dataset::address("spec.url", url, "`apiKeySecretRef`", Reason::InvalidSpec, &mut problems);
        address.filter(|url| {
            let bare = url.query().is_none() && url.fragment().is_none();
            if !bare {
                let sentence = "must hold neither a query nor a fragment; paths are added to it";
                problems.push(Problem::new("spec.url", Reason::InvalidSpec, sentence));
            }
            bare
        })
    });
    if kind == ProviderKind::Ollama && spec.url.is_none() {
        let sentence = "an Ollama server has no well-known address; say where it is";
        problems.push(Problem::new("spec.url", Reason::InvalidSpec, sentence));
    }
    let limits = limits(spec.limits.as_ref(), &mut problems);
    if !problems.is_empty() {
        return Err(Refusal::new(problems));
    }
    Ok(ReadyProvider {
        name,
        namespace: dataset::namespace(&provider.metadata),
        key: spec.api_key_secret_ref.clone(),
        suspend: spec.suspend.unwrap_or(false),
        kind,
        url,
        embeddings: spec.embeddings.as_ref().map(|embeddings| embeddings.models.clone()).unwrap_or_default(),
        route: route(spec.route.as_ref()),
        models: spec.models.clone(),
        tiers: spec.tiers.clone(),
        weak_models: spec.weak_models.clone(),
        fallback: spec.fallback.clone(),
        limits,
    })
}

/// Whether a Secret can have an entry of this name. The API server would refuse the pods of all providers for one that cannot be.
fn is_entry(key: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !key.is_empty() && key.bytes().all(sound) && key != "." && !key.starts_with("..")
}

fn route(route: Option<&SpecRoute>) -> Route {
    let SpecRoute { prefixes, suffixes, strip_prefix, default } = route.cloned().unwrap_or_default();
    Route {
        prefixes,
        suffixes,
        strip_prefix: strip_prefix.unwrap_or(true),
        default: default.unwrap_or(false),
    }
}

fn limits(limits: Option<&SpecLimits>, problems: &mut Vec<Problem>) -> Limits {
    let Some(SpecLimits { max_concurrent, requests_per_minute, timeouts }) = limits else {
        return Limits::default();
    };
    let Timeouts { connect, first_token, idle, total } = timeouts.clone().unwrap_or_default();
    let mut span = |name: &str, text: Option<String>| {
        let text = text?;
        let span = milliseconds(&text);
        if span.is_none() {
            problems.push(Problem::new(
                format!("spec.limits.timeouts.{name}"),
                Reason::InvalidSpec,
                "must be a duration above zero with its unit, such as `500ms`, `30s` or `2m`",
            ));
        }
        span
    };
    Limits {
        max_concurrent: *max_concurrent,
        requests_per_minute: *requests_per_minute,
        connect_ms: span("connect", connect),
        first_token_ms: span("firstToken", first_token),
        idle_ms: span("idle", idle),
        total_ms: span("total", total),
    }
}

/// A time span such as `1m30s` in milliseconds; `None` when it is none, or nothing.
fn milliseconds(text: &str) -> Option<u64> {
    let mut sum = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = tail;
    }
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_service_is_told_what_it_needs() {
        let ready = ready(json!({
            "type": "OpenAI", "url": "https://models.example/v1/", "apiKeySecretRef": {"name": "k", "key": "token"},
            "embeddings": {"models": ["small", "large"]},
            "route": {"prefixes": ["big/"], "default": true}, "tiers": {"judge": "large"}, "fallback": ["other"],
            "limits": {"maxConcurrent": 4, "timeouts": {"connect": "500ms", "total": "1m30s"}},
        }));
        let told = ready.provider(Some("/keys/token".into()));
        assert_eq!((told.name.as_str(), told.kind), ("up", ProviderKind::OpenAI));
        assert_eq!(told.url.as_deref(), Some("https://models.example/v1"));
        assert_eq!(told.embeddings, ["small", "large"]);
        assert_eq!(
            (told.limits.connect_ms, told.limits.total_ms, told.limits.idle_ms),
            (Some(500), Some(90_000), None)
        );
        assert_eq!(
            (told.route.prefixes, told.route.strip_prefix, told.route.default),
            (vec!["big/".to_owned()], true, true)
        );
        assert_eq!((told.tiers["judge"].as_str(), told.fallback), ("large", vec!["other".to_owned()]));
        assert!(ready.embeds() && !ready.suspend);
    }

    #[test]
    fn every_problem_is_told_and_no_password_with_it() {
        let spec = json!({"type": "Kimi", "url": "https://me:hunter2@h", "limits": {"timeouts": {"idle": "0s", "connect": "5"}}});
        let refusal = check(&provider("local", spec)).unwrap_err();
        let fields: Vec<_> = refusal.problems().iter().map(|problem| problem.field.as_str()).collect();
        let timeouts = ["spec.limits.timeouts.connect", "spec.limits.timeouts.idle"];
        assert_eq!(fields, ["metadata.name", "spec.apiKeySecretRef", "spec.url", timeouts[0], timeouts[1]]);
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }

    #[test]
    fn a_provider_that_cannot_embed_is_told() {
        let reason = |provider: Option<&ChatProvider>, has: bool| {
            failure("up", "team", provider, |_| has).map(|failure| failure.reason)
        };
        let secret = json!({"name": "k", "key": "token"});
        let sound = provider("up", json!({"type": "Voyage", "apiKeySecretRef": secret}));
        assert_eq!(reason(None, true), Some(Reason::ProviderMissing));
        assert_eq!(
            (reason(Some(&sound), true), reason(Some(&sound), false)),
            (None, Some(Reason::SecretMissing))
        );
        let suspended = provider("up", json!({"type": "Ollama", "url": "http://h", "suspend": true}));
        assert_eq!(reason(Some(&suspended), true), Some(Reason::ProviderMissing));
        assert_eq!(reason(Some(&provider("up", json!({"type": "Ollama"}))), true), Some(Reason::InvalidSpec));
    }

    #[test]
    fn time_spans_are_sums_of_numbers_with_units() {
        for (text, span) in [
            ("2h", Some(7_200_000)),
            ("1s500ms", Some(1_500)),
            ("0s", None),
            ("5", None),
            ("s", None),
            ("", None),
            ("99999999999999999999h", None),
            ("9999999999999999h", None),
        ] {
            assert_eq!(milliseconds(text), span, "{text}");
        }
    }

    fn ready(spec: Value) -> ReadyProvider {
        check(&provider("up", spec)).unwrap()
    }

    fn provider(name: &str, spec: Value) -> ChatProvider {
        ChatProvider::new(name, serde_json::from_value(spec).unwrap())
    }
}
