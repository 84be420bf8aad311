//! Which keys an event concerns.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use kube::{Resource, ResourceExt};
use lakehouse_contract::DatasetName;
use lakehouse_crds::{ChatProvider, Dataset, DatasetSpec, VectorIndex, VectorIndexSpec};
use lakehouse_plan::{
    cluster::{Kind, ObjectName, ResourceKind, Settings, meta::Component},
    status::DatasetFacts,
};

use super::{
    World,
    seen::{Labels, Outline, Stamp, Whole},
};
use crate::{apply::Memory, key::Key, queue::Queue, services::Services, store::Change};

/// What concerns many keys comes in bursts: they wait this long for the rest of it.
const BURST: Duration = Duration::from_millis(300);

/// Knows whom to wake. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Wake {
    /// What is known.
    pub world: World,
    /// Who is to be looked at.
    pub queue: Queue<Key>,
    /// What was applied.
    pub memory: Memory,
    /// The pods' side.
    pub services: Services,
    /// The operator's settings.
    pub settings: Arc<Settings>,
}

impl Wake {
    /// Everything is to be looked at: this operator has begun to lead.
    pub fn all(&self) {
        let World { datasets, indexes, providers, deployments, .. } = &self.world;
        for (namespace, name) in providers.names() {
            self.queue.add(Key::chat_provider(namespace, name));
        }
        for (namespace, name) in datasets.names() {
            self.queue.add(Key::dataset(namespace, name));
        }
        for (namespace, name) in indexes.names() {
            self.queue.add(Key::vector_index(namespace, name));
        }
        // A namespace whose last resource went while nobody led still holds what was theirs.
        let ours =
            [datasets.namespaces(), indexes.namespaces(), providers.namespaces(), deployments.namespaces()];
        for namespace in ours.into_iter().flatten() {
            self.queue.add(Key::Namespace(namespace));
        }
    }

    /// All Datasets of a namespace are to be looked at.
    pub fn datasets_of(&self, namespace: &str) {
        for name in self.world.datasets.names_of(namespace) {
            self.queue.add_after(Key::dataset(namespace, name), BURST);
        }
    }

    /// All `VectorIndexes` of a namespace are to be looked at.
    pub fn indexes_of(&self, namespace: &str) {
        for name in self.world.indexes.names_of(namespace) {
            self.queue.add_after(Key::vector_index(namespace, name), BURST);
        }
    }

    /// All `ChatProviders` of a namespace are to be looked at.
    pub fn providers_of(&self, namespace: &str) {
        for name in self.world.providers.names_of(namespace) {
            self.queue.add_after(Key::chat_provider(namespace, name), BURST);
        }
    }

    /// All resources of a namespace are to be looked at.
    pub fn resources_of(&self, namespace: &str) {
        self.datasets_of(namespace);
        self.indexes_of(namespace);
        self.providers_of(namespace);
    }

    pub(super) fn dataset(&self, change: &Change<Whole<Dataset>>) {
        let Change { namespace, name, before, after } = change;
        let (before, after) = (before.as_deref(), after.as_deref());
        // A status is our own word; only indexes need to be woken by it.
        if before.map(asked) != after.map(asked) {
            self.queue.add(Key::dataset(namespace, name));
        }
        if before.map(tells_indexes) != after.map(tells_indexes) {
            self.indexes_that(namespace, |spec| {
                spec.source.as_ref().is_some_and(|source| source.dataset == *name)
            });
        }
        self.belonging(namespace, before.map(belongs) != after.map(belongs));
    }

    pub(super) fn index(&self, change: &Change<Whole<VectorIndex>>) {
        let Change { namespace, name, before, after } = change;
        let (before, after) = (before.as_deref(), after.as_deref());
        if before.map(asked) != after.map(asked) {
            self.queue.add(Key::vector_index(namespace, name));
        }
        // Which models it names decides who embeds.
        let needs = |index: &Whole<VectorIndex>| (belongs(index), index.object.spec.embedding.clone());
        self.belonging(namespace, before.map(needs) != after.map(needs));
    }

    pub(super) fn provider(&self, change: &Change<Whole<ChatProvider>>) {
        let Change { namespace, name, before, after } = change;
        let (before, after) = (before.as_deref(), after.as_deref());
        // A status is our own word, and nobody else follows it.
        if before.map(asked) != after.map(asked) {
            self.queue.add(Key::chat_provider(namespace, name));
        }
        let says = |provider: &Whole<ChatProvider>| (belongs(provider), provider.object.spec.clone());
        let is_news = before.map(says) != after.map(says);
        if is_news {
            self.services.ask_models_again(namespace);
            self.indexes_of(namespace);
            // Others may name it as their fallback.
            self.providers_of(namespace);
        }
        self.belonging(namespace, is_news);
    }

    /// Whether a namespace needs its shared objects may have changed.
    fn belonging(&self, namespace: &str, has_changed: bool) {
        if has_changed && self.world.is_prepared(namespace, &self.settings.token_secret) {
            self.shared(namespace);
        } else if has_changed {
            // The first resource of a namespace: its pods wait for nothing but this.
            self.queue.add(Key::Namespace(namespace.to_owned()));
        }
    }

    pub(super) fn job(&self, change: &Change<Whole<Job>>) {
        self.gone(Kind::Job, change);
        if let Some(object) = change.after.as_deref().or(change.before.as_deref()) {
            self.owner(&change.namespace, &Labels::of(&*object.object));
        }
    }

    pub(super) fn pod(&self, change: &Change<Whole<Pod>>) {
        let Change { namespace, before, after, .. } = change;
        let Some(object) = after.as_deref().or(before.as_deref()) else { return };
        let labels = Labels::of(&*object.object);
        if labels.component.as_deref() == Some(Component::Vectors.as_str()) {
            self.services.look_at_indexes(namespace);
        }
        if labels.owner.is_some() {
            self.owner(namespace, &labels);
            return;
        }
        let follows = [Component::Embed, Component::Chat].map(|one| Some(one.as_str()));
        if before.is_none() && follows.contains(&labels.component.as_deref()) {
            // It has had no notice of the list that it follows.
            self.shared(namespace);
        }
        let says = |pod: &Whole<Pod>| {
            let Pod { metadata, status, .. } = &*pod.object;
            (metadata.deletion_timestamp.clone(), status.clone())
        };
        if before.as_deref().map(says) != after.as_deref().map(says) {
            if labels.component.as_deref() == Some(Component::Query.as_str()) {
                self.services.look(namespace);
            }
            if labels.component.as_deref() == Some(Component::Embed.as_str()) {
                self.services.ask_models_again(namespace);
            }
            if labels.component.as_deref() == Some(Component::Chat.as_str()) {
                self.services.look_at_providers(namespace);
            }
            self.resources_of(namespace);
        }
    }

    pub(super) fn deployment(&self, change: &Change<Whole<Deployment>>) {
        self.gone(Kind::Deployment, change);
        let Some(object) = change.after.as_deref().or(change.before.as_deref()) else { return };
        let labels = Labels::of(&*object.object);
        if labels.owner.is_some() {
            self.owner(&change.namespace, &labels);
            return;
        }
        self.shared(&change.namespace);
        let says = |deployment: &Whole<Deployment>| deployment.object.status.clone();
        if change.before.as_deref().map(says) != change.after.as_deref().map(says) {
            self.resources_of(&change.namespace);
        }
    }

    pub(super) fn service(&self, change: &Change<Outline>) {
        self.outline(Kind::Service, change);
    }

    pub(super) fn config_map(&self, change: &Change<Outline>) {
        self.outline(Kind::ConfigMap, change);
    }

    pub(super) fn budget(&self, change: &Change<Outline>) {
        self.outline(Kind::PodDisruptionBudget, change);
    }

    pub(super) fn account(&self, change: &Change<Outline>) {
        self.outline(Kind::ServiceAccount, change);
    }

    pub(super) fn secret(&self, change: &Change<Stamp>) {
        let Change { namespace, name, before, after } = change;
        if before == after {
            return;
        }
        self.gone(Kind::Secret, change);
        let Settings { store, token_secret, .. } = &*self.settings;
        if *name == store.secret || name == token_secret {
            self.shared(namespace);
            self.resources_of(namespace);
            self.prepared(change);
        } else {
            self.readers(namespace, |spec| reads_secret(spec, name));
            if self.world.providers.of(namespace).iter().any(|provider| has_key(&provider.object, name)) {
                self.services.ask_models_again(namespace);
                self.indexes_of(namespace);
                self.providers_of(namespace);
                // The pods that hold the key have notice of it.
                self.shared(namespace);
            }
        }
    }

    pub(super) fn source(&self, change: &Change<Stamp>) {
        let Change { namespace, name, before, after } = change;
        if before != after {
            self.readers(namespace, |spec| {
                spec.source.config_map.as_ref().is_some_and(|entry| entry.name == *name)
            });
        }
    }

    fn outline(&self, kind: Kind, change: &Change<Outline>) {
        self.gone(kind, change);
        let Some(object) = change.after.as_deref().or(change.before.as_deref()) else { return };
        if object.labels.owner.is_some() {
            self.owner(&change.namespace, &object.labels);
        } else {
            self.shared(&change.namespace);
            self.prepared(change);
        }
    }

    /// Something that all pods of a namespace need has come, perhaps the last of it.
    fn prepared<T>(&self, change: &Change<T>) {
        let Change { namespace, before, .. } = change;
        if before.is_none() && self.world.is_prepared(namespace, &self.settings.token_secret) {
            for name in self.world.datasets.names_of(namespace) {
                self.queue.add(Key::dataset(namespace, name));
            }
            for name in self.world.indexes.names_of(namespace) {
                self.queue.add(Key::vector_index(namespace, name));
            }
            for name in self.world.providers.names_of(namespace) {
                self.queue.add(Key::chat_provider(namespace, name));
            }
        }
    }

    /// What was applied to an object that is gone is no reason not to apply it again.
    fn gone<T>(&self, kind: Kind, change: &Change<T>) {
        if change.after.is_none() {
            self.memory.forget(&change.namespace, &ObjectName::new(kind, change.name.clone()));
        }
    }

    fn owner(&self, namespace: &str, labels: &Labels) {
        let Some((kind, short)) = &labels.owner else { return };
        let Some(name) = self.world.name_of(*kind, namespace, short) else { return };
        match kind {
            ResourceKind::Dataset => self.queue.add(Key::dataset(namespace, name)),
            ResourceKind::VectorIndex => self.queue.add(Key::vector_index(namespace, name)),
            ResourceKind::ChatProvider => {}
        }
    }

    fn indexes_that(&self, namespace: &str, concerns: impl Fn(&VectorIndexSpec) -> bool) {
        for name in self.world.indexes.names_of(namespace) {
            let index = self.world.indexes.get(namespace, &name);
            if index.is_some_and(|index| concerns(&index.object.spec)) {
                self.queue.add(Key::vector_index(namespace, name));
            }
        }
    }

    fn shared(&self, namespace: &str) {
        self.queue.add_after(Key::Namespace(namespace.to_owned()), BURST);
    }

    fn readers(&self, namespace: &str, reads: impl Fn(&DatasetSpec) -> bool) {
        for name in self.world.datasets.names_of(namespace) {
            let dataset = self.world.datasets.get(namespace, &name);
            if dataset.is_some_and(|dataset| reads(&dataset.object.spec)) {
                self.queue.add(Key::dataset(namespace, name));
            }
        }
    }
}

/// What of a resource asks for something.
fn asked<K: Resource>(resource: &Whole<K>) -> impl PartialEq + use<K> {
    let metadata = resource.object.meta().clone();
    (
        (metadata.uid, metadata.generation, metadata.deletion_timestamp),
        (metadata.annotations, metadata.labels, metadata.finalizers),
    )
}

/// What of a resource decides whether a namespace needs its shared objects.
fn belongs<K: Resource>(resource: &Whole<K>) -> impl PartialEq + use<K> {
    let metadata = resource.object.meta();
    (metadata.uid.clone(), metadata.deletion_timestamp.is_some(), metadata.finalizers.is_some())
}

/// What of a Dataset its indexes follow.
fn tells_indexes(dataset: &Whole<Dataset>) -> Option<DatasetFacts> {
    let name = DatasetName::parse(dataset.object.name_any()).ok()?;
    Some(DatasetFacts::of(&name, "", Some(&dataset.object)))
}

fn has_key(provider: &ChatProvider, secret: &str) -> bool {
    provider.spec.api_key_secret_ref.as_ref().is_some_and(|key| key.name == secret)
}

fn reads_secret(spec: &DatasetSpec, name: &str) -> bool {
    let headers = spec.source.http.as_ref().and_then(|http| http.headers_secret_ref.as_ref());
    let credentials = spec.source.s3.as_ref().and_then(|s3| s3.credentials_secret_ref.as_ref());
    headers.into_iter().chain(credentials).any(|secret| secret.name == name)
}
