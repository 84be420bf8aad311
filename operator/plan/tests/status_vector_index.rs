//! The status of an index tells the truth: which version of what it holds, whether that is the newest, and what hurts.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{
    build::{Phase, Progress},
    embed::ModelIdentity,
    vectors::{BuiltFrom, IndexInfo, Shape},
};
use lakehouse_crds::{Dataset, DatasetStatus, VectorIndex, VectorIndexStatus};
use lakehouse_plan::{
    ReadyVectorIndex, Reason,
    status::{self, DatasetFacts, EmbedderFacts, Failure, IndexFacts, RunFacts, ServedFacts},
    vector_index::check,
};
use serde_json::{Value, json};

#[test]
fn a_served_index_is_ready_and_its_numbers_are_the_indexes_own() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let status = tell(None, &served(&asked, &index));
    for condition in ["Ready", "DatasetReady", "EmbedderReady", "Built", "Served", "Fresh"] {
        assert!(shown(&status, condition).starts_with("True"), "{}", shown(&status, condition));
    }
    assert_eq!(shown(&status, "Ready"), "True Serving: Version 3 with 1,200 vectors answers searches.");
    assert_eq!(shown(&status, "Reconciling"), "False Settled: There is nothing left to do.");
    assert!(shown(&status, "Stalled").starts_with("False"));
    assert_eq!((status.version, status.dataset_version, status.vectors), (Some(3), Some(7), Some(1200)));
    assert_eq!((status.failed, status.pending, status.dimension), (Some(2), Some(0), Some(384)));
    let embedding = status.embedding.unwrap();
    assert_eq!((embedding.model.as_str(), embedding.normalised), ("local/lexical", Some(true)));
    assert_eq!(status.endpoint.as_deref(), Some("http://h"));
    assert_eq!(status.last_build.unwrap().message.as_deref(), Some("Version 3 was published."));
}

#[test]
fn fresh_is_false_with_both_versions_when_the_dataset_has_moved_on() {
    let index = info(3, 7);
    let moved = |spec: Value| {
        let asked = built(spec);
        let facts = IndexFacts { dataset: found(8), ..served(&asked, &index) };
        shown(&tell(None, &facts), "Fresh")
    };
    let sentence = "False DatasetChanged: The index holds version 7 of the Dataset `workers`, whose current version is 8.";
    assert_eq!(moved(json!({})), sentence);
    assert_eq!(moved(json!({"suspend": true})), format!("{sentence} `spec.suspend` is set."));
    assert_eq!(moved(json!({"version": 3})), format!("{sentence} `spec.version` is set."));
    assert!(moved(json!({"refresh": "Manual"})).contains("lakehouse.dev/refresh"));
}

#[test]
fn a_refresh_leaves_an_index_ready_and_built() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let before = tell(None, &served(&asked, &index));
    let progress = progress(300, Some(1200));
    let facts =
        IndexFacts { dataset: found(8), run: RunFacts::Running(Some(&progress)), ..served(&asked, &index) };
    let status = tell(Some(&before), &facts);
    assert!(shown(&status, "Ready").starts_with("True Serving"), "{}", shown(&status, "Ready"));
    let how_far = "300 of 1,200 rows have their vectors so far.";
    assert_eq!(shown(&status, "Built"), format!("True Built: Version 3 is built. {how_far}"));
    assert_eq!(shown(&status, "Reconciling"), format!("True Building: {how_far}"));
    assert_eq!((status.pending, status.progress.unwrap().total), (Some(900), Some(1200)));
}

#[test]
fn another_model_builds_beside_and_what_is_served_stays_ready() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let before = tell(None, &served(&asked, &index));
    let other = EmbedderFacts::Answers(model("another"));
    let facts = IndexFacts { embedder: other, run: RunFacts::Running(None), ..served(&asked, &index) };
    let status = tell(Some(&before), &facts);
    assert!(shown(&status, "Built").starts_with("False Building: Version 3 is not what the spec asks for."));
    assert_eq!(shown(&status, "Ready"), "True Serving: Searches are answered from version 3.");
    // Somebody edited the spec: it is not ready before it is served.
    let edited = IndexFacts { generation: Some(2), ..facts };
    assert!(shown(&tell(Some(&before), &edited), "Ready").starts_with("False Building"));
}

#[test]
fn a_failed_build_says_why_and_what_stays() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let failure = Failure::new(Reason::InvalidData, "the id `7` stands in 2 rows");
    let facts = IndexFacts { dataset: found(8), run: RunFacts::Failed(failure), ..served(&asked, &index) };
    let status = tell(None, &facts);
    assert_eq!(
        shown(&status, "Ready"),
        "False InvalidData: the id `7` stands in 2 rows. Version 3 stays served."
    );
    assert!(shown(&status, "Stalled").starts_with("True InvalidData"));
    assert!(shown(&status, "Served").starts_with("True"));
    assert!(shown(&status, "Fresh").starts_with("False DatasetChanged"));
}

#[test]
fn a_dataset_that_is_away_is_told_and_takes_no_search_away() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let name = &asked.source.as_ref().unwrap().dataset;
    let facts = IndexFacts { dataset: DatasetFacts::of(name, "team", None), ..served(&asked, &index) };
    let status = tell(None, &facts);
    assert!(shown(&status, "DatasetReady").starts_with("False DatasetMissing: The Dataset `workers`, which"));
    assert!(shown(&status, "Fresh").starts_with("Unknown NotChecked"));
    assert!(shown(&status, "Ready").starts_with("True Serving"));
    assert!(shown(&status, "Reconciling").starts_with("True DatasetMissing"));
}

#[test]
fn what_a_dataset_tells_of_itself_is_told_again() {
    let asked = built(json!({}));
    let name = &asked.source.as_ref().unwrap().dataset;
    let mut dataset =
        Dataset::new("workers", serde_json::from_value(json!({"source": {"upload": {}}})).unwrap());
    let of = |dataset: &Dataset| DatasetFacts::of(name, "team", Some(dataset));
    let reason = |facts: DatasetFacts| match facts {
        DatasetFacts::Failed(failure) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(of(&dataset)).message, "The Dataset `workers` has no version yet.");
    let not_ready = json!([{"type": "Ready", "status": "False", "reason": "Waiting", "message": "Send a file.",
        "lastTransitionTime": "2026-11-20T12:00:00Z"}]);
    let conditions = serde_json::from_value(not_ready).unwrap();
    dataset.status = Some(DatasetStatus { conditions, ..DatasetStatus::default() });
    assert_eq!(reason(of(&dataset)).message, "The Dataset `workers` has no version yet: Send a file.");
    assert_eq!(reason(of(&dataset)).reason, Reason::DatasetNotReady);
    dataset.status.as_mut().unwrap().version = Some(4);
    let facts = IndexFacts { dataset: of(&dataset), ..facts(&asked) };
    let told = shown(&tell(None, &facts), "DatasetReady");
    assert_eq!(
        told,
        "False DatasetNotReady: The Dataset `workers` has version 4, but is not ready: Send a file."
    );
}

#[test]
fn an_embedder_that_fails_leaves_searches_by_vector_and_says_so() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let failure = Failure::new(Reason::EmbedderFailed, "`ollama` answered 503: overloaded");
    let facts = IndexFacts { embedder: EmbedderFacts::Failed(failure), ..served(&asked, &index) };
    let status = tell(None, &facts);
    assert!(shown(&status, "EmbedderReady").starts_with("False EmbedderFailed"));
    assert_eq!(
        shown(&status, "Ready"),
        "True Serving: Version 3 with 1,200 vectors answers searches. However, searches with a text fail: `ollama` answered 503: \
         overloaded."
    );
    assert!(shown(&status, "Reconciling").starts_with("True EmbedderFailed"));
}

#[test]
fn what_of_an_index_cannot_be_read_is_told_while_the_rest_serves() {
    let asked = built(json!({}));
    let index = IndexInfo { damaged: vec!["segment ab12 has a bad checksum".into()], ..info(3, 7) };
    let status = tell(None, &served(&asked, &index));
    assert_eq!(
        shown(&status, "Ready"),
        "True Serving: Version 3 with 1,200 vectors answers searches. However: segment ab12 has a bad checksum."
    );
    assert!(shown(&status, "Reconciling").starts_with("True ServingFailed"));
}

#[test]
fn a_model_of_another_dimension_is_refused_with_both_numbers() {
    let asked = built(json!({"dimension": 768}));
    let facts = IndexFacts { embedder: EmbedderFacts::Answers(model("a")), ..facts(&asked) };
    let told = shown(&tell(None, &facts), "EmbedderReady");
    assert!(told.starts_with(
        "False DimensionMismatch: `spec.dimension` is 768, but `local/lexical` gives vectors of 384"
    ));
    assert!(shown(&tell(None, &facts), "Stalled").starts_with("True DimensionMismatch"));
}

#[test]
fn an_index_that_clients_fill_needs_no_dataset_and_no_model() {
    let asked = ready(json!({"dimension": 384}));
    let index = IndexInfo { source: None, embedding: None, recall: None, length: 1, ..info(0, 1) };
    let facts = IndexFacts {
        index: Some(&index),
        served: ServedFacts::Serving { endpoint: "http://h".into(), version: 0 },
        ..facts(&asked)
    };
    let status = tell(None, &facts);
    assert_eq!(shown(&status, "Ready"), "True Serving: 1 vector can be found.");
    for condition in ["DatasetReady", "EmbedderReady", "Fresh"] {
        assert!(shown(&status, condition).starts_with("True NotNeeded"), "{condition}");
    }
    assert_eq!(shown(&status, "Built"), "True Built: The index is there; clients fill it.");
    assert_eq!((status.version, status.last_build), (None, None));
    let foreign = info(3, 7);
    let status = tell(None, &IndexFacts { index: Some(&foreign), ..facts });
    assert!(shown(&status, "Ready").starts_with("False IndexConflict"), "{}", shown(&status, "Ready"));
    assert!(shown(&status, "Stalled").starts_with("True IndexConflict"));
}

#[test]
fn a_pinned_version_is_ready_only_when_it_is_the_served_one() {
    let asked = built(json!({"version": 2}));
    let status = tell(None, &served(&asked, &info(3, 7)));
    assert_eq!(
        shown(&status, "Ready"),
        "False VersionPending: Version 3 is served; the spec asks for version 2."
    );
    let rolled_back = info(2, 6);
    assert!(shown(&tell(None, &served(&asked, &rolled_back)), "Ready").starts_with("True Serving"));
}

#[test]
fn a_service_that_cannot_be_asked_takes_nothing_back() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let before = tell(None, &served(&asked, &index));
    let silent = Failure::new(Reason::NotServed, "no pod answers");
    let facts = IndexFacts {
        index: None,
        store: Err(silent),
        served: ServedFacts::Waiting("the pod `v` is not ready yet.".into()),
        ..served(&asked, &index)
    };
    let status = tell(Some(&before), &facts);
    assert_eq!((status.version, status.vectors, status.pending), (Some(3), Some(1200), Some(0)));
    assert_eq!(status.last_build, before.last_build);
    assert_eq!(shown(&status, "Built"), "Unknown NotServed: no pod answers");
    assert!(shown(&status, "Fresh").starts_with("Unknown NotServed"));
}

#[test]
fn equal_facts_give_an_equal_status_that_survives_being_written_and_read() {
    let (asked, index) = (built(json!({})), info(3, 7));
    let precise: Timestamp = "2026-11-20T12:00:00.123456789Z".parse().unwrap();
    let index = IndexInfo { updated_at: precise, ..index };
    let first = status::vector_index(None, &served(&asked, &index), precise);
    let later = precise + SignedDuration::from_secs(90);
    assert_eq!(status::vector_index(Some(&first), &served(&asked, &index), later), first);
    let read: VectorIndexStatus = serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap();
    assert_eq!(read, first);
}

#[test]
fn nothing_is_known_of_an_index_that_was_just_made() {
    let asked = built(json!({}));
    let status =
        tell(None, &IndexFacts { run: RunFacts::WaitingFor("The Job `j` is being made."), ..facts(&asked) });
    for condition in ["Ready", "Built", "Served"] {
        assert_eq!(shown(&status, condition), "False Waiting: The Job `j` is being made.");
    }
    assert!(shown(&status, "EmbedderReady").starts_with("Unknown NotChecked"));
    assert!(shown(&status, "Fresh").starts_with("False NotBuilt"));
    let refusal = check(&index(json!({"dimension": 0}))).unwrap_err();
    let refused = IndexFacts { spec: Err(&refusal), ..facts(&asked) };
    assert!(shown(&tell(None, &refused), "Ready").starts_with("False InvalidSpec: spec.dimension: 0"));
    let suspended = built(json!({"suspend": true}));
    assert!(shown(&tell(None, &facts(&suspended)), "Ready").starts_with("False Suspended"));
}

/// `True Serving: …` of a condition.
fn shown(status: &VectorIndexStatus, name: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == name).expect("it is there");
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

fn tell(previous: Option<&VectorIndexStatus>, facts: &IndexFacts<'_>) -> VectorIndexStatus {
    status::vector_index(previous, facts, "2026-11-20T12:00:00Z".parse().unwrap())
}

/// A sound index over the Dataset `workers` with these fields added.
fn built(fields: Value) -> ReadyVectorIndex {
    let mut spec = json!({
        "source": {"dataset": "workers", "id": "id", "text": "{a}"},
        "embedding": {"local": {"model": "lexical"}},
    });
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    spec.as_object_mut().unwrap().extend(fields);
    ready(spec)
}

fn ready(spec: Value) -> ReadyVectorIndex {
    check(&index(spec)).expect("the spec is sound")
}

fn index(spec: Value) -> VectorIndex {
    VectorIndex::new("shelf", serde_json::from_value(spec).unwrap())
}

/// Nothing is known but the spec.
fn facts(asked: &ReadyVectorIndex) -> IndexFacts<'_> {
    IndexFacts {
        generation: Some(1),
        spec: Ok(asked),
        index: None,
        store: Ok(()),
        dataset: DatasetFacts::Unknown,
        embedder: EmbedderFacts::Unknown,
        run: RunFacts::Idle,
        served: ServedFacts::NotYet,
        last_build: None,
    }
}

/// All is well.
fn served<'a>(asked: &'a ReadyVectorIndex, index: &'a IndexInfo) -> IndexFacts<'a> {
    IndexFacts {
        index: Some(index),
        dataset: found(7),
        embedder: EmbedderFacts::Answers(model("a")),
        served: ServedFacts::Serving { endpoint: "http://h".into(), version: index.version },
        ..facts(asked)
    }
}

fn found(version: u64) -> DatasetFacts {
    DatasetFacts::Found { version, trouble: None }
}

fn model(digest: &str) -> ModelIdentity {
    ModelIdentity { model: "local/lexical".into(), digest: digest.into(), dimension: 384, normalised: true }
}

/// The index as a build of the plain spec gives it.
fn info(version: u64, of: u64) -> IndexInfo {
    let asked = built(json!({}));
    let spec = asked.build_spec().unwrap();
    IndexInfo {
        name: spec.name,
        shape: Shape {
            dimension: 384,
            metric: spec.metric,
            hnsw: spec.hnsw,
            quantization: spec.quantization,
        },
        length: 1200,
        version,
        latest_version: 3,
        versions: vec![2, 3],
        embedding: Some(model("a")),
        source: Some(BuiltFrom {
            dataset: spec.dataset,
            version: of,
            id: spec.id,
            inputs: asked.inputs(of, &model("a")).unwrap(),
        }),
        failed: 2,
        recall: Some(0.99),
        bytes: 100,
        shards: 1,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        damaged: Vec::new(),
    }
}

fn progress(done: u64, total: Option<u64>) -> Progress {
    Progress {
        name: "shelf".into(),
        phase: Phase::Embedding,
        rows: done,
        done,
        total,
        embedded: done,
        reused: 0,
        failed: 0,
        elapsed_ms: 10,
        rows_per_second: 1,
        remaining_ms: None,
        message: None,
    }
}
