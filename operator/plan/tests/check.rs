//! A Dataset is checked once; what passes leaves no question, what does not is told completely.

use lakehouse_contract::ingest::{Format, OnError, SchemaPolicy, WriteMode};
use lakehouse_crds::{Dataset, DatasetSpec, common::DeletionPolicy, dataset::Source as SpecSource};
use lakehouse_plan::{
    ReadyDataset, Reason, check,
    dataset::{Objects, Source},
};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn what_the_spec_leaves_out_has_one_meaning() {
    let ready = ready(json!({"source": {"configMap": {"name": "depots", "key": "depots.csv"}}}));
    assert_eq!((ready.name.as_str(), ready.namespace.as_str()), ("sales", "default"));
    assert_eq!(ready.format, Some(Format::CSV));
    assert_eq!((ready.keep_versions.get(), ready.pin, ready.suspend), (3, None, false));
    assert_eq!(ready.deletion_policy, DeletionPolicy::Retain);
    let ingest = ready.ingest();
    assert_eq!((ingest.csv.delimiter, ingest.csv.header), (',', true));
    assert_eq!((ingest.schema_policy, ingest.write_mode), (SchemaPolicy::Reject, WriteMode::Replace));
}

#[test]
fn what_the_spec_says_is_carried_on() {
    let ready = ready(json!({
        "source": {"s3": {"bucket": "raw", "glob": "2026/*.csv", "endpoint": "http://minio:9000",
                          "credentialsSecretRef": {"name": "keys"}}},
        "csv": {"delimiter": "\t", "header": false, "nullValues": ["NA"]},
        "columns": [{"name": "id", "type": "int64", "onError": "Quarantine"}],
        "rejects": {"maxRows": 10, "maxRatio": 0.5},
        "schemaPolicy": "Evolve", "writeMode": "Append", "sortBy": ["id"],
        "schedule": "0 * * * *", "keepVersions": 7, "suspend": true, "deletionPolicy": "Delete",
    }));
    let Source::S3 { bucket, objects, endpoint, credentials_secret, .. } = &ready.source else { panic!() };
    assert_eq!((bucket.as_str(), objects), ("raw", &Objects::Glob("2026/*.csv".into())));
    assert_eq!(endpoint.as_ref().unwrap().as_str(), "http://minio:9000/");
    assert_eq!(credentials_secret.as_deref(), Some("keys"));
    let ingest = ready.ingest();
    assert_eq!((ingest.csv.delimiter, ingest.csv.header), ('\t', false));
    assert_eq!(ingest.columns[0].on_error, OnError::Quarantine);
    assert_eq!((ingest.rejects.max_rows, ingest.rejects.max_ratio), (Some(10), Some(0.5)));
    assert_eq!((ingest.schema_policy, ingest.write_mode), (SchemaPolicy::Evolve, WriteMode::Append));
    assert_eq!(ready.schedule.as_ref().unwrap().to_string(), "0 * * * *");
    assert!(ready.suspend && ready.deletion_policy == DeletionPolicy::Delete);
}

#[test]
fn a_name_tells_the_format_unless_the_spec_does() {
    for (spec, format) in [
        (json!({"source": {"http": {"url": "https://h/a.CSV?sig=x.parquet"}}}), Some(Format::CSV)),
        (json!({"source": {"s3": {"bucket": "raw", "key": "a.parquet"}}}), Some(Format::Parquet)),
        (json!({"source": {"configMap": {"name": "a", "key": "a.jsonl"}}}), Some(Format::NDJSON)),
        (
            json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}, "format": "NDJSON"}),
            Some(Format::NDJSON),
        ),
        (json!({"source": {"upload": {}}}), None),
    ] {
        assert_eq!(ready(spec.clone()).format, format, "{spec}");
    }
    let upload = ready(json!({"source": {"upload": {}}}));
    assert_eq!(upload.ingest_of("orders.parquet").format, Format::Parquet);
    assert_eq!(upload.ingest_of("orders").format, Format::CSV);
    assert_eq!(upload.ingest_of("orders.TSV").csv.delimiter, '\t');
    let declared = ready(json!({"source": {"upload": {}}, "format": "CSV"}));
    assert_eq!(declared.ingest_of("orders.parquet").format, Format::CSV);
}

#[test]
fn a_source_that_cannot_be_read_is_refused() {
    let http = |url: &str| json!({"source": {"http": {"url": url}}});
    let field = "spec.source.http.url";
    refused(json!({"source": {}}), "spec.source", Reason::InvalidSource, "exactly one");
    refused(
        json!({"source": {"s3": {"bucket": "raw"}}}),
        "spec.source.s3",
        Reason::InvalidSource,
        "exactly one",
    );
    refused(http("a.csv"), field, Reason::InvalidSource, "is no URL");
    refused(http("file:///a.csv"), field, Reason::InvalidSource, "not `file:`");
    refused(http("https://u:p@h/a.csv"), field, Reason::InvalidSource, "`headersSecretRef`");
    refused(
        json!({"source": {"http": {"url": "https://h/a.csv", "sha256": "ab"}}}),
        "spec.source.http.sha256",
        Reason::InvalidSource,
        "64 hexadecimal",
    );
}

#[test]
fn a_format_that_is_neither_said_nor_told_is_refused() {
    refused(
        json!({"source": {"s3": {"bucket": "raw", "prefix": "2026/"}}}),
        "spec.format",
        Reason::UnknownFormat,
        "the name of s3://raw/2026/* does not tell the format",
    );
    refused(
        json!({"source": {"http": {"url": "https://h/a.parquet"}}, "csv": {}}),
        "spec.csv",
        Reason::InvalidSpec,
        "the source is Parquet",
    );
}

#[test]
fn columns_that_cannot_be_are_refused() {
    let columns = |columns: Value| with(json!({"columns": columns}));
    refused(
        columns(json!([{"name": "a", "type": "date"}, {"name": "a", "type": "date"}])),
        "spec.columns[1].name",
        Reason::InvalidColumns,
        "declared twice",
    );
    refused(
        columns(json!([{"name": "a\u{1f}b", "type": "date"}])),
        "spec.columns[0].name",
        Reason::InvalidColumns,
        "control character",
    );
    let sort_by = |columns: Value| with(json!({"sortBy": columns}));
    refused(sort_by(json!(["a", ""])), "spec.sortBy[1]", Reason::InvalidColumns, "cannot be empty");
    refused(sort_by(json!(["a", "a"])), "spec.sortBy[1]", Reason::InvalidColumns, "stands here twice");
}

#[test]
fn a_schedule_that_never_comes_or_has_nothing_to_do_is_refused() {
    let refused = |spec, part| refused(spec, "spec.schedule", Reason::InvalidSchedule, part);
    refused(with(json!({"schedule": "0 0 31 2 *"})), "never comes");
    refused(json!({"source": {"upload": {}}, "schedule": "@daily"}), "an upload");
    refused(with(json!({"schedule": "@daily", "version": 2})), "a pinned dataset");
}

#[test]
fn values_out_of_range_are_refused() {
    let refused = |field: &str, spec, part| refused(with(spec), field, Reason::InvalidSpec, part);
    refused("spec.csv.delimiter", json!({"csv": {"delimiter": ""}}), "one ASCII");
    refused("spec.csv.delimiter", json!({"csv": {"delimiter": "\n"}}), "one ASCII");
    refused("spec.rejects.maxRatio", json!({"rejects": {"maxRatio": 2}}), "from 0 to 1");
    refused("spec.keepVersions", json!({"keepVersions": 0}), "at least 1");
    refused("spec.version", json!({"version": 0}), "count from 1");
}

#[test]
fn every_problem_is_told_at_once() {
    let refusal =
        check(&dataset("a b", json!({"source": {}, "keepVersions": 0, "schedule": "often"}))).unwrap_err();
    let fields: Vec<_> = refusal.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "spec.source", "spec.schedule", "spec.keepVersions"]);
    assert_eq!(refusal.reason(), Reason::InvalidSpec);
    assert!(refusal.to_string().starts_with("metadata.name: the name `a b` holds ' '"), "{refusal}");
}

#[test]
fn a_source_in_words_holds_no_credentials() {
    let source =
        ready(json!({"source": {"http": {"url": "https://h:8443/a.csv?X-Amz-Signature=abc#d"}}})).source;
    assert_eq!(source.to_string(), "https://h:8443/a.csv");
}

proptest! {
    #[test]
    fn the_check_never_panics(
        name in ".{0,8}", url in proptest::option::of(".{0,24}"), glob in proptest::option::of(".{0,8}"),
        delimiter in proptest::option::of(".{0,3}"), schedule in proptest::option::of("[-@*/,0-9a-zLW# ]{0,16}"),
        columns in proptest::collection::vec(".{0,3}", 0..4), ratio in proptest::option::of(any::<f64>()),
        keep in proptest::option::of(any::<u32>()), version in proptest::option::of(any::<u64>()),
    ) {
        let mut dataset = dataset("x", json!({"source": {}}));
        dataset.metadata.name = Some(name);
        let DatasetSpec { source, csv, rejects, .. } = &mut dataset.spec;
        *source = SpecSource {
            http: url.map(|url| lakehouse_crds::dataset::HttpSource { url, ..Default::default() }),
            s3: glob.map(|glob| lakehouse_crds::dataset::S3Source { glob: Some(glob), ..Default::default() }),
            ..SpecSource::default()
        };
        *csv = delimiter.map(|delimiter| lakehouse_crds::dataset::Csv { delimiter: Some(delimiter), ..Default::default() });
        *rejects = Some(lakehouse_crds::dataset::Rejects { max_rows: None, max_ratio: ratio });
        dataset.spec.sort_by = columns;
        dataset.spec.schedule = schedule;
        dataset.spec.keep_versions = keep;
        dataset.spec.version = version;
        match check(&dataset) {
            Ok(ready) => prop_assert_eq!(Some(ready.name.to_string()), dataset.metadata.name),
            Err(refusal) => prop_assert!(!refusal.problems().is_empty()),
        }
    }
}

fn ready(spec: Value) -> ReadyDataset {
    check(&dataset("sales", spec)).expect("the spec is sound")
}

/// The spec has this one problem.
fn refused(spec: Value, field: &str, reason: Reason, part: &str) {
    let refusal = check(&dataset("sales", spec)).expect_err("the spec has a problem");
    let [problem] = refusal.problems() else { panic!("more than one problem: {refusal}") };
    assert_eq!((problem.field.as_str(), problem.reason), (field, reason), "{refusal}");
    assert!(problem.message.contains(part), "{refusal}");
    assert_eq!(refusal.reason(), reason);
}

/// A sound spec with these fields added.
fn with(fields: Value) -> Value {
    let mut spec = json!({"source": {"configMap": {"name": "a", "key": "a.csv"}}});
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    spec.as_object_mut().expect("a spec is an object").extend(fields);
    spec
}

fn dataset(name: &str, spec: Value) -> Dataset {
    Dataset::new(name, serde_json::from_value(spec).expect("the spec has its type"))
}
