//! The Job that builds an index: what it is asked for, and whether one is needed.
//!
//! An index is named by what it is made of, so one that is there already is not built again, whoever built it.

use std::time::Duration;

use lakehouse_contract::{
    embed::ModelIdentity,
    job::BuildJob,
    vectors::{BuildSpec, IndexInfo},
};

use super::{Observed, Place, Plan, Stored, unknown_model};
use crate::{
    ReadyVectorIndex, Reason,
    cluster::{
        Rollback, Run,
        activity::{self, Activity},
        history::{History, Past, Phase},
        job::Builds,
        meta::Component,
        names, pods,
        work::{self, Doing, Work, missing_store_secret},
    },
    status::{DatasetFacts, Failure},
    vector_index::Source,
};

/// So long may the pods that serve an index take to read what was published.
const READING: Duration = Duration::from_mins(1);
/// How often it is looked whether they have.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Plans an index that is built from a Dataset.
pub(super) fn plan(
    index: &ReadyVectorIndex,
    (source, spec): (&Source, BuildSpec),
    place: &Place<'_>,
    observed: &Observed<'_>,
    history: &History<'_>,
) -> Plan {
    let stored = observed.stored.index();
    if let Some(sentence) = stored.and_then(|there| index.conflict(there)) {
        let run = Run::Failed(Failure::new(Reason::IndexConflict, sentence));
        return Plan { delete: work::stop(history), run, ..Plan::default() };
    }
    let (version, model) = match inputs(index, observed) {
        Ok(inputs) => inputs,
        Err(run) => return without_inputs(index, observed, history, run),
    };
    Step { index, source, place, observed, history, version, model }.plan(spec)
}

/// The Dataset's version and the model of a build, or what is done while they are not known.
fn inputs<'a>(index: &ReadyVectorIndex, observed: &Observed<'a>) -> Result<(u64, &'a ModelIdentity), Run> {
    let version = match observed.dataset {
        DatasetFacts::Found { version, .. } => *version,
        DatasetFacts::Failed(failure) => return Err(Run::Failed(failure.clone())),
        DatasetFacts::Unknown => {
            return Err(Run::Waiting("The Dataset has not been looked at yet.".to_owned()));
        }
    };
    let model = observed.embedder.identity().ok_or_else(|| unknown_model(observed.embedder))?;
    match index.mismatch(model) {
        Some(failure) => Err(Run::Failed(failure)),
        None => Ok((version, model)),
    }
}

/// What runs goes on, and an index as the spec asks for needs nothing.
fn without_inputs(
    index: &ReadyVectorIndex,
    observed: &Observed<'_>,
    history: &History<'_>,
    run: Run,
) -> Plan {
    if let Some(latest) = history.latest().filter(Past::is_active) {
        let Observed { pods, events, now, .. } = *observed;
        let Activity { run, progress_of, events_of, next_visit } =
            activity::of(&latest, pods, events, pods::BUILD, now);
        return Plan { events_of, progress_of, run, next_visit, ..Plan::default() };
    }
    let is_there = observed.stored.index().is_some_and(|there| index.is_made_as_asked(there, None));
    Plan { run: if is_there { Run::Idle } else { run }, ..Plan::default() }
}

/// Everything that decides the next step.
struct Step<'a> {
    index: &'a ReadyVectorIndex,
    source: &'a Source,
    place: &'a Place<'a>,
    observed: &'a Observed<'a>,
    history: &'a History<'a>,
    version: u64,
    model: &'a ModelIdentity,
}

impl Step<'_> {
    fn plan(&self, spec: BuildSpec) -> Plan {
        let Self { history, observed, .. } = self;
        let (inputs, stored) = (self.inputs(), observed.stored.index());
        let mut latest = history.latest().into_iter();
        let is_at_work = latest.any(|job| job.is_active() && job.inputs() == Some(inputs.as_str()));
        if !is_at_work && stored.is_some_and(|there| self.is_made(there)) {
            return Plan { delete: work::stop(history), ..Plan::default() };
        }
        let is_read = stored.is_none_or(|there| self.holds(there));
        if let (false, Some(version)) = (is_read, self.forward(&inputs)) {
            let run = Run::Waiting(format!("Version {version} is about to be served again."));
            return Plan { rollback: Some(Rollback { version, pinned: false }), run, ..Plan::default() };
        }
        let mut plan = Plan::from(self.work(spec, &inputs, is_read));
        if let (Run::Idle, false, Some(job)) = (&plan.run, is_read, history.latest()) {
            plan.run = Run::Waiting(format!("What the Job `{}` published is about to be read.", job.name()));
            plan.next_visit = Some(observed.now + LOOK_AGAIN);
        }
        plan
    }

    /// The newest version, where a pin has put an older one in the place of what the last Job published.
    fn forward(&self, inputs: &str) -> Option<u64> {
        let there = self.observed.stored.index().filter(|there| there.version < there.latest_version)?;
        let latest = self.history.latest().filter(|job| job.phase == Phase::Complete)?;
        (latest.inputs() == Some(inputs)).then_some(there.latest_version)
    }

    /// Names what a Job is asked for. A build that nobody asks for anew stays the same, whatever the Dataset does.
    fn inputs(&self) -> String {
        let Self { index, source, version, model, .. } = self;
        let version = if source.on_change { *version } else { 0 };
        let made_of = index.inputs(version, model).unwrap_or_default();
        let ef_search = index.hnsw.ef_search.to_string();
        let refresh = index.refresh.as_deref().map(|value| ["refresh", value]).unwrap_or_default();
        names::full_digest(&[&made_of, &ef_search, refresh[0], refresh[1]])
    }

    /// Whether no build is needed, as far as the index itself tells.
    fn is_made(&self, there: &IndexInfo) -> bool {
        // Where only a new value of the annotation asks for a newer version, no record tells which values were answered.
        (self.is_current(there) || self.index.refresh.is_none())
            && there.shape.hnsw.ef_search == self.index.hnsw.ef_search
            && self.holds(there)
    }

    /// Whether an index holds what a build gives: of this version of the Dataset, or of any where nothing follows it.
    fn holds(&self, there: &IndexInfo) -> bool {
        (self.is_current(there) || !self.source.on_change)
            && self.index.is_made_as_asked(there, Some(self.model))
    }

    fn is_current(&self, there: &IndexInfo) -> bool {
        there.source.as_ref().is_some_and(|from| from.version == self.version)
    }

    fn work(&self, spec: BuildSpec, inputs: &str, is_read: bool) -> Doing {
        let Self { index, observed, history, version, model, .. } = *self;
        let Place { of, surroundings, settings } = *self.place;
        // A model that runs inside a service runs inside the build as well.
        let is_remote = index.model.as_ref().is_some_and(|model| model.provider.is_some());
        let builds = Builds {
            of,
            index,
            work: BuildJob {
                spec,
                dataset_version: version,
                model: model.clone(),
                keep_versions: index.keep_versions,
                embedd: is_remote.then(names::embedd),
            },
            surroundings,
            settings,
        };
        let missing = surroundings.store_secret.is_none();
        let is_late = history.latest().is_some_and(|job| job.completed() + READING <= observed.now);
        let is_lost = observed.stored == Stored::Nothing || (!is_read && is_late);
        let work = Work {
            make: &builds,
            component: Component::Build,
            inputs,
            schedule: None,
            missing: missing.then(|| missing_store_secret(&settings.store.secret, of.namespace)),
            lost: is_lost.then_some("the index is built again"),
            nameless: "The build failed.",
            knobs: pods::BUILD,
            history,
            seen: observed.seen(),
        };
        work.next()
    }
}
