//! What is wrong in a YAML file is told with its place, its field and what would help; all of it at once.

use lakehouse_plan::documents::{self, Resource};

#[test]
fn documents_of_one_file_are_read_with_their_lines_and_comments() {
    let text = "# a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  a.csv: |\n    x\n    1\n\
                ---\n# nothing here\n---\napiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata:\n  name: notes\n\
                spec:\n  source:\n    configMap: {name: notes, key: a.csv}\n";
    let read = documents::read([("notes.yaml", text)]);
    assert_eq!(read.problems, []);
    let [map, dataset] = read.documents.as_slice() else { panic!("{:?}", read.documents) };
    assert_eq!((map.line, map.name(), map.namespace()), (3, "notes", "default"));
    assert_eq!(map.resource.entry("a.csv"), Some(b"x\n1\n".as_slice()));
    assert_eq!(map.resource.entry("b.csv"), None);
    assert_eq!(read.find("ConfigMap", "default", "notes").unwrap().line, 3);
    assert_eq!((dataset.line, dataset.resource.kind()), (13, "Dataset"));
}

#[test]
fn broken_syntax_is_told_with_line_and_column() {
    assert_eq!(told("apiVersion: v1\nkind: [Config\nmetadata: x\n").len(), 1);
    let [problem] = &told("a: 1\n b: 2\n")[..] else { panic!("one problem") };
    assert!(problem.starts_with("a.yaml:2:") && problem.contains("the YAML cannot be read"), "{problem}");
}

#[test]
fn a_document_before_broken_syntax_is_still_checked() {
    let problems = told(&format!("{}colums: []\n---\nx: [\n", dataset("  source: {upload: {}}\n  ")));
    assert!(problems[0].contains("did you mean `columns`?"), "{problems:#?}");
    assert!(problems[1].contains("cannot be read"), "{problems:#?}");
}

#[test]
fn an_unknown_field_is_told_with_the_nearest() {
    for (spec, told_) in [
        ("  colums: []\n", "a.yaml:6:3: spec.colums: unknown field; did you mean `columns`?"),
        ("  sourc: {}\n", "a.yaml:6:3: spec.sourc: unknown field; did you mean `source`?"),
        ("  keepversions: 2\n", "a.yaml:6:3: spec.keepversions: unknown field; did you mean `keepVersions`?"),
        (
            "  csv:\n    seperator: x\n",
            "a.yaml:7:5: spec.csv.seperator: unknown field; the fields here are delimiter, header, nullValues",
        ),
    ] {
        let problems = told(&dataset(spec));
        assert!(problems.iter().any(|problem| problem == told_), "{told_}\n{problems:#?}");
    }
}

#[test]
fn a_wrong_value_is_told_with_what_is_allowed() {
    for (spec, told_) in [
        (
            "  columns: [{name: a, type: int}]\n",
            "spec.columns[0].type: \"int\" is not allowed; one of int64, float64, boolean, date, timestamp, string",
        ),
        ("  format: csv\n", "spec.format: \"csv\" is not allowed; one of CSV, NDJSON, Parquet"),
        ("  format: 3\n", "spec.format: must be one of CSV, NDJSON, Parquet"),
        ("  keepVersions: 0\n", "spec.keepVersions: 0 is not allowed; must be from 1 to 1000"),
        ("  keepVersions: 2.5\n", "spec.keepVersions: must be a whole number"),
        ("  keepVersions: three\n", "spec.keepVersions: must be a whole number, not a text"),
        (
            "  version: 9223372036854775808\n",
            "spec.version: 9223372036854775808 is not allowed; must be at most 9223372036854775807",
        ),
        ("  version: 0\n", "spec.version: 0 is not allowed; must be at least 1"),
        ("  rejects: {maxRatio: 1.5}\n", "spec.rejects.maxRatio: 1.5 is not allowed; must be from 0 to 1"),
        ("  rejects: {maxRows: -1}\n", "spec.rejects.maxRows: -1 is not allowed; must be at least 0"),
        ("  suspend: maybe\n", "spec.suspend: must be true or false, not a text"),
        ("  sortBy: city\n", "spec.sortBy: must be a list, not a text"),
        ("  sortBy: [a, b, a]\n", "spec.sortBy[2]: \"a\" stands already at [0]"),
        ("  csv: ','\n", "spec.csv: must be a map of fields, not a text"),
        (
            "  csv: {nullValues: [no]}\n",
            "spec.csv.nullValues[0]: must be a text, not a boolean; put it into quotes if a text is meant",
        ),
        (
            "  columns: [{name: a, type: date}, {name: a, type: string}]\n",
            "spec.columns[1]: \"a\" stands already at [0]",
        ),
        ("  columns: [{type: date}]\n", "spec.columns[0].name: is missing: the name in the source's header"),
        ("  columns: [{name: '', type: date}]\n", "spec.columns[0].name: must not be empty"),
        (
            "  ingest: {resources: {limits: {memory: 4 GB}}}\n",
            "spec.ingest.resources.limits.memory: must be a quantity, such as `2`, `500m` or `1Gi`",
        ),
    ] {
        let problems = told(&dataset(&format!("  source: {{upload: {{}}}}\n{spec}")));
        assert!(problems.len() == 1 && problems[0].ends_with(told_), "{told_}\n{problems:#?}");
    }
}

#[test]
fn what_only_the_check_knows_is_told_at_its_place_too() {
    let problems = told(&dataset("  source:\n    http:\n      url: https://u:secret@h/a.csv\n"));
    let [problem] = &problems[..] else { panic!("{problems:#?}") };
    assert!(problem.starts_with("a.yaml:8:12: spec.source.http.url: must not hold a user"), "{problem}");
    assert!(!problem.contains("secret@"), "{problem}");
}

#[test]
fn all_problems_of_all_files_are_told_in_their_order() {
    let bad = dataset("  formt: CSV\n  columns: [{name: a, type: int}]\n");
    let read = documents::read([("b.yaml", bad.as_str()), ("a.yaml", "kind: Dataset\n")]);
    let places: Vec<_> = read.problems.iter().map(|problem| (problem.file.as_str(), problem.line)).collect();
    // The missing source, the unknown field, the wrong type; the missing apiVersion.
    assert_eq!(places, [("b.yaml", 5), ("b.yaml", 6), ("b.yaml", 7), ("a.yaml", 1)], "{:#?}", read.problems);
}

#[test]
fn a_document_says_what_it_is() {
    for (text, told_) in [
        ("kind: Dataset\n", "apiVersion: is missing"),
        ("apiVersion: v1\n", "kind: is missing"),
        (
            "apiVersion: lakehouse.dev/v1\nkind: Dataset\n",
            "apiVersion: `lakehouse.dev/v1` is not read for kind `Dataset`; write `lakehouse.dev/v1alpha1`",
        ),
        (
            "apiVersion: lakehouse.dev/v1alpha1\nkind: Datasets\n",
            "kind: `Datasets` is not known; did you mean `Dataset`?",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\n",
            "kind: `Deployment` (apps/v1) is not read here; the kinds that are: Dataset, VectorIndex, ChatProvider, ConfigMap, Secret",
        ),
        ("- a\n- b\n", "apiVersion: is missing"),
    ] {
        let problems = told(text);
        assert!(problems.iter().any(|problem| problem.contains(told_)), "{told_}\n{problems:#?}");
    }
}

#[test]
fn a_name_is_one_that_a_cluster_accepts() {
    for (metadata, told_) in [
        ("{name: us_airports}", "metadata.name: `us_airports` cannot be an object's name"),
        ("{name: us_airports}", "`us-airports` would do"),
        ("{name: ''}", "metadata.name: "),
        ("{}", "metadata.name: is missing"),
        ("{generateName: a-}", "metadata.generateName: only an API server makes up names"),
        ("{name: a, namespace: b.c}", "metadata.namespace: `b.c` cannot be a namespace"),
        ("{nmae: a}", "metadata.nmae: unknown field; did you mean `name`?"),
        ("{name: 7}", "metadata.name: must be a text, not a number"),
    ] {
        let problems = told(&format!(
            "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {metadata}\nspec: {{source: {{upload: {{}}}}}}\n"
        ));
        assert!(problems.iter().any(|problem| problem.contains(told_)), "{told_}\n{problems:#?}");
    }
}

#[test]
fn a_resource_that_stands_twice_is_told_with_both_places() {
    let text = dataset("  source: {upload: {}}\n");
    let read = documents::read([("a.yaml", text.as_str()), ("b.yaml", text.as_str())]);
    let told: Vec<String> = read.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["b.yaml:4:9: metadata.name: Dataset `sales` in namespace `default` stands already at a.yaml:1"]
    );
}

#[test]
fn a_field_that_stands_twice_is_told_with_its_first_line() {
    let problems = told(&dataset("  source: {upload: {}}\n  format: CSV\n  format: NDJSON\n"));
    assert_eq!(problems, ["a.yaml:8:3: the field `format` stands here twice, first in line 7"]);
}

#[test]
fn an_empty_field_counts_as_absent() {
    let read = documents::read([("a.yaml", dataset("  source: {upload: {}, http: }\n  csv:\n").as_str())]);
    assert_eq!(read.problems, []);
    let problems = told(&dataset("  source:\n"));
    assert!(problems[0].contains("spec.source: is missing: where the rows come from"), "{problems:#?}");
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let secret =
        |entries: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\n{entries}\n");
    let read =
        documents::read([("a.yaml", secret("stringData: {a: hunter2}\ndata: {b: aHVudGVyMg==}").as_str())]);
    let [document] = &read.documents[..] else { panic!("{:?}", read.problems) };
    assert_eq!(document.resource.entries(), [("a", b"hunter2".as_slice()), ("b", b"hunter2")].into());
    assert_eq!(format!("{document:?}"), "a.yaml:1: Secret default/key");
    for entries in ["data: {a: hunter2!}", "data: {a: [hunter2]}", "data: hunter2", "type: {hunter2: 1}"] {
        let problems = told(&secret(entries));
        assert!(
            !problems.is_empty() && !problems.iter().any(|problem| problem.contains("hunter2")),
            "{problems:#?}"
        );
    }
}

#[test]
fn a_printed_resource_can_be_read_back_without_its_status() {
    let text = format!("{}status: {{rows: 3, version: 1}}\n", dataset("  source: {upload: {}}\n"));
    let read = documents::read([("a.yaml", text.as_str())]);
    let [Resource::Dataset(dataset)] =
        &read.documents.iter().map(|d| d.resource.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", read.problems)
    };
    assert_eq!(dataset.status, None);
}

#[test]
fn anchors_and_merges_mean_what_they_mean_to_kubectl() {
    let spec = "  source: {upload: {}}\n  columns:\n    - &first {name: a, type: date}\n    - {<<: *first, name: b}\n";
    let read = documents::read([("a.yaml", dataset(spec).as_str())]);
    let Some(Resource::Dataset(dataset)) = read.documents.first().map(|document| &document.resource) else {
        panic!("{:?}", read.problems)
    };
    assert_eq!(
        dataset.spec.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn aliases_of_aliases_do_not_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(", ");
        text = format!("{text}a{i}: &a{i} [{list}]\n");
    }
    let problems = told(&text);
    assert!(problems.len() == 1 && problems[0].contains("expand to more than"), "{problems:#?}");
}

/// A Dataset named `sales` whose spec starts in line 6.
fn dataset(spec: &str) -> String {
    format!("apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata:\n  name: sales\nspec:\n{spec}")
}

/// The problems of a file `a.yaml`, as they are shown.
fn told(text: &str) -> Vec<String> {
    documents::read([("a.yaml", text)]).problems.iter().map(ToString::to_string).collect()
}
