//! Brings one ChatProvider from its spec to its status.
//!
//! It has no objects of its own: what its namespace's pods are told of it is in [`crate::namespace`]. Here is told what came of that.
//!
//! ```text
//! stores, pods ─► observe ─► status (pure) ─► report
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use lakehouse_contract::names::digest;
use lakehouse_crds::{ChatProvider, ChatProviderStatus, conditions::READY};
use lakehouse_plan::{
    ReadyProvider,
    chat_provider::{check, fallback_failure},
    cluster::serving::{self, ChatObserved, Look},
    status::{self, EmbedderFacts, LookFacts, PROBE_RENEWAL, ProviderFacts, SecretFacts, ServedFacts},
};

use crate::{
    context::Context,
    end::{SOON, until},
    error::Error,
    key::Key,
    queue::Next,
    services::LOOK_EVERY,
};

/// How often pods are asked that have not read an edit yet, or have not looked at the provider since.
const AGAIN: Duration = Duration::from_secs(2);

/// Brings one ChatProvider from its spec to its status.
pub(crate) async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Next, Error> {
    let Some(seen) = context.wake.world.providers.get(namespace, name) else {
        context.services.forget_provider(namespace, name);
        context.providers.forget(namespace, name);
        return Ok(Next::Settled);
    };
    let provider = &*seen.object;
    if provider.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Settled); // whoever holds it back has nothing to do with us: it keeps no data
    }
    let last = context.providers.last(provider);
    let looks = context.services.looks(namespace, name);
    let spec = check(provider);
    let model = spec.as_ref().ok().and_then(|ready| model(context, ready));
    let was_ready = is_ready(last.as_ref(), provider.metadata.generation);
    if was_ready && (has_not_looked(&looks) || model == Some(EmbedderFacts::Unknown)) {
        // A new operator, or a new pod: what nobody has seen yet is no reason to take back what was told.
        context.services.look_at_providers(namespace);
        return Ok(Next::After(SOON));
    }
    let (world, settings) = (&context.wake.world, &context.settings);
    if !world.is_prepared(namespace, &settings.token_secret) && context.refusals.of(namespace).is_none() {
        return Ok(Next::After(SOON)); // its coming wakes us before that
    }
    let look = match &spec {
        Ok(ReadyProvider { suspend: true, .. }) | Err(_) => LookFacts::NotYet,
        Ok(ready) if ready.chats() => serving::look(ready, &looks),
        Ok(_) => LookFacts::Embeds(model),
    };
    let is_behind = match &look {
        LookFacts::Waiting(_) => true,
        LookFacts::Told(info, behind) => behind.is_some() || info.probe.is_none(),
        LookFacts::NotYet | LookFacts::Embeds(_) | LookFacts::Failed(_) => false,
    };
    let facts = ProviderFacts {
        generation: provider.metadata.generation,
        spec: spec.as_ref(),
        secret: spec.as_ref().map(|ready| secret(context, ready)).unwrap_or_default(),
        served: served(context, namespace, spec.as_ref().is_ok_and(ReadyProvider::chats)),
        fallback: spec.as_ref().ok().and_then(|ready| fallback(context, ready)),
        look,
    };
    let status = status::chat_provider(last.as_ref(), &facts, Timestamp::now());
    let is_seen = matches!(facts.look, LookFacts::Told(..));
    let told = status.last_probe.as_ref().filter(|_| is_seen).map(|at| at.0);
    context.providers.report(provider, last.as_ref(), status).await?;
    if is_behind {
        context.services.look_at_providers(namespace);
        return Ok(Next::After(AGAIN));
    }
    // The time of the last look grows old. Where nobody has looked since, nothing is sent.
    Ok(told.map_or(Next::Settled, |at| Next::After(until(at + PROBE_RENEWAL).max(LOOK_EVERY))))
}

/// Whether it was ready by this generation of its spec.
fn is_ready(status: Option<&ChatProviderStatus>, generation: Option<i64>) -> bool {
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| {
        condition.type_ == READY && condition.status == "True" && condition.observed_generation == generation
    })
}

/// Whether a pod is ready but has not been asked yet, or has not looked at the provider yet. Either takes seconds.
fn has_not_looked(looks: &[(Arc<Pod>, Look)]) -> bool {
    looks.iter().filter(|(pod, _)| serving::is_ready(pod)).any(|(_, look)| match look {
        Look::Unknown => true,
        Look::Says(info) => info.probe.is_none(),
        Look::Absent | Look::Unreachable(_) => false,
    })
}

/// What is known of the first of its models, where it has models for embeddings alone.
fn model(context: &Context, provider: &ReadyProvider) -> Option<EmbedderFacts> {
    let namespace = provider.namespace.as_str();
    let by = Key::chat_provider(namespace, provider.name.as_str());
    let Some(model) = provider.embeddings().first().filter(|_| !provider.chats() && !provider.suspend) else {
        context.services.want_no_model(&by);
        return None;
    };
    let known = context.services.model(&by, &format!("{}/{model}", provider.name));
    if known != EmbedderFacts::Unknown {
        return Some(known);
    }
    let pods = context.services.embedders(namespace);
    Some(serving::embedder(&pods, &context.reader.deployments(namespace)).unwrap_or(known))
}

fn secret(context: &Context, provider: &ReadyProvider) -> SecretFacts {
    let Some(key) = &provider.key else { return SecretFacts::NotNeeded };
    match context.wake.world.secrets.get(&provider.namespace, &key.name) {
        Some(stamp) => SecretFacts::Found(digest(&[&stamp.identity(), &key.key])),
        None => SecretFacts::Missing,
    }
}

fn fallback(context: &Context, provider: &ReadyProvider) -> Option<status::Failure> {
    let all = context.wake.world.providers.of(&provider.namespace);
    let find = |name: &str| -> Option<&ChatProvider> {
        all.iter().map(|seen| &*seen.object).find(|other| other.metadata.name.as_deref() == Some(name))
    };
    fallback_failure(provider, find)
}

/// Whether requests find somebody who passes them on.
fn served(context: &Context, namespace: &str, chats: bool) -> ServedFacts {
    let (gateway, deployments) = (context.services.gateway(namespace), context.reader.deployments(namespace));
    let observed = ChatObserved {
        namespace,
        deployments: &deployments,
        gateway: &gateway,
        chat: &context.services.chatters(namespace),
        chats,
    };
    serving::chat_facts(&observed).with(context.refusals.of(namespace))
}
