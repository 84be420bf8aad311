//! What `lakehouse up` promises of sources that change, fail and heal.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::net::TcpListener;

use common::{Lakehouse, eventually, file, web::Web};
use serde_json::json;

const SALES: &str = "sku,price\n007,1.50\n012,20.00\n";

#[test]
fn a_source_that_keeps_silent_holds_up_no_other_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait in its queue for ever
    let url = format!("http://{}/a.csv", silent.local_addr().unwrap());
    let yaml = file(folder.path(), "a.yaml", &dataset("a", &url, ""));
    let sales = file(folder.path(), "sales.csv", SALES);
    let paths = [yaml.to_str().unwrap(), sales.to_str().unwrap()];
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &paths);
    lakehouse.wait_for("sales", "Ready", "True");
    let waiting = lakehouse.wait_for("a", "SourceReachable", "Unknown");
    assert_eq!(waiting["reason"], "NotChecked", "{waiting}");

    file(folder.path(), "a.yaml", "");
    lakehouse.wait_for_list(&["sales"]);
}

#[test]
fn a_source_that_was_missing_is_read_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::start();
    let yaml = file(folder.path(), "sales.yaml", &dataset("sales", &web.url("/sales.csv"), ""));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[yaml.to_str().unwrap()]);
    let missing = lakehouse.wait_for("sales", "SourceReachable", "False");
    assert_eq!(missing["reason"], "SourceMissing", "{missing}");
    web.serve("/sales.csv", "", SALES);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT sku FROM sales ORDER BY sku"), json!([["007"], ["012"]]));
}

#[test]
fn a_corrected_secret_opens_a_source_that_was_denied() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::start();
    web.serve("/sales.csv", "authorization: Bearer right", SALES);
    let secret = |token: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\nstringData: {{Authorization: Bearer {token}}}\n"
        )
    };
    let spec = dataset("sales", &web.url("/sales.csv"), ", headersSecretRef: {name: key}");
    file(folder.path(), "sales.yaml", &spec);
    file(folder.path(), "secret.yaml", &secret("hidden"));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[folder.path().to_str().unwrap()]);
    let denied = lakehouse.wait_for("sales", "SourceReachable", "False");
    assert_eq!(denied["reason"], "SourceDenied", "{denied}");
    assert!(!lakehouse.dataset("sales").to_string().contains("hidden"));
    file(folder.path(), "secret.yaml", &secret("right"));
    lakehouse.wait_for("sales", "Ready", "True");
    let (_, stderr) = lakehouse.stop();
    assert!(stderr.contains("sales") && !stderr.contains("hidden"), "{stderr}");
}

#[test]
fn what_a_removed_file_or_resource_had_published_stays() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    file(&sources, "sales.csv", SALES);
    file(&sources, "old.csv", SALES);
    let yaml = dataset("old", "", "").replace("http: {url: \"\"}", "upload: {}");
    file(&sources, "old.yaml", &yaml);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sources.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    lakehouse.wait_for("old", "Ready", "True");
    for name in ["sales.csv", "old.csv", "old.yaml"] {
        std::fs::remove_file(sources.join(name)).unwrap();
    }
    file(&sources, "new.csv", SALES);
    lakehouse.wait_for_list(&["new", "old", "sales"]);
    let rows = lakehouse.sql("SELECT (SELECT count(*) FROM sales), (SELECT count(*) FROM old)");
    assert_eq!(rows, json!([[2, 2]]));
}

#[test]
fn a_rollback_that_would_be_undone_is_refused_with_what_to_do_instead() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::start();
    web.serve("/sales.csv", "", SALES);
    let yaml = file(folder.path(), "sales.yaml", &dataset("sales", &web.url("/sales.csv"), ""));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[yaml.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    let (status, answer) = lakehouse.post("/v1/catalog/rollback/sales", "");
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().ends_with("use spec.version"), "{answer}");
}

#[test]
fn versions_beyond_those_that_are_kept_go() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let yaml = dataset("sales", "", "")
        .replace("source: {http: {url: \"\"}}", "source: {upload: {}}, keepVersions: 2");
    let yaml = file(folder.path(), "sales.yaml", &yaml);
    let paths = [yaml.to_str().unwrap(), sales.to_str().unwrap()];
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &paths);
    for version in 1..=4 {
        lakehouse.wait_for_version("sales", version);
        file(folder.path(), "sales.csv", &format!("{SALES}{},1.00\n", 100 + version));
    }
    lakehouse.wait_for_version("sales", 5);
    eventually("two versions are kept", || {
        let history = lakehouse.get("/v1/catalog/history/sales").1;
        let versions: Vec<_> =
            history["versions"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
        if versions == [5, 4] { Ok(()) } else { Err(history.to_string()) }
    });
}

fn dataset(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
         spec: {{source: {{http: {{url: \"{url}\"{more}}}}}}}\n"
    )
}
