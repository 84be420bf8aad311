//! Every CEL rule of every definition has a document that breaks it and gets its sentence.

use std::collections::BTreeSet;

use lakehouse_crds::definitions;
use lakehouse_plan::documents;
use serde_json::Value;

/// A kind, a spec that breaks one rule, the field that is named, and a part of the sentence.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("Dataset", "{source: {}}", "spec.source", "exactly one of `http`"),
    (
        "Dataset",
        "{source: {upload: {}, configMap: {name: a, key: b.csv}}}",
        "spec.source",
        "exactly one of `http`",
    ),
    ("Dataset", "{source: {http: {url: 'ftp://h/a.csv'}}}", "spec.source.http.url", "starts with `http://`"),
    ("Dataset", "{source: {http: {url: 'https:///a.csv'}}}", "spec.source.http.url", "names a host"),
    (
        "Dataset",
        "{source: {http: {url: 'https://h/a.csv', sha256: abc}}}",
        "spec.source.http.sha256",
        "64 hexadecimal",
    ),
    (
        "Dataset",
        "{source: {http: {url: 'https://h/a.csv', headersSecretRef: {name: Big}}}}",
        "spec.source.http.headersSecretRef.name",
        "must be the name of an object",
    ),
    ("Dataset", "{source: {s3: {bucket: abc}}}", "spec.source.s3", "exactly one of `key`"),
    (
        "Dataset",
        "{source: {s3: {bucket: abc, key: a.csv, glob: '*.csv'}}}",
        "spec.source.s3",
        "exactly one of `key`",
    ),
    (
        "Dataset",
        "{source: {s3: {bucket: abc, key: a.csv, endpoint: 'minio:9000'}}}",
        "spec.source.s3.endpoint",
        "starts with `http://`",
    ),
    (
        "Dataset",
        "{source: {upload: {}}, csv: {delimiter: ';;'}}",
        "spec.csv.delimiter",
        "one ASCII character",
    ),
    (
        "Dataset",
        "{source: {upload: {}}, csv: {delimiter: '\"'}}",
        "spec.csv.delimiter",
        "one ASCII character",
    ),
    ("Dataset", "{source: {upload: {}}, csv: {delimiter: '€'}}", "spec.csv.delimiter", "one ASCII character"),
    ("Dataset", "{source: {upload: {}}, format: NDJSON, csv: {header: true}}", "spec", "how to read CSV"),
    ("Dataset", "{source: {upload: {}}, schedule: '@daily'}", "spec", "an upload has no source"),
    (
        "Dataset",
        "{source: {configMap: {name: a, key: a.csv}}, schedule: '@daily', version: 2}",
        "spec",
        "a pinned dataset",
    ),
    (
        "Dataset",
        "{source: {configMap: {name: a, key: a.csv}}, schedule: often}",
        "spec.schedule",
        "five cron fields",
    ),
    ("VectorIndex", "{}", "spec", "set `dimension`"),
    (
        "VectorIndex",
        "{dimension: 3, source: {dataset: a, id: b, text: '{c}'}}",
        "spec",
        "needs an `embedding`",
    ),
    ("VectorIndex", "{dimension: 3, refresh: Manual}", "spec", "when to follow a `source`"),
    ("VectorIndex", "{embedding: {}}", "spec.embedding", "exactly one of `provider`"),
    ("VectorIndex", "{embedding: {provider: a}}", "spec.embedding", "`model` belongs to `provider`"),
    (
        "VectorIndex",
        "{embedding: {provider: A b, model: c}}",
        "spec.embedding.provider",
        "must be the name of an object",
    ),
    (
        "VectorIndex",
        "{embedding: {local: {model: c}}, source: {dataset: a, id: b, text: plain}}",
        "spec.source.text",
        "at least one column in braces",
    ),
    (
        "VectorIndex",
        "{embedding: {local: {model: c}}, source: {dataset: a, id: '{a}-{b}', text: '{c}'}}",
        "spec.source.id",
        "a text with exactly one in braces",
    ),
    ("VectorIndex", "{embedding: {provider: local, model: c}}", "spec.embedding.provider", "another name"),
    ("VectorIndex", "{dimension: 3, version: 2}", "spec", "clients fill this one"),
    ("VectorIndex", "{dimension: 3, build: {backoffLimit: 2}}", "spec", "clients fill this one"),
    ("VectorIndex", "{dimension: 3, shards: 2}", "spec", "has one shard"),
    (
        "VectorIndex",
        "{dimension: 3, hnsw: {m: 32, efConstruction: 8}}",
        "spec.hnsw",
        "`efConstruction` must be at least",
    ),
    ("ChatProvider", "{type: Ollama}", "spec", "has no well-known address"),
    ("ChatProvider", "{type: Kimi}", "spec", "this type needs a key"),
    ("ChatProvider", "{type: Ollama, url: 'h:11434'}", "spec.url", "starts with `http://`"),
    ("ChatProvider", "{type: Ollama, url: 'http://h', fallback: [shelf]}", "", "its own fallback"),
    (
        "ChatProvider",
        "{type: Ollama, url: 'http://h', limits: {timeouts: {total: '5'}}}",
        "spec.limits.timeouts.total",
        "a duration above zero",
    ),
    (
        "ChatProvider",
        "{type: Ollama, url: 'http://h', limits: {timeouts: {idle: 0s}}}",
        "spec.limits.timeouts.idle",
        "a duration above zero",
    ),
];

#[test]
fn a_broken_rule_is_told_with_its_sentence_at_its_field() {
    for (kind, spec, field, part) in CASES {
        let problems = problems(kind, spec);
        assert!(
            problems.iter().any(|problem| problem.field == *field && problem.message.contains(part)),
            "{kind} {spec}: {problems:#?}"
        );
    }
}

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let told: BTreeSet<String> = CASES
        .iter()
        .flat_map(|(kind, spec, ..)| problems(kind, spec))
        .map(|problem| problem.message)
        .collect();
    for definition in definitions::all() {
        for (rule, message) in
            rules(&serde_json::to_value(definitions::schema(&definition).unwrap()).unwrap())
        {
            assert!(told.contains(&message), "no case breaks {rule}: {message}");
        }
    }
}

/// The rules of a schema and of everything in it, with their sentences.
fn rules(schema: &Value) -> Vec<(String, String)> {
    let own = schema["x-kubernetes-validations"].as_array().into_iter().flatten().map(|rule| {
        let text = |name: &str| rule[name].as_str().expect("every rule has a sentence").to_owned();
        (text("rule"), text("message"))
    });
    let below = match schema {
        Value::Object(fields) => fields.values().flat_map(rules).collect(),
        Value::Array(items) => items.iter().flat_map(rules).collect(),
        _ => Vec::new(),
    };
    own.chain(below).collect()
}

/// The problems of a resource named `shelf` with this spec.
fn problems(kind: &str, spec: &str) -> Vec<documents::Problem> {
    let text = format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: shelf}}\nspec: {spec}\n"
    );
    documents::read([("shelf.yaml", text.as_str())]).problems
}
