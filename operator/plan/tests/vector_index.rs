//! A VectorIndex is checked once; what passes leaves no question, what does not is told completely.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use lakehouse_contract::{
    embed::ModelIdentity,
    vectors::{BuiltFrom, Hnsw, IndexInfo, Metric, Quantization, RowId, Shape},
};
use lakehouse_crds::{VectorIndex, common::DeletionPolicy};
use lakehouse_plan::{
    ReadyVectorIndex, Reason,
    vector_index::{Model, check},
};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn what_the_spec_leaves_out_has_one_meaning() {
    let ready = ready(built(json!({})));
    assert_eq!((ready.name.as_str(), ready.namespace.as_str()), ("shelf", "default"));
    assert_eq!((ready.replicas, ready.shards, ready.keep_versions.get()), (1, 1, 2));
    assert_eq!((ready.pin, ready.suspend, ready.deletion_policy), (None, false, DeletionPolicy::Retain));
    let spec = ready.build_spec().unwrap();
    assert_eq!(
        (spec.metric, spec.quantization, spec.hnsw),
        (Metric::Cosine, Quantization::None, Hnsw::default())
    );
    assert_eq!((spec.model.as_str(), spec.dimension), ("local/lexical", None));
    assert_eq!(spec.id, RowId { prefix: String::new(), column: "id".into(), suffix: String::new() });
    assert!(ready.source.unwrap().on_change);
}

#[test]
fn what_the_spec_says_is_carried_on() {
    let ready = ready(json!({
        "source": {"dataset": "workers", "id": "w-{worker_id}.", "text": "{role} in {city}", "metadata": ["role", "state"],
                   "where": "state = 'IL'"},
        "embedding": {"provider": "ollama", "model": "nomic-embed-text:v1.5"},
        "dimension": 768, "metric": "Dot", "hnsw": {"m": 32, "efSearch": 10}, "quantization": "Int8",
        "refresh": "Manual", "replicas": 3, "shards": 2, "keepVersions": 5, "version": 4, "suspend": true,
        "deletionPolicy": "Delete", "build": {"backoffLimit": 1, "activeDeadlineSeconds": 60},
    }));
    let spec = ready.build_spec().unwrap();
    assert_eq!(spec.id, RowId { prefix: "w-".into(), column: "worker_id".into(), suffix: ".".into() });
    assert_eq!(spec.predicate.as_deref(), Some("state = 'IL'"));
    assert_eq!((spec.metric, spec.quantization, spec.shards), (Metric::Dot, Quantization::Int8, 2));
    assert_eq!(spec.hnsw, Hnsw { m: 32, ef_construction: 128, ef_search: 10 });
    let name = "ollama/nomic-embed-text:v1.5".to_owned();
    assert_eq!(ready.model, Some(Model { provider: Some("ollama".into()), name }));
    assert_eq!((ready.pin, ready.pod.backoff_limit, ready.replicas), (Some(4), Some(1), 3));
    assert!(ready.suspend && !ready.source.unwrap().on_change);
}

#[test]
fn an_index_that_clients_fill_is_created_as_it_is_asked_for() {
    let ready = ready(json!({"dimension": 3, "quantization": "F16", "metric": "Euclidean"}));
    assert_eq!(ready.build_spec(), None);
    let request = ready.create_request(None).unwrap();
    assert_eq!((request.name.as_str(), request.dimension, request.model), ("shelf", 3, None));
    assert_eq!((request.metric, request.quantization), (Metric::Euclidean, Quantization::F16));
    let with_model = self::ready(json!({"embedding": {"local": {"model": "lexical"}}}));
    assert_eq!(with_model.create_request(None), None, "nobody knows its dimension yet");
    let request = with_model.create_request(Some(&model("a"))).unwrap();
    assert_eq!((request.dimension, request.model.as_deref()), (384, Some("local/lexical")));
}

#[test]
fn fields_that_need_each_other_are_refused_without() {
    refused(json!({}), "spec.dimension", Reason::InvalidSpec, "whose model tells it");
    let source = json!({"dataset": "workers", "id": "id", "text": "{a}"});
    refused(json!({"source": source}), "spec.embedding", Reason::InvalidSpec, "turns it into vectors");
    for (field, value) in
        [("refresh", json!("Manual")), ("version", json!(2)), ("build", json!({})), ("shards", json!(2))]
    {
        let mut spec = json!({"dimension": 3});
        spec[field] = value;
        refused(spec, &format!("spec.{field}"), Reason::InvalidSpec, "fill");
    }
}

#[test]
fn an_embedding_names_one_model() {
    let embedding = |embedding: Value| json!({"dimension": 3, "embedding": embedding});
    let field = "spec.embedding";
    refused(embedding(json!({})), field, Reason::InvalidSpec, "exactly one of");
    refused(embedding(json!({"provider": "a"})), field, Reason::InvalidSpec, "set both");
    refused(embedding(json!({"model": "a"})), field, Reason::InvalidSpec, "set both");
    let both = json!({"provider": "a", "model": "b", "local": {"model": "c"}});
    refused(embedding(both), field, Reason::InvalidSpec, "exactly one of");
    let local = json!({"provider": "local", "model": "b"});
    refused(embedding(local), "spec.embedding.provider", Reason::InvalidSpec, "another name");
    let blank = json!({"local": {"model": "a b"}});
    refused(embedding(blank), "spec.embedding.local.model", Reason::InvalidSpec, "white space");
}

#[test]
fn columns_that_cannot_be_are_refused() {
    for id in ["", "{}", "{a", "a}", "{a}{b}", "{{a}}", "x{a}y}"] {
        refused(built(json!({"id": id})), "spec.source.id", Reason::InvalidColumns, "");
    }
    for (text, part) in [("plain", "names no column"), ("{a", "never closed"), ("{ }", "name no column")] {
        refused(built(json!({"text": text})), "spec.source.text", Reason::InvalidColumns, part);
    }
    let twice = built(json!({"metadata": ["a", "b", "a"]}));
    refused(twice, "spec.source.metadata[2]", Reason::InvalidColumns, "stands here twice");
    refused(built(json!({"where": " "})), "spec.source.where", Reason::InvalidSource, "not empty");
    refused(built(json!({"dataset": "a b"})), "spec.source.dataset", Reason::InvalidSource, "holds ' '");
}

#[test]
fn numbers_out_of_their_range_are_refused() {
    let refused = |spec: Value, field: &str| refused(spec, field, Reason::InvalidSpec, "");
    refused(json!({"dimension": 0}), "spec.dimension");
    refused(json!({"dimension": 16_385}), "spec.dimension");
    refused(json!({"dimension": 3, "replicas": 0}), "spec.replicas");
    refused(json!({"dimension": 3, "hnsw": {"m": 1}}), "spec.hnsw.m");
    refused(json!({"dimension": 3, "hnsw": {"m": 32, "efConstruction": 16}}), "spec.hnsw");
    let hnsw = |spec: Value| ready(json!({"dimension": 3, "hnsw": spec})).hnsw;
    assert_eq!(hnsw(json!({"efConstruction": 8})).m, 8, "who says one says nothing against the other");
}

#[test]
fn every_problem_is_told_at_once() {
    let spec = json!({"source": {"dataset": "workers", "id": "", "text": "x"}, "replicas": 0});
    let refusal = check(&index("lakehouse", spec)).unwrap_err();
    let fields: Vec<_> = refusal.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        ["metadata.name", "spec.source.id", "spec.source.text", "spec.embedding", "spec.replicas"]
    );
    assert_eq!(refusal.reason(), Reason::InvalidSpec);
}

#[test]
fn an_index_is_made_as_asked_whichever_version_of_the_dataset_it_is_of() {
    let asked = ready(built(json!({})));
    let index = info(&asked, 7, &model("a"));
    assert!(asked.is_made_as_asked(&index, None) && asked.is_made_as_asked(&index, Some(&model("a"))));
    assert!(!asked.is_made_as_asked(&index, Some(&model("b"))), "the model is another one now");
    let edited = ready(built(json!({"text": "{a} and {b}"})));
    assert!(!edited.is_made_as_asked(&index, None));
    assert!(!ready(json!({"dimension": 384})).is_made_as_asked(&index, None));
}

#[test]
fn what_somebody_else_made_otherwise_is_a_conflict() {
    let (asked, pushed) = (ready(built(json!({}))), ready(json!({"dimension": 384})));
    let built_one = info(&asked, 7, &model("a"));
    let pushed_one = IndexInfo { source: None, ..built_one.clone() };
    assert_eq!(asked.conflict(&built_one), None);
    assert_eq!(pushed.conflict(&pushed_one), None);
    assert!(asked.conflict(&pushed_one).unwrap().contains("that clients fill"));
    assert!(pushed.conflict(&built_one).unwrap().contains("from the Dataset `workers`"));
    let other = ready(json!({"dimension": 3}));
    assert!(other.conflict(&pushed_one).unwrap().contains("has 384 dimensions"));
}

proptest! {
    #[test]
    fn the_check_never_panics(
        name in ".{0,8}", id in ".{0,8}", text in ".{0,16}", metadata in proptest::collection::vec(".{0,3}", 0..4),
        provider in proptest::option::of(".{0,6}"), model in proptest::option::of(".{0,6}"),
        numbers in proptest::array::uniform6(proptest::option::of(any::<u32>())),
    ) {
        let mut index = index("x", built(json!({})));
        index.metadata.name = Some(name);
        let spec = &mut index.spec;
        let source = spec.source.as_mut().unwrap();
        (source.id, source.text, source.metadata) = (id, text, metadata);
        let embedding = spec.embedding.as_mut().unwrap();
        (embedding.provider, embedding.model) = (provider, model);
        spec.hnsw = Some(lakehouse_crds::vector_index::Hnsw { m: numbers[0], ef_construction: numbers[1], ef_search: numbers[2] });
        (spec.dimension, spec.shards, spec.replicas) = (numbers[3], numbers[4], numbers[5]);
        match check(&index) {
            Ok(ready) => prop_assert_eq!(Some(ready.name.to_string()), index.metadata.name),
            Err(refusal) => prop_assert!(!refusal.problems().is_empty()),
        }
    }
}

/// A sound spec over the Dataset `workers` with these fields of its source.
fn built(source: Value) -> Value {
    let mut spec = json!({
        "source": {"dataset": "workers", "id": "id", "text": "{a}"},
        "embedding": {"local": {"model": "lexical"}},
    });
    let Value::Object(fields) = source else { panic!("fields are an object") };
    spec["source"].as_object_mut().unwrap().extend(fields);
    spec
}

fn ready(spec: Value) -> ReadyVectorIndex {
    check(&index("shelf", spec)).expect("the spec is sound")
}

/// The spec has this one problem.
fn refused(spec: Value, field: &str, reason: Reason, part: &str) {
    let refusal = check(&index("shelf", spec)).expect_err("the spec has a problem");
    let [problem] = refusal.problems() else { panic!("more than one problem: {refusal}") };
    assert_eq!((problem.field.as_str(), problem.reason), (field, reason), "{refusal}");
    assert!(problem.message.contains(part), "{refusal}");
}

fn index(name: &str, spec: Value) -> VectorIndex {
    VectorIndex::new(name, serde_json::from_value(spec).expect("the spec has its type"))
}

fn model(digest: &str) -> ModelIdentity {
    ModelIdentity { model: "local/lexical".into(), digest: digest.into(), dimension: 384, normalised: true }
}

/// The index that a build gives.
fn info(asked: &ReadyVectorIndex, version: u64, model: &ModelIdentity) -> IndexInfo {
    let spec = asked.build_spec().unwrap();
    IndexInfo {
        name: spec.name,
        shape: Shape {
            dimension: 384,
            metric: spec.metric,
            hnsw: spec.hnsw,
            quantization: spec.quantization,
        },
        length: 10,
        version: 1,
        latest_version: 1,
        versions: vec![1],
        embedding: Some(model.clone()),
        source: Some(BuiltFrom {
            dataset: spec.dataset,
            version,
            id: spec.id,
            inputs: asked.inputs(version, model).unwrap(),
        }),
        failed: 0,
        recall: Some(1.0),
        bytes: 100,
        shards: 1,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        damaged: Vec::new(),
    }
}
