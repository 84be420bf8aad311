//! A real vectord that is killed (-9) under writes, a hundred times: every acknowledged vector is found afterwards.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lakehouse_http::{Service, serve};
use lakehouse_store::Store;
use lakehouse_vector::{Settings, Tuning, router};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const KILLS: u32 = 100;
const WRITERS: u32 = 3;
/// Where the process finds its bucket, its cache, and a place for its address.
const FOLDER: &str = "LAKEHOUSE_TEST_FOLDER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let folder = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
    let mut next = 0;
    for kill in 0..KILLS {
        let mut process = Process::start(folder.path());
        let base = process.base().await;
        if kill == 0 {
            let body = json!({"name": "shelf", "dimension": 4, "metric": "euclidean"});
            assert!(client.post(&base).json(&body).send().await.unwrap().status().is_success());
        }
        let known = acknowledged.lock().unwrap().clone();
        let last: Vec<u32> = known.iter().rev().take(500).copied().collect();
        find(&client, &base, &last).await;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, base, acknowledged) = (client.clone(), base.clone(), Arc::clone(&acknowledged));
            let first = next + writer * 100_000;
            writers.spawn(async move {
                for batch in 0.. {
                    let ids: Vec<u32> = (0..7).map(|row| first + batch * 7 + row).collect();
                    let items: Vec<Value> = ids
                        .iter()
                        .map(|id| json!({"id": id.to_string(), "vector": vector(*id), "metadata": {"n": id}}))
                        .collect();
                    let sent =
                        client.post(format!("{base}/shelf/add")).json(&json!({"items": items})).send().await;
                    match sent {
                        Ok(answer) if answer.status().is_success() => {
                            acknowledged.lock().unwrap().extend(ids);
                        }
                        _ => return,
                    }
                }
            });
        }
        next += WRITERS * 100_000;
        tokio::time::sleep(Duration::from_millis(u64::from(kill * 37 % 60))).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        writers.join_all().await;
    }
    let process = Process::start(folder.path());
    let base = process.base().await;
    let all: Vec<u32> = acknowledged.lock().unwrap().iter().copied().collect();
    assert!(all.len() > 100, "only {} vectors were acknowledged", all.len());
    for ids in all.chunks(5000) {
        find(&client, &base, ids).await;
    }
    for id in all.iter().step_by(all.len() / 50) {
        let body = json!({"vector": vector(*id), "k": 1});
        let found = post(&client, &format!("{base}/shelf/search"), &body).await;
        assert_eq!(found["results"][0]["id"], json!(id.to_string()));
    }
}

/// Far enough from that of every other number.
fn vector(id: u32) -> [u32; 4] {
    [id % 97, id / 97 % 97, id / 97 / 97 % 97, id / 97 / 97 / 97]
}

async fn find(client: &reqwest::Client, base: &str, ids: &[u32]) {
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let got = post(client, &format!("{base}/shelf/get"), &json!({"ids": texts})).await;
    assert_eq!(got.get("missing"), None);
    for (id, item) in ids.iter().zip(got["items"].as_array().unwrap()) {
        assert_eq!((&item["id"], &item["metadata"]), (&json!(id.to_string()), &json!({"n": id})));
    }
}

async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Value {
    let answer = client.post(url).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.json().await.unwrap()
}

/// A process that runs [`served`]. It ends with its parent: it reads from a pipe that only the parent holds.
struct Process {
    child: Child,
    address: std::path::PathBuf,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let address = folder.join("address");
        let _ = fs::remove_file(&address);
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "served", "--ignored"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    async fn base(&self) -> String {
        let began = Instant::now();
        loop {
            if let Ok(address) = fs::read_to_string(&self.address) {
                return format!("http://{address}/vectors/index");
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the process that is killed"]
fn served() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let folder = Path::new(&folder).to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::folder(folder.join("bucket")).await.unwrap();
        let tuning =
            Tuning { flush_rows: 150, flush_records: 60, small_rows: 100, fan_in: 2, ..Tuning::default() };
        let vectord =
            support::open(&store, &folder.join("cache"), Settings { tuning, ..Settings::default() }).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (new, place) = (folder.join("address.new"), folder.join("address"));
        fs::write(&new, listener.local_addr().unwrap().to_string()).unwrap();
        fs::rename(&new, &place).unwrap();
        let service = Service::new("vectord", router(vectord));
        serve(listener, service, lakehouse_http::Settings::default(), std::future::pending()).await.unwrap();
    });
}
