//! Brings one Dataset from its spec to its status.
//!
//! ```text
//! stores, pods ─► observe ─► plan (pure) ─► apply ─► status (pure) ─► report
//! ```

mod serving;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Event};
use kube::ResourceExt;
use lakehouse_contract::{DatasetManifest, ingest::Progress};
use lakehouse_crds::{Dataset, DatasetStatus, conditions::SERVED};
use lakehouse_plan::{
    ReadyDataset, Reason, check,
    cluster::{
        ResourceKind, Rollback, Run,
        dataset::{Catalogue, Observed, Plan, needs, plan},
        deletion, names,
        serving::{View, is_ready},
    },
    dataset::Refusal,
    status::{self, Facts, Failure, ServedFacts},
};
use tracing::{info, warn};

use crate::{
    context::Context,
    end::{self, SOON, until},
    error::Error,
    observe::Found,
    queue::Next,
    services::{self, Evidence, Known, PROGRESS_INTERVAL, Said},
};

/// Brings one Dataset from its spec to its status.
pub(crate) async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Next, Error> {
    let Some(seen) = context.wake.world.datasets.get(namespace, name) else {
        context.services.forget(namespace, name);
        context.reader.forget(namespace);
        context.datasets.forget(namespace, name);
        return Ok(undeclare(context, namespace, name).await);
    };
    let dataset = &*seen.object;
    if let Some(change) = deletion::finalizer(dataset) {
        let changed = context.applier.finalizer(dataset, change).await?;
        // The event of the change brings it back.
        return Ok(if changed { Next::Settled } else { Next::After(SOON) });
    }
    if dataset.metadata.deletion_timestamp.is_some() {
        return end::reconcile(context, &context.datasets, dataset, namespace).await;
    }

    let last = context.datasets.last(dataset);
    if is_served(last.as_ref()) && serving::is_unasked(context, namespace, name) {
        // A new operator, or a new query pod: what nobody has been asked yet is no reason to take back what was told.
        context.services.look(namespace);
        return Ok(Next::After(SOON));
    }
    let (world, settings) = (&context.wake.world, &context.settings);
    if !world.is_prepared(namespace, &settings.token_secret) && context.refusals.of(namespace).is_none() {
        return Ok(Next::After(SOON)); // its coming wakes us before that
    }
    let mut known = catalogue(context, dataset, namespace, name, last.as_ref()).await;
    let spec = check(dataset);
    let declared = context.services.declare(namespace, name, &dataset.spec).await;
    let work = match &spec {
        Ok(ready) => work(context, dataset, ready, &mut known, declared.as_ref().err(), namespace).await?,
        Err(_) => Work::default(),
    };
    let (served, behind) = serving::of(context, namespace, name, known.manifest());
    if behind {
        context.services.refresh(namespace);
    }
    let status = told(dataset, spec.as_ref(), &work, &known, served, last.as_ref());
    context.datasets.report(dataset, last.as_ref(), status).await?;
    Ok(match declared {
        // A pod's coming wakes us.
        Ok(()) | Err(services::Error::NoPod(_)) => next(&work, &known),
        Err(error) => {
            warn!(namespace, name, "The gateway has not been told how uploads are to be read: {error}");
            Next::Failed
        }
    })
}

/// Uploads into a dataset that no Dataset declares any more are read as they are.
async fn undeclare(context: &Context, namespace: &str, name: &str) -> Next {
    match context.services.undeclare(namespace, name).await {
        Ok(()) => Next::Settled,
        // A gateway that knows of no declarations has none.
        Err(error) if error.is_final() => Next::Settled,
        Err(error) => {
            warn!(namespace, name, "The gateway still follows the Dataset that is gone: {error}");
            Next::Failed
        }
    }
}

fn is_served(status: Option<&DatasetStatus>) -> bool {
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == SERVED && condition.status == "True")
}

/// What is known of the catalogue's word.
struct Catalogued {
    /// What it said, be it some time ago.
    said: Option<Said>,
    /// Why what it said is not what it says now, as far as anybody knows.
    stale: Option<String>,
    /// Why it could not be asked, as the status tells it.
    silent: Result<(), Failure>,
    /// It was there but failed, so that asking again may help.
    failed: bool,
    evidence: Evidence,
    /// The Jobs as they were before it was asked.
    jobs: Vec<Arc<Job>>,
}

impl Catalogued {
    fn manifest(&self) -> Option<&DatasetManifest> {
        match &self.said {
            Some(Said::Current(manifest)) => Some(manifest),
            Some(Said::Nothing) | None => None,
        }
    }
}

/// What came of the work.
#[derive(Default)]
struct Work {
    plan: Plan,
    progress: Option<Progress>,
    /// Something was refused: it is tried again.
    refused: bool,
}

async fn catalogue(
    context: &Context,
    dataset: &Dataset,
    namespace: &str,
    name: &str,
    last: Option<&DatasetStatus>,
) -> Catalogued {
    let views = context.services.views(namespace, name);
    let served = views.iter().filter_map(|(_, view)| match view {
        View::Version(version) => Some(*version),
        _ => None,
    });
    let jobs = context.reader.jobs(ResourceKind::Dataset, namespace, &names::short(name));
    let ended = jobs.iter().filter(|job| has_ended(job)).map(|job| job.name_any());
    // A Dataset that was made anew under an old name may have found other data.
    let ended = ended.chain(dataset.uid()).collect();
    let store = &context.settings.store.secret;
    let store = context.reader.secrets(namespace, std::slice::from_ref(store)).remove(store);
    let gateway = context.services.gateway(namespace);
    let gateway = gateway.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod.uid()).collect();
    let evidence = Evidence { served: served.collect(), ended, store, gateway };
    match context.services.manifest(namespace, name, evidence.clone()).await {
        Known::Yes(said) => {
            Catalogued { said: Some(said), stale: None, silent: Ok(()), failed: false, evidence, jobs }
        }
        Known::No(error, said) => {
            let no_pod = matches!(error, services::Error::NoPod(_));
            // In a new namespace the gateway takes a moment; there is nothing then that could be untrue.
            let is_new = no_pod && last.is_none_or(|last| last.version.is_none());
            let reason = if no_pod { Reason::NotServed } else { Reason::ServingFailed };
            let silent = if said.is_some() || is_new {
                Ok(())
            } else {
                let message = format!("The catalogue cannot be asked what is published: {error}.");
                Err(Failure::new(reason, message))
            };
            let stale = said.as_ref().map(|_| error.to_string());
            Catalogued { said, stale, silent, failed: !no_pod, evidence, jobs }
        }
    }
}

/// Plans and applies.
async fn work(
    context: &Context,
    dataset: &Dataset,
    ready: &ReadyDataset,
    known: &mut Catalogued,
    undeclared: Option<&services::Error>,
    namespace: &str,
) -> Result<Work, Error> {
    let (name, uid) = (ready.name.as_str(), dataset.uid().unwrap_or_default());
    let mut plan = planned(context, ready, &uid, known, undeclared, namespace).await?;
    let mut refused = false;
    if let Some(failure) = apply(context, namespace, name, &plan, known).await? {
        refused = failure.reason == Reason::ObjectRefused;
        plan.run = Run::Failed(failure);
    }
    if let (Run::Idle, Some(why)) = (&plan.run, &known.stale) {
        // What was published before says nothing of the Job that has just ended.
        plan.run = Run::Waiting(format!("The catalogue cannot be asked what is published: {why}."));
    }
    let address = plan.progress_of.as_deref();
    let progress = address.and_then(|address| context.services.progress(namespace, name, address));
    Ok(Work { plan, progress, refused })
}

async fn planned(
    context: &Context,
    ready: &ReadyDataset,
    uid: &str,
    known: &Catalogued,
    undeclared: Option<&services::Error>,
    namespace: &str,
) -> Result<Plan, Error> {
    let (reader, settings) = (&context.reader, &*context.settings);
    let short = names::short(ready.name.as_str());
    let needs = needs(ready, settings);
    let pods = reader.pods(ResourceKind::Dataset, namespace, &short);
    let config_maps = reader.config_maps(ResourceKind::Dataset, namespace, &short);
    let secrets = reader.secrets(namespace, &needs.secrets);
    let found = match &needs.config_map {
        Some((map, key)) => reader.entry(namespace, map, key).await?,
        None => Found::NotNeeded,
    };
    let undeclared = undeclared.map(ToString::to_string);
    let plan_with = |events: &[Event]| {
        let observed = Observed {
            jobs: &known.jobs,
            pods: &pods,
            events,
            config_maps: &config_maps,
            secrets: &secrets,
            entry: found.entry(),
            catalogue: match &known.said {
                Some(Said::Current(manifest)) => Catalogue::Current(manifest),
                // It may have something by now.
                Some(Said::Nothing) if known.stale.is_none() => Catalogue::Nothing,
                Some(Said::Nothing) | None => Catalogue::Unknown,
            },
            undeclared: undeclared.as_deref(),
            now: Timestamp::now(),
        };
        plan(ready, uid, &observed, settings)
    };
    let plan = plan_with(&[]);
    Ok(match &plan.events_of {
        Some(of) => plan_with(&reader.events(namespace, of).await?),
        None => plan,
    })
}

/// Makes the cluster what the plan says. A failure is one for the user's eyes: what was to be made was refused.
async fn apply(
    context: &Context,
    namespace: &str,
    name: &str,
    plan: &Plan,
    known: &mut Catalogued,
) -> Result<Option<Failure>, Error> {
    // The rest of a plan is what is known; opened in full, so that a new thing to do cannot be forgotten.
    let Plan {
        delete,
        children,
        suspend,
        rollback,
        events_of: _,
        progress_of: _,
        run: _,
        source: _,
        last_ingest: _,
        next_visit: _,
    } = plan;
    let applied = async {
        context.applier.delete(namespace, delete).await?;
        context.applier.children(namespace, children).await?;
        match suspend {
            Some((job, suspend)) => context.applier.suspend(namespace, job, *suspend).await,
            None => Ok(()),
        }
    };
    if let Err(error) = applied.await {
        return error.failure().map(Some).ok_or_else(|| error.into());
    }
    Ok(match rollback {
        Some(rollback) => roll_back(context, namespace, name, *rollback, known).await,
        None => None,
    })
}

/// Makes the catalogue serve another version, and reads what it says then.
async fn roll_back(
    context: &Context,
    namespace: &str,
    name: &str,
    rollback: Rollback,
    known: &mut Catalogued,
) -> Option<Failure> {
    let Rollback { version, pinned } = rollback;
    match context.services.rollback(namespace, name, version).await {
        Ok(()) => {
            info!(namespace, name, version, "Version {version} is served instead of the current one");
            let evidence = known.evidence.clone();
            if let Known::Yes(said) = context.services.manifest(namespace, name, evidence).await {
                (known.said, known.stale) = (Some(said), None);
            }
            None
        }
        Err(error) if error.is_final() => {
            pinned.then(|| Failure::new(Reason::VersionNotKept, error.to_string()))
        }
        Err(services::Error::NoPod(_)) => None, // its coming wakes us
        Err(error) => {
            warn!(namespace, name, version, "Version {version} is not served yet: {error}");
            known.failed = true;
            None
        }
    }
}

fn told(
    dataset: &Dataset,
    spec: Result<&ReadyDataset, &Refusal>,
    work: &Work,
    known: &Catalogued,
    served: ServedFacts,
    last: Option<&DatasetStatus>,
) -> DatasetStatus {
    let facts = Facts {
        generation: dataset.metadata.generation,
        spec,
        manifest: known.manifest(),
        catalogue: known.silent.clone(),
        source: work.plan.source.clone(),
        run: work.plan.run.facts(work.progress.as_ref()),
        served,
        last_ingest: work.plan.last_ingest.clone(),
    };
    status::dataset(last, &facts, Timestamp::now())
}

/// When to look again.
fn next(work: &Work, known: &Catalogued) -> Next {
    if work.refused || known.failed {
        return Next::Failed;
    }
    let running = work.plan.progress_of.as_ref().map(|_| PROGRESS_INTERVAL);
    let rest = [work.plan.next_visit.map(until), running];
    rest.into_iter().flatten().min().map_or(Next::Settled, Next::After)
}

/// Whether a Job has come to its end, good or bad.
pub(crate) fn has_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref());
    let ends = |name: &str| name == "Complete" || name == "Failed";
    conditions.unwrap_or_default().iter().any(|one| ends(&one.type_) && one.status == "True")
}
