//! What a thousand Datasets cost: the operator as its own process, a real API server, played pods.
//!
//! `cargo test --release -p lakehouse-operator --test thousand -- --ignored --nocapture`; `DATASETS`, `NAMESPACES` and
//! `RUN_MS` (how long a played ingest takes) change the size.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

mod play;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::{Api, api::ListParams};
use lakehouse_crds::Dataset;
use play::{Play, condition};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes, not a promise"]
async fn a_thousand_datasets() {
    let (datasets, namespaces) = (setting("DATASETS", 1000), setting("NAMESPACES", 10));
    let run = Duration::from_millis(setting("RUN_MS", 1000) as u64);
    let mut plays = Vec::new();
    for n in 0..namespaces {
        let play = Play::new(&format!("thousand-{n}")).await;
        play.jobs_take(run);
        plays.push(play);
    }
    let operator = Process::start().await;
    let empty = operator.memory();

    let begun = Instant::now();
    let names = (0..datasets).map(|n| (&plays[n % namespaces], format!("people-{n}")));
    stream::iter(names)
        .for_each_concurrent(16, async |(play, name)| play.apply(&name, json!({})).await)
        .await;
    let applied = begun.elapsed();
    let all = Api::<Dataset>::all(plays[0].client.clone());
    let mut ready = 0;
    while ready < datasets {
        assert!(begun.elapsed() < Duration::from_mins(15), "only {ready} of {datasets} are ready");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let listed = all.list(&ListParams::default()).await.unwrap();
        ready = listed.iter().filter(|dataset| is_ready(dataset)).count();
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (numbers, memory) = (operator.requests().await, operator.memory());
    tokio::time::sleep(Duration::from_mins(1)).await;
    let idle = operator.requests().await;
    let total = |numbers: &BTreeMap<String, u64>| numbers.values().sum::<u64>();

    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    println!(
        "datasets                 {datasets} in {namespaces} namespaces, each ingest {} ms",
        run.as_millis()
    );
    println!("all applied after        {}", seconds(applied));
    println!("all ready after          {}", seconds(took));
    println!("API requests a dataset   {:.1}  {numbers:?}", total(&numbers) as f64 / datasets as f64);
    println!("API requests when idle   {} in a minute", total(&idle) - total(&numbers));
    println!("CPU of the operator      {}", operator.cpu());
    println!(
        "memory of the operator   {} at the peak, {} now, {} with nothing to do",
        memory.0, memory.1, empty.1
    );
}

fn is_ready(dataset: &Dataset) -> bool {
    condition(dataset, "Ready").is_some_and(|ready| ready.status == "True")
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The operator as it is installed, but for the Lease.
struct Process {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Process {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("settings.yaml");
        std::fs::write(&settings, play::SETTINGS).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_lakehouse-operator"))
            .args(["--no-leader-election", "--listen", &address, "--log", "warn", "--settings"])
            .arg(settings)
            .env("KUBECONFIG", play::server().kubeconfig())
            .spawn()
            .unwrap();
        let process = Self { child, address, _folder: folder };
        play::eventually("the operator is ready", async || {
            let ready = reqwest::get(format!("http://{}/readyz", process.address)).await;
            ready.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        process
    }

    /// Requests to the API server so far, by verb.
    async fn requests(&self) -> BTreeMap<String, u64> {
        let text =
            reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap().text().await.unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("lakehouse_operator_api_requests_total{verb=\""));
        lines
            .map(|line| {
                let (verb, count) = line.split_once("\"} ").unwrap();
                (verb.to_owned(), count.parse().unwrap())
            })
            .collect()
    }

    /// The processor time that it took so far, in hundredths of a second by the kernel's account.
    fn cpu(&self) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: f64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
        format!("{:.1} s", ticks / 100.0)
    }

    /// The most memory that it ever held, and what it holds.
    fn memory(&self) -> (String, String) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            format!("{:.0} MiB", kib / 1024.0)
        };
        (of("VmHWM:"), of("VmRSS:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
