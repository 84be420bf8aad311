//! Brings every ChatProvider to those who ask it, and tells how it is, for as long as the process runs.
//!
//! ```text
//! files changed ─► keys, list ─► chatd, embedd ─► looks ─► status
//!                       └─► indexes
//! ```
//! Where two claim the same names, the first of the alphabet has them: on a laptop none is older than another.

mod keys;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_chat::Chatd;
use lakehouse_contract::{chat::ProviderInfo, names::digest};
use lakehouse_crds::ChatProvider;
use lakehouse_embed::{Embedd, Embedder};
use lakehouse_plan::{
    ReadyProvider,
    chat_provider::{check, fallback_failure},
    status::{self, EmbedderFacts, LookFacts, ProviderFacts, SecretFacts, ServedFacts},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    failure,
    up::{inputs::Inputs, resources::Resources, screen::Screen},
};
pub(crate) use keys::Keys;

/// How often it is read what chatd has seen. Nobody else is asked for that.
const GLANCE: Duration = Duration::from_secs(1);
/// How often a model for embeddings is asked what it is, where a provider has no others.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long that may take before the status says that it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hands providers on, and tells what came of it.
pub(crate) struct Controller {
    pub(crate) chatd: Chatd,
    pub(crate) embedd: Embedd,
    pub(crate) keys: Keys,
    pub(crate) resources: Resources,
    pub(crate) screen: Screen,
    pub(crate) endpoint: String,
    /// Those who need the providers hear of new inputs when these are ready.
    pub(crate) ready: watch::Sender<Arc<Inputs>>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// A ChatProvider under control.
pub(crate) struct Entry {
    declared: ChatProvider,
    /// What is known of its model, where it has models for embeddings alone, and since when.
    model: Option<(Instant, EmbedderFacts)>,
}

impl Controller {
    /// Runs for ever.
    pub(crate) async fn run(mut self, mut followed: watch::Receiver<Arc<Inputs>>) {
        loop {
            self.look().await;
            tokio::select! {
                changed = followed.changed() => {
                    if changed.is_err() {
                        return; // the follower has ended, so the process is about to
                    }
                    let inputs = followed.borrow_and_update().clone();
                    self.accept(inputs);
                }
                () = tokio::time::sleep(GLANCE) => {}
            }
        }
    }

    /// Takes new inputs, and lets the others have them.
    pub(crate) fn accept(&mut self, inputs: Arc<Inputs>) {
        for problem in self.keys.accept(&inputs) {
            self.screen.problem(&problem);
        }
        self.entries.retain(|name, _| {
            let stays = inputs.providers.contains_key(name);
            if !stays {
                self.resources.remove_provider(name);
            }
            stays
        });
        for (name, declared) in &inputs.providers {
            self.declare(name, declared);
        }
        self.ready.send_replace(inputs);
    }

    fn declare(&mut self, name: &str, declared: &ChatProvider) {
        let known = self.entries.get(name).map(|entry| &entry.declared);
        let generation = known.map_or(1, |known| {
            known.metadata.generation.unwrap_or(1) + i64::from(known.spec != declared.spec)
        });
        let created = known.and_then(|known| known.metadata.creation_timestamp.clone());
        let mut declared = declared.clone();
        declared.metadata.generation = Some(generation);
        declared.metadata.creation_timestamp = Some(created.unwrap_or_else(|| Time(Timestamp::now())));
        self.entries.insert(name.to_owned(), Entry { declared, model: None });
    }

    /// Tells of each provider what has been seen of it.
    async fn look(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let list = self.chatd.providers().await.providers;
        for entry in self.entries.values_mut() {
            ask_model(&self.embedd, entry).await;
        }
        for (name, entry) in &self.entries {
            self.tell(name, entry, list.iter().find(|info| info.name == *name)).await;
        }
    }

    async fn tell(&self, name: &str, entry: &Entry, info: Option<&ProviderInfo>) {
        let spec = check(&entry.declared);
        let ready = spec.as_ref().ok();
        let facts = ProviderFacts {
            generation: entry.declared.metadata.generation,
            spec: spec.as_ref(),
            secret: ready.map(|ready| self.secret(ready)).unwrap_or_default(),
            look: ready.map(|ready| self.seen(ready, entry, info)).unwrap_or_default(),
            served: ServedFacts::Serving { endpoint: self.endpoint.clone(), version: 0 },
            fallback: ready.and_then(|ready| {
                fallback_failure(ready, |name| self.entries.get(name).map(|entry| &entry.declared))
            }),
        };
        let previous = self.resources.provider_status(name);
        let status = status::chat_provider(previous.as_ref(), &facts, Timestamp::now());
        let news = previous.as_ref() != Some(&status);
        if news {
            let model = self.chatd.models().await.into_iter().find(|model| {
                *model.provider == *name
                    && ready.is_some_and(|ready| !ready.embeddings().contains(&model.model))
            });
            self.screen.provider(name, &status, model.map(|model| model.name).as_deref(), &self.endpoint);
        }
        self.resources.put_provider(ChatProvider { status: Some(status), ..entry.declared.clone() });
    }

    fn secret(&self, ready: &ReadyProvider) -> SecretFacts {
        let Some(key) = &ready.key else { return SecretFacts::NotNeeded };
        let inputs = self.ready.borrow();
        match inputs.text("Secret", &key.name) {
            Err(_) => SecretFacts::Missing,
            // The first digits of a digest tell a change, and no key.
            Ok(secret) => SecretFacts::Found(digest(&[
                &key.name,
                &key.key,
                &String::from_utf8_lossy(secret.entry(&key.key).unwrap_or_default()),
            ])),
        }
    }

    fn seen<'a>(
        &self,
        ready: &ReadyProvider,
        entry: &Entry,
        info: Option<&'a ProviderInfo>,
    ) -> LookFacts<'a> {
        if ready.suspend {
            return LookFacts::NotYet;
        }
        if !ready.chats() {
            return LookFacts::Embeds(entry.model.as_ref().map(|(_, facts)| facts.clone()));
        }
        let behind = || "It is about to be read.".to_owned();
        match info {
            None => LookFacts::Waiting(behind()),
            Some(info) => LookFacts::Told(info, (info.digest != self.keys.told(ready).digest()).then(behind)),
        }
    }
}

/// Asks the first model of a provider that has models for embeddings alone what it is.
async fn ask_model(embedd: &Embedd, entry: &mut Entry) {
    let Ok(ready) = check(&entry.declared) else { return };
    let Some(model) = ready.embeddings().first().filter(|_| !ready.chats() && !ready.suspend) else { return };
    if entry.model.as_ref().is_some_and(|(asked, _)| asked.elapsed() < ASK_AGAIN) {
        return;
    }
    let name = format!("{}/{model}", ready.name);
    let facts = match timeout(PATIENCE, embedd.identity(&name)).await {
        Ok(Ok(identity)) => EmbedderFacts::Answers(identity),
        Ok(Err(error)) => EmbedderFacts::Failed(failure::of_embedder(&error)),
        Err(_) => EmbedderFacts::Waiting(format!("`{name}` has not answered yet.")),
    };
    entry.model = Some((Instant::now(), facts));
}
