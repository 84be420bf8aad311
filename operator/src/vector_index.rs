//! Brings one VectorIndex from its spec to its status.
//!
//! ```text
//! stores, pods ─► observe ─► plan (pure) ─► apply ─► status (pure) ─► report
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use lakehouse_contract::{build::Progress, vectors::IndexInfo};
use lakehouse_crds::{VectorIndex, VectorIndexStatus, conditions::SERVED};
use lakehouse_plan::{
    ReadyVectorIndex, Reason, chat_provider,
    cluster::{
        ResourceKind, Rollback, Run, deletion, names,
        serving::{self, IndexObserved, View, is_ready},
        vector_index::{Observed, Plan, Stored, plan},
    },
    status::{self, DatasetFacts, EmbedderFacts, Failure, IndexFacts, ServedFacts},
    vector_index::check,
};
use tracing::{info, warn};

use crate::{
    context::Context,
    end::{self, SOON, until},
    error::Error,
    key::Key,
    queue::Next,
    services::{self, PROGRESS_INTERVAL},
};

/// Brings one VectorIndex from its spec to its status.
pub(crate) async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Next, Error> {
    let Some(seen) = context.wake.world.indexes.get(namespace, name) else {
        context.services.forget_index(namespace, name);
        context.indexes.forget(namespace, name);
        return Ok(Next::Settled);
    };
    let index = &*seen.object;
    if let Some(change) = deletion::finalizer(index) {
        let changed = context.applier.finalizer(index, change).await?;
        // The event of the change brings it back.
        return Ok(if changed { Next::Settled } else { Next::After(SOON) });
    }
    if index.metadata.deletion_timestamp.is_some() {
        return end::reconcile(context, &context.indexes, index, namespace).await;
    }
    let last = context.indexes.last(index);
    let readers = Readers::of(context, namespace, index);
    if is_served(last.as_ref()) && readers.are_unasked() {
        // A new operator, or a new pod: what nobody has been asked yet is no reason to take back what was told.
        context.services.look_at_indexes(namespace);
        return Ok(Next::After(SOON));
    }
    let (world, settings) = (&context.wake.world, &context.settings);
    if !world.is_prepared(namespace, &settings.token_secret) && context.refusals.of(namespace).is_none() {
        return Ok(Next::After(SOON)); // its coming wakes us before that
    }
    let spec = check(index);
    let found = spec.as_ref().map_or_else(|_| Found::default(), |ready| Found::of(context, ready));
    if is_served(last.as_ref()) && found.is_unasked {
        return Ok(Next::After(SOON)); // the answer wakes us before that
    }
    let work = match &spec {
        Ok(ready) => work(context, index, ready, &found, &readers).await?,
        Err(_) => Work::default(),
    };
    let facts = IndexFacts {
        generation: index.metadata.generation,
        spec: spec.as_ref(),
        index: readers.info.as_ref(),
        store: readers.silence(last.as_ref()),
        dataset: found.dataset,
        embedder: found.embedder,
        run: work.plan.run.facts(work.progress.as_ref()),
        served: served(context, index, &readers),
        last_build: work.plan.last_build.clone(),
    };
    let status = status::vector_index(last.as_ref(), &facts, Timestamp::now());
    context.indexes.report(index, last.as_ref(), status).await?;
    Ok(next(&work))
}

fn is_served(status: Option<&VectorIndexStatus>) -> bool {
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == SERVED && condition.status == "True")
}

/// What the pods of an index say.
struct Readers {
    pods: Vec<(Arc<Pod>, View)>,
    /// The index as one of them has it.
    info: Option<IndexInfo>,
}

impl Readers {
    fn of(context: &Context, namespace: &str, index: &VectorIndex) -> Self {
        let said = context.services.readers(namespace, &index.name_any());
        let infos = said.iter().filter(|(pod, _)| is_ready(pod)).filter_map(|(_, said)| said.info.as_ref());
        // While they pass from one version to another, the one that is asked for is the one that is in the store.
        let pin = index.spec.version;
        let info = infos.max_by_key(|info| (Some(info.version) == pin, info.version, info.updated_at));
        let info = info.cloned();
        let pods = said.into_iter().map(|(pod, said)| (pod, said.view)).collect();
        Self { pods, info }
    }

    fn ready(&self) -> impl Iterator<Item = &(Arc<Pod>, View)> {
        self.pods.iter().filter(|(pod, _)| is_ready(pod))
    }

    /// Whether a pod is ready but has not been asked yet what it serves. The answer, or that there is none, takes seconds.
    fn are_unasked(&self) -> bool {
        self.ready().any(|(_, view)| *view == View::Unknown)
    }

    fn stored(&self) -> Stored<'_> {
        match &self.info {
            Some(info) => Stored::Index(info),
            None if self.ready().any(|(_, view)| *view == View::Absent) => Stored::Nothing,
            None => Stored::Unknown,
        }
    }

    /// Why nobody says what the store has, where it once had something.
    fn silence(&self, last: Option<&VectorIndexStatus>) -> Result<(), Failure> {
        let had_something = last.is_some_and(|last| last.vectors.is_some());
        if self.stored() != Stored::Unknown || !had_something {
            return Ok(());
        }
        let silent = self.ready().find_map(|(pod, view)| match view {
            View::Unreachable(error) => Some((pod.name_any(), error)),
            _ => None,
        });
        Err(match silent {
            Some((pod, error)) => {
                let message = format!("The pod `{pod}` does not say what it serves: {error}");
                Failure::new(Reason::ServingFailed, message)
            }
            None => Failure::new(Reason::NotServed, "No pod is ready that could say what is served."),
        })
    }
}

/// What an index is made of.
#[derive(Default)]
struct Found {
    dataset: DatasetFacts,
    embedder: EmbedderFacts,
    /// Whether the model could be asked, but has not answered yet.
    is_unasked: bool,
}

impl Found {
    fn of(context: &Context, index: &ReadyVectorIndex) -> Self {
        let (world, namespace) = (&context.wake.world, index.namespace.as_str());
        let dataset = index.source.as_ref().map(|source| {
            let dataset = world.datasets.get(namespace, source.dataset.as_str());
            DatasetFacts::of(&source.dataset, namespace, dataset.as_ref().map(|seen| &*seen.object))
        });
        let embedder = embedder(context, index);
        let is_unasked = index.model.is_some() && embedder == EmbedderFacts::Unknown;
        Self { dataset: dataset.unwrap_or_default(), embedder, is_unasked }
    }
}

/// What is known of the model that an index names.
fn embedder(context: &Context, index: &ReadyVectorIndex) -> EmbedderFacts {
    let (world, namespace) = (&context.wake.world, index.namespace.as_str());
    let by = Key::vector_index(namespace, index.name.as_str());
    let Some(model) = &index.model else {
        context.services.want_no_model(&by);
        return EmbedderFacts::Unknown;
    };
    if let Some(name) = &model.provider {
        let provider = world.providers.get(namespace, name);
        let provider = provider.as_ref().map(|seen| &*seen.object);
        let has_secret = |secret: &str| world.secrets.get(namespace, secret).is_some();
        if let Some(failure) = chat_provider::failure(name, namespace, provider, has_secret) {
            context.services.want_no_model(&by);
            return EmbedderFacts::Failed(failure);
        }
    }
    let known = context.services.model(&by, &model.name);
    if known.identity().is_some() {
        return known;
    }
    let pods = context.services.embedders(namespace);
    serving::embedder(&pods, &context.reader.deployments(namespace)).unwrap_or(known)
}

/// What came of the work.
#[derive(Default)]
struct Work {
    plan: Plan,
    progress: Option<Progress>,
    /// Something was refused or did not answer: it is tried again.
    failed: bool,
}

/// Plans and applies.
async fn work(
    context: &Context,
    index: &VectorIndex,
    ready: &ReadyVectorIndex,
    found: &Found,
    readers: &Readers,
) -> Result<Work, Error> {
    let (namespace, name) = (ready.namespace.as_str(), ready.name.as_str());
    let mut plan = planned(context, index, ready, found, readers).await?;
    // The rest of a plan is what is known; opened in full, so that a new thing to do cannot be forgotten.
    let Plan {
        delete,
        children,
        suspend,
        rollback,
        create,
        events_of: _,
        progress_of: _,
        run: _,
        last_build: _,
        next_visit: _,
    } = &plan;
    let applied = async {
        context.applier.delete(namespace, delete).await?;
        context.applier.children(namespace, children).await?;
        match suspend {
            Some((job, suspend)) => context.applier.suspend(namespace, job, *suspend).await,
            None => Ok(()),
        }
    };
    let mut failed = false;
    let mut failure = None;
    if let Err(error) = applied.await {
        let refused = error.failure().ok_or(error)?;
        (failed, failure) = (true, Some(refused));
    } else {
        if let Some(rollback) = rollback {
            failure = roll_back(context, namespace, name, *rollback, &mut failed).await;
        }
        if let Some(request) = create {
            match context.services.create_index(namespace, name, request).await {
                Ok(()) => context.services.look_at_indexes(namespace),
                Err(services::Error::NoPod(_)) => {} // its coming wakes us
                Err(error) => {
                    let reason = if error.is_final() { Reason::InvalidSpec } else { Reason::ServingFailed };
                    let message = format!("The index could not be created: {error}");
                    (failed, failure) = (true, Some(Failure::new(reason, message)));
                }
            }
        }
    }
    if let Some(failure) = failure {
        plan.run = Run::Failed(failure);
    }
    let address = plan.progress_of.as_deref();
    let progress = address.and_then(|address| context.services.build_progress(namespace, name, address));
    Ok(Work { plan, progress, failed })
}

async fn planned(
    context: &Context,
    index: &VectorIndex,
    ready: &ReadyVectorIndex,
    found: &Found,
    readers: &Readers,
) -> Result<Plan, Error> {
    const KIND: ResourceKind = ResourceKind::VectorIndex;
    let (reader, settings) = (&context.reader, &*context.settings);
    let (namespace, short) = (ready.namespace.as_str(), names::short(ready.name.as_str()));
    let uid = index.uid().unwrap_or_default();
    let (jobs, pods) = (reader.jobs(KIND, namespace, &short), reader.pods(KIND, namespace, &short));
    let config_maps = reader.config_maps(KIND, namespace, &short);
    let existing = reader.servers(KIND, namespace, &short);
    let secrets = reader.secrets(namespace, std::slice::from_ref(&settings.store.secret));
    let plan_with = |events: &[Event]| {
        let observed = Observed {
            jobs: &jobs,
            pods: &pods,
            events,
            config_maps: &config_maps,
            existing: &existing,
            secrets: &secrets,
            stored: readers.stored(),
            dataset: &found.dataset,
            embedder: &found.embedder,
            now: Timestamp::now(),
        };
        plan(ready, &uid, &observed, settings)
    };
    let plan = plan_with(&[]);
    if jobs.iter().any(|job| crate::dataset::has_ended(job)) && plan.next_visit.is_some() {
        // What has been published is read within seconds.
        context.services.look_at_indexes(namespace);
    }
    Ok(match &plan.events_of {
        Some(of) => plan_with(&reader.events(namespace, of).await?),
        None => plan,
    })
}

/// Makes an index serve another version. A failure is one for the user's eyes.
async fn roll_back(
    context: &Context,
    namespace: &str,
    name: &str,
    Rollback { version, pinned }: Rollback,
    failed: &mut bool,
) -> Option<Failure> {
    match context.services.roll_index_back(namespace, name, version).await {
        Ok(()) => {
            info!(namespace, name, version, "Version {version} is served instead of the current one");
            context.services.look_at_indexes(namespace);
            None
        }
        Err(error) if error.is_final() => {
            pinned.then(|| Failure::new(Reason::VersionNotKept, error.to_string()))
        }
        Err(services::Error::NoPod(_)) => None, // its coming wakes us
        Err(error) => {
            warn!(namespace, name, version, "Version {version} is not served yet: {error}");
            *failed = true;
            None
        }
    }
}

/// Whether searches are answered from the version in the store.
fn served(context: &Context, index: &VectorIndex, readers: &Readers) -> ServedFacts {
    let (namespace, name) = (&*index.namespace().unwrap_or_default(), &*index.name_any());
    let gateway = context.services.gateway(namespace);
    let info = readers.info.as_ref();
    let observed = IndexObserved {
        namespace,
        index: name,
        deployments: &context.reader.deployments(namespace),
        gateway: &gateway,
        readers: &readers.pods,
        shards: info.map(|info| info.shards).or(index.spec.shards).unwrap_or(1).max(1),
        version: info.map(|info| info.version),
    };
    serving::index_facts(&observed).with(context.refusals.of(namespace))
}

/// When to look again.
fn next(work: &Work) -> Next {
    if work.failed {
        return Next::Failed;
    }
    let running = work.plan.progress_of.as_ref().map(|_| PROGRESS_INTERVAL);
    let rest = [work.plan.next_visit.map(until), running];
    rest.into_iter().flatten().min().map_or(Next::Settled, Next::After)
}
