//! Keeps what the resources of a namespace share: settings, token, gateway, query pods, the pods that serve and make vectors, and those
//! that ask language models.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Resource, ResourceExt};
use lakehouse_crds::ChatProvider;
use lakehouse_plan::{
    ReadyProvider, chat_provider,
    cluster::{
        Kind, ObjectName, Owner, ResourceKind,
        names::{self, FINALIZER},
        namespace::{Observed, Plan, plan, token_secret},
    },
};
use rand::RngExt;
use tracing::warn;

use crate::{apply, context::Context, error::Error, queue::Next, world::seen::Labels};

/// Bytes of a token that this operator makes.
const TOKEN_BYTES: usize = 32;

/// Brings what a namespace's resources share to what they need.
pub(crate) async fn reconcile(context: &Context, namespace: &str) -> Result<Next, Error> {
    let plan = plan_of(context, namespace);
    let applied = apply(context, namespace, &plan).await;
    let refusal = applied.as_ref().err().and_then(apply::Error::failure);
    let refused = refusal.is_some();
    if context.refusals.set(namespace, refusal) {
        context.wake.resources_of(namespace);
    }
    match applied {
        Ok(()) => Ok(notify(context, namespace, &plan).await),
        // Each resource of the namespace tells it; here it is only tried again.
        Err(_) if refused => Ok(Next::Failed),
        Err(error) => Err(error.into()),
    }
}

/// Lets the nodes of pods know what has changed. Without a notice the pods' files are renewed all the same, only later.
async fn notify(context: &Context, namespace: &str, plan: &Plan) -> Next {
    for notice in &plan.notices {
        if let Err(error) = context.applier.notify(namespace, notice).await {
            warn!(namespace, pod = notice.pod, "A pod hears late of its providers: {error}");
            return Next::Failed;
        }
    }
    Next::Settled
}

fn plan_of(context: &Context, namespace: &str) -> Plan {
    let world = &context.wake.world;
    let settings = &*context.settings;
    let needs = needs(context, namespace);
    let store_secret = world.secrets.get(namespace, &settings.store.secret).map(|stamp| stamp.identity());
    let pods = pods(context, namespace);
    let keys = needs.providers.iter().filter_map(|provider| Some(provider.key.as_ref()?.name.clone()));
    let keys: BTreeSet<String> = keys.collect();
    let secrets = keys.into_iter().filter_map(|name| {
        let state = world.secrets.get(namespace, &name)?.identity();
        Some((name, state))
    });
    let lists = [names::PROVIDERS, names::CHAT].into_iter().filter_map(|name| {
        let state = world.config_maps.get(namespace, name)?.stamp.identity();
        Some((name.to_owned(), state))
    });
    let observed = Observed {
        namespace,
        owners: &needs.owners,
        embedding: &needs.embedding,
        providers: &needs.providers,
        named: &needs.named,
        secrets: &secrets.collect::<Vec<_>>(),
        lists: &lists.collect::<Vec<_>>(),
        pods: &pods,
        purging: needs.purging,
        store_secret: store_secret.as_deref(),
        has_token_secret: world.secrets.get(namespace, &settings.token_secret).is_some(),
        existing: &existing(context, namespace),
    };
    plan(&observed, settings)
}

/// Who needs what of a namespace.
#[derive(Default)]
struct Needs {
    owners: Vec<Owner>,
    embedding: Vec<Owner>,
    providers: Vec<ReadyProvider>,
    named: Vec<String>,
    purging: bool,
}

impl Needs {
    /// The owner that a resource is, unless it is being deleted.
    fn owner<K: Resource>(&mut self, kind: ResourceKind, resource: &K) -> Option<Owner> {
        if resource.meta().deletion_timestamp.is_some() {
            self.purging |= resource.finalizers().iter().any(|name| name == FINALIZER);
            return None;
        }
        Some(Owner { kind, name: resource.name_any(), uid: resource.uid().unwrap_or_default() })
    }
}

fn needs(context: &Context, namespace: &str) -> Needs {
    let world = &context.wake.world;
    let mut needs = Needs::default();
    for dataset in world.datasets.of(namespace) {
        let owner = needs.owner(ResourceKind::Dataset, &*dataset.object);
        needs.owners.extend(owner);
    }
    for index in world.indexes.of(namespace) {
        let Some(owner) = needs.owner(ResourceKind::VectorIndex, &*index.object) else { continue };
        if let Some(embedding) = &index.object.spec.embedding {
            needs.named.extend(embedding.provider.clone());
            needs.embedding.push(owner.clone());
        }
        needs.owners.push(owner);
    }
    let mut providers = world.providers.of(namespace);
    // Where two claim the same name, the older one has it.
    providers.sort_by_key(|provider| {
        let created = provider.object.meta().creation_timestamp.as_ref().map(|time| time.0);
        (created, provider.object.name_any())
    });
    for provider in providers {
        let provider: &ChatProvider = &provider.object;
        let Some(owner) = needs.owner(ResourceKind::ChatProvider, provider) else { continue };
        needs.owners.push(owner.clone());
        // One that is refused says so itself; the others need not wait for it.
        let Ok(ready) = chat_provider::check(provider) else { continue };
        if ready.embeds() && !ready.suspend {
            needs.embedding.push(owner);
        }
        needs.providers.push(ready);
    }
    needs
}

/// The pods that follow a list of `ChatProviders`.
fn pods(context: &Context, namespace: &str) -> Vec<Arc<Pod>> {
    let mut pods = context.services.embedders(namespace);
    pods.extend(context.services.chatters(namespace));
    pods
}

/// The shared objects that are there.
fn existing(context: &Context, namespace: &str) -> Vec<ObjectName> {
    let world = &context.wake.world;
    let outlines = [
        (Kind::ConfigMap, &world.config_maps),
        (Kind::ServiceAccount, &world.accounts),
        (Kind::Service, &world.services),
        (Kind::PodDisruptionBudget, &world.budgets),
    ];
    let mut existing = Vec::new();
    for (kind, store) in outlines {
        let shared = store.entries(namespace).into_iter().filter(|(_, object)| object.labels.owner.is_none());
        existing.extend(shared.map(|(name, _)| ObjectName::new(kind, name)));
    }
    let deployments = world.deployments.of(namespace).into_iter();
    let shared =
        deployments.filter(|deployment| Labels::of::<Deployment>(&deployment.object).owner.is_none());
    existing.extend(shared.map(|deployment| ObjectName::new(Kind::Deployment, deployment.object.name_any())));
    existing
}

async fn apply(context: &Context, namespace: &str, plan: &Plan) -> Result<(), apply::Error> {
    let Plan { children, make_token, delete, notices: _ } = plan;
    if *make_token {
        let bytes: [u8; TOKEN_BYTES] = rand::rng().random();
        let token = token_secret(namespace, &context.settings, &lakehouse_contract::dataset::hex(&bytes));
        context.applier.children(namespace, &[token]).await?;
    }
    context.applier.children(namespace, children).await?;
    context.applier.delete(namespace, delete).await
}
