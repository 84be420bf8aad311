//! What a VectorIndex's user is told.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::{DatasetName, build::Progress, embed::ModelIdentity, vectors::IndexInfo};
use lakehouse_crds::{
    Dataset, VectorIndexStatus,
    conditions::{
        BUILT, Condition, DATASET_READY, EMBEDDER_READY, FRESH, READY, RECONCILING, SERVED, STALLED,
    },
    vector_index::{BuildProgress, LastBuild, StatusEmbedding},
};

use super::{
    Failure, RunFacts, ServedFacts, answers,
    conditions::{Verdict, Verdicts, whole_seconds},
    ending, endpoint, reconciling, sentence, stalled,
};
use crate::{ReadyVectorIndex, Reason, Refusal, human, vector_index::Source};

/// Everything that decides a VectorIndex's status.
#[derive(Clone, Debug)]
pub struct IndexFacts<'a> {
    /// The generation of the spec; absent where no API server counts.
    pub generation: Option<i64>,
    /// What the check of the spec said.
    pub spec: Result<&'a ReadyVectorIndex, &'a Refusal>,
    /// The index as the store has it.
    pub index: Option<&'a IndexInfo>,
    /// Why nobody could say what the store has. What was told of the version before is then told again.
    pub store: Result<(), Failure>,
    /// What is known of the Dataset.
    pub dataset: DatasetFacts,
    /// What is known of the embedding model.
    pub embedder: EmbedderFacts,
    /// What is being done.
    pub run: RunFacts<'a, Progress>,
    /// What is known of the service that answers searches; an index that clients fill has the version 0.
    pub served: ServedFacts,
    /// The last build that ended, where this executor saw it.
    pub last_build: Option<LastBuild>,
}

/// What is known of the Dataset that an index is built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatasetFacts {
    /// Nobody has looked yet, or the index has none.
    #[default]
    Unknown,
    /// It has this version.
    Found {
        /// The current version.
        version: u64,
        /// Why it is not ready all the same.
        trouble: Option<String>,
    },
    /// It is not there, or has no version.
    Failed(Failure),
}

impl DatasetFacts {
    /// What a Dataset tells by its status.
    pub fn of(name: &DatasetName, namespace: &str, dataset: Option<&Dataset>) -> Self {
        let Some(dataset) = dataset else {
            let message = format!(
                "The Dataset `{name}`, which `spec.source.dataset` names, is not in the namespace `{namespace}`."
            );
            return Self::Failed(Failure::new(Reason::DatasetMissing, message));
        };
        let status = dataset.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == READY);
        let trouble = ready.filter(|ready| ready.status != "True").map(|ready| {
            // How far it has come is told by the Dataset itself, every other second.
            let is_read = ready.reason == Reason::Ingesting.as_str();
            if is_read { "The source is being read.".to_owned() } else { ready.message.clone() }
        });
        if let Some(version) = status.and_then(|status| status.version) {
            return Self::Found { version, trouble };
        }
        let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
        let message = format!("The Dataset `{name}` has no version yet{why}");
        Self::Failed(Failure::new(Reason::DatasetNotReady, sentence(&message)))
    }

    /// The current version.
    pub fn version(&self) -> Option<u64> {
        match self {
            Self::Found { version, .. } => Some(*version),
            Self::Unknown | Self::Failed(_) => None,
        }
    }
}

/// What is known of an embedding model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EmbedderFacts {
    /// Nobody has asked yet, or the index has none.
    #[default]
    Unknown,
    /// It cannot be asked yet, and this sentence says why.
    Waiting(String),
    /// It answers, and this is it.
    Answers(ModelIdentity),
    /// It cannot be used.
    Failed(Failure),
}

impl EmbedderFacts {
    /// The model as it is now.
    pub fn identity(&self) -> Option<&ModelIdentity> {
        match self {
            Self::Answers(identity) => Some(identity),
            Self::Unknown | Self::Waiting(_) | Self::Failed(_) => None,
        }
    }
}

/// The status of a VectorIndex by these facts.
pub fn vector_index(
    previous: Option<&VectorIndexStatus>,
    facts: &IndexFacts<'_>,
    now: Timestamp,
) -> VectorIndexStatus {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let verdicts = Verdicts { before, generation: facts.generation, now };
    let (built, served) = (built(facts), served(facts));
    let ready = ready(facts, &built, &served, &verdicts);
    let conditions = [
        (READY, ready),
        (DATASET_READY, dataset_ready(facts)),
        (EMBEDDER_READY, embedder_ready(facts)),
        (BUILT, built),
        (FRESH, fresh(facts)),
        (RECONCILING, of_reconciling(facts, &served)),
        (SERVED, served),
        (STALLED, stalled(failure(facts).as_ref())),
    ];
    let conditions: Vec<Condition> =
        conditions.map(|(name, verdict)| verdicts.condition(name, verdict)).into();
    let told = match (&facts.store, previous) {
        (Err(_), Some(previous)) => previous.clone(),
        _ => of_index(facts.index),
    };
    let progress = match &facts.run {
        RunFacts::Running(Some(progress)) => Some(*progress),
        _ => None,
    };
    VectorIndexStatus {
        observed_generation: facts.generation,
        conditions,
        pending: match progress {
            Some(Progress { done, total, .. }) => total.map(|total| total.saturating_sub(*done)),
            None => facts.index.map(|_| 0).or(told.pending),
        },
        progress: progress.map(|&Progress { done, total, .. }| BuildProgress { done, total }),
        last_build: (facts.last_build.clone())
            .or_else(|| previous?.last_build.clone())
            .or_else(|| facts.index.and_then(told_by_index))
            .map(in_whole_seconds),
        endpoint: endpoint(&facts.served),
        ..told
    }
}

/// The status of a VectorIndex that is being deleted: what was known of it stays, and its end is told.
pub fn deleting_index(
    previous: Option<&VectorIndexStatus>,
    generation: Option<i64>,
    run: &RunFacts<'_, Progress>,
    now: Timestamp,
) -> VectorIndexStatus {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let verdicts = Verdicts { before, generation, now };
    VectorIndexStatus {
        observed_generation: generation,
        conditions: ending(&verdicts, run, "The vectors are being removed from the bucket."),
        progress: None,
        ..previous.cloned().unwrap_or_default()
    }
}

/// What the index itself tells.
fn of_index(index: Option<&IndexInfo>) -> VectorIndexStatus {
    let Some(index) = index else { return VectorIndexStatus::default() };
    VectorIndexStatus {
        vectors: Some(index.length),
        failed: Some(index.failed),
        dimension: Some(index.shape.dimension),
        embedding: index.embedding.as_ref().map(|model| StatusEmbedding {
            model: model.model.clone(),
            digest: Some(model.digest.clone()).filter(|digest| !digest.is_empty()),
            normalised: Some(model.normalised),
        }),
        dataset_version: index.source.as_ref().map(|source| source.version),
        version: Some(index.version).filter(|&version| version > 0),
        recall: index.recall,
        bytes: Some(index.bytes),
        ..VectorIndexStatus::default()
    }
}

fn dataset_ready(facts: &IndexFacts<'_>) -> Verdict {
    let Some(Source { dataset, .. }) = facts.spec.ok().and_then(|index| index.source.as_ref()) else {
        return match facts.spec {
            Ok(_) => Verdict::yes(Reason::NotNeeded, "Clients fill this index; it follows no Dataset."),
            Err(_) => Verdict::unknown(Reason::NotChecked, "The spec does not say which Dataset."),
        };
    };
    match &facts.dataset {
        DatasetFacts::Unknown => {
            Verdict::unknown(Reason::NotChecked, "The Dataset has not been looked at yet.")
        }
        DatasetFacts::Failed(failure) => Verdict::failed(failure),
        DatasetFacts::Found { version, trouble: None } => {
            Verdict::yes(Reason::Published, format!("The Dataset `{dataset}` has version {version}."))
        }
        DatasetFacts::Found { version, trouble: Some(why) } => Verdict::no(
            Reason::DatasetNotReady,
            format!("The Dataset `{dataset}` has version {version}, but is not ready: {why}"),
        ),
    }
}

fn embedder_ready(facts: &IndexFacts<'_>) -> Verdict {
    let (index, model) = match facts.spec.map(|index| (index, index.model.as_ref())) {
        Ok((index, Some(model))) => (index, model),
        Ok((_, None)) => return Verdict::yes(Reason::NotNeeded, "No text is embedded for this index."),
        Err(_) => return Verdict::unknown(Reason::NotChecked, "The spec does not say which model."),
    };
    match &facts.embedder {
        EmbedderFacts::Unknown => {
            Verdict::unknown(Reason::NotChecked, format!("`{}` has not been asked yet.", model.name))
        }
        EmbedderFacts::Waiting(why) => Verdict::unknown(Reason::NotChecked, why.clone()),
        EmbedderFacts::Failed(failure) => Verdict::failed(failure),
        EmbedderFacts::Answers(identity) => match index.mismatch(identity) {
            Some(failure) => Verdict::failed(&failure),
            None => Verdict::yes(
                Reason::EmbedderAnswers,
                format!("`{}` gives vectors of {} numbers.", identity.model, identity.dimension),
            ),
        },
    }
}

fn built(facts: &IndexFacts<'_>) -> Verdict {
    let asked = match facts.spec {
        Ok(asked) => asked,
        Err(refusal) => return Verdict::no(refusal.reason(), refusal.to_string()),
    };
    if let RunFacts::Failed(failure) = &facts.run {
        return Verdict::failed(failure);
    }
    let Some(index) = facts.index else { return no_index(facts) };
    if let Some(sentence) = asked.conflict(index) {
        return Verdict::no(Reason::IndexConflict, sentence);
    }
    if asked.source.is_none() {
        return Verdict::yes(Reason::Built, "The index is there; clients fill it.");
    }
    let (version, going_on) = (index.version, going_on(&facts.run));
    match asked.pin {
        Some(pin) if pin != version => Verdict::no(
            Reason::VersionPending,
            format!("Version {version} is served; the spec asks for version {pin}."),
        ),
        Some(_) => Verdict::yes(Reason::Built, format!("Version {version} is built.")),
        None if asked.is_made_as_asked(index, facts.embedder.identity()) => {
            let rest = going_on.map(|sentence| format!(" {sentence}")).unwrap_or_default();
            Verdict::yes(Reason::Built, format!("Version {version} is built.{rest}"))
        }
        None if asked.suspend => Verdict::no(
            Reason::Suspended,
            format!("`spec.suspend` is set, and version {version} is not what the spec asks for."),
        ),
        None => {
            let reason =
                if matches!(facts.run, RunFacts::Running(_)) { Reason::Building } else { Reason::NotBuilt };
            let rest = going_on.unwrap_or_else(|| "It is built anew.".to_owned());
            Verdict::no(reason, format!("Version {version} is not what the spec asks for. {rest}"))
        }
    }
}

/// What is being done, where something is.
fn going_on(run: &RunFacts<'_, Progress>) -> Option<String> {
    match run {
        RunFacts::Running(progress) => Some(how_far(*progress)),
        RunFacts::Waiting | RunFacts::WaitingFor(_) => Some(waits(run).to_owned()),
        RunFacts::Idle | RunFacts::Failed(_) => None,
    }
}

/// Why there is no index, as far as anybody knows.
fn no_index(facts: &IndexFacts<'_>) -> Verdict {
    if let Err(failure) = &facts.store {
        return Verdict::unknown(failure.reason, failure.message.clone());
    }
    match &facts.run {
        RunFacts::Running(progress) => Verdict::no(Reason::Building, how_far(*progress)),
        RunFacts::Waiting | RunFacts::WaitingFor(_) => Verdict::no(Reason::Waiting, waits(&facts.run)),
        RunFacts::Idle | RunFacts::Failed(_) if facts.spec.is_ok_and(|index| index.suspend) => {
            Verdict::no(Reason::Suspended, "`spec.suspend` is set, and no version has been built.")
        }
        RunFacts::Idle | RunFacts::Failed(_) => {
            Verdict::no(Reason::NotBuilt, "No version has been built yet.")
        }
    }
}

/// Whether the index holds what the Dataset holds, with both versions.
fn fresh(facts: &IndexFacts<'_>) -> Verdict {
    let Ok(asked) = facts.spec else {
        return Verdict::unknown(Reason::NotChecked, "The spec does not say which Dataset.");
    };
    let Some(source) = &asked.source else {
        return Verdict::yes(Reason::NotNeeded, "Clients fill this index; what they write is found at once.");
    };
    let Some(from) = facts.index.and_then(|index| index.source.as_ref()) else {
        return match (facts.index, &facts.store) {
            (None, Err(failure)) => Verdict::unknown(failure.reason, failure.message.clone()),
            _ => Verdict::no(Reason::NotBuilt, "No version has been built yet."),
        };
    };
    let (held, name) = (from.version, &source.dataset);
    if from.dataset != *name {
        let other = &from.dataset;
        let sentence =
            format!("The index holds version {held} of the Dataset `{other}`; the spec asks for `{name}`.");
        return Verdict::no(Reason::NotBuilt, sentence);
    }
    match facts.dataset.version() {
        None => {
            let sentence = format!(
                "The index holds version {held} of the Dataset `{name}`, whose current one is not known."
            );
            Verdict::unknown(Reason::NotChecked, sentence)
        }
        Some(current) if current == held => Verdict::yes(
            Reason::UpToDate,
            format!("The index holds version {held} of the Dataset `{name}`, the current one."),
        ),
        Some(current) => {
            let rest = match asked {
                ReadyVectorIndex { suspend: true, .. } => " `spec.suspend` is set.",
                ReadyVectorIndex { pin: Some(_), .. } => " `spec.version` is set.",
                _ if !source.on_change => " A new value of the annotation `lakehouse.dev/refresh` builds it.",
                _ => "",
            };
            Verdict::no(
                Reason::DatasetChanged,
                format!(
                    "The index holds version {held} of the Dataset `{name}`, whose current version is {current}.{rest}"
                ),
            )
        }
    }
}

fn served(facts: &IndexFacts<'_>) -> Verdict {
    let Some(index) = facts.index else {
        return match &facts.served {
            ServedFacts::Failed(failure) => Verdict::failed(failure),
            _ => no_index(facts),
        };
    };
    let (current, is_built) = (index.version, index.source.is_some());
    let from = |version: u64| if is_built { format!(" from version {version}") } else { String::new() };
    let what = if is_built { format!("Version {current}") } else { "The index".to_owned() };
    match &facts.served {
        ServedFacts::Failed(failure) => Verdict::failed(failure),
        ServedFacts::Serving { version, .. } if *version == current => {
            Verdict::yes(Reason::Serving, format!("Searches are answered{}.", from(*version)))
        }
        ServedFacts::Limping { version, failure, .. } if *version == current => Verdict::yes(
            Reason::Serving,
            format!("Searches are answered{}. However: {}", from(*version), failure.message),
        ),
        ServedFacts::Serving { version, .. } | ServedFacts::Limping { version, .. } => Verdict::no(
            Reason::NotServed,
            format!("Searches are still answered from version {version}; version {current} follows."),
        ),
        ServedFacts::Waiting(why) => {
            Verdict::no(Reason::NotServed, format!("{what} is not served yet: {why}"))
        }
        ServedFacts::NotYet => Verdict::no(Reason::NotServed, format!("{what} is not served yet.")),
    }
}

fn ready(facts: &IndexFacts<'_>, built: &Verdict, served: &Verdict, verdicts: &Verdicts<'_>) -> Verdict {
    if let Err(refusal) = facts.spec {
        return Verdict::no(refusal.reason(), refusal.to_string());
    }
    let works = matches!(facts.run, RunFacts::Running(_) | RunFacts::Waiting | RunFacts::WaitingFor(_));
    match &facts.run {
        RunFacts::Failed(failure) => {
            let rest = facts.index.filter(|index| index.version > 0);
            let rest = rest.map(|index| format!(" Version {} stays served.", index.version));
            return Verdict::no(
                failure.reason,
                format!("{}{}", sentence(&failure.message), rest.unwrap_or_default()),
            );
        }
        RunFacts::Running(progress) if !verdicts.was_ready() => {
            return Verdict::no(Reason::Building, how_far(*progress));
        }
        run @ (RunFacts::Waiting | RunFacts::WaitingFor(_)) if !verdicts.was_ready() => {
            return Verdict::no(Reason::Waiting, waits(run));
        }
        RunFacts::Running(_) | RunFacts::Waiting | RunFacts::WaitingFor(_) | RunFacts::Idle => {}
    }
    // Nobody edited anything: what is built beside, for a new version of the Dataset or of the model, is no outage.
    let stays = verdicts.was_ready() && answers(&facts.served);
    match (built.holds(), served.holds(), facts.index) {
        (true, true, Some(index)) => Verdict::yes(Reason::Serving, answer(facts, index, served)),
        (true, false, Some(_)) if stays => Verdict::yes(Reason::Serving, served.message.clone()),
        (false, _, Some(_)) if stays && works => Verdict::yes(Reason::Serving, served.message.clone()),
        (true, _, _) => served.clone(),
        (false, _, _) => built.clone(),
    }
}

/// What answers, and what of it does not.
fn answer(facts: &IndexFacts<'_>, index: &IndexInfo, served: &Verdict) -> String {
    if let ServedFacts::Limping { .. } = &facts.served {
        return served.message.clone();
    }
    let vectors = match index.length {
        1 => "1 vector".to_owned(),
        count => format!("{} vectors", human::count(count)),
    };
    let answers = match index.version {
        0 => format!("{vectors} can be found."),
        version => format!("Version {version} with {vectors} answers searches."),
    };
    match (embedder_failure(facts), damage(index)) {
        (_, Some(failure)) => format!("{answers} However: {}", failure.message),
        (Some(failure), None) => {
            format!("{answers} However, searches with a text fail: {}", sentence(&failure.message))
        }
        (None, None) => answers,
    }
}

/// What of an index cannot be read.
fn damage(index: &IndexInfo) -> Option<Failure> {
    let told: Vec<String> = index.damaged.iter().map(|words| sentence(words)).collect();
    (!told.is_empty()).then(|| Failure::new(Reason::ServingFailed, told.join(" ")))
}

fn of_reconciling(facts: &IndexFacts<'_>, served: &Verdict) -> Verdict {
    let rest = match &facts.run {
        RunFacts::Running(progress) => return Verdict::yes(Reason::Building, how_far(*progress)),
        run @ (RunFacts::Waiting | RunFacts::WaitingFor(_)) => Verdict::yes(Reason::Waiting, waits(run)),
        _ if !served.holds() => Verdict::yes(served.reason, served.message.clone()),
        _ => Verdict::no(Reason::Settled, "There is nothing left to do."),
    };
    reconciling(facts.spec.is_ok_and(|index| index.suspend), failure(facts).as_ref(), rest)
}

/// What failed, where something did: the spec before the work, the work before the service.
fn failure(facts: &IndexFacts<'_>) -> Option<Failure> {
    let asked = match facts.spec {
        Ok(asked) => asked,
        Err(refusal) => return Some(Failure::new(refusal.reason(), refusal.to_string())),
    };
    if let RunFacts::Failed(failure) = &facts.run {
        return Some(failure.clone());
    }
    if let Some(sentence) = facts.index.and_then(|index| asked.conflict(index)) {
        return Some(Failure::new(Reason::IndexConflict, sentence));
    }
    let of_dataset = match (&facts.dataset, &asked.source) {
        (DatasetFacts::Failed(failure), Some(_)) => Some(failure.clone()),
        _ => None,
    };
    let of_service = match (&facts.served, &facts.store) {
        (ServedFacts::Failed(failure) | ServedFacts::Limping { failure, .. }, _) | (_, Err(failure)) => {
            Some(failure.clone())
        }
        _ => None,
    };
    of_dataset.or_else(|| embedder_failure(facts)).or(of_service).or_else(|| facts.index.and_then(damage))
}

/// Why text cannot be embedded.
fn embedder_failure(facts: &IndexFacts<'_>) -> Option<Failure> {
    let asked = facts.spec.ok()?;
    asked.model.as_ref()?;
    match &facts.embedder {
        EmbedderFacts::Failed(failure) => Some(failure.clone()),
        EmbedderFacts::Answers(identity) => asked.mismatch(identity),
        EmbedderFacts::Unknown | EmbedderFacts::Waiting(_) => None,
    }
}

/// What work waits for.
fn waits<'a>(run: &RunFacts<'a, Progress>) -> &'a str {
    match run {
        RunFacts::WaitingFor(sentence) => sentence,
        _ => "The build waits for its turn.",
    }
}

fn how_far(progress: Option<&Progress>) -> String {
    let Some(Progress { done, total, message, .. }) = progress else {
        return "The index is being built.".to_owned();
    };
    let of = total.map(|total| format!(" of {}", human::count(total))).unwrap_or_default();
    let rest = message.as_ref().map(|message| format!(" {}", sentence(message))).unwrap_or_default();
    format!("{}{of} rows have their vectors so far.{rest}", human::count(*done))
}

/// What an index tells of the build that made it, for an executor that did not see it.
fn told_by_index(index: &IndexInfo) -> Option<LastBuild> {
    index.source.as_ref()?;
    Some(LastBuild {
        started: None,
        finished: Some(Time(index.updated_at)),
        duration: None,
        job: None,
        message: Some(format!("Version {} was published.", index.version)),
    })
}

/// As it is written; more would be a difference each time it is read back.
fn in_whole_seconds(build: LastBuild) -> LastBuild {
    let whole = |time: Time| Time(whole_seconds(time.0));
    LastBuild { started: build.started.map(whole), finished: build.finished.map(whole), ..build }
}
