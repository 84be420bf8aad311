//! Keeps what the Datasets of a namespace share: settings, token, gateway, query pods.

use kube::{Resource, ResourceExt};
use lakehouse_plan::cluster::{
    Kind, ObjectName, Owner,
    names::FINALIZER,
    namespace::{Observed, Plan, plan, token_secret},
};
use rand::RngExt;

use crate::{apply, context::Context, error::Error, queue::Next};

/// Bytes of a token that this operator makes.
const TOKEN_BYTES: usize = 32;

/// Brings what a namespace's Datasets share to what they need.
pub(crate) async fn reconcile(context: &Context, namespace: &str) -> Result<Next, Error> {
    let plan = plan_of(context, namespace);
    let applied = apply(context, namespace, &plan).await;
    let refusal = applied.as_ref().err().and_then(apply::Error::failure);
    let refused = refusal.is_some();
    if context.refusals.set(namespace, refusal) {
        context.wake.datasets_of(namespace);
    }
    match applied {
        Ok(()) => Ok(Next::Settled),
        // Each Dataset of the namespace tells it; here it is only tried again.
        Err(_) if refused => Ok(Next::Failed),
        Err(error) => Err(error.into()),
    }
}

fn plan_of(context: &Context, namespace: &str) -> Plan {
    let world = &context.wake.world;
    let settings = &*context.settings;
    let datasets = world.datasets.of(namespace);
    let (ending, living): (Vec<_>, Vec<_>) =
        datasets.iter().partition(|dataset| dataset.object.meta().deletion_timestamp.is_some());
    let owners: Vec<Owner> = living
        .iter()
        .map(|dataset| Owner {
            name: dataset.object.name_any(),
            uid: dataset.object.uid().unwrap_or_default(),
        })
        .collect();
    let store_secret = world.secrets.get(namespace, &settings.store.secret).map(|stamp| stamp.identity());
    let observed = Observed {
        namespace,
        owners: &owners,
        purging: ending
            .iter()
            .any(|dataset| dataset.object.finalizers().iter().any(|name| name == FINALIZER)),
        store_secret: store_secret.as_deref(),
        has_token_secret: world.secrets.get(namespace, &settings.token_secret).is_some(),
        existing: &existing(context, namespace),
    };
    plan(&observed, settings)
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
        let shared =
            store.entries(namespace).into_iter().filter(|(_, object)| object.labels.dataset.is_none());
        existing.extend(shared.map(|(name, _)| ObjectName::new(kind, name)));
    }
    let deployments = world.deployments.names_of(namespace).into_iter();
    existing.extend(deployments.map(|name| ObjectName::new(Kind::Deployment, name)));
    existing
}

async fn apply(context: &Context, namespace: &str, plan: &Plan) -> Result<(), apply::Error> {
    let Plan { children, make_token, delete } = plan;
    if *make_token {
        let bytes: [u8; TOKEN_BYTES] = rand::rng().random();
        let token = token_secret(namespace, &context.settings, &lakehouse_contract::dataset::hex(&bytes));
        context.applier.children(namespace, &[token]).await?;
    }
    context.applier.children(namespace, children).await?;
    context.applier.delete(namespace, delete).await
}
