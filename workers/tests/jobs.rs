//! What the Jobs of a cluster promise: their exit status, their last words, and what they leave in the store.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{Lakehouse, eventually, file, lakehouse, signal, web::Web};
use lakehouse_contract::{
    DatasetName,
    ingest::{Format, IngestSpec},
    job::{Done, IngestJob, JobSource, MAX_SUMMARY_BYTES, Summary},
};
use lakehouse_parts::Minio;
use serde_json::json;

const SALES: &str = "sku,price\n007,1.50\n012,20.00\n";

#[test]
fn a_source_is_published_once_for_each_content() {
    let pod = Pod::new();
    let web = Web::start();
    web.serve("/sales.csv", "", SALES);
    let job = pod.job("sales", http(&web));
    let first = pod.done(&job);
    assert_eq!((first.version, first.rows, first.unchanged), (1, 2, false));
    assert_eq!(first.message, "Version 1 was published with 2 rows.");
    assert!(first.started <= first.finished && first.bytes > 0 && first.files == 1, "{first:?}");
    assert_eq!(first.format, "CSV");

    let again = pod.done(&job);
    assert_eq!((again.version, again.unchanged, &again.source_digest), (1, true, &first.source_digest));
    assert_eq!(again.message, "The source has not changed since version 1, which has 2 rows.");
    assert_eq!((again.rows, again.bytes, again.files), (first.rows, first.bytes, first.files));

    web.serve("/sales.csv", "", "sku,price\n007,1.50\n012,20.00\n013,3.25\n");
    assert_eq!((pod.done(&job).version, pod.versions("sales")), (2, vec![2, 1]));
}

#[test]
fn the_exit_status_says_whether_the_same_again_may_end_better() {
    let pod = Pod::new();
    let web = Web::start();
    let job = pod.job("sales", http(&web));
    let missing = pod.failed(&job, 75);
    assert_eq!(missing.0, "SourceMissing");
    assert!(missing.1.contains("/sales.csv answers 404"), "{missing:?}");

    web.serve("/sales.csv", "authorization: Bearer right", SALES);
    assert_eq!(pod.failed(&job, 65).0, "SourceDenied");

    web.serve("/sales.csv", "", "sku,price\n\"007,1.50\n");
    let broken = pod.failed(&job, 65);
    assert_eq!(broken.0, "InvalidData");
    assert!(broken.1.contains("line 2"), "{broken:?}");

    web.serve("/sales.csv", "", SALES);
    assert_eq!(pod.done(&job).version, 1);
}

#[test]
fn what_is_wrong_with_the_job_itself_is_told_with_its_file() {
    let pod = Pod::new();
    let none = pod.folder.path().join("none.json");
    let (reason, message) = pod.failed(&none, 75);
    assert_eq!(reason, "PodFailed");
    assert!(message.contains("none.json cannot be read"), "{message}");
    let other =
        file(pod.folder.path(), "other.json", r#"{"spec": {"name": "sales", "format": "CSV"}, "sauce": {}}"#);
    let (reason, message) = pod.failed(&other, 65);
    assert_eq!(reason, "InvalidSpec");
    assert!(message.contains("other.json is no ingest Job: unknown field `sauce`"), "{message}");
}

#[test]
fn a_mounted_secret_is_sent_and_never_shown() {
    let pod = Pod::new();
    let web = Web::start();
    web.serve("/sales.csv", "authorization: Bearer right", SALES);
    let job = pod.job("sales", http(&web));
    pod.mount(&[("Authorization", "Bearer hidden\n")]);
    let (reason, message) = pod.failed(&job, 65);
    assert_eq!(reason, "SourceDenied");
    assert!(!message.contains("hidden"), "{message}");
    pod.mount(&[("Authorization", "Bearer right\n")]);
    assert_eq!(pod.done(&job).version, 1);
}

#[test]
fn a_mounted_config_map_is_a_source() {
    let pod = Pod::new();
    let source = JobSource::ConfigMap { name: "price-list".into(), key: "prices.csv".into(), sha256: None };
    let job = pod.job("prices", source);
    pod.mount(&[("other.csv", SALES)]);
    let (reason, message) = pod.failed(&job, 75);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("SourceMissing", "the ConfigMap `price-list` has no entry `prices.csv`")
    );
    pod.mount(&[("prices.csv", SALES)]);
    assert_eq!(pod.done(&job).rows, 2);
}

#[test]
fn last_words_fit_into_a_termination_message() {
    let pod = Pod::new();
    let web = Web::start();
    let wide: Vec<String> = (0..2000).map(|number| format!("column_{number}")).collect();
    web.serve("/sales.csv", "", &format!("{}\n1\n", wide.join(",")));
    let job = pod.job("sales", http(&web));
    pod.failed(&job, 65);
    // A schema that differs in thousands of columns is a sentence of many kilobytes.
    let ones = vec!["1"; 2000].join(",");
    web.serve("/sales.csv", "", &format!("{}\n{ones}\n", wide.join(",")));
    pod.done(&job);
    web.serve("/sales.csv", "", &format!("{}\n{ones}\n", wide.join(",").replace("column", "renamed")));
    let (reason, message) = pod.failed(&job, 65);
    assert_eq!(reason, "SchemaChanged");
    assert!(fs::metadata(pod.summary()).unwrap().len() <= MAX_SUMMARY_BYTES as u64);
    assert!(message.contains("another schema"), "{message}");
}

#[test]
fn without_a_summary_a_line_tells_what_came_of_it() {
    let pod = Pod::new();
    let web = Web::start();
    web.serve("/sales.csv", "", SALES);
    let job = pod.job("sales", http(&web));
    let output = pod.command("ingest").arg("--job").arg(&job).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Version 1 was published with 2 rows.\n");
}

#[test]
fn the_progress_is_told_while_it_runs_and_a_pod_that_is_stopped_publishes_nothing() {
    let pod = Pod::new();
    let web = Web::start();
    web.hang("/sales.csv", SALES);
    let job = pod.job("sales", http(&web));
    let mut command = pod.command("ingest");
    command.arg("--job").arg(&job).arg("--summary").arg(pod.summary()).args(["--listen", "127.0.0.1:0"]);
    let running = Lakehouse::start(command.stdin(Stdio::null()));
    eventually("bytes are counted", || match running.get("/ingest/progress").1 {
        progress if progress[0]["bytes"] == SALES.len() => Ok(()),
        progress => Err(progress.to_string()),
    });
    let progress = running.get("/ingest/progress").1;
    assert_eq!((&progress[0]["name"], &progress[0]["phase"]), (&json!("sales"), &json!("Fetching")));
    assert_eq!(running.get("/livez").0, 200);
    assert_eq!(running.get("/readyz").0, 200);
    assert_eq!(running.post("/ingest?name=sales", SALES).0, 404, "a Job takes no uploads");

    signal(running.id(), "TERM");
    let (ended_well, stderr) = running.wait();
    assert!(!ended_well, "{stderr}");
    let Summary::Failed { reason, .. } = pod.words() else { panic!("{:?}", pod.words()) };
    assert_eq!(reason, "Interrupted");
    assert_eq!(pod.stored(), [""; 0]);
}

#[test]
fn versions_beyond_those_that_are_kept_go_with_their_rows() {
    let pod = Pod::new();
    let web = Web::start();
    let job = pod.job("sales", http(&web));
    for row in 1..=5 {
        web.serve("/sales.csv", "", &format!("sku\n{row}\n"));
        pod.done(&job);
    }
    assert_eq!(pod.versions("sales"), [5, 4, 3]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    pod.done(&job);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    pod.done(&job);
    let rows: Vec<_> = pod.stored().into_iter().filter(|key| key.starts_with("datasets/")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn a_purge_removes_one_dataset_and_may_be_repeated() {
    let pod = Pod::new();
    let web = Web::start();
    web.serve("/sales.csv", "", SALES);
    for name in ["sales", "sales-old"] {
        pod.done(&pod.job(name, http(&web)));
    }
    let Summary::Purged(purged) = pod.purge("sales") else { panic!("{:?}", pod.words()) };
    assert_eq!(purged.objects, 2);
    assert!(purged.message.starts_with("2 objects of dataset `sales` were removed, "), "{}", purged.message);
    assert!(
        !pod.stored().iter().any(|key| key.contains("/sales/") || key.contains("/sales.")),
        "{:?}",
        pod.stored()
    );
    assert_eq!(pod.versions("sales-old"), [1]);
    let Summary::Purged(again) = pod.purge("sales") else { panic!("{:?}", pod.words()) };
    assert_eq!((again.objects, again.message.as_str()), (0, "Nothing of dataset `sales` was in the store."));
}

#[test]
fn a_bucket_is_the_store_and_its_keys_open_no_source() {
    let minio = Minio::start();
    let pod = Pod::on(&minio);
    let web = Web::start();
    let job = pod.job("sales", http(&web));
    for row in 1..=4 {
        web.serve("/sales.csv", "", &format!("sku\n{row}\n"));
        assert_eq!(pod.done(&job).version, row);
    }
    let key = pod.stored().into_iter().find(|key| key.starts_with("datasets/")).unwrap();
    let source = JobSource::S3 {
        bucket: pod.bucket(),
        key: format!("team/{key}"),
        endpoint: Some(minio.endpoint()),
        region: None,
    };
    let copy = pod.job("copy", source);
    assert_eq!(
        pod.failed(&copy, 65).0,
        "SourceDenied",
        "anonymous, although the store's keys are in the environment"
    );
    pod.mount(&[("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY)]);
    let (reason, message) = pod.failed(&copy, 75);
    assert_eq!(reason, "SecretMissing");
    assert_eq!(message, "the source's Secret has no entry `AWS_SECRET_ACCESS_KEY`");
    pod.mount(&[("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY)]);
    let (reason, message) = pod.failed(&copy, 65);
    assert_eq!(reason, "InvalidData", "it is Parquet, read as CSV: {message}");
    assert!(message.contains("Parquet, which cannot be read yet"), "{message}");

    let Summary::Purged(purged) = pod.purge("sales") else { panic!("{:?}", pod.words()) };
    assert!(purged.objects >= 7, "{purged:?}");
    assert_eq!(pod.stored(), [""; 0]);
}

#[test]
fn a_store_that_cannot_be_used_is_told_as_it_is_and_without_secrets() {
    let minio = Minio::start();
    let pod = Pod::on(&minio);
    let job = pod.job("sales", JobSource::ConfigMap { name: "a".into(), key: "a.csv".into(), sha256: None });
    pod.mount(&[("a.csv", SALES)]);
    let failed = |name: &str, value: &str| {
        let mut command = pod.ingest(&job);
        assert_eq!(command.env(name, value).output().unwrap().status.code(), Some(75));
        let Summary::Failed { reason, message, .. } = pod.words() else { panic!("{:?}", pod.words()) };
        assert_eq!(reason, "StoreFailed", "{message}");
        message
    };
    let no_bucket = failed("LAKEHOUSE_STORE", "s3://not-made-yet/team");
    assert!(no_bucket.contains("NoSuchBucket") && no_bucket.contains("make the bucket first"), "{no_bucket}");
    let denied = failed("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    assert!(denied.contains("SignatureDoesNotMatch") && denied.contains(&minio.endpoint()), "{denied}");
    assert!(!denied.contains("not-the-secret") && !denied.contains(Minio::ACCESS_KEY), "{denied}");
}

fn http(web: &Web) -> JobSource {
    JobSource::Http { url: web.url("/sales.csv"), sha256: None }
}

/// The files that a pod would have, and the store that it works on.
struct Pod {
    folder: tempfile::TempDir,
    store: String,
    environment: Vec<(&'static str, String)>,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("bucket").display().to_string();
        Self { folder, store, environment: Vec::new() }
    }

    /// On a new bucket, below a prefix, with just the variables that a cluster's settings and Secret give.
    fn on(minio: &Minio) -> Self {
        let environment = vec![
            ("AWS_ENDPOINT_URL", minio.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY.to_owned()),
        ];
        Self { store: format!("s3://{}/team", minio.bucket()), environment, ..Self::new() }
    }

    fn bucket(&self) -> String {
        self.store.trim_start_matches("s3://").split('/').next().unwrap().to_owned()
    }

    fn job(&self, name: &str, source: JobSource) -> PathBuf {
        let spec = IngestSpec::inferred(DatasetName::parse(name).unwrap(), Format::CSV);
        let job = IngestJob { spec, source, keep_versions: 3.try_into().unwrap() };
        file(self.folder.path(), &format!("{name}.json"), &serde_json::to_string(&job).unwrap())
    }

    /// Replaces the entries of the mounted Secret or ConfigMap.
    fn mount(&self, entries: &[(&str, &str)]) {
        let folder = self.mounted();
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("..data")).unwrap();
        for (key, value) in entries {
            fs::write(folder.join(key), value).unwrap();
        }
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn summary(&self) -> PathBuf {
        self.folder.path().join("termination-log")
    }

    fn command(&self, work: &str) -> Command {
        let mut command = lakehouse();
        command.args(["job", work]).env("LAKEHOUSE_STORE", &self.store).env("LAKEHOUSE_COLLECT_GRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if work == "ingest" {
            command
                .arg("--source")
                .arg(self.mounted())
                .env("LAKEHOUSE_CACHE", self.folder.path().join("cache"));
        }
        command
    }

    fn ingest(&self, job: &Path) -> Command {
        let _ = fs::remove_file(self.summary());
        let mut command = self.command("ingest");
        command.arg("--job").arg(job).arg("--summary").arg(self.summary());
        command
    }

    fn done(&self, job: &Path) -> Done {
        let output = self.ingest(job).output().unwrap();
        match self.words() {
            Summary::Done(done) if output.status.success() => done,
            words => panic!("{words:?}, {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// The reason and the message of a run that ends with this status.
    fn failed(&self, job: &Path, code: i32) -> (String, String) {
        let output = self.ingest(job).output().unwrap();
        match self.words() {
            Summary::Failed { reason, message, .. } if output.status.code() == Some(code) => {
                (reason, message)
            }
            words => panic!("{:?}: {words:?}", output.status),
        }
    }

    fn purge(&self, dataset: &str) -> Summary {
        let _ = fs::remove_file(self.summary());
        let mut command = self.command("purge");
        let output = command.args(["--dataset", dataset, "--summary"]).arg(self.summary()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.words()
    }

    fn words(&self) -> Summary {
        serde_json::from_slice(&fs::read(self.summary()).unwrap()).unwrap()
    }

    /// Asks a service of its own over the store.
    fn ask(&self, role: &str, path: &str) -> serde_json::Value {
        let mut command = lakehouse();
        command.args(["serve", "--role", role]).env("LAKEHOUSE_STORE", &self.store);
        command.env("LAKEHOUSE_LISTEN", "127.0.0.1:0").env("LAKEHOUSE_CACHE", self.folder.path().join(role));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Lakehouse::start(&mut command).ready().get(path).1
    }

    fn versions(&self, name: &str) -> Vec<u64> {
        let history = self.ask("catalogd", &format!("/catalog/history/{name}"));
        history["versions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|version| version["version"].as_u64().unwrap())
            .collect()
    }

    fn stored(&self) -> Vec<String> {
        let listed = self.ask("storaged", "/storage/list");
        let objects = listed["objects"].as_array().unwrap_or_else(|| panic!("{listed}"));
        objects.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect()
    }
}
