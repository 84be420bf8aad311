//! What the build Jobs of a cluster promise: their exit status, their last words, and what they leave in the store.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{fs, num::NonZeroU32, path::PathBuf, process::Command, process::Stdio, time::Duration};

use common::{Lakehouse, eventually, lakehouse, ollama::Ollama, signal};
use lakehouse_contract::{
    DatasetName, IndexName,
    embed::ModelIdentity,
    job::{BuildJob, Built, Summary},
    vectors::{BuildSpec, Hnsw, Metric, Quantization, RowId},
};
use serde_json::{Value, json};

const JOBS: &str = "id,title,state\n1,night nurse,IL\n2,day nurse,OH\n3,forklift driver,IL\n";

#[test]
fn a_version_is_built_once_and_found_over_http() {
    let cluster = Cluster::start(JOBS);
    let job = cluster.job(1, "local/lexical", |_| {});
    let built = cluster.built(&job);
    assert_eq!((built.version, built.vectors, built.failed, built.unchanged), (1, 3, 0, false));
    assert_eq!((built.embedded, built.recall), (3, Some(1.0)));
    assert!(built.started <= built.finished && built.bytes > 0, "{built:?}");
    let again = cluster.built(&job);
    assert_eq!((again.version, again.unchanged, &again.inputs), (1, true, &built.inputs));
    let found = cluster.search(&json!({ "text": "forklift", "k": 1 }));
    assert_eq!(found["results"][0]["id"], "job-3", "{found}");

    cluster.ingest(&format!("{JOBS}4,crane operator,TX\n"));
    let next = cluster.built(&cluster.job(2, "local/lexical", |job| job.keep_versions = NonZeroU32::MIN));
    assert_eq!((next.version, next.dataset_version, next.vectors), (2, 2, 4));
    assert_eq!(cluster.versions(2), json!([2]), "only the newest one is kept");
}

#[test]
fn the_exit_status_says_whether_the_same_again_may_end_better() {
    let cluster = Cluster::start(JOBS);
    let failed =
        |change: fn(&mut BuildJob), code: i32| cluster.failed(&cluster.job(1, "local/lexical", change), code);
    assert_eq!(failed(|job| job.spec.text = "{titel}".into(), 65).0, "InvalidColumns");
    assert_eq!(failed(|job| job.spec.id.column = "state".into(), 65).0, "InvalidData");
    assert_eq!(failed(|job| job.spec.predicate = Some("nope = 1".into()), 65).0, "InvalidSource");
    assert_eq!(failed(|job| job.spec.dimension = Some(7), 65).0, "DimensionMismatch");
    assert_eq!(failed(|job| job.dataset_version = 9, 75).0, "Interrupted");
    assert_eq!(failed(|job| job.model.digest = "sha256:old".into(), 75).0, "Interrupted");
    assert_eq!(failed(|job| job.embedd = Some("http://127.0.0.1:9".into()), 75).0, "EmbedderFailed");
    let none = cluster.failed(&cluster.folder.path().join("none.json"), 75);
    assert!(none.0 == "PodFailed" && none.1.contains("none.json cannot be read"), "{none:?}");
}

#[test]
fn a_job_that_is_killed_embeds_nothing_twice() {
    let ollama = Ollama::start();
    let rows: Vec<String> = (1..=900).map(|row| format!("{row},title number {row},IL\n")).collect();
    let mut cluster = Cluster::start(&format!("id,title,state\n{}", rows.concat()));
    cluster.with_providers(&ollama);
    let job = cluster.job(1, "ollama/tiny", |_| {});
    let seen_before = ollama.embedded();
    ollama.slow(Duration::from_millis(300));
    for wanted in [100, 400] {
        let mut run = cluster.command(&job).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        eventually("texts are embedded", || match ollama.embedded() - seen_before {
            count if count >= wanted => Ok(()),
            count => Err(count.to_string()),
        });
        // What the service has answered reaches the store well before the next answer.
        std::thread::sleep(Duration::from_millis(150));
        signal(run.id(), "KILL");
        run.wait().unwrap();
        // Requests that were on their way are answered to nobody.
        std::thread::sleep(Duration::from_millis(600));
    }
    ollama.slow(Duration::ZERO);
    let built = cluster.built(&job);
    assert_eq!((built.version, built.vectors, built.embedded + built.reused), (1, 900, 900));
    // Of the 400 that were answered, at most these had not reached the store at the second kill.
    assert!(built.reused >= 400 - 4 * 64, "{built:?}");
    let lost = ollama.embedded() - seen_before - 900;
    assert!(lost <= 2 * 4 * 64, "at most what was on its way at the two kills is asked for again: {lost}");
}

#[test]
fn the_progress_is_told_while_it_runs_and_a_pod_that_is_stopped_publishes_nothing() {
    let ollama = Ollama::start();
    let rows: Vec<String> = (1..=600).map(|row| format!("{row},title number {row},IL\n")).collect();
    let mut cluster = Cluster::start(&format!("id,title,state\n{}", rows.concat()));
    cluster.with_providers(&ollama);
    let job = cluster.job(1, "ollama/tiny", |_| {});
    ollama.slow(Duration::from_millis(400));
    let mut command = cluster.command(&job);
    let pod = Lakehouse::start(command.env("LAKEHOUSE_LISTEN", "127.0.0.1:0"));
    let progress = eventually("rows have their vectors", || match pod.get("/build/progress").1 {
        progress if progress[0]["done"].as_u64() > Some(0) => Ok(progress),
        progress => Err(progress.to_string()),
    });
    assert_eq!((&progress[0]["name"], &progress[0]["total"]), (&json!("jobs-text"), &json!(600)));
    signal(pod.id(), "TERM");
    pod.wait();
    assert!(matches!(cluster.words(), Summary::Failed { reason, .. } if reason == "Interrupted"));
    assert_eq!(cluster.services.get("/v1/vectors/index/jobs-text").0, 404);
}

#[test]
fn a_purge_removes_one_index_and_may_be_repeated() {
    let cluster = Cluster::start(JOBS);
    cluster.built(&cluster.job(1, "local/lexical", |_| {}));
    let purge = || {
        let mut command = lakehouse();
        command.args(["job", "purge", "--index", "jobs-text", "--summary"]).arg(cluster.summary());
        let output = command.env("LAKEHOUSE_STORE", cluster.store()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        match cluster.words() {
            Summary::Purged(purged) => purged,
            words => panic!("{words:?}"),
        }
    };
    assert!(purge().objects >= 2);
    assert_eq!(purge().message, "Nothing of index `jobs-text` was in the store.");
    eventually("it is gone", || match cluster.services.get("/v1/vectors/index/jobs-text") {
        (404, _) => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    assert_eq!(cluster.services.get("/v1/catalog/manifest/jobs").0, 200);
}

/// The services of a namespace over a store, and the Jobs beside them.
struct Cluster {
    folder: tempfile::TempDir,
    services: Lakehouse,
    embedd: Option<Lakehouse>,
}

impl Cluster {
    fn start(csv: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roles = "gateway,storaged,catalogd,ingestd,vectord,embedd";
        let mut command = lakehouse();
        command.args(["serve", "--role", roles, "--listen", "127.0.0.1:0", "--store"]);
        command.arg(folder.path().join("bucket")).arg("--cache").arg(folder.path().join("cache"));
        let services = Lakehouse::start(&mut command).ready();
        let cluster = Self { folder, services, embedd: None };
        cluster.ingest(csv);
        cluster
    }

    /// Starts an embedd with this provider, for Jobs to use.
    fn with_providers(&mut self, ollama: &Ollama) {
        let providers = self.folder.path().join("providers.yaml");
        let provider =
            json!({ "name": "ollama", "type": "Ollama", "url": ollama.url, "embeddings": ["tiny"] });
        fs::write(&providers, json!({ "providers": [provider] }).to_string()).unwrap();
        let mut command = lakehouse();
        command.args([
            "serve",
            "--role",
            "embedd",
            "--listen",
            "127.0.0.1:0",
            "--embed-cache",
            "0",
            "--store",
        ]);
        command.arg(self.folder.path().join("bucket")).arg("--cache").arg(self.folder.path().join("embedd"));
        command.arg("--providers").arg(providers);
        self.embedd = Some(Lakehouse::start(&mut command).ready());
    }

    fn ingest(&self, csv: &str) {
        let (status, answer) = self.services.post("/v1/ingest?name=jobs", csv);
        assert_eq!(status, 200, "{answer}");
    }

    /// The file of a Job over this version, with the model as it is now.
    fn job(&self, version: u64, model: &str, change: impl FnOnce(&mut BuildJob)) -> PathBuf {
        let asked = self.embedd.as_ref().unwrap_or(&self.services);
        let path = if self.embedd.is_some() { "/embed/identity" } else { "/v1/embed/identity" };
        let (status, identity) = asked.post(path, json!({ "model": model }).to_string());
        assert_eq!(status, 200, "{identity}");
        let model: ModelIdentity = serde_json::from_value(identity).unwrap();
        let spec = BuildSpec {
            name: IndexName::parse("jobs-text").unwrap(),
            dataset: DatasetName::parse("jobs").unwrap(),
            id: RowId { prefix: "job-".into(), column: "id".into(), suffix: String::new() },
            text: "{title}".into(),
            metadata: vec!["state".into()],
            predicate: None,
            model: model.model.clone(),
            dimension: None,
            metric: Metric::Cosine,
            hnsw: Hnsw::default(),
            quantization: Quantization::None,
            shards: 1,
        };
        let keep_versions = NonZeroU32::new(2).unwrap();
        let embedd = self.embedd.as_ref().map(|embedd| embedd.url.clone());
        let mut job = BuildJob { spec, dataset_version: version, model, keep_versions, embedd };
        change(&mut job);
        let file = self.folder.path().join("build.json");
        fs::write(&file, serde_json::to_string(&job).unwrap()).unwrap();
        file
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    fn summary(&self) -> PathBuf {
        self.folder.path().join("termination-log")
    }

    fn command(&self, job: &PathBuf) -> Command {
        let _ = fs::remove_file(self.summary());
        let mut command = lakehouse();
        command.args(["job", "build", "--job"]).arg(job).arg("--summary").arg(self.summary());
        command.env("LAKEHOUSE_STORE", self.store()).env("LAKEHOUSE_CACHE", self.folder.path().join("job"));
        command.env("LAKEHOUSE_BUILD_PATIENCE", "1");
        command
    }

    fn built(&self, job: &PathBuf) -> Built {
        let output = self.command(job).output().unwrap();
        match self.words() {
            Summary::Built(built) if output.status.success() => built,
            words => panic!("{words:?}, {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// The reason and the message of a run that ends with this status.
    fn failed(&self, job: &PathBuf, code: i32) -> (String, String) {
        let output = self.command(job).output().unwrap();
        match self.words() {
            Summary::Failed { reason, message, .. } if output.status.code() == Some(code) => {
                (reason, message)
            }
            words => panic!("{:?}: {words:?}", output.status),
        }
    }

    fn words(&self) -> Summary {
        serde_json::from_slice(&fs::read(self.summary()).unwrap()).unwrap()
    }

    /// The kept versions, once this one is served.
    fn versions(&self, served: u64) -> Value {
        eventually("the version is served", || {
            let (_, info) = self.services.get("/v1/vectors/index/jobs-text");
            if info["version"] == served { Ok(info["versions"].clone()) } else { Err(info.to_string()) }
        })
    }

    fn search(&self, request: &Value) -> Value {
        let (status, answer) = self.services.post("/v1/vectors/index/jobs-text/search", request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }
}
