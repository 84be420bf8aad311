//! The status tells the truth, in a closed vocabulary, and moves only when something has happened.

use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{
    Column, ColumnType, DataObject, DatasetManifest, DatasetName, Key, Origin,
    dataset::schema_fingerprint,
    ingest::{Phase, Progress},
};
use lakehouse_crds::{Dataset, DatasetStatus, dataset::ColumnType as StatusType};
use lakehouse_plan::{
    ReadyDataset, Reason, check,
    status::{self, Facts, Failure, RunFacts, ServedFacts, SourceFacts},
};
use serde_json::json;

#[test]
fn a_dataset_without_data_waits_and_says_for_what() {
    let dataset = ready(json!({"source": {"upload": {}}}));
    let facts = Facts { source: SourceFacts::WaitingForUpload, ..facts(&dataset) };
    let status = status::dataset(None, &facts, now());
    assert_eq!(
        shown(&status, "Ready"),
        "False WaitingForUpload: Nothing has been uploaded yet; send a file to `POST /v1/ingest?name=sales`."
    );
    assert!(shown(&status, "Reconciling").starts_with("False WaitingForUpload"));
    assert!(shown(&status, "Stalled").starts_with("False"));
    assert_eq!((status.version, status.rows), (None, None));
}

#[test]
fn a_served_version_is_ready_and_its_numbers_are_the_manifests() {
    let dataset = config_map();
    let manifest = manifest(2);
    let status = status::dataset(None, &served(&dataset, &manifest), now());
    for condition in ["Ready", "SourceReachable", "Ingested", "Published", "Served"] {
        assert!(shown(&status, condition).starts_with("True"), "{}", shown(&status, condition));
    }
    assert_eq!(shown(&status, "Reconciling"), "False Settled: There is nothing left to do.");
    assert_eq!(shown(&status, "Ready"), "True Serving: Version 2 with 3,376 rows answers SQL.");
    assert_eq!(
        (status.version, status.rows, status.bytes, status.files),
        (Some(2), Some(3376), Some(209_000), Some(1))
    );
    assert_eq!(status.size.as_deref(), Some("204.1 KiB"));
    assert_eq!(status.dataset_id.as_deref(), Some(manifest.dataset_id.to_string().as_str()));
    assert_eq!(status.columns[0].column_type, StatusType::String);
    let source = status.source.unwrap();
    assert_eq!(
        (source.location.as_str(), source.digest.as_deref()),
        ("ConfigMap a, key a.csv", Some("sha256:ab"))
    );
    let last = status.last_ingest.unwrap();
    assert_eq!((last.finished.unwrap().0, last.duration.as_deref()), (now(), Some("1.2s")));
    assert_eq!(status.endpoint.as_deref(), Some("http://127.0.0.1:3110/v1/sql"));
}

#[test]
fn a_running_ingest_says_how_far_it_is() {
    let dataset = config_map();
    let progress = Progress {
        name: "sales".into(),
        phase: Phase::Converting,
        bytes: 1_048_576,
        total_bytes: Some(4_194_304),
        rows: 12_000,
        rejected_rows: 0,
        elapsed_ms: 10,
        bytes_per_second: 1,
        remaining_ms: None,
        message: None,
    };
    let facts = Facts { run: RunFacts::Running(Some(&progress)), ..facts(&dataset) };
    let status = status::dataset(None, &facts, now());
    let sentence = "Ingesting: 1.0 MiB of 4.0 MiB read, 12,000 rows so far.";
    assert_eq!(shown(&status, "Ready"), format!("False {sentence}"));
    assert_eq!(shown(&status, "Reconciling"), format!("True {sentence}"));
    let progress = status.progress.unwrap();
    assert_eq!((progress.bytes, progress.total_bytes, progress.rows), (1_048_576, Some(4_194_304), 12_000));
}

#[test]
fn a_refresh_leaves_a_dataset_ready() {
    let dataset = config_map();
    let manifest = manifest(2);
    let before = status::dataset(None, &served(&dataset, &manifest), now());
    let refresh = Facts { run: RunFacts::Running(None), ..served(&dataset, &manifest) };
    let status = status::dataset(Some(&before), &refresh, now());
    assert!(shown(&status, "Ready").starts_with("True Serving"));
    assert!(shown(&status, "Reconciling").starts_with("True Ingesting"));
}

#[test]
fn an_edited_spec_is_not_ready_until_it_is_served() {
    let dataset = config_map();
    let manifest = manifest(2);
    let first = Facts { generation: Some(1), ..served(&dataset, &manifest) };
    let before = status::dataset(None, &first, now());
    let edited = Facts { generation: Some(2), run: RunFacts::Waiting, ..served(&dataset, &manifest) };
    let waiting = status::dataset(Some(&before), &edited, now());
    assert!(shown(&waiting, "Ready").starts_with("False Waiting"));
    let running = Facts { run: RunFacts::Running(None), ..edited.clone() };
    let running = status::dataset(Some(&waiting), &running, now());
    assert!(shown(&running, "Ready").starts_with("False Ingesting"));
    let done = status::dataset(Some(&running), &Facts { run: RunFacts::Idle, ..edited }, now());
    assert!(shown(&done, "Ready").starts_with("True"));
    assert_eq!(done.observed_generation, Some(2));
}

#[test]
fn a_failure_that_only_an_edit_helps_is_stalled_with_the_real_error() {
    let dataset = config_map();
    let manifest = manifest(2);
    let failure = Failure::new(Reason::InvalidData, "line 7, column `id`: \"x\" is no int64");
    let facts = Facts { run: RunFacts::Failed(failure), ..served(&dataset, &manifest) };
    let status = status::dataset(None, &facts, now());
    assert_eq!(shown(&status, "Stalled"), "True InvalidData: line 7, column `id`: \"x\" is no int64");
    assert!(shown(&status, "Reconciling").starts_with("False InvalidData"));
    assert_eq!(
        shown(&status, "Ready"),
        "False InvalidData: line 7, column `id`: \"x\" is no int64. Version 2 stays published."
    );
    assert!(shown(&status, "Served").starts_with("True"));
}

#[test]
fn a_failure_that_may_pass_is_tried_again() {
    let dataset = config_map();
    let failure = Failure::new(Reason::SourceUnreachable, "https://h/a.csv answered 503");
    let facts = Facts {
        source: SourceFacts::Failed(failure.clone()),
        run: RunFacts::Failed(failure),
        ..facts(&dataset)
    };
    let status = status::dataset(None, &facts, now());
    assert_eq!(
        shown(&status, "Reconciling"),
        "True SourceUnreachable: https://h/a.csv answered 503. It is tried again."
    );
    assert!(shown(&status, "Stalled").starts_with("False"));
    assert!(shown(&status, "SourceReachable").starts_with("False SourceUnreachable"));
}

#[test]
fn a_refused_spec_is_told_in_full_and_what_is_published_stays_served() {
    let manifest = manifest(2);
    let spec = json!({"source": {}, "keepVersions": 0});
    let refusal = check(&Dataset::new("sales", serde_json::from_value(spec).unwrap())).unwrap_err();
    let dataset = config_map();
    let facts = Facts { spec: Err(&refusal), ..served(&dataset, &manifest) };
    let status = status::dataset(None, &facts, now());
    let ready = shown(&status, "Ready");
    assert!(ready.starts_with("False InvalidSpec: spec.source: exactly one"), "{ready}");
    assert!(ready.contains("; spec.keepVersions: "), "{ready}");
    assert!(shown(&status, "Stalled").starts_with("True InvalidSpec"));
    assert!(shown(&status, "Served").starts_with("True"));
}

#[test]
fn a_pinned_version_is_published_only_when_it_is_the_current_one() {
    let dataset = ready(json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}, "version": 1}));
    let current = manifest(2);
    let status = status::dataset(None, &served(&dataset, &current), now());
    assert_eq!(
        shown(&status, "Ready"),
        "False VersionPending: Version 2 is published; the spec asks for version 1."
    );
    let rolled_back = manifest(1);
    assert!(
        shown(&status::dataset(None, &served(&dataset, &rolled_back), now()), "Ready").starts_with("True")
    );
}

#[test]
fn an_old_version_that_still_answers_is_not_the_published_one() {
    let dataset = config_map();
    let manifest = manifest(2);
    let old = ServedFacts::Serving { endpoint: "http://h".into(), version: 1 };
    let status = status::dataset(None, &Facts { served: old, ..served(&dataset, &manifest) }, now());
    assert!(shown(&status, "Served").starts_with("False NotServed"));
    assert!(shown(&status, "Ready").starts_with("False NotServed"));
    assert!(shown(&status, "Reconciling").starts_with("True NotServed"));
}

#[test]
fn a_refreshed_dataset_stays_ready_while_the_version_before_answers() {
    let dataset = config_map();
    let (old, new) = (manifest(1), manifest(2));
    let lag = |generation, served: ServedFacts| {
        let first = Facts { generation: Some(1), ..self::served(&dataset, &old) };
        let before = status::dataset(None, &first, now());
        let facts = Facts { generation: Some(generation), served, ..self::served(&dataset, &new) };
        status::dataset(Some(&before), &facts, now())
    };
    let behind = || ServedFacts::Serving { endpoint: "http://h".into(), version: 1 };
    let told = "SQL is still answered from version 1; version 2 follows.";
    let status = lag(1, behind());
    assert_eq!(shown(&status, "Ready"), format!("True Serving: {told}"));
    assert_eq!(shown(&status, "Served"), format!("False NotServed: {told}"));
    assert_eq!(shown(&status, "Reconciling"), format!("True NotServed: {told}"));
    let edited = lag(2, behind());
    assert!(shown(&edited, "Ready").starts_with("False NotServed"), "an edit is ready when it is served");
    let silent = lag(1, ServedFacts::NotYet);
    assert!(shown(&silent, "Ready").starts_with("False NotServed"), "nothing answers");
}

#[test]
fn equal_facts_give_an_equal_status_and_a_time_moves_only_with_its_value() {
    let dataset = config_map();
    let manifest = manifest(2);
    let first = status::dataset(None, &served(&dataset, &manifest), now());
    let later = now() + SignedDuration::from_secs(90);
    assert_eq!(status::dataset(Some(&first), &served(&dataset, &manifest), later), first);

    let failed = Facts {
        run: RunFacts::Failed(Failure::new(Reason::StoreFailed, "the bucket is gone")),
        ..served(&dataset, &manifest)
    };
    let second = status::dataset(Some(&first), &failed, later);
    assert_eq!(time(&second, "Ready"), later);
    assert_eq!(time(&second, "Published"), now());
    // Another sentence for the same value is no transition.
    let other = Facts { run: RunFacts::Failed(Failure::new(Reason::StoreFailed, "still gone")), ..failed };
    let third = status::dataset(Some(&second), &other, later + SignedDuration::from_secs(90));
    assert!(shown(&third, "Ready").contains("still gone"));
    assert_eq!(time(&third, "Ready"), later);
}

#[test]
fn a_status_survives_being_written_and_read() {
    let dataset =
        ready(json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}, "schedule": "@hourly"}));
    let manifest = manifest(2);
    let precise: Timestamp = "2026-11-20T12:00:00.123456789Z".parse().unwrap();
    let status = status::dataset(None, &served(&dataset, &manifest), precise);
    let read: DatasetStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    assert_eq!(read, status);
    assert_eq!(status.next_run.unwrap().0, "2026-11-20T13:00:00Z".parse().unwrap());
}

#[test]
fn a_suspended_dataset_says_so_and_has_no_next_run() {
    let spec = json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}, "schedule": "@hourly", "suspend": true});
    let dataset = ready(spec);
    let status = status::dataset(None, &facts(&dataset), now());
    assert!(shown(&status, "Ready").starts_with("False Suspended"));
    assert!(shown(&status, "Reconciling").starts_with("False Suspended"));
    assert_eq!(status.next_run, None);
    let manifest = manifest(2);
    let status = status::dataset(None, &served(&dataset, &manifest), now());
    assert_eq!(shown(&status, "Ingested"), "False Suspended: `spec.suspend` is set.");
    assert!(shown(&status, "Ready").starts_with("True Serving"), "what is published is served");
}

#[test]
fn a_catalogue_that_cannot_be_asked_takes_nothing_back() {
    let dataset = config_map();
    let manifest = manifest(2);
    let before = status::dataset(None, &served(&dataset, &manifest), now());
    let silent = Failure::new(Reason::NotServed, "no gateway answers");
    let facts = Facts {
        manifest: None,
        catalogue: Err(silent),
        served: ServedFacts::Waiting("the pod `g` is not ready yet.".into()),
        ..served(&dataset, &manifest)
    };
    let status = status::dataset(Some(&before), &facts, now());
    assert_eq!((status.version, status.rows, status.columns.len()), (Some(2), Some(3376), 1));
    assert_eq!(status.last_ingest, before.last_ingest);
    assert_eq!(shown(&status, "Published"), "Unknown NotServed: no gateway answers");
    assert!(shown(&status, "Ready").starts_with("Unknown NotServed"));
    assert_eq!(shown(&status, "Reconciling"), "True NotServed: no gateway answers. It is tried again.");
}

#[test]
fn what_serves_and_limps_is_ready_and_says_what_hurts() {
    let dataset = config_map();
    let manifest = manifest(2);
    let failure = Failure::new(Reason::ImagePullFailed, "Pod `q` cannot start.");
    let limping = ServedFacts::Limping { endpoint: "http://h".into(), version: 2, failure };
    let status = status::dataset(None, &Facts { served: limping, ..served(&dataset, &manifest) }, now());
    let sentence = "SQL is answered from version 2. However: Pod `q` cannot start.";
    assert_eq!(shown(&status, "Ready"), format!("True Serving: {sentence}"));
    assert_eq!(shown(&status, "Served"), format!("True Serving: {sentence}"));
    assert!(shown(&status, "Reconciling").starts_with("True ImagePullFailed"));
    assert_eq!(status.endpoint.as_deref(), Some("http://h"));
}

#[test]
fn what_is_waited_for_is_told() {
    let dataset = config_map();
    let manifest = manifest(2);
    let facts = Facts { run: RunFacts::WaitingFor("The Job `j` is being made."), ..facts(&dataset) };
    let status = status::dataset(None, &facts, now());
    for condition in ["Ready", "Ingested"] {
        assert_eq!(shown(&status, condition), "False Waiting: The Job `j` is being made.");
    }
    let waiting = ServedFacts::Waiting("the pod `q` is not ready yet.".into());
    let status = status::dataset(None, &Facts { served: waiting, ..served(&dataset, &manifest) }, now());
    assert_eq!(
        shown(&status, "Ready"),
        "False NotServed: Version 2 is not served yet: the pod `q` is not ready yet."
    );
}

#[test]
fn no_time_is_more_precise_than_what_is_written() {
    let dataset = config_map();
    let precise = DatasetManifest { updated_at: "2026-11-20T12:00:00.5Z".parse().unwrap(), ..manifest(2) };
    let status = status::dataset(None, &served(&dataset, &precise), now());
    let read: DatasetStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    assert_eq!(read, status, "otherwise it would be written again and again");
}

/// `True Serving: …` of a condition.
fn shown(status: &DatasetStatus, name: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == name).expect("it is there");
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

fn time(status: &DatasetStatus, name: &str) -> Timestamp {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == name)
        .expect("it is there")
        .last_transition_time
        .0
}

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn config_map() -> ReadyDataset {
    ready(json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}}))
}

fn ready(spec: serde_json::Value) -> ReadyDataset {
    check(&Dataset::new("sales", serde_json::from_value(spec).expect("typed"))).expect("sound")
}

/// Nothing is known but the spec.
fn facts(dataset: &ReadyDataset) -> Facts<'_> {
    Facts {
        generation: None,
        spec: Ok(dataset),
        manifest: None,
        catalogue: Ok(()),
        source: SourceFacts::Unknown,
        run: RunFacts::Idle,
        served: ServedFacts::NotYet,
        last_ingest: None,
    }
}

/// All is well.
fn served<'a>(dataset: &'a ReadyDataset, manifest: &'a DatasetManifest) -> Facts<'a> {
    let endpoint = "http://127.0.0.1:3110/v1/sql".to_owned();
    Facts {
        manifest: Some(manifest),
        source: SourceFacts::Found,
        served: ServedFacts::Serving { endpoint, version: manifest.version },
        ..facts(dataset)
    }
}

fn manifest(version: u64) -> DatasetManifest {
    let name = DatasetName::parse("sales").expect("a name");
    let schema = vec![Column { name: "id".into(), column_type: ColumnType::String, field_id: 1 }];
    let key = Key::parse("datasets/sales/f/ab.parquet").expect("a key");
    DatasetManifest {
        dataset_id: name.id(),
        name,
        schema_fingerprint: schema_fingerprint(&schema),
        schema,
        objects: vec![DataObject { key, size: 209_000, rows: 3376, sha256: "ab".into() }],
        row_count: 3376,
        version,
        latest_version: 2,
        created_at: now(),
        updated_at: now(),
        origin: Some(Origin {
            inputs: "i".into(),
            source: "ConfigMap a, key a.csv".into(),
            source_digest: "sha256:ab".into(),
            format: "CSV".into(),
            source_bytes: 1000,
            rejected_rows: 0,
            duration_ms: 1249,
        }),
    }
}
