//! What survives: a kill in the middle of an ingest, a machine whose state is in a bucket.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{path::Path, time::Duration};

use common::{Lakehouse, eventually, file, lakehouse, run, up};
use lakehouse_parts::Minio;
use serde_json::json;

#[test]
fn a_killed_ingest_publishes_nothing_and_the_next_start_finishes_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let workers = folder.path().join("workers.csv");
    let rows = 60_000;
    sample(&workers, rows);
    let (data, whole) = (folder.path().join("data"), folder.path().join("whole"));

    let undisturbed = Lakehouse::up(&whole, &[workers.to_str().unwrap()]);
    undisturbed.wait_for("workers", "Ready", "True");
    let expected = undisturbed.get("/v1/catalog/manifest/workers").1;

    for wait in [150, 450, 900] {
        let killed = Lakehouse::up(&data, &[workers.to_str().unwrap()]);
        eventually("the ingest runs", || match killed.get("/v1/ingest/progress").1 {
            progress if progress[0]["name"] == "workers" => Ok(()),
            progress => Err(progress.to_string()),
        });
        std::thread::sleep(Duration::from_millis(wait));
        let (status, manifest) = killed.get("/v1/catalog/manifest/workers");
        killed.kill();
        if status == 200 {
            assert_eq!(manifest["objects"], expected["objects"], "what is published is whole");
        }
    }

    let survivor = Lakehouse::up(&data, &[workers.to_str().unwrap()]);
    survivor.wait_for("workers", "Ready", "True");
    let manifest = survivor.get("/v1/catalog/manifest/workers").1;
    assert_eq!(manifest["objects"], expected["objects"], "the same bytes as without a kill");
    assert_eq!(manifest["version"], 1);
    assert_eq!(survivor.sql("SELECT count(*) FROM workers"), json!([[rows]]));
    let spooled: Vec<_> =
        std::fs::read_dir(data.join("spool")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(spooled, ["ingest.lock"], "nothing of the killed ones is left behind");
}

#[test]
fn a_machine_with_its_state_in_a_bucket_can_be_replaced() {
    let minio = Minio::start();
    let bucket = format!("s3://{}/team", minio.bucket());
    let folder = tempfile::tempdir().unwrap();
    let sales = file(folder.path(), "sales.csv", "sku,price\n007,1.50\n");
    let on_bucket = |data: &str, paths: &[&str]| {
        Lakehouse::start(
            up(&folder.path().join(data))
                .args(["--store", &bucket])
                .args(paths)
                .env("AWS_ENDPOINT_URL", minio.endpoint())
                .env("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY),
        )
    };
    let first = on_bucket("one", &[sales.to_str().unwrap()]);
    first.wait_for("sales", "Ready", "True");
    let manifest = first.get("/v1/catalog/manifest/sales").1;
    first.kill();

    let second = on_bucket("two", &[]);
    second.wait_for("sales", "Ready", "True");
    assert_eq!(second.sql("SELECT sku, price FROM sales"), json!([["007", 1.5]]));
    assert_eq!(second.get("/v1/catalog/manifest/sales").1, manifest);
}

#[test]
fn a_bucket_that_refuses_the_keys_is_named_without_them() {
    let minio = Minio::start();
    let bucket = format!("s3://{}", minio.bucket());
    let folder = tempfile::tempdir().unwrap();
    let (ended_well, _, stderr) = run(up(&folder.path().join("data"))
        .args(["--store", &bucket])
        .env("AWS_ENDPOINT_URL", minio.endpoint())
        .env("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", "not-the-secret"));
    assert!(!ended_well);
    assert!(stderr.contains(&minio.endpoint()), "{stderr}");
    assert!(!stderr.contains("not-the-secret") && !stderr.contains(Minio::ACCESS_KEY), "{stderr}");
}

fn sample(file: &Path, rows: u32) {
    let (ended_well, _, stderr) =
        run(lakehouse().args(["sample", "staffing", "--rows", &rows.to_string(), "--out"]).arg(file));
    assert!(ended_well, "{stderr}");
}
