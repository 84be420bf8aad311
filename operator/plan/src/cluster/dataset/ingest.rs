//! The Job that reads a Dataset's source: what it is asked for.

use lakehouse_contract::{
    Key,
    job::{IngestJob, JobSource},
};
use serde::Serialize;

use super::{Catalogue, Entry, Observed, Plan, Run, told};
use crate::{
    ReadyDataset, Reason,
    cluster::{
        Settings,
        history::History,
        job::{For, Ingests},
        meta::{Component, ResourceKind},
        names,
        pod::Surroundings,
        pods,
        work::{self, Doing, Work, missing_store_secret},
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
        Err(failure) => {
            let run = Run::Failed(failure.clone());
            return Plan { run, source: SourceFacts::Failed(failure), ..Plan::default() };
        }
    };
    let source = match source(dataset, entry) {
        Ok(source) => source,
        Err(failure) => {
            return Plan { delete: work::stop(history), run: Run::Failed(failure), ..Plan::default() };
        }
    };
    let inputs = inputs(dataset, &source);
    let secret = |name: &str| observed.secrets.get(name).map(String::as_str);
    let (namespace, store) = (dataset.namespace.as_str(), settings.store.secret.as_str());
    let ingests = Ingests {
        of: For { kind: ResourceKind::Dataset, namespace, name: dataset.name.as_str(), uid },
        dataset,
        work: IngestJob { spec: dataset.ingest().clone(), source, keep_versions: dataset.keep_versions },
        surroundings: Surroundings { namespace, store_secret: secret(store) },
        source_secret: source_secret(dataset).and_then(|(name, _)| secret(name)),
        settings,
    };
    let missing = secret(store).is_none().then(|| missing_store_secret(store, namespace));
    let missing_of_source = missing_source_secret(dataset, observed);
    let is_lost = observed.catalogue == Catalogue::Nothing;
    let work = Work {
        make: &ingests,
        component: Component::Ingest,
        inputs: &inputs,
        schedule: dataset.schedule.as_ref(),
        missing: missing.or_else(|| missing_of_source.clone()),
        lost: is_lost.then_some("the source is read again"),
        nameless: "The ingest failed.",
        knobs: pods::INGEST,
        history,
        seen: observed.seen(),
    };
    let Doing { delete, children, suspend, run, events_of, progress_of, next_visit } = work.next();
    let source = match &run {
        Run::Failed(failure) if Some(failure) == missing_of_source.as_ref() => {
            SourceFacts::Failed(failure.clone())
        }
        Run::Failed(failure) => told::source_after(failure, history),
        Run::Idle | Run::Waiting(_) | Run::Running => told::source(history),
    };
    Plan { delete, children, suspend, events_of, progress_of, run, source, next_visit, ..Plan::default() }
}

/// Why the source cannot be opened: its Secret is not there.
fn missing_source_secret(dataset: &ReadyDataset, observed: &Observed<'_>) -> Option<Failure> {
    let (name, field) = source_secret(dataset)?;
    if observed.secrets.contains_key(name) {
        return None;
    }
    let namespace = &dataset.namespace;
    let message = format!(
        "The Secret `{name}`, which `{field}` names, is not in the namespace `{namespace}`. Create it."
    );
    Some(Failure::new(Reason::SecretMissing, message))
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
