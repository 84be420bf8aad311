//! The Job that reads a Dataset's source: which one, and when.
//!
//! ```text
//! no Job, or other inputs ─► stop what runs, then attempt 1
//! it works                ─► what its pods say; stuck on pods that would be made otherwise now ─► stop it
//! it is complete          ─► the schedule's next time has come ─► attempt 1 of that slot
//!                         ─► the catalogue has lost what it published ─► after a while, the next attempt
//! it failed               ─► after a while, or soon when its pods would be made otherwise now ─► the next attempt
//! ```

use jiff::Timestamp;
use lakehouse_contract::{
    Key,
    job::{IngestJob, JobSource},
};
use serde::Serialize;

use super::{Catalogue, Entry, Observed, Plan, Run, stop, told};
use crate::{
    ReadyDataset, Reason,
    cluster::{
        Kind, ObjectName, Settings,
        activity::{self, Activity},
        backoff, history,
        history::{History, Past, Phase},
        job::{For, Ingests, Ticket},
        meta::Component,
        names,
        pod::Surroundings,
        pods,
    },
    dataset::{Objects, Source},
    status::{Failure, SourceFacts},
};

/// Plans a Dataset that reads its source.
pub(super) fn plan(
    dataset: &ReadyDataset,
    uid: &str,
    observed: &Observed<'_>,
    settings: &Settings,
    history: &History<'_>,
) -> Plan {
    let entry = match entry(dataset, observed.entry) {
        Ok(entry) => entry,
        // What would be asked for cannot be told; what runs goes on.
        Err(failure) => return source_failed(failure),
    };
    let source = match source(dataset, entry) {
        Ok(source) => source,
        Err(failure) => {
            return Plan { delete: stop(history), run: Run::Failed(failure), ..Plan::default() };
        }
    };
    let inputs = inputs(dataset, &source);
    let secret = |name: &str| observed.secrets.get(name).map(String::as_str);
    let ingests = Ingests {
        of: For { namespace: &dataset.namespace, dataset: &dataset.name, uid },
        dataset,
        work: IngestJob { spec: dataset.ingest().clone(), source, keep_versions: dataset.keep_versions },
        surroundings: Surroundings {
            namespace: &dataset.namespace,
            store_secret: secret(&settings.store.secret),
        },
        source_secret: source_secret(dataset).and_then(|(name, _)| secret(name)),
        settings,
    };
    let step = Step { dataset, observed, settings, history, inputs: &inputs, ingests };
    match history.latest() {
        Some(latest) if latest.inputs() == Some(&inputs) => match latest.phase {
            Phase::Active => step.watch(&latest),
            Phase::Complete => step.after_success(&latest),
            Phase::Failed { at, .. } => step.after_failure(&latest, at),
        },
        _ => step.begin(1, None, None),
    }
}

/// Everything that decides the next step.
struct Step<'a> {
    dataset: &'a ReadyDataset,
    observed: &'a Observed<'a>,
    settings: &'a Settings,
    history: &'a History<'a>,
    inputs: &'a str,
    ingests: Ingests<'a>,
}

impl Step<'_> {
    /// Makes a Job, unless something that it must not meet is still there. `last` is why the attempt before it failed.
    fn begin(&self, attempt: u32, slot: Option<Timestamp>, last: Option<&Failure>) -> Plan {
        let source =
            last.map_or_else(|| told::source(self.history), |last| told::source_after(last, self.history));
        let run = |sentence: String| last.cloned().map_or(Run::Waiting(sentence), Run::Failed);
        // Those of an earlier Dataset of this name, too: they publish under it.
        let at_work = history::all_of(self.observed.jobs, Component::Ingest).filter(Past::is_active);
        let delete: Vec<ObjectName> = at_work
            .filter(|job| !job.is_leaving())
            .map(|job| ObjectName::new(Kind::Job, job.name()))
            .collect();
        if let Some(name) = delete.first().map(|job| job.name.as_str()).or_else(|| self.in_the_way()) {
            // Two at once would publish in the order in which they end, not in which they were asked for.
            let run = run(format!("The Job `{name}`, which nobody asks for any more, is being stopped."));
            return Plan { delete, run, source, ..Plan::default() };
        }
        if let Some(plan) = self.missing_secret() {
            return plan;
        }
        let ticket = Ticket { inputs: self.inputs.to_owned(), run: self.history.next_run(), attempt, slot };
        let name = self.ingests.name(&ticket);
        let children = vec![self.ingests.config_map(&name), self.ingests.job(&ticket)];
        Plan { children, run: run(format!("The Job `{name}` is being made.")), source, ..Plan::default() }
    }

    /// A Job on its way out whose pod may still work.
    fn in_the_way(&self) -> Option<&str> {
        let of = |component| history::all_of(self.observed.jobs, component).find(Past::is_active);
        of(Component::Ingest).or_else(|| of(Component::Purge)).map(|job| job.name())
    }

    /// Tells what a Job's pods do.
    fn watch(&self, latest: &Past<'_>) -> Plan {
        let Observed { pods, events, now, .. } = *self.observed;
        let activity = activity::of(latest, pods, events, pods::INGEST, now);
        // An older one that still works came in between only if somebody made it by hand.
        let mut delete = stop(self.history);
        delete.retain(|job| job.name != latest.name());
        if activity.is_stuck() && self.is_made_otherwise_now(latest) {
            delete = stop(self.history);
        }
        let goes_on = delete.iter().all(|job| job.name != latest.name());
        let has_config_map = self.observed.config_maps.iter().any(|name| name == latest.name());
        let mut plan = Plan {
            delete,
            children: if goes_on && !has_config_map {
                vec![self.ingests.config_map(latest.name())]
            } else {
                Vec::new()
            },
            suspend: (goes_on && latest.is_suspended()).then(|| (latest.name().to_owned(), false)),
            source: told::source(self.history),
            ..Plan::default()
        };
        let Activity { run, progress_of, events_of, next_visit } = activity;
        (plan.progress_of, plan.events_of, plan.next_visit) = (progress_of, events_of, next_visit);
        plan.run = match (run, self.last_failure(latest)) {
            (Run::Waiting(_), Some(failure)) => Run::Failed(failure),
            (run, _) => run,
        };
        match &plan.run {
            Run::Failed(failure) => plan.source = told::source_after(failure, self.history),
            Run::Idle | Run::Waiting(_) | Run::Running => {}
        }
        if plan.run != Run::Running
            && let Some(Plan { run, source, .. }) = self.missing_secret()
        {
            (plan.run, plan.source) = (run, source);
        }
        plan
    }

    fn after_success(&self, latest: &Past<'_>) -> Plan {
        let now = self.observed.now;
        // Another bucket, or one that somebody has emptied: no event tells of its filling, so we do it.
        let is_lost = self.observed.catalogue == Catalogue::Nothing;
        let wait = backoff::wait(Reason::StoreFailed, latest.attempt).filter(|_| is_lost);
        let again = wait.map(|wait| latest.completed() + wait);
        match (self.next_slot(latest), again) {
            (Some(slot), _) if slot <= now => self.begin(1, Some(slot), None),
            (_, Some(again)) if again <= now => self.begin(latest.attempt.saturating_add(1), None, None),
            (slot, again) => Plan {
                source: SourceFacts::Found,
                run: if is_lost { Run::Waiting(lost(latest)) } else { Run::Idle },
                next_visit: slot.into_iter().chain(again).min(),
                ..Plan::default()
            },
        }
    }

    fn after_failure(&self, latest: &Past<'_>, at: Timestamp) -> Plan {
        let now = self.observed.now;
        let failure = told::failure(latest, self.observed.pods)
            .unwrap_or_else(|| Failure::new(Reason::Failed, "The ingest failed."));
        let wait = if self.is_made_otherwise_now(latest) {
            Some(backoff::AFTER_A_CHANGE)
        } else {
            backoff::wait(failure.reason, latest.attempt)
        };
        let again = wait.map(|wait| at + wait);
        // What only an edit can mend is not mended by the time.
        let slot = wait.and_then(|_| self.next_slot(latest));
        match (slot, again) {
            (Some(slot), _) if slot <= now => self.begin(1, Some(slot), Some(&failure)),
            (_, Some(again)) if again <= now => {
                self.begin(latest.attempt.saturating_add(1), None, Some(&failure))
            }
            _ => Plan {
                source: told::source_after(&failure, self.history),
                run: Run::Failed(failure),
                next_visit: slot.into_iter().chain(again).min(),
                ..Plan::default()
            },
        }
    }

    /// Why the attempt before this one failed. Waiting for the next one is no news beside that.
    fn last_failure(&self, latest: &Past<'_>) -> Option<Failure> {
        let before = self.history.newest_ended().filter(|_| latest.attempt > 1)?;
        told::failure(&before, self.observed.pods)
    }

    /// Whether new pods would differ from those of this Job.
    fn is_made_otherwise_now(&self, job: &Past<'_>) -> bool {
        job.pod() != Some(&self.ingests.pod_digest())
    }

    /// The first time of the schedule after this Job; it may have passed.
    fn next_slot(&self, job: &Past<'_>) -> Option<Timestamp> {
        self.dataset.schedule.as_ref()?.next_after(job.scheduled())
    }

    /// A Secret that is not there, which no Job is made without.
    fn missing_secret(&self) -> Option<Plan> {
        let namespace = &self.dataset.namespace;
        let store = &self.settings.store.secret;
        if !self.observed.secrets.contains_key(store) {
            return Some(Plan {
                run: Run::Failed(missing_store_secret(store, namespace)),
                source: told::source(self.history),
                ..Plan::default()
            });
        }
        let (name, field) = source_secret(self.dataset)?;
        if self.observed.secrets.contains_key(name) {
            return None;
        }
        let message = format!(
            "The Secret `{name}`, which `{field}` names, is not in the namespace `{namespace}`. Create it."
        );
        Some(source_failed(Failure::new(Reason::SecretMissing, message)))
    }
}

/// No pod starts without the bucket's credentials.
pub(in crate::cluster) fn missing_store_secret(secret: &str, namespace: &str) -> Failure {
    let message = format!(
        "The Secret `{secret}` with the bucket's credentials is not in the namespace `{namespace}`. Create it with the entries \
         `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."
    );
    Failure::new(Reason::SecretMissing, message)
}

fn lost(job: &Past<'_>) -> String {
    format!("The bucket holds nothing of what the Job `{}` published; the source is read again.", job.name())
}

fn source_failed(failure: Failure) -> Plan {
    Plan { run: Run::Failed(failure.clone()), source: SourceFacts::Failed(failure), ..Plan::default() }
}

/// The Secret that opens the source, and the field that names it.
fn source_secret(dataset: &ReadyDataset) -> Option<(&str, &'static str)> {
    match &dataset.source {
        Source::Http { headers_secret, .. } => {
            Some((headers_secret.as_deref()?, "spec.source.http.headersSecretRef"))
        }
        Source::S3 { credentials_secret, .. } => {
            Some((credentials_secret.as_deref()?, "spec.source.s3.credentialsSecretRef"))
        }
        Source::ConfigMap { .. } | Source::Upload => None,
    }
}

/// The source as a Job is told of it, with the digest of a ConfigMap's entry.
fn source(dataset: &ReadyDataset, entry: Option<&str>) -> Result<JobSource, Failure> {
    match &dataset.source {
        Source::Http { url, sha256, .. } => {
            Ok(JobSource::Http { url: url.to_string(), sha256: sha256.clone() })
        }
        Source::S3 { bucket, objects: Objects::Key(key), endpoint, region, .. } => {
            let key = Key::parse(key.as_str()).map_err(|error| {
                Failure::new(Reason::InvalidSource, format!("spec.source.s3.key: {error}"))
            })?;
            Ok(JobSource::S3 {
                bucket: bucket.clone(),
                key: key.to_string(),
                endpoint: endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
                region: region.clone(),
            })
        }
        Source::S3 { objects: Objects::Prefix(_) | Objects::Glob(_), .. } => Err(Failure::new(
            Reason::NotSupported,
            "spec.source.s3: `prefix` and `glob` are not available yet; name one object with `key`",
        )),
        Source::ConfigMap { name, key } => Ok(JobSource::ConfigMap {
            name: name.clone(),
            key: key.clone(),
            sha256: entry.map(str::to_owned),
        }),
        Source::Upload => Err(Failure::new(Reason::WaitingForUpload, "an upload is read by no Job")),
    }
}

/// The digest of a ConfigMap's entry, which is known before a pod reads it.
fn entry<'a>(dataset: &ReadyDataset, entry: Entry<'a>) -> Result<Option<&'a str>, Failure> {
    let Source::ConfigMap { name, key } = &dataset.source else { return Ok(None) };
    let namespace = &dataset.namespace;
    let missing = |message: String| Err(Failure::new(Reason::SourceMissing, message));
    match entry {
        Entry::Digest(digest) => Ok(Some(digest)),
        Entry::NoKey => missing(format!("The ConfigMap `{name}` has no entry `{key}`.")),
        Entry::NoConfigMap | Entry::NotNeeded => missing(format!(
            "The ConfigMap `{name}`, which `spec.source.configMap` names, is not in the namespace `{namespace}`."
        )),
    }
}

/// Names what an ingest puts out, as far as it can be told before the source is read, and how often it was asked for.
fn inputs(dataset: &ReadyDataset, source: &JobSource) -> String {
    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("plain data with text keys always has a JSON form")
    }
    let refresh = dataset.refresh.as_deref();
    names::full_digest(&[&json(dataset.ingest()), &json(source), &json(&refresh)])
}
