//! What `lakehouse up` promises, told as a user would live it.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{Lakehouse, eventually, file, run, up};
use serde_json::json;

const SALES: &str = "sku,price,sold\n007,1.50,2024-02-29\n012,20.00,2024-03-01\n";

#[test]
fn a_csv_alone_becomes_a_dataset_that_answers_sql() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sales.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    let rows = lakehouse.sql("SELECT sku, price, sold FROM sales ORDER BY sku");
    assert_eq!(rows, json!([["007", 1.5, "2024-02-29"], ["012", 20.0, "2024-03-01"]]));
}

#[test]
fn a_tsv_is_split_at_its_tabs() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.tsv", &SALES.replace(',', "\t"));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sales.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT sku, price FROM sales LIMIT 1"), json!([["007", 1.5]]));
    let (ended_well, _, stderr) =
        run(common::lakehouse().args(["ingest", "--name", "again", "--server", &lakehouse.url]).arg(&sales));
    assert!(ended_well, "{stderr}");
    assert_eq!(lakehouse.sql("SELECT sku, price FROM again LIMIT 1"), json!([["007", 1.5]]));
}

#[test]
fn a_second_start_ingests_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let data = folder.path().join("data");
    let first = Lakehouse::up(&data, &[sales.to_str().unwrap()]);
    first.wait_for("sales", "Ready", "True");
    let before = first.get("/v1/catalog/manifest/sales").1;
    let (ended_well, stderr) = first.stop();
    assert!(ended_well, "{stderr}");

    let second = Lakehouse::up(&data, &[sales.to_str().unwrap()]);
    second.wait_for("sales", "Ready", "True");
    assert_eq!(second.get("/v1/catalog/manifest/sales").1, before, "not even updated_at has moved");
}

#[test]
fn what_was_ingested_is_served_without_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let data = folder.path().join("data");
    let first = Lakehouse::up(&data, &[sales.to_str().unwrap()]);
    first.wait_for("sales", "Ready", "True");
    first.kill();

    let second = Lakehouse::up(&data, &[]);
    assert_eq!(second.sql("SELECT count(*) FROM sales"), json!([[2]]));
    second.wait_for("sales", "Ready", "True");
}

#[test]
fn a_changed_file_becomes_the_next_version() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sales.to_str().unwrap()]);
    lakehouse.wait_for_version("sales", 1);
    file(folder.path(), "sales.csv", &format!("{SALES}013,3.25,2024-03-02\n"));
    lakehouse.wait_for_version("sales", 2);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT count(*) FROM sales"), json!([[3]]));
}

#[test]
fn a_broken_file_leaves_the_last_good_version_served_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sales.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    file(folder.path(), "sales.csv", "sku,price,sold\n007,1.50\n");
    let ingested = lakehouse.wait_for("sales", "Ingested", "False");
    let message = ingested["message"].as_str().unwrap();
    assert!(message.contains("line 2") && message.contains('2') && message.contains('3'), "{message}");
    assert_eq!(lakehouse.sql("SELECT count(*) FROM sales"), json!([[2]]));

    file(folder.path(), "sales.csv", &format!("{SALES}013,3.25,2024-03-02\n"));
    lakehouse.wait_for_version("sales", 2);
    lakehouse.wait_for("sales", "Ingested", "True");
}

#[test]
fn yaml_with_a_config_map_becomes_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = file(
        folder.path(),
        "prices.yaml",
        "apiVersion: v1
kind: ConfigMap
metadata: {name: price-list}
data:
  prices.csv: |
    sku,price
    007,1
    012,2
---
apiVersion: lakehouse.dev/v1alpha1
kind: Dataset
metadata: {name: prices}
spec:
  source: {configMap: {name: price-list, key: prices.csv}}
  columns: [{name: price, type: float64}]
",
    );
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[yaml.to_str().unwrap()]);
    lakehouse.wait_for("prices", "Ready", "True");
    assert_eq!(
        lakehouse.sql("SELECT sku, price FROM prices ORDER BY 1"),
        json!([["007", 1.0], ["012", 2.0]])
    );
}

#[test]
fn a_data_file_fills_the_dataset_that_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    file(
        &resources,
        "sales.yaml",
        &dataset("sales", "{source: {upload: {}}, columns: [{name: price, type: string}]}"),
    );
    file(&resources, "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[resources.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT price FROM sales ORDER BY sku"), json!([["1.50"], ["20.00"]]));
}

#[test]
fn an_upload_follows_the_dataset_that_it_fills() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "{source: {upload: {}}, columns: [{name: price, type: string}]}";
    let yaml = file(folder.path(), "sales.yaml", &dataset("sales", spec));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[yaml.to_str().unwrap()]);
    let ready = lakehouse.wait_for("sales", "Ready", "False");
    assert!(ready["message"].as_str().unwrap().contains("/v1/ingest?name=sales"), "{ready}");

    let (status, answer) = lakehouse.post("/v1/ingest?name=sales", SALES);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        lakehouse.sql("SELECT price FROM sales ORDER BY sku"),
        json!([["1.50"], ["20.00"]]),
        "at once"
    );
    lakehouse.wait_for("sales", "Ready", "True");
}

#[test]
fn a_pin_serves_the_kept_version_and_taking_it_out_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    file(&resources, "sales.yaml", &dataset("sales", "{source: {upload: {}}}"));
    file(&resources, "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[resources.to_str().unwrap()]);
    lakehouse.wait_for_version("sales", 1);
    file(&resources, "sales.csv", &format!("{SALES}013,3.25,2024-03-02\n"));
    lakehouse.wait_for_version("sales", 2);

    file(&resources, "sales.yaml", &dataset("sales", "{source: {upload: {}}, version: 1}"));
    lakehouse.wait_for_version("sales", 1);
    eventually("the pinned rows answer", || match lakehouse.sql("SELECT count(*) FROM sales") {
        rows if rows == json!([[2]]) => Ok(()),
        rows => Err(rows.to_string()),
    });

    file(&resources, "sales.yaml", &dataset("sales", "{source: {upload: {}}}"));
    eventually("the newest rows answer", || match lakehouse.sql("SELECT count(*) FROM sales") {
        rows if rows == json!([[3]]) => Ok(()),
        rows => Err(rows.to_string()),
    });
}

#[test]
fn a_rollback_over_http_is_served_and_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[]);
    assert_eq!(lakehouse.post("/v1/ingest?name=sales", SALES).0, 200);
    assert_eq!(lakehouse.post("/v1/ingest?name=sales", format!("{SALES}013,3.25,2024-03-02\n")).0, 200);
    lakehouse.wait_for_version("sales", 2);
    let (status, answer) = lakehouse.post("/v1/catalog/rollback/sales", "");
    assert_eq!((status, &answer["version"]), (200, &json!(1)), "{answer}");
    lakehouse.wait_for_version("sales", 1);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT count(*) FROM sales"), json!([[2]]));
}

#[test]
fn wrong_yaml_is_refused_at_the_start_with_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = file(
        folder.path(),
        "sales.yaml",
        &dataset("sales", "{source: {upload: {}}, colums: [], columns: [{name: price, type: money}]}"),
    );
    let (ended_well, _, stderr) = run(up(&folder.path().join("data")).arg(&yaml));
    assert!(!ended_well);
    for part in ["sales.yaml", "spec.colums", "`columns`", "spec.columns[0].type", "money", "float64"] {
        assert!(stderr.contains(part), "`{part}` is missing in:\n{stderr}");
    }
}

#[test]
fn a_mistake_in_a_followed_file_is_told_and_the_old_resources_stay() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    file(&resources, "sales.yaml", &dataset("sales", "{source: {upload: {}}}"));
    file(&resources, "sales.csv", SALES);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[resources.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    file(&resources, "sales.yaml", "kind: [");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(lakehouse.sql("SELECT count(*) FROM sales"), json!([[2]]));
    let (_, stderr) = lakehouse.stop();
    assert!(stderr.contains("sales.yaml"), "{stderr}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    file(folder.path(), "file", "");
    std::fs::create_dir(path("newer")).unwrap();
    std::fs::create_dir(path("newer/bucket")).unwrap();
    file(&path("newer/bucket"), "lakehouse.json", "{\"layout\": 99}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();

    let refused = |data: &str, args: &[&str]| {
        let (ended_well, _, stderr) =
            run(common::lakehouse().arg("up").arg("--data").arg(path(data)).args(args));
        assert!(!ended_well, "{data} {args:?}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    };
    let free = ["--listen", "127.0.0.1:0"];
    assert!(refused("data", &["--listen", &taken]).contains(&taken));
    assert!(refused("file/data", &free).contains("file/data"));
    assert!(refused("newer", &free).contains("newer"));
    assert!(refused("data", &["--listen", "0.0.0.0:0"]).contains("LAKEHOUSE_TOKEN"));
    assert!(refused("data", &["--listen", "127.0.0.1:0", "nowhere.yaml"]).contains("nowhere.yaml"));
}

fn dataset(name: &str, spec: &str) -> String {
    format!("apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
