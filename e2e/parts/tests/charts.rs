//! The charts on a real API server: what they render is sound, is accepted as it stands and reads as the operator's settings.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use lakehouse_parts::{ApiServer, helm};
use lakehouse_plan::cluster::Settings;
use serde_json::Value;

/// Values that turn on all that is off, for a chart that looks after two namespaces.
const EVERYTHING: &str = "
watchNamespaces: [red, blue]
image: {tag: '1.2.3', pullSecrets: [registry]}
store: {endpoint: 'http://minio.minio.svc:9000', pathStyle: true}
gateway: {replicas: 2, resources: {requests: {cpu: 100m}, limits: {memory: 1Gi}}}
pods: {nodeSelector: {disk: fast}, tolerations: [{key: gpu, operator: Exists}], priorityClassName: low, annotations: {a: b}}
operator:
  replicas: 2
  extraEnv: [{name: RUST_BACKTRACE, value: '1'}]
  nodeSelector: {disk: slow}
  tolerations: [{key: gpu, operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: high
  podAnnotations: {a: b}
  podLabels: {c: d}
  serviceAccountAnnotations: {e: f}
podMonitor: {enabled: true, labels: {team: data}}
admission: {httpSources: ['https://data.example.com/']}
";

#[test]
fn the_charts_are_free_of_faults() {
    for chart in ["lakehouse-crds", "lakehouse"] {
        let linted = helm().args(["lint", "--strict"]).arg(charts().join(chart)).output().unwrap();
        assert!(linted.status.success(), "{}", words(&linted));
    }
}

#[test]
fn a_misspelt_value_is_refused() {
    let refused = helm()
        .args(["template", "lakehouse", "--set", "query.replica=2"])
        .arg(charts().join("lakehouse"))
        .output()
        .unwrap();
    assert!(!refused.status.success() && words(&refused).contains("replica"), "{}", words(&refused));
}

#[test]
fn the_settings_file_is_what_the_operator_reads() {
    for values in ["{}", EVERYTHING] {
        let rendered = template("lakehouse", values);
        let settings = documents(&rendered)
            .into_iter()
            .find_map(|document| Some(document["data"]["settings.yaml"].as_str()?.to_owned()))
            .unwrap();
        Settings::parse(&settings).unwrap_or_else(|problem| panic!("{problem}\n{settings}"));
    }
}

#[test]
fn with_a_list_of_namespaces_the_operator_has_no_right_beyond_them() {
    let rendered = documents(&template("lakehouse", "{watchNamespaces: [red, blue]}"));
    assert!(rendered.iter().all(|object| !object["kind"].as_str().unwrap().starts_with("Cluster")));
    let mut places: Vec<_> = rendered
        .iter()
        .filter(|object| object["kind"] == "Role")
        .map(|object| object["metadata"]["namespace"].as_str().unwrap())
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["blue", "lakehouse-system", "red"]);
}

#[test]
fn the_manifest_for_who_has_no_helm_is_current() {
    let text = format!(
        "# Rendered from charts/ by `make generate`; edits are overwritten.\n# kubectl apply --server-side -f install.yaml\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: lakehouse-system\n{}{}",
        template("lakehouse-crds", "{}"),
        template("lakehouse", "{}"),
    );
    let file = charts().join("../manifests/install.yaml");
    if env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(&file, &text).unwrap();
    }
    let on_disk = fs::read_to_string(file).unwrap_or_default();
    assert!(on_disk == text, "manifests/install.yaml is not what the charts say; `make generate` writes it");
}

#[test]
fn a_second_apply_finds_nothing_to_change() {
    let server = ApiServer::start();
    let folder = tempfile::tempdir().unwrap();
    for namespace in ["lakehouse-system", "red", "blue"] {
        succeed(server.kubectl().args(["create", "namespace", namespace]));
    }
    // The chart's kinds that no server knows without their own operator are left out here.
    let everything = EVERYTHING.replace("podMonitor: {enabled: true,", "podMonitor: {enabled: false,");
    for (name, chart, values) in [
        ("crds", "lakehouse-crds", "{}"),
        ("cluster", "lakehouse", "{}"),
        ("namespaces", "lakehouse", everything.as_str()),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, template(chart, values)).unwrap();
        let apply = || {
            let mut kubectl = server.kubectl();
            kubectl
                .args(["apply", "--server-side", "--force-conflicts", "--warnings-as-errors", "-f"])
                .arg(&file);
            kubectl
        };
        succeed(apply().arg("--dry-run=server"));
        succeed(&mut apply());
        let diff = server.kubectl().args(["diff", "--server-side", "-f"]).arg(&file).output().unwrap();
        assert!(diff.status.success(), "{name}: {}{}", String::from_utf8_lossy(&diff.stdout), words(&diff));
    }
}

#[test]
fn an_administrators_list_holds_for_every_address_that_a_dataset_names() {
    let server = ApiServer::start();
    let folder = tempfile::tempdir().unwrap();
    succeed(server.kubectl().args(["create", "namespace", "lakehouse-system"]));
    let values = "{admission: {httpSources: ['https://data.example.com/']}}";
    for (chart, values) in [("lakehouse-crds", "{}"), ("lakehouse", values)] {
        let file = folder.path().join(chart);
        fs::write(&file, template(chart, values)).unwrap();
        succeed(server.kubectl().args(["apply", "--server-side", "-f"]).arg(&file));
    }
    let answer = |source: &str| {
        let file = folder.path().join("dataset");
        let head =
            "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {name: a, namespace: default}\n";
        fs::write(&file, format!("{head}spec: {{source: {source}}}\n")).unwrap();
        let output = server.kubectl().args(["create", "--dry-run=server", "-f"]).arg(&file).output().unwrap();
        if output.status.success() { String::new() } else { words(&output) }
    };
    let s3 = |endpoint: &str| format!("{{s3: {{bucket: data, key: k.csv, endpoint: '{endpoint}'}}}}");
    let start = Instant::now();
    while !answer(&s3("http://169.254.169.254"))
        .contains("`spec.source.s3.endpoint`: this cluster reads only")
    {
        assert!(start.elapsed() < Duration::from_mins(1), "{}", answer(&s3("http://169.254.169.254")));
        sleep(Duration::from_millis(200));
    }
    assert!(answer("{http: {url: 'http://169.254.169.254/a.csv'}}").contains("`spec.source.http.url`: this"));
    assert_ne!(answer(&s3("https://data.example.com.evil.example")), "");
    for allowed in [
        s3("https://data.example.com").as_str(),
        &s3("https://data.example.com/"),
        "{s3: {bucket: data, key: k.csv}}",
        "{http: {url: 'https://data.example.com/a.csv'}}",
        "{configMap: {name: a, key: a.csv}}",
        "{upload: {}}",
    ] {
        assert_eq!(answer(allowed), "", "{allowed}");
    }
}

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts")
}

/// What a chart renders with these values.
fn template(chart: &str, values: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values).unwrap();
    let rendered = helm()
        .args(["template", "lakehouse", "--namespace", "lakehouse-system", "--skip-tests", "--values"])
        .arg(file.path())
        .arg(charts().join(chart))
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{}", words(&rendered));
    String::from_utf8(rendered.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", words(&output));
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
