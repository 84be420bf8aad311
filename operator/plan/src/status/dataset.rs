//! What a Dataset's user is told.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::{DatasetManifest, ingest::Progress};
use lakehouse_crds::{
    DatasetStatus,
    conditions::{INGESTED, PUBLISHED, READY, RECONCILING, SERVED, SOURCE_REACHABLE, STALLED},
    dataset::{Format, IngestProgress, LastIngest, StatusColumn, StatusSource},
};

use super::{
    Failure, RunFacts, ServedFacts, answers,
    conditions::{Verdict, Verdicts, whole_seconds},
    ending, endpoint, reconciling, sentence, stalled,
};
use crate::{ReadyDataset, Reason, convert, dataset::Refusal, human};

/// Everything that decides a Dataset's status.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The generation of the spec; absent where no API server counts.
    pub generation: Option<i64>,
    /// What the check of the spec said.
    pub spec: Result<&'a ReadyDataset, &'a Refusal>,
    /// What the catalogue says is current.
    pub manifest: Option<&'a DatasetManifest>,
    /// Why the catalogue could not be asked. What was told of the version before is then told again.
    pub catalogue: Result<(), Failure>,
    /// What is known of the source.
    pub source: SourceFacts,
    /// What is being done.
    pub run: RunFacts<'a>,
    /// What is known of the service that answers requests.
    pub served: ServedFacts,
    /// The last ingest that ended, where this executor saw it.
    pub last_ingest: Option<LastIngest>,
}

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceFacts {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// Nothing has been uploaded yet.
    WaitingForUpload,
    /// It was found and could be read.
    Found,
    /// It could not be read.
    Failed(Failure),
}

/// The status of a Dataset by these facts.
pub fn dataset(previous: Option<&DatasetStatus>, facts: &Facts<'_>, now: Timestamp) -> DatasetStatus {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let verdicts = Verdicts { before, generation: facts.generation, now };
    let source = source_reachable(facts);
    let ingested = ingested(facts);
    let published = published(facts);
    let served = served(facts);
    let ready = ready(facts, &published, &served, &verdicts);
    let reconciling = of_reconciling(facts, &served);
    let conditions = [
        (READY, ready),
        (SOURCE_REACHABLE, source),
        (INGESTED, ingested),
        (PUBLISHED, published),
        (SERVED, served),
        (RECONCILING, reconciling),
        (STALLED, stalled(failure(facts).as_ref())),
    ];
    let told = match (&facts.catalogue, previous) {
        (Err(_), Some(previous)) => previous.clone(),
        _ => of_manifest(facts),
    };
    DatasetStatus {
        observed_generation: facts.generation,
        conditions: conditions.map(|(name, verdict)| verdicts.condition(name, verdict)).into(),
        progress: match &facts.run {
            RunFacts::Running(Some(progress)) => Some(IngestProgress {
                bytes: progress.bytes,
                total_bytes: progress.total_bytes,
                rows: progress.rows,
            }),
            _ => None,
        },
        last_ingest: (facts.last_ingest.clone())
            .or_else(|| previous?.last_ingest.clone())
            .or_else(|| facts.manifest.map(told_by_manifest))
            .map(in_whole_seconds),
        next_run: next_run(facts, now).map(Time),
        endpoint: endpoint(&facts.served),
        ..told
    }
}

/// The status of a Dataset that is being deleted: what was known of it stays, and its end is told.
pub fn deleting(
    previous: Option<&DatasetStatus>,
    generation: Option<i64>,
    run: &RunFacts<'_>,
    now: Timestamp,
) -> DatasetStatus {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let verdicts = Verdicts { before, generation, now };
    DatasetStatus {
        observed_generation: generation,
        conditions: ending(&verdicts, run, "The rows are being removed from the bucket."),
        progress: None,
        next_run: None,
        ..previous.cloned().unwrap_or_default()
    }
}

/// What the published version and the spec tell.
fn of_manifest(facts: &Facts<'_>) -> DatasetStatus {
    let manifest = facts.manifest;
    let origin = manifest.and_then(|manifest| manifest.origin.as_ref());
    let bytes = manifest.map(|manifest| manifest.objects.iter().map(|object| object.size).sum());
    DatasetStatus {
        dataset_id: manifest.map(|manifest| manifest.dataset_id.to_string()),
        version: manifest.map(|manifest| manifest.version),
        schema_fingerprint: manifest.map(|manifest| manifest.schema_fingerprint.clone()),
        columns: manifest.map(columns).unwrap_or_default(),
        rows: manifest.map(|manifest| manifest.row_count),
        bytes,
        size: bytes.map(human::bytes),
        files: manifest.map(|manifest| manifest.objects.len() as u64),
        rejected_rows: origin.map(|origin| origin.rejected_rows),
        format: origin.and_then(|origin| format(&origin.format)).or_else(|| declared_format(facts)),
        source: source_of(facts),
        ..DatasetStatus::default()
    }
}

fn source_reachable(facts: &Facts<'_>) -> Verdict {
    match &facts.source {
        SourceFacts::Unknown => {
            Verdict::unknown(Reason::NotChecked, "The source has not been looked at yet.")
        }
        SourceFacts::WaitingForUpload => Verdict::no(Reason::WaitingForUpload, waiting_for_upload(facts)),
        SourceFacts::Found => Verdict::yes(Reason::SourceFound, "The source could be read."),
        SourceFacts::Failed(failure) => Verdict::failed(failure),
    }
}

fn ingested(facts: &Facts<'_>) -> Verdict {
    let dataset = match facts.spec {
        Ok(dataset) => dataset,
        Err(refusal) => return Verdict::no(refusal.reason(), refusal.to_string()),
    };
    match (&facts.run, facts.manifest) {
        // Nobody looks whether the source has changed since, or finishes what was begun.
        (RunFacts::Idle, Some(_)) if dataset.suspend => {
            Verdict::no(Reason::Suspended, "`spec.suspend` is set.")
        }
        (RunFacts::Failed(failure), _) => Verdict::failed(failure),
        (RunFacts::Running(progress), _) => Verdict::no(Reason::Ingesting, how_far(*progress)),
        (run @ (RunFacts::Waiting | RunFacts::WaitingFor(_)), _) => Verdict::no(Reason::Waiting, waits(run)),
        (RunFacts::Idle, Some(manifest)) => Verdict::yes(
            Reason::UpToDate,
            format!("The store holds {} of the source.", human::rows(manifest.row_count)),
        ),
        (RunFacts::Idle, None) => no_version(facts),
    }
}

fn published(facts: &Facts<'_>) -> Verdict {
    let pin = facts.spec.ok().and_then(|dataset| dataset.pin);
    match (facts.manifest, pin) {
        (None, _) => no_version(facts),
        (Some(manifest), Some(pin)) if manifest.version != pin => Verdict::no(
            Reason::VersionPending,
            format!("Version {} is published; the spec asks for version {pin}.", manifest.version),
        ),
        (Some(manifest), _) => {
            Verdict::yes(Reason::Published, format!("Version {} is published.", manifest.version))
        }
    }
}

fn served(facts: &Facts<'_>) -> Verdict {
    let Some(manifest) = facts.manifest else {
        return match &facts.served {
            ServedFacts::Failed(failure) => Verdict::failed(failure),
            _ => no_version(facts),
        };
    };
    let published = manifest.version;
    match &facts.served {
        ServedFacts::Failed(failure) => Verdict::failed(failure),
        ServedFacts::Serving { version, .. } if *version == published => {
            Verdict::yes(Reason::Serving, format!("SQL is answered from version {version}."))
        }
        ServedFacts::Limping { version, failure, .. } if *version == published => Verdict::yes(
            Reason::Serving,
            format!("SQL is answered from version {version}. However: {}", failure.message),
        ),
        ServedFacts::Serving { version, .. } | ServedFacts::Limping { version, .. } => Verdict::no(
            Reason::NotServed,
            format!("SQL is still answered from version {version}; version {published} follows."),
        ),
        ServedFacts::Waiting(why) => {
            Verdict::no(Reason::NotServed, format!("Version {published} is not served yet: {why}"))
        }
        ServedFacts::NotYet => {
            Verdict::no(Reason::NotServed, format!("Version {published} is not served yet."))
        }
    }
}

fn ready(facts: &Facts<'_>, published: &Verdict, served: &Verdict, verdicts: &Verdicts<'_>) -> Verdict {
    if let Err(refusal) = facts.spec {
        return Verdict::no(refusal.reason(), refusal.to_string());
    }
    match &facts.run {
        RunFacts::Failed(failure) => {
            let rest =
                facts.manifest.map(|manifest| format!(" Version {} stays published.", manifest.version));
            return Verdict::no(
                failure.reason,
                format!("{}{}", sentence(&failure.message), rest.unwrap_or_default()),
            );
        }
        RunFacts::Running(progress) if !verdicts.was_ready() => {
            return Verdict::no(Reason::Ingesting, how_far(*progress));
        }
        run @ (RunFacts::Waiting | RunFacts::WaitingFor(_)) if !verdicts.was_ready() => {
            return Verdict::no(Reason::Waiting, waits(run));
        }
        RunFacts::Running(_) | RunFacts::Waiting | RunFacts::WaitingFor(_) | RunFacts::Idle => {}
    }
    if let SourceFacts::Failed(failure) = &facts.source {
        return Verdict::failed(failure);
    }
    match (published.holds(), served.holds(), facts.manifest) {
        (true, true, Some(manifest)) => Verdict::yes(
            Reason::Serving,
            match &facts.served {
                ServedFacts::Limping { .. } => served.message.clone(),
                _ => format!(
                    "Version {} with {} answers SQL.",
                    manifest.version,
                    human::rows(manifest.row_count)
                ),
            },
        ),
        // Rows came anew and the service still answers the ones before: that is a lag, which others tell, and no outage.
        (true, false, Some(_)) if verdicts.was_ready() && answers(&facts.served) => {
            Verdict::yes(Reason::Serving, served.message.clone())
        }
        (true, _, _) => served.clone(),
        (false, _, _) => published.clone(),
    }
}

fn of_reconciling(facts: &Facts<'_>, served: &Verdict) -> Verdict {
    let failure = failure(facts);
    let rest = match &facts.run {
        RunFacts::Running(progress) => return Verdict::yes(Reason::Ingesting, how_far(*progress)),
        run @ (RunFacts::Waiting | RunFacts::WaitingFor(_)) => Verdict::yes(Reason::Waiting, waits(run)),
        _ if facts.source == SourceFacts::WaitingForUpload => {
            Verdict::no(Reason::WaitingForUpload, waiting_for_upload(facts))
        }
        _ if !served.holds() => Verdict::yes(served.reason, served.message.clone()),
        _ => Verdict::no(Reason::Settled, "There is nothing left to do."),
    };
    reconciling(facts.spec.is_ok_and(|dataset| dataset.suspend), failure.as_ref(), rest)
}

/// What failed, where something did: the spec before the work, the work before the service.
fn failure(facts: &Facts<'_>) -> Option<Failure> {
    let Facts { spec, source, run, served, catalogue, .. } = facts;
    match (spec, run, source, served, catalogue) {
        (Err(refusal), ..) => Some(Failure::new(refusal.reason(), refusal.to_string())),
        (_, RunFacts::Failed(failure), ..)
        | (_, _, SourceFacts::Failed(failure), ..)
        | (_, _, _, ServedFacts::Failed(failure) | ServedFacts::Limping { failure, .. }, _)
        | (.., Err(failure)) => Some(failure.clone()),
        _ => None,
    }
}

/// Why no version is known.
fn no_version(facts: &Facts<'_>) -> Verdict {
    match &facts.catalogue {
        Err(failure) => Verdict::unknown(failure.reason, failure.message.clone()),
        Ok(()) => nothing_yet(facts),
    }
}

/// Why there is no version.
fn nothing_yet(facts: &Facts<'_>) -> Verdict {
    match &facts.source {
        SourceFacts::WaitingForUpload => Verdict::no(Reason::WaitingForUpload, waiting_for_upload(facts)),
        _ if facts.spec.is_ok_and(|dataset| dataset.suspend) => {
            Verdict::no(Reason::Suspended, "`spec.suspend` is set, and no version has been published.")
        }
        _ => Verdict::no(Reason::NotPublished, "No version has been published yet."),
    }
}

fn waiting_for_upload(facts: &Facts<'_>) -> String {
    let name = facts.spec.map_or("<name>", |dataset| dataset.name.as_str());
    format!("Nothing has been uploaded yet; send a file to `POST /v1/ingest?name={name}`.")
}

/// What work waits for.
fn waits<'a>(run: &RunFacts<'a>) -> &'a str {
    match run {
        RunFacts::WaitingFor(sentence) => sentence,
        _ => "The ingest waits for its turn.",
    }
}

fn how_far(progress: Option<&Progress>) -> String {
    let Some(Progress { bytes, total_bytes, rows, .. }) = progress else {
        return "The source is being read.".to_owned();
    };
    let of = total_bytes.map(|total| format!(" of {}", human::bytes(total))).unwrap_or_default();
    format!("{}{of} read, {} so far.", human::bytes(*bytes), human::rows(*rows))
}

fn columns(manifest: &DatasetManifest) -> Vec<StatusColumn> {
    manifest
        .schema
        .iter()
        .map(|column| StatusColumn {
            name: column.name.clone(),
            column_type: convert::status_column_type(column.column_type),
        })
        .collect()
}

fn format(name: &str) -> Option<Format> {
    [Format::CSV, Format::NDJSON, Format::Parquet]
        .into_iter()
        .find(|&word| convert::format(word).as_str() == name)
}

fn declared_format(facts: &Facts<'_>) -> Option<Format> {
    facts.spec.ok()?.format.map(convert::status_format)
}

fn source_of(facts: &Facts<'_>) -> Option<StatusSource> {
    let origin = facts.manifest.and_then(|manifest| manifest.origin.as_ref());
    match (origin, facts.spec) {
        (Some(origin), _) => Some(StatusSource {
            location: origin.source.clone(),
            digest: Some(origin.source_digest.clone()).filter(|digest| !digest.is_empty()),
        }),
        (None, Ok(dataset)) => Some(StatusSource { location: dataset.source.to_string(), digest: None }),
        (None, Err(_)) => None,
    }
}

/// What a manifest tells of the ingest that made it, for an executor that did not see it.
fn told_by_manifest(manifest: &DatasetManifest) -> LastIngest {
    LastIngest {
        started: None,
        finished: Some(Time(manifest.updated_at)),
        duration: manifest.origin.as_ref().map(|origin| human::duration(origin.duration_ms)),
        job: None,
        message: Some(format!("Version {} was published.", manifest.version)),
    }
}

/// As it is written; more would be a difference each time it is read back.
fn in_whole_seconds(ingest: LastIngest) -> LastIngest {
    let whole = |time: Time| Time(whole_seconds(time.0));
    LastIngest { started: ingest.started.map(whole), finished: ingest.finished.map(whole), ..ingest }
}

fn next_run(facts: &Facts<'_>, now: Timestamp) -> Option<Timestamp> {
    let dataset = facts.spec.ok().filter(|dataset| !dataset.suspend)?;
    dataset.schedule.as_ref()?.next_after(now)
}
