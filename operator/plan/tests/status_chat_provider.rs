//! The status of a provider tells the truth: whether its key is there, whether it answers, what it has, and whether names lead to it.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{
    chat::{Probe, ProbeFailure, ProbeStage, ProviderInfo},
    embed::ModelIdentity,
    provider::ProviderKind,
};
use lakehouse_crds::{ChatProvider, ChatProviderStatus};
use lakehouse_plan::{
    ReadyProvider, Reason, Refusal,
    chat_provider::{check, fallback_failure},
    status::{
        self, EmbedderFacts, Failure, LookFacts, PROBE_RENEWAL, ProviderFacts, SecretFacts, ServedFacts,
    },
};
use serde_json::{Value, json};

#[test]
fn a_provider_that_answers_is_ready_and_its_numbers_are_its_own() {
    let (asked, info) = (keyed(&json!({})), info());
    let status = tell(None, &answering(&asked, &info));
    assert_eq!(
        all(&status),
        [
            "Ready True Serving",
            "SecretResolved True KeyFound",
            "Reachable True ProviderAnswers",
            "ModelsDiscovered True ModelsListed",
            "Reconciling False Settled",
            "Stalled False Settled",
        ]
    );
    assert_eq!(
        message(&status, "Ready"),
        "https://up.example/v1 is asked for `up/…`, all names that nobody claims."
    );
    assert_eq!(message(&status, "ModelsDiscovered"), "It lists 2 models.");
    assert_eq!((status.models.len(), status.model_count, status.latency_ms), (2, Some(2), Some(12)));
    assert_eq!(status.endpoint.as_deref(), Some("https://up.example/v1"));
    assert_eq!((status.secret_hash.as_deref(), status.observed_generation), (Some("hash"), Some(1)));
    assert_eq!(status.last_probe.unwrap().0, now());
}

#[test]
fn each_step_of_a_look_that_fails_is_the_condition_of_its_name_and_those_before_it_hold() {
    let asked = keyed(&json!({}));
    for (stage, conditions, stalls) in [
        (
            ProbeStage::Key,
            [
                "SecretResolved False SecretMissing",
                "Reachable Unknown NotChecked",
                "ModelsDiscovered Unknown NotChecked",
            ],
            false,
        ),
        (
            ProbeStage::Reach,
            [
                "SecretResolved True KeyFound",
                "Reachable False ProviderUnreachable",
                "ModelsDiscovered Unknown ProviderUnreachable",
            ],
            false,
        ),
        (
            ProbeStage::Accept,
            [
                "SecretResolved True KeyFound",
                "Reachable True ProviderAnswers",
                "ModelsDiscovered False KeyRefused",
            ],
            true,
        ),
        (
            ProbeStage::Models,
            [
                "SecretResolved True KeyFound",
                "Reachable True ProviderAnswers",
                "ModelsDiscovered False ModelsUnreadable",
            ],
            false,
        ),
    ] {
        let info = failing(stage, "the upstream's own words");
        let status = tell(None, &answering(&asked, &info));
        assert_eq!(all(&status)[1..4], conditions, "{stage:?}");
        assert!(all(&status)[0].starts_with("Ready False"), "{stage:?}");
        assert!(
            message(&status, "Ready").contains("the upstream's own words"),
            "{}",
            message(&status, "Ready")
        );
        // kstatus: what heals by itself goes on, what waits for somebody is stuck.
        assert_eq!(
            (value(&status, "Stalled") == "True", value(&status, "Reconciling") == "True"),
            (stalls, !stalls)
        );
    }
}

#[test]
fn who_names_his_models_needs_no_list_of_the_provider() {
    let asked = keyed(&json!({"models": ["a", "b", "c"]}));
    let info = failing(ProbeStage::Models, "no list");
    let status = tell(None, &answering(&asked, &info));
    assert_eq!((value(&status, "Ready"), reason(&status, "ModelsDiscovered")), ("True", "NotNeeded"));
    assert_eq!((status.models, status.model_count), (vec!["a".into(), "b".into(), "c".into()], Some(3)));
}

#[test]
fn a_missing_secret_is_named_with_its_entry_and_waited_for() {
    let (asked, info) = (keyed(&json!({})), info());
    let facts = ProviderFacts { secret: SecretFacts::Missing, ..answering(&asked, &info) };
    let status = tell(None, &facts);
    let sentence =
        "The Secret `keys` with the key is not in the namespace `default`. Create it with the entry `up`.";
    assert_eq!((reason(&status, "SecretResolved"), message(&status, "Ready")), ("SecretMissing", sentence));
    assert_eq!((value(&status, "Reconciling"), value(&status, "Stalled")), ("True", "False"));
    assert_eq!(status.secret_hash, None);
    let keyless = check(&provider(json!({"type": "Ollama", "url": "http://o:11434"}))).unwrap();
    let status = tell(None, &ProviderFacts { secret: SecretFacts::NotNeeded, ..answering(&keyless, &info) });
    assert_eq!((value(&status, "SecretResolved"), reason(&status, "SecretResolved")), ("True", "NotNeeded"));
}

#[test]
fn a_route_that_an_older_provider_has_keeps_the_newer_from_being_ready_until_somebody_acts() {
    let asked = keyed(&json!({}));
    let conflicts = vec!["the prefix `up/` belongs to `old`".to_owned(), "the default is `old`".to_owned()];
    let info = ProviderInfo { conflicts, default: false, prefixes: Vec::new(), ..info() };
    let status = tell(None, &answering(&asked, &info));
    assert_eq!((value(&status, "Ready"), reason(&status, "Ready")), ("False", "RouteConflict"));
    for part in ["the prefix `up/` belongs to `old`, the default is `old`.", "give this one other routes"] {
        assert!(message(&status, "Ready").contains(part), "{}", message(&status, "Ready"));
    }
    assert_eq!((value(&status, "Stalled"), value(&status, "Reconciling")), ("True", "False"));
    assert_eq!(
        all(&status)[1..4].iter().filter(|one| one.contains(" True ")).count(),
        3,
        "it works otherwise"
    );
}

#[test]
fn what_only_hurts_is_told_beside_what_works() {
    let (asked, good) = (keyed(&json!({"fallback": ["other"]})), info());
    let fallback = fallback_failure(&asked, |_| None);
    let status = tell(None, &ProviderFacts { fallback, ..answering(&asked, &good) });
    let told =
        "However: The ChatProvider `other`, which `spec.fallback` names, is not in the namespace `default`.";
    assert_eq!(value(&status, "Ready"), "True");
    assert!(message(&status, "Ready").ends_with(told), "{}", message(&status, "Ready"));
    assert_eq!(reason(&status, "Reconciling"), "ProviderMissing");

    let resting = ProviderInfo { healthy: false, error: Some("429: quota".to_owned()), ..good };
    let status = tell(None, &answering(&asked, &resting));
    assert!(message(&status, "Ready").ends_with("However: the last requests failed: 429: quota."));
}

#[test]
fn a_fallback_that_cannot_be_asked_is_told_with_the_reason() {
    let asked = keyed(&json!({"fallback": ["other"]}));
    let told = |spec: Value| {
        let other = provider(spec);
        fallback_failure(&asked, |name| (name == "other").then_some(&other)).map(|failure| failure.message)
    };
    assert_eq!(told(json!({"type": "Ollama", "url": "http://h"})), None);
    for (spec, why) in [
        (json!({"type": "Ollama", "url": "http://h", "suspend": true}), "is suspended."),
        (json!({"type": "Voyage", "apiKeySecretRef": {"name": "k", "key": "k"}}), "has no language models."),
        (json!({"type": "Kimi"}), "is refused: spec.apiKeySecretRef: this type needs a key"),
    ] {
        assert!(told(spec).unwrap().contains(why), "{why}");
    }
}

#[test]
fn pods_that_do_not_answer_are_told_and_what_they_said_before_stays() {
    let (asked, info) = (keyed(&json!({})), info());
    let before = tell(None, &answering(&asked, &info));
    let failure = Failure::new(Reason::ImagePullFailed, "denied");
    let facts = ProviderFacts {
        served: ServedFacts::Failed(failure),
        look: LookFacts::NotYet,
        ..answering(&asked, &info)
    };
    let status = tell(Some(&before), &facts);
    assert_eq!((value(&status, "Ready"), reason(&status, "Ready")), ("False", "ImagePullFailed"));
    assert_eq!(value(&status, "Reachable"), "Unknown");
    assert_eq!((status.models, status.last_probe), (before.models, before.last_probe));
    let waiting = ServedFacts::Waiting("the Deployment `lakehouse-chat` has no pod yet.".to_owned());
    let status =
        tell(None, &ProviderFacts { served: waiting, look: LookFacts::NotYet, ..answering(&asked, &info) });
    assert_eq!((reason(&status, "Ready"), value(&status, "Reconciling")), ("NotServed", "True"));
}

#[test]
fn an_edit_is_not_ready_before_the_pods_have_read_it_and_another_ones_edit_changes_nothing() {
    let (asked, info) = (keyed(&json!({})), info());
    let before = tell(None, &answering(&asked, &info));
    let behind =
        || LookFacts::Told(&info, Some("The pod `x` is about to hear of the newest settings.".to_owned()));
    let edited = ProviderFacts { generation: Some(2), look: behind(), ..answering(&asked, &info) };
    let status = tell(Some(&before), &edited);
    assert_eq!((value(&status, "Ready"), value(&status, "Reconciling")), ("False", "True"));
    assert_eq!(message(&status, "Ready"), "The pod `x` is about to hear of the newest settings.");
    let status = tell(Some(&before), &ProviderFacts { look: behind(), ..answering(&asked, &info) });
    assert_eq!(value(&status, "Ready"), "True");
}

#[test]
fn a_refused_spec_is_stuck_and_a_suspended_provider_rests() {
    let refused = check(&provider(json!({"type": "Ollama"}))).unwrap_err();
    let facts = ProviderFacts { look: LookFacts::NotYet, ..facts(Err(&refused)) };
    let status = tell(None, &facts);
    assert_eq!(
        (reason(&status, "Ready"), value(&status, "Stalled"), value(&status, "Reconciling")),
        ("InvalidSpec", "True", "False")
    );
    assert!(message(&status, "Ready").starts_with("spec.url: "));

    let resting = keyed(&json!({"suspend": true}));
    let status = tell(None, &ProviderFacts { look: LookFacts::NotYet, ..facts_of(&resting) });
    assert_eq!(
        all(&status),
        [
            "Ready False Suspended",
            "SecretResolved True KeyFound",
            "Reachable Unknown Suspended",
            "ModelsDiscovered Unknown Suspended",
            "Reconciling False Suspended",
            "Stalled False Settled",
        ]
    );
}

#[test]
fn the_time_of_a_look_is_told_with_other_news_or_when_it_grows_old() {
    let (asked, first) = (keyed(&json!({})), info());
    let before = tell(None, &answering(&asked, &first));
    let later = |seconds: i64, models: &[&str]| {
        let probe =
            Probe { at: now() + SignedDuration::from_secs(seconds), latency_ms: Some(99), failure: None };
        let models = models.iter().map(ToString::to_string).collect();
        let info = ProviderInfo { probe: Some(probe), models, ..first.clone() };
        tell(Some(&before), &answering(&asked, &info))
    };
    assert_eq!(later(30, &["a", "b"]), before, "a look that saw the same writes nothing");
    assert_eq!(later(PROBE_RENEWAL.as_secs(), &["a", "b"]).latency_ms, Some(99));
    let status = later(30, &["a", "b", "c"]);
    assert_eq!((status.latency_ms, status.model_count), (Some(99), Some(3)));
}

#[test]
fn a_provider_of_vectors_is_known_by_those_who_embed() {
    let spec = json!({"type": "Voyage", "apiKeySecretRef": {"name": "keys", "key": "up"}, "embeddings": {"models": ["v"]}});
    let asked = check(&provider(spec)).unwrap();
    let model = ModelIdentity { model: "up/v".into(), digest: "d".into(), dimension: 1024, normalised: true };
    let told = |model: EmbedderFacts| {
        tell(None, &ProviderFacts { look: LookFacts::Embeds(Some(model)), ..facts_of(&asked) })
    };
    let status = told(EmbedderFacts::Answers(model));
    assert_eq!(
        (value(&status, "Ready"), message(&status, "Ready")),
        ("True", "`up/v` gives vectors of 1024 numbers.")
    );
    assert_eq!(
        (reason(&status, "Reachable"), reason(&status, "ModelsDiscovered")),
        ("EmbedderAnswers", "NotNeeded")
    );
    assert_eq!((status.models, status.model_count), (vec!["v".to_owned()], Some(1)));
    let status = told(EmbedderFacts::Failed(Failure::new(Reason::EmbedderFailed, "401: no")));
    assert_eq!((reason(&status, "Ready"), message(&status, "Reachable")), ("EmbedderFailed", "401: no"));
    let status = told(EmbedderFacts::Unknown);
    assert_eq!((value(&status, "Ready"), value(&status, "Reconciling")), ("False", "True"));
    let status = tell(None, &ProviderFacts { look: LookFacts::Embeds(None), ..facts_of(&asked) });
    assert_eq!((value(&status, "Ready"), reason(&status, "Reachable")), ("True", "NotNeeded"));
}

/// Whatever is observed, in whatever order: the status is whole, what is told twice is told the same, and kstatus understands it.
#[test]
fn any_walk_through_the_facts_is_told_without_a_contradiction() {
    let specs = [keyed(&json!({})), keyed(&json!({"models": ["m"]})), keyed(&json!({"suspend": true}))];
    let infos: Vec<ProviderInfo> =
        [ProbeStage::Key, ProbeStage::Reach, ProbeStage::Accept, ProbeStage::Models]
            .into_iter()
            .map(|stage| failing(stage, "why"))
            .chain([
                info(),
                ProviderInfo { probe: None, ..info() },
                ProviderInfo { conflicts: vec!["the default is `old`".to_owned()], ..info() },
                ProviderInfo { healthy: false, error: Some("e".to_owned()), ..info() },
            ])
            .collect();
    let mut random = 7_u64;
    let mut pick = |of: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % of
    };
    let mut before = None;
    for step in 0..5000_i64 {
        let info = &infos[pick(infos.len())];
        let facts = ProviderFacts {
            generation: Some(i64::try_from(pick(2)).unwrap()),
            secret: [SecretFacts::Missing, SecretFacts::Found("hash".to_owned())][pick(2)].clone(),
            look: match pick(6) {
                0 => LookFacts::NotYet,
                1 => LookFacts::Waiting("It waits.".to_owned()),
                2 => LookFacts::Failed(Failure::new(Reason::ServingFailed, "silent")),
                3 => LookFacts::Told(info, Some("It is behind.".to_owned())),
                _ => LookFacts::Told(info, None),
            },
            served: match pick(4) {
                0 => ServedFacts::Waiting("no pod.".to_owned()),
                1 => ServedFacts::Failed(Failure::new(Reason::OutOfMemory, "more")),
                _ => serving(),
            },
            ..facts_of(&specs[pick(3)])
        };
        let at = now() + SignedDuration::from_secs(step);
        let status = status::chat_provider(before.as_ref(), &facts, at);
        assert_eq!(
            status::chat_provider(Some(&status), &facts, at + SignedDuration::from_secs(1)),
            status,
            "{facts:?}"
        );
        assert_eq!(status.conditions.len(), 6);
        let [ready, stalled, reconciling] =
            ["Ready", "Stalled", "Reconciling"].map(|name| value(&status, name) == "True");
        assert!(!stalled || !ready && !reconciling, "{:#?}", all(&status));
        let rests = reason(&status, "Ready") == "Suspended";
        assert!(ready || stalled || reconciling || rests, "somebody waits for nothing: {:#?}", all(&status));
        assert!(!ready || value(&status, "Reachable") == "True", "{:#?}", all(&status));
        before = Some(status);
    }
}

fn tell(previous: Option<&ChatProviderStatus>, facts: &ProviderFacts<'_>) -> ChatProviderStatus {
    status::chat_provider(previous, facts, now())
}

fn answering<'a>(asked: &'a ReadyProvider, info: &'a ProviderInfo) -> ProviderFacts<'a> {
    ProviderFacts { look: LookFacts::Told(info, None), ..facts_of(asked) }
}

fn facts_of(asked: &ReadyProvider) -> ProviderFacts<'_> {
    facts(Ok(asked))
}

fn facts<'a>(spec: Result<&'a ReadyProvider, &'a Refusal>) -> ProviderFacts<'a> {
    ProviderFacts {
        generation: Some(1),
        spec,
        secret: SecretFacts::Found("hash".to_owned()),
        look: LookFacts::NotYet,
        served: serving(),
        fallback: None,
    }
}

fn serving() -> ServedFacts {
    ServedFacts::Serving { endpoint: "http://lakehouse.default.svc:3110".to_owned(), version: 0 }
}

fn keyed(more: &Value) -> ReadyProvider {
    let mut spec = json!({"type": "OpenAI", "apiKeySecretRef": {"name": "keys", "key": "up"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    check(&provider(spec)).unwrap()
}

fn provider(spec: Value) -> ChatProvider {
    ChatProvider::new("up", serde_json::from_value(spec).unwrap())
}

fn info() -> ProviderInfo {
    ProviderInfo {
        name: "up".to_owned(),
        kind: ProviderKind::OpenAI,
        digest: String::new(),
        endpoint: "https://up.example/v1".to_owned(),
        default: true,
        prefixes: vec!["up/".to_owned()],
        suffixes: Vec::new(),
        models: vec!["a".to_owned(), "b".to_owned()],
        tiers: BTreeMap::new(),
        weak_models: Vec::new(),
        fallback: Vec::new(),
        healthy: true,
        in_flight: 0,
        conflicts: Vec::new(),
        error: None,
        probe: Some(Probe { at: now(), latency_ms: Some(12), failure: None }),
    }
}

fn failing(stage: ProbeStage, message: &str) -> ProviderInfo {
    let failure = Some(ProbeFailure { stage, message: message.to_owned() });
    let probe = Some(Probe { at: now(), latency_ms: None, failure });
    ProviderInfo { probe, models: Vec::new(), healthy: false, error: Some(message.to_owned()), ..info() }
}

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// `condition value reason` of each.
fn all(status: &ChatProviderStatus) -> Vec<String> {
    status.conditions.iter().map(|one| format!("{} {} {}", one.type_, one.status, one.reason)).collect()
}

fn value<'a>(status: &'a ChatProviderStatus, name: &str) -> &'a str {
    &status.conditions.iter().find(|one| one.type_ == name).unwrap().status
}

fn reason<'a>(status: &'a ChatProviderStatus, name: &str) -> &'a str {
    &status.conditions.iter().find(|one| one.type_ == name).unwrap().reason
}

fn message<'a>(status: &'a ChatProviderStatus, name: &str) -> &'a str {
    &status.conditions.iter().find(|one| one.type_ == name).unwrap().message
}
