//! The end of a Dataset whose rows are to be removed first.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use lakehouse_crds::Dataset;
use lakehouse_plan::{
    Reason,
    cluster::{
        dataset::Run,
        deletion::{Finalizer, Observed, Plan, plan},
        names::{self, FINALIZER},
    },
    status,
};

use super::{SOON, until};
use crate::{context::Context, error::Error, queue::Next};

/// Brings a Dataset that is being deleted to its end.
pub(super) async fn reconcile(
    context: &Context,
    dataset: &Dataset,
    namespace: &str,
    name: &str,
) -> Result<Next, Error> {
    if !dataset.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Next::Settled); // whoever else holds it back has nothing to do with us
    }
    let mut plan = planned(context, dataset, namespace, name).await?;
    let Plan { delete, children, release, delete_after: _, events_of: _, run: _, next_visit } = &plan;
    let (release, next_visit) = (*release, *next_visit);
    let applied = async {
        context.applier.delete(namespace, delete).await?;
        context.applier.children(namespace, children).await
    };
    let mut refused = false;
    if let Err(error) = applied.await {
        let failure = error.failure().ok_or(error)?;
        refused = failure.reason == Reason::ObjectRefused;
        plan.run = Run::Failed(failure);
    }
    if release && !refused {
        if !context.applier.finalizer(dataset, Finalizer::Remove).await? {
            return Ok(Next::After(SOON));
        }
        context.applier.delete(namespace, &plan.delete_after).await?;
        return Ok(Next::Settled);
    }
    let last = context.datasets.last(dataset);
    let told =
        status::deleting(last.as_ref(), dataset.metadata.generation, &plan.run.facts(None), Timestamp::now());
    context.datasets.report(dataset, last.as_ref(), told).await?;
    if refused {
        return Ok(Next::Failed);
    }
    Ok(next_visit.map_or(Next::Settled, |time| Next::After(until(time))))
}

async fn planned(context: &Context, dataset: &Dataset, namespace: &str, name: &str) -> Result<Plan, Error> {
    let (reader, settings) = (&context.reader, &*context.settings);
    let short = names::short(name);
    let (jobs, pods) = (reader.jobs(namespace, &short), reader.pods(namespace, &short));
    let needed = [settings.store.secret.clone(), settings.token_secret.clone()];
    let secrets = reader.secrets(namespace, &needed);
    let namespace_ends = reader.is_ending(namespace).await;
    let plan_with = |events: &[Event]| {
        let now = Timestamp::now();
        let (jobs, pods, secrets) = (&jobs, &pods, &secrets);
        plan(dataset, &Observed { jobs, pods, events, secrets, namespace_ends, now }, settings)
    };
    let plan = plan_with(&[]);
    Ok(match &plan.events_of {
        Some(of) => plan_with(&reader.events(namespace, of).await?),
        None => plan,
    })
}
