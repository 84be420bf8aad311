//! What the types of the settings cannot say.

use k8s_openapi::{api::core::v1::EnvVar, apimachinery::pkg::api::resource::Quantity};
use lakehouse_contract::Key;
use url::Url;

use super::{Resources, Settings};
use crate::cluster::{meta, quantity};

/// Everything that is wrong with the settings, each with its field.
pub(super) fn problems(settings: &Settings) -> Vec<String> {
    let mut problems = Problems::default();
    let Settings {
        image,
        image_pull_policy: _,
        image_pull_secrets,
        store,
        token_secret,
        gateway,
        query,
        ingest,
        vectors,
        build,
        embed,
        chat,
        pods,
        log_level,
    } = settings;
    problems.add("image", text(image));
    for (i, secret) in image_pull_secrets.iter().enumerate() {
        problems.add(&format!("imagePullSecrets[{i}]"), object_name(secret));
    }
    problems.add("store.url", store_url(&store.url));
    problems.add("store.endpoint", store.endpoint.as_deref().and_then(address));
    problems.add("store.region", store.region.as_deref().and_then(text));
    problems.add("store.secret", object_name(&store.secret));
    problems.add("tokenSecret", object_name(token_secret));
    problems.add("gateway.replicas", at_least_one(gateway.replicas));
    problems.add("query.replicas", at_least_one(query.replicas));
    problems.resources("gateway.resources", &gateway.resources);
    problems.resources("query.resources", &query.resources);
    problems.resources("ingest.resources", &ingest.resources);
    problems.add("query.cacheSize", size(&query.cache_size));
    problems.add("ingest.spoolSize", size(&ingest.spool_size));
    problems.job("ingest", ingest.backoff_limit, ingest.active_deadline_seconds);
    problems.add("vectors.replicas", at_least_one(vectors.replicas));
    problems.resources("vectors.resources", &vectors.resources);
    problems.add("vectors.cacheSize", size(&vectors.cache_size));
    problems.resources("build.resources", &build.resources);
    problems.add("build.spoolSize", size(&build.spool_size));
    problems.job("build", build.backoff_limit, build.active_deadline_seconds);
    problems.add("embed.replicas", at_least_one(embed.replicas));
    problems.resources("embed.resources", &embed.resources);
    problems.add("embed.cacheSize", size(&embed.cache_size));
    problems.add("embed.modelsClaim", embed.models_claim.as_deref().and_then(object_name));
    problems.add("chat.replicas", at_least_one(chat.replicas));
    problems.resources("chat.resources", &chat.resources);
    for (i, variable) in chat.extra_env.iter().enumerate() {
        problems
            .add(&format!("chat.extraEnv[{i}].name"), variable_name(&chat.extra_env[..i], &variable.name));
    }
    problems.add("pods.priorityClassName", pods.priority_class_name.as_deref().and_then(object_name));
    for (field, keys) in [("pods.labels", pods.labels.keys()), ("pods.annotations", pods.annotations.keys())]
    {
        for key in keys.filter(|key| meta::is_ours(key)) {
            problems.add(field, Some(format!("`{key}` is set by the operator itself; choose another key")));
        }
    }
    problems.add("logLevel", text(log_level));
    problems.0
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, field: &str, sentence: Option<String>) {
        self.0.extend(sentence.map(|sentence| format!("{field}: {sentence}")));
    }

    fn job(&mut self, field: &str, tries: i32, deadline: Option<i64>) {
        let is_sound = (0..=100).contains(&tries);
        self.add(&format!("{field}.backoffLimit"), (!is_sound).then(|| "must be from 0 to 100".to_owned()));
        let soon = deadline.is_some_and(|seconds| seconds < 1);
        self.add(&format!("{field}.activeDeadlineSeconds"), soon.then(|| "must be at least 1".to_owned()));
    }

    fn resources(&mut self, field: &str, resources: &Resources) {
        let Resources { requests, limits } = resources;
        for (part, amounts) in [("requests", requests), ("limits", limits)] {
            for (name, amount) in amounts {
                self.add(&format!("{field}.{part}.{name}"), size(amount));
            }
        }
        for (name, request) in requests {
            if let Some(limit) = limits.get(name)
                && quantity::value(request) > quantity::value(limit)
            {
                let sentence = format!("{} is more than the limit of {}", request.0, limit.0);
                self.add(&format!("{field}.requests.{name}"), Some(sentence));
            }
        }
    }
}

fn text(text: &str) -> Option<String> {
    let sound = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    (!sound).then(|| format!("{text:?} is empty or holds white space"))
}

fn at_least_one(replicas: u16) -> Option<String> {
    (replicas == 0).then(|| "must be at least 1".to_owned())
}

fn size(quantity: &Quantity) -> Option<String> {
    let sound = quantity::value(quantity).is_some_and(|amount| amount > 0.0);
    (!sound).then(|| format!("`{}` is no amount above zero, such as `500m` or `2Gi`", quantity.0))
}

/// A name that is neither the operator's own nor one of those before it.
fn variable_name(before: &[EnvVar], name: &str) -> Option<String> {
    let ours = name == "HOME" || ["LAKEHOUSE_", "AWS_"].iter().any(|prefix| name.starts_with(prefix));
    text(name)
        .or_else(|| ours.then(|| format!("`{name}` is set by the operator itself")))
        .or_else(|| before.iter().any(|other| other.name == name).then(|| format!("`{name}` is there twice")))
}

/// RFC 1123 subdomain, as the names of Secrets are.
fn object_name(name: &str) -> Option<String> {
    let sound = (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    (!sound).then(|| format!("`{name}` cannot be an object's name: lower-case letters, digits, `-` and `.`"))
}

fn store_url(url: &str) -> Option<String> {
    let Some(path) = url.strip_prefix("s3://") else {
        return Some(format!("`{url}` must start with `s3://` and name a bucket"));
    };
    let (bucket, prefix) =
        path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    let named = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !named {
        return Some(format!("`{bucket}` is no bucket's name"));
    }
    (!prefix.is_empty()).then(|| Key::parse(prefix).err())?.map(|error| error.to_string())
}

/// An address without credentials; it is not repeated, because it may hold them.
fn address(address: &str) -> Option<String> {
    match Url::parse(address) {
        Err(error) => Some(format!("is no URL: {error}")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Some("must start with `http://` or `https://`".to_owned())
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must not hold a user or password; those belong into the Secret `store.secret`".to_owned())
        }
        Ok(_) => None,
    }
}
