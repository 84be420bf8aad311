//! From `kubectl apply` to Ready, and where the time goes: a measurement, started by `e2e/run.sh bench`.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, stream::SelectAll};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use lakehouse_crds::Dataset;
use lakehouse_e2e::{Story, condition};

const RUNS: usize = 7;
const STEPS: [&str; 6] = [
    "the Job is there",
    "its pod is there",
    "the pod runs",
    "the pod has ended",
    "the Job is complete",
    "Ready",
];

#[tokio::test]
#[ignore = "a measurement"]
async fn from_apply_to_ready() {
    Story::run("bench", async |story| {
        story.dataset_of_text("first", "a\n1\n").await?;
        story.ready("first").await?;
        let mut runs = Vec::new();
        for run in 0..RUNS {
            runs.push(measure(&story, &format!("rows-{run}")).await?);
        }
        println!("\n{RUNS} small Datasets, one after the other, in a namespace whose services run; medians");
        let mut before = Duration::ZERO;
        for (step, name) in STEPS.iter().enumerate() {
            let mut times: Vec<Duration> = runs.iter().map(|run| run[step]).collect();
            times.sort();
            let median = times[RUNS / 2];
            println!(
                "{name:<22}{:>7.2} s   +{:.2} s",
                median.as_secs_f64(),
                median.saturating_sub(before).as_secs_f64()
            );
            before = median;
        }
        Ok(())
    })
    .await;
}

/// When each step was seen, since the apply.
async fn measure(story: &Story, name: &str) -> Result<[Duration; 6]> {
    let config = watcher::Config::default;
    let is_of_it = {
        let prefix = format!("{name}-ingest-");
        move |object: &str| object.starts_with(&prefix)
    };
    let jobs = watcher(story.api::<Job>(), config()).touched_objects().filter_map({
        let is_of_it = is_of_it.clone();
        move |job| {
            let steps = job.ok().filter(|job| is_of_it(&job.name_any())).map(|job| {
                let complete = job.status.and_then(|status| status.succeeded) == Some(1);
                if complete { vec![0, 4] } else { vec![0] }
            });
            std::future::ready(steps)
        }
    });
    let pods = watcher(story.api::<Pod>(), config()).touched_objects().filter_map(move |pod| {
        let steps = pod.ok().filter(|pod| is_of_it(&pod.name_any())).map(|pod| {
            match pod.status.and_then(|status| status.phase).as_deref() {
                Some("Running") => vec![1, 2],
                Some("Succeeded" | "Failed") => vec![1, 2, 3],
                _ => vec![1],
            }
        });
        std::future::ready(steps)
    });
    let wanted = name.to_owned();
    let datasets = watcher(story.api::<Dataset>(), config()).touched_objects().filter_map(move |dataset| {
        let is_ready =
            |dataset: &Dataset| dataset.name_any() == wanted && condition(dataset, "Ready") == "True";
        std::future::ready(dataset.ok().filter(is_ready).map(|_| vec![5]))
    });
    let mut events = SelectAll::new();
    events.push(jobs.boxed());
    events.push(pods.boxed());
    events.push(datasets.boxed());

    let mut seen = BTreeMap::new();
    let applied = Instant::now();
    story.dataset_of_text(name, "a\n1\n").await?;
    while seen.len() < STEPS.len() {
        let steps =
            tokio::time::timeout(Duration::from_mins(1), events.next()).await.context("it takes too long")?;
        for step in steps.context("the watch ended")? {
            seen.entry(step).or_insert_with(|| applied.elapsed());
        }
    }
    let times: Vec<Duration> = seen.into_values().collect();
    times.try_into().ok().context("a step is missing")
}
