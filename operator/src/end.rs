//! The end of a resource whose data are to be removed first.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use lakehouse_crds::{Dataset, DatasetStatus, VectorIndex, VectorIndexStatus};
use lakehouse_plan::{
    Reason,
    cluster::{
        Run,
        deletion::{Finalizer, KeepsData, Observed, Plan, plan},
        names::{self, FINALIZER},
    },
    status,
};

use crate::{
    context::Context,
    error::Error,
    queue::Next,
    report::{Reported, Reporter},
};

/// A try that came too early is made again after this time.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// A resource whose end is told.
pub(crate) trait Ends: Reported + KeepsData {
    /// Its status until it is gone.
    fn deleting(last: Option<&Self::Status>, generation: Option<i64>, run: &Run) -> Self::Status;
}

impl Ends for Dataset {
    fn deleting(last: Option<&DatasetStatus>, generation: Option<i64>, run: &Run) -> DatasetStatus {
        status::deleting(last, generation, &run.facts(None), Timestamp::now())
    }
}

impl Ends for VectorIndex {
    fn deleting(last: Option<&VectorIndexStatus>, generation: Option<i64>, run: &Run) -> VectorIndexStatus {
        status::deleting_index(last, generation, &run.facts(None), Timestamp::now())
    }
}

/// Brings a resource that is being deleted to its end.
pub(crate) async fn reconcile<K: Ends>(
    context: &Context,
    reporter: &Reporter<K>,
    resource: &K,
    namespace: &str,
) -> Result<Next, Error> {
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Next::Settled); // whoever else holds it back has nothing to do with us
    }
    let mut plan = planned(context, resource, namespace).await?;
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
        if !context.applier.finalizer(resource, Finalizer::Remove).await? {
            return Ok(Next::After(SOON));
        }
        context.applier.delete(namespace, &plan.delete_after).await?;
        return Ok(Next::Settled);
    }
    let last = reporter.last(resource);
    let told = K::deleting(last.as_ref(), resource.meta().generation, &plan.run);
    reporter.report(resource, last.as_ref(), told).await?;
    if refused {
        return Ok(Next::Failed);
    }
    Ok(next_visit.map_or(Next::Settled, |time| Next::After(until(time))))
}

/// How long it is until then; nothing when it has passed.
pub(crate) fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

async fn planned<K: Ends>(context: &Context, resource: &K, namespace: &str) -> Result<Plan, Error> {
    let (reader, settings) = (&context.reader, &*context.settings);
    let short = names::short(&resource.name_any());
    let jobs = reader.jobs(K::KIND, namespace, &short);
    let pods = reader.pods(K::KIND, namespace, &short);
    let needed = [settings.store.secret.clone(), settings.token_secret.clone()];
    let secrets = reader.secrets(namespace, &needed);
    let namespace_ends = reader.is_ending(namespace).await;
    let plan_with = |events: &[Event]| {
        let now = Timestamp::now();
        let (jobs, pods, secrets) = (&jobs, &pods, &secrets);
        plan(resource, &Observed { jobs, pods, events, secrets, namespace_ends, now }, settings)
    };
    let plan = plan_with(&[]);
    Ok(match &plan.events_of {
        Some(of) => plan_with(&reader.events(namespace, of).await?),
        None => plan,
    })
}
