//! What a ChatProvider's user is told.
//!
//! The provider is looked at by the pods that ask it; here what they saw becomes conditions. A look every few seconds is no news by
//! itself: its time and its latency are told anew when anything else is, and otherwise after [`PROBE_RENEWAL`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lakehouse_contract::chat::{Probe, ProbeFailure, ProbeStage, ProviderInfo};
use lakehouse_crds::{
    ChatProviderStatus,
    conditions::{Condition, MODELS_DISCOVERED, REACHABLE, READY, RECONCILING, SECRET_RESOLVED, STALLED},
};

use super::{
    EmbedderFacts, Failure, ServedFacts,
    conditions::{Verdict, Verdicts, whole_seconds},
    reconciling, sentence, stalled,
};
use crate::{ReadyProvider, Reason, Refusal, human};

/// So old may the told time of the last look become while nothing else changes.
pub const PROBE_RENEWAL: SignedDuration = SignedDuration::from_mins(10);
/// The most models that a status names; it counts all of them.
const MAX_MODELS: usize = 1000;

/// Everything that decides a ChatProvider's status.
#[derive(Clone, Debug)]
pub struct ProviderFacts<'a> {
    /// The generation of the spec; absent where no API server counts.
    pub generation: Option<i64>,
    /// What the check of the spec said.
    pub spec: Result<&'a ReadyProvider, &'a Refusal>,
    /// What is known of the Secret with the key.
    pub secret: SecretFacts,
    /// What those say who ask the provider.
    pub look: LookFacts<'a>,
    /// What is known of the pods that requests go through.
    pub served: ServedFacts,
    /// Why one of its fallbacks cannot be asked.
    pub fallback: Option<Failure>,
}

/// What is known of the Secret with a provider's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretFacts {
    /// None is needed.
    #[default]
    NotNeeded,
    /// It is not there.
    Missing,
    /// It is there; the text changes whenever it does.
    Found(String),
}

/// What those say who ask a provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LookFacts<'a> {
    /// Nobody has said anything yet.
    #[default]
    NotYet,
    /// Nobody can say anything yet, and this sentence says why.
    Waiting(String),
    /// This. It speaks of the spec as it was before, where a sentence says so.
    Told(&'a ProviderInfo, Option<String>),
    /// It has no language models: this is one of its models for embeddings, or there is none.
    Embeds(Option<EmbedderFacts>),
    /// Those who should say it do not answer.
    Failed(Failure),
}

/// The status of a ChatProvider by these facts.
pub fn chat_provider(
    previous: Option<&ChatProviderStatus>,
    facts: &ProviderFacts<'_>,
    now: Timestamp,
) -> ChatProviderStatus {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let verdicts = Verdicts { before, generation: facts.generation, now };
    let known = Known::of(facts, |seen| verdicts.was_ready() && ready(facts, seen).holds());
    let conditions = [
        (READY, ready(facts, &known)),
        (SECRET_RESOLVED, secret_resolved(facts, &known)),
        (REACHABLE, reachable(facts, &known)),
        (MODELS_DISCOVERED, models_discovered(facts, &known)),
        (RECONCILING, of_reconciling(facts, &known)),
        (STALLED, stalled(failure(facts, &known).as_ref())),
    ];
    let conditions: Vec<Condition> =
        conditions.map(|(name, verdict)| verdicts.condition(name, verdict)).into();
    let endpoint = endpoint(facts, &known, previous);
    let (models, model_count) = models(facts, &known, previous.filter(|status| status.endpoint == endpoint));
    let status = ChatProviderStatus {
        observed_generation: facts.generation,
        conditions,
        models,
        model_count,
        secret_hash: match &facts.secret {
            SecretFacts::Found(hash) => Some(hash.clone()),
            SecretFacts::NotNeeded | SecretFacts::Missing => None,
        },
        endpoint,
        ..ChatProviderStatus::default()
    };
    dated(status, known.probe(), previous)
}

/// A status with the time of the last look: the one that it had, if that is recent and there is no other news.
fn dated(
    mut status: ChatProviderStatus,
    probe: Option<&Probe>,
    previous: Option<&ChatProviderStatus>,
) -> ChatProviderStatus {
    if let Some(previous) = previous {
        status.last_probe.clone_from(&previous.last_probe);
        status.latency_ms = previous.latency_ms;
    }
    // Where nobody has looked since, the last look stays the last.
    let Some(probe) = probe else { return status };
    let is_recent = |at: &Time| probe.at.duration_since(at.0) < PROBE_RENEWAL;
    if previous != Some(&status) || !status.last_probe.as_ref().is_some_and(is_recent) {
        status.last_probe = Some(Time(whole_seconds(probe.at)));
        status.latency_ms = probe.latency_ms;
    }
    status
}

/// What was said of the provider, read once.
enum Known<'a> {
    /// Nobody has looked at it as it is now; the sentence says why.
    Nothing(String),
    /// It was looked at, or has just not been looked at for the first time.
    Info(&'a ProviderInfo),
    /// It is asked for vectors alone.
    Embeds(Option<&'a EmbedderFacts>),
    /// Nobody answers who would know.
    Silence(&'a Failure),
}

impl<'a> Known<'a> {
    /// A look at the spec as it was before counts only where it leaves the provider as ready as it was.
    fn of(facts: &'a ProviderFacts<'_>, stays_ready: impl FnOnce(&Self) -> bool) -> Self {
        match &facts.look {
            LookFacts::NotYet => Self::Nothing("It has not been looked at yet.".to_owned()),
            LookFacts::Waiting(why) => Self::Nothing(why.clone()),
            LookFacts::Told(info, Some(why)) if !stays_ready(&Self::Info(info)) => Self::Nothing(why.clone()),
            LookFacts::Told(info, _) => Self::Info(info),
            LookFacts::Embeds(model) => Self::Embeds(model.as_ref()),
            LookFacts::Failed(failure) => Self::Silence(failure),
        }
    }

    fn info(&self) -> Option<&'a ProviderInfo> {
        match self {
            Self::Info(info) => Some(info),
            Self::Nothing(_) | Self::Embeds(_) | Self::Silence(_) => None,
        }
    }

    fn probe(&self) -> Option<&'a Probe> {
        self.info()?.probe.as_ref()
    }

    fn failed(&self) -> Option<&'a ProbeFailure> {
        self.probe()?.failure.as_ref()
    }

    /// Why nothing is known of the provider itself.
    fn nothing(&self) -> Option<Verdict> {
        match self {
            Self::Nothing(why) => Some(Verdict::unknown(Reason::NotChecked, why.clone())),
            Self::Info(ProviderInfo { probe: None, .. }) => {
                Some(Verdict::unknown(Reason::NotChecked, "It is being looked at for the first time."))
            }
            Self::Silence(failure) => Some(Verdict::unknown(failure.reason, failure.message.clone())),
            Self::Info(_) | Self::Embeds(_) => None,
        }
    }
}

/// The verdict of a condition on a provider that is not looked at.
fn not_looked_at(facts: &ProviderFacts<'_>) -> Option<Verdict> {
    match facts.spec {
        Err(_) => Some(Verdict::unknown(Reason::NotChecked, "The spec is refused.")),
        Ok(ReadyProvider { suspend: true, .. }) => {
            Some(Verdict::unknown(Reason::Suspended, "`spec.suspend` is set; it is not asked."))
        }
        Ok(_) => None,
    }
}

fn secret_resolved(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Verdict {
    let key = match facts.spec {
        Err(_) => return Verdict::unknown(Reason::NotChecked, "The spec is refused."),
        Ok(ReadyProvider { key: None, .. }) => return Verdict::yes(Reason::NotNeeded, "It needs no key."),
        Ok(ReadyProvider { key: Some(key), .. }) => key,
    };
    if let Some(failure) = missing_key(facts, known) {
        return Verdict::failed(&failure);
    }
    let (name, entry) = (&key.name, &key.key);
    let looked = known.probe().is_some() || matches!(known, Known::Embeds(_));
    if looked || not_looked_at(facts).is_some() {
        return Verdict::yes(Reason::KeyFound, format!("The Secret `{name}` is there."));
    }
    let sentence = format!(
        "The Secret `{name}` is there; whether its entry `{entry}` is a key has not been looked at yet."
    );
    Verdict::unknown(Reason::NotChecked, sentence)
}

fn reachable(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Verdict {
    if let Some(verdict) = not_looked_at(facts).or_else(|| without_key(facts, known)) {
        return verdict;
    }
    if let Known::Embeds(model) = known {
        return embeds(*model);
    }
    if let Some(verdict) = known.nothing() {
        return verdict;
    }
    match known.failed() {
        Some(failed) if failed.stage == ProbeStage::Reach => {
            Verdict::no(Reason::ProviderUnreachable, sentence(&failed.message))
        }
        _ => {
            let endpoint = known.info().map(|info| info.endpoint.as_str()).unwrap_or_default();
            Verdict::yes(Reason::ProviderAnswers, format!("{endpoint} answers."))
        }
    }
}

fn models_discovered(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Verdict {
    if let Ok(asked) = facts.spec
        && !asked.allowed().is_empty()
    {
        let sentence = format!("`spec.models` names {}.", count(asked.allowed().len(), "model"));
        return Verdict::yes(Reason::NotNeeded, sentence);
    }
    if let Some(verdict) = not_looked_at(facts).or_else(|| without_key(facts, known)) {
        return verdict;
    }
    if matches!(known, Known::Embeds(_)) {
        return Verdict::yes(
            Reason::NotNeeded,
            "It has no language models; `spec.embeddings` names the others.",
        );
    }
    if let Some(verdict) = known.nothing() {
        return verdict;
    }
    match known.failed().map(of_probe) {
        Some(failure) if failure.reason == Reason::ProviderUnreachable => {
            Verdict::unknown(failure.reason, failure.message)
        }
        Some(failure) => Verdict::failed(&failure),
        None => {
            let models = known.info().map_or(0, |info| info.models.len());
            Verdict::yes(Reason::ModelsListed, format!("It lists {}.", count(models, "model")))
        }
    }
}

fn ready(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Verdict {
    if let Err(refusal) = facts.spec {
        return Verdict::no(refusal.reason(), refusal.to_string());
    }
    if let Some(Verdict { reason, .. }) = not_looked_at(facts) {
        return Verdict::no(reason, "`spec.suspend` is set.");
    }
    if let Some(failure) = missing_key(facts, known) {
        return Verdict::failed(&failure);
    }
    match &facts.served {
        ServedFacts::Failed(failure) => return Verdict::failed(failure),
        ServedFacts::Waiting(why) => {
            return Verdict::no(Reason::NotServed, format!("Requests are not answered yet: {why}"));
        }
        ServedFacts::NotYet => return Verdict::no(Reason::NotServed, "Requests are not answered yet."),
        ServedFacts::Serving { .. } | ServedFacts::Limping { .. } => {}
    }
    if let Some(failure) = trouble(facts, known) {
        return Verdict::failed(&failure);
    }
    if let Known::Embeds(Some(EmbedderFacts::Unknown | EmbedderFacts::Waiting(_))) = known {
        return Verdict::no(Reason::NotServed, embeds_message(known));
    }
    if let Some(Verdict { message, .. }) = known.nothing() {
        return Verdict::no(Reason::NotServed, message);
    }
    let answers = match known.info() {
        Some(info) => format!("{} is asked{}", info.endpoint, claims(info)),
        None => embeds_message(known),
    };
    match limping(facts, known) {
        Some(failure) => {
            Verdict::yes(Reason::Serving, format!("{answers} However: {}", sentence(&failure.message)))
        }
        None => Verdict::yes(Reason::Serving, answers),
    }
}

fn of_reconciling(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Verdict {
    let waiting = match known {
        Known::Embeds(Some(EmbedderFacts::Unknown | EmbedderFacts::Waiting(_))) => {
            Some(embeds_message(known))
        }
        known => known.nothing().map(|verdict| verdict.message),
    };
    let rest = match (&facts.served, waiting) {
        (ServedFacts::Waiting(why), _) => {
            Verdict::yes(Reason::NotServed, format!("Requests are not answered yet: {why}"))
        }
        (ServedFacts::NotYet, _) => Verdict::yes(Reason::NotServed, "Requests are not answered yet."),
        (_, Some(why)) => Verdict::yes(Reason::Waiting, why),
        (_, None) => Verdict::no(Reason::Settled, "There is nothing left to do."),
    };
    reconciling(is_suspended(facts), failure(facts, known).as_ref(), rest)
}

fn is_suspended(facts: &ProviderFacts<'_>) -> bool {
    facts.spec.is_ok_and(|asked| asked.suspend)
}

/// What failed, where something did: what keeps requests away before what only hurts.
fn failure(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Option<Failure> {
    if let Err(refusal) = facts.spec {
        return Some(Failure::new(refusal.reason(), refusal.to_string()));
    }
    if is_suspended(facts) {
        return None;
    }
    let of_pods = match &facts.served {
        ServedFacts::Failed(failure) => Some(failure.clone()),
        _ => None,
    };
    missing_key(facts, known).or(of_pods).or_else(|| trouble(facts, known)).or_else(|| limping(facts, known))
}

/// What keeps requests from being answered as the spec asks, when the pods do.
fn trouble(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Option<Failure> {
    match known {
        Known::Silence(failure) => return Some((*failure).clone()),
        Known::Embeds(Some(EmbedderFacts::Failed(failure))) => return Some(failure.clone()),
        _ => {}
    }
    let has_list = facts.spec.is_ok_and(|asked| !asked.allowed().is_empty());
    let failed = known.failed().map(of_probe);
    // Who names the models himself does not need the provider's list.
    let failed = failed.filter(|failure| failure.reason != Reason::ModelsUnreadable || !has_list);
    failed.or_else(|| {
        let conflicts = known.info().map(|info| info.conflicts.as_slice()).unwrap_or_default();
        let told = conflicts.join(", ");
        let help = "An older ChatProvider keeps what two claim: give this one other routes, or that one.";
        (!conflicts.is_empty()).then(|| {
            Failure::new(Reason::RouteConflict, format!("Not all routes are its own: {told}. {help}"))
        })
    })
}

/// What hurts while requests are answered.
fn limping(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Option<Failure> {
    let of_pods = match &facts.served {
        ServedFacts::Limping { failure, .. } => Some(failure.clone()),
        _ => None,
    };
    let of_requests = known.info().filter(|info| !info.healthy).and_then(|info| {
        let error = info.error.as_ref()?;
        Some(Failure::new(Reason::ProviderUnreachable, format!("the last requests failed: {error}")))
    });
    of_pods.or(of_requests).or_else(|| facts.fallback.clone())
}

/// Why there is no key, where there should be one.
fn missing_key(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Option<Failure> {
    let asked = facts.spec.ok()?;
    let (key, namespace) = (asked.key.as_ref()?, &asked.namespace);
    let (name, entry) = (&key.name, &key.key);
    if facts.secret == SecretFacts::Missing {
        let message = format!(
            "The Secret `{name}` with the key is not in the namespace `{namespace}`. Create it with the entry `{entry}`."
        );
        return Some(Failure::new(Reason::SecretMissing, message));
    }
    let failed = known.failed().filter(|failed| failed.stage == ProbeStage::Key)?;
    let message = format!(
        "The Secret `{name}` is there, but no key has come of its entry `{entry}`: {}",
        sentence(&failed.message)
    );
    Some(Failure::new(Reason::SecretMissing, message))
}

/// The verdict on a provider that cannot be asked for want of its key.
fn without_key(facts: &ProviderFacts<'_>, known: &Known<'_>) -> Option<Verdict> {
    missing_key(facts, known)?;
    Some(Verdict::unknown(Reason::NotChecked, "Without its key it is not asked."))
}

fn of_probe(failed: &ProbeFailure) -> Failure {
    let reason = match failed.stage {
        ProbeStage::Key => Reason::SecretMissing,
        ProbeStage::Reach => Reason::ProviderUnreachable,
        ProbeStage::Accept => Reason::KeyRefused,
        ProbeStage::Models => Reason::ModelsUnreadable,
    };
    Failure::new(reason, sentence(&failed.message))
}

/// Whether a provider of vectors gives some.
fn embeds(model: Option<&EmbedderFacts>) -> Verdict {
    let message = embeds_message(&Known::Embeds(model));
    match model {
        None => Verdict::yes(Reason::NotNeeded, message),
        Some(EmbedderFacts::Answers(_)) => Verdict::yes(Reason::EmbedderAnswers, message),
        Some(EmbedderFacts::Failed(failure)) => Verdict::failed(failure),
        Some(EmbedderFacts::Unknown | EmbedderFacts::Waiting(_)) => {
            Verdict::unknown(Reason::NotChecked, message)
        }
    }
}

fn embeds_message(known: &Known<'_>) -> String {
    match known {
        Known::Embeds(Some(EmbedderFacts::Answers(model))) => {
            format!("`{}` gives vectors of {} numbers.", model.model, model.dimension)
        }
        Known::Embeds(Some(EmbedderFacts::Waiting(why))) => why.clone(),
        Known::Embeds(Some(EmbedderFacts::Failed(failure))) => failure.message.clone(),
        Known::Embeds(None) => {
            "`spec.embeddings` names no model, so it is asked when a VectorIndex names one.".to_owned()
        }
        _ => "It has not been asked yet.".to_owned(),
    }
}

/// Which names lead to a provider.
fn claims(info: &ProviderInfo) -> String {
    let starts = info.prefixes.iter().map(|prefix| format!("`{prefix}…`"));
    let ends = info.suffixes.iter().map(|suffix| format!("`…{suffix}`"));
    let tiers = info.tiers.keys().map(|tier| format!("`{tier}`"));
    let rest = info.default.then(|| "all names that nobody claims".to_owned());
    let claims: Vec<String> = starts.chain(ends).chain(tiers).chain(rest).collect();
    if claims.is_empty() { " as a fallback only.".to_owned() } else { format!(" for {}.", claims.join(", ")) }
}

fn endpoint(
    facts: &ProviderFacts<'_>,
    known: &Known<'_>,
    previous: Option<&ChatProviderStatus>,
) -> Option<String> {
    let own = facts.spec.ok().and_then(ReadyProvider::url).map(str::to_owned);
    let told = known.info().map(|info| info.endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    own.or(told).or_else(|| previous?.endpoint.clone())
}

/// The models that can be asked for, and how many they are. Those that were told last stay told while nobody can be asked.
fn models(
    facts: &ProviderFacts<'_>,
    known: &Known<'_>,
    previous: Option<&ChatProviderStatus>,
) -> (Vec<String>, Option<u32>) {
    let own = facts.spec.ok().map(|asked| if asked.chats() { asked.allowed() } else { asked.embeddings() });
    let own = own.filter(|models| !models.is_empty());
    let told = known.info().filter(|info| info.probe.is_some() && known.failed().is_none());
    let Some(models) = own.or_else(|| told.map(|info| info.models.as_slice())) else {
        return previous.map(|status| (status.models.clone(), status.model_count)).unwrap_or_default();
    };
    let named = models.iter().take(MAX_MODELS).cloned().collect();
    (named, u32::try_from(models.len()).ok())
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        number => format!("{} {what}s", human::count(number as u64)),
    }
}
