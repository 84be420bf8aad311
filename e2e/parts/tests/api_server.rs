//! The resource definitions on a real API server: it takes them, and refuses what they forbid in their own words.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    io::Write,
    path::Path,
    process::{Output, Stdio},
};

use lakehouse_parts::ApiServer;

#[test]
fn the_definitions_are_accepted_and_refuse_a_wrong_spec_in_a_sentence() {
    let server = ApiServer::start();
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds/yaml");
    let applied = server.kubectl().args(["apply", "--server-side", "-f"]).arg(definitions).output().unwrap();
    assert!(applied.status.success(), "{}", words(&applied));
    for name in ["datasets", "vectorindexes", "chatproviders"] {
        let definition = format!("crd/{name}.lakehouse.dev");
        // `NonStructuralSchema` would be told here, as would a name that another definition holds.
        let waited = server
            .kubectl()
            .args(["wait", "--for=condition=Established", "--timeout=30s", &definition])
            .output();
        assert!(waited.as_ref().unwrap().status.success(), "{}", words(&waited.unwrap()));
    }

    for (spec, sentence) in [
        ("{source: {}}", "exactly one of `http`, `s3`, `configMap` and `upload` must be set"),
        (
            "{source: {upload: {}}, schedule: '0 * * * *'}",
            "an upload has no source to read again; remove `schedule`",
        ),
        ("{source: {http: {url: 'ftp://example.com/a.csv'}}}", "must be a URL that starts with `http://`"),
    ] {
        let refused = apply(&server, spec);
        let words = words(&refused);
        assert!(!refused.status.success() && words.contains(sentence), "{spec}: {words}");
    }
    let good = apply(&server, "{source: {upload: {}}}");
    assert!(good.status.success(), "{}", words(&good));
}

/// Applies a Dataset of this spec.
fn apply(server: &ApiServer, spec: &str) -> Output {
    let dataset = format!(
        "{{apiVersion: lakehouse.dev/v1alpha1, kind: Dataset, metadata: {{name: sales}}, spec: {spec}}}"
    );
    let mut kubectl = server
        .kubectl()
        .args(["apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl.stdin.take().unwrap().write_all(dataset.as_bytes()).unwrap();
    kubectl.wait_with_output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
