//! A client that asks without a pause, to see whether anything fails meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Story;

/// Requests in a loop until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// `clients` connections that ask `sql` through the story's Service.
    pub async fn start(story: &Story, clients: usize, sql: &str) -> Result<Self> {
        Self::of(story, clients, "/v1/sql", "rows", &json!({"sql": sql})).await
    }

    /// `clients` connections that search an index through the story's Service.
    pub async fn search(story: &Story, clients: usize, index: &str, search: &Value) -> Result<Self> {
        Self::of(story, clients, &format!("/v1/vectors/index/{index}/search"), "results", search).await
    }

    /// `clients` connections that ask a language model through the story's Service, each for a whole answer.
    pub async fn chat(story: &Story, clients: usize, model: &str) -> Result<Self> {
        let messages = json!([{"role": "user", "content": "hello"}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 4});
        Self::of(story, clients, "/v1/chat/completions", "choices", &body).await
    }

    /// `clients` connections that POST `body`; each answer must have a list of this name.
    async fn of(story: &Story, clients: usize, path: &str, list: &'static str, body: &Value) -> Result<Self> {
        let (url, token) = (format!("{}{path}", story.url().await?), story.token().await?);
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let body = body.to_string();
        // A Service whose way to its pods is not known yet would fail the first requests of any client.
        story.send(path, body.clone().into_bytes()).await?;
        let client = |_| {
            let (url, token, body) = (url.clone(), token.clone(), body.clone());
            let (stop, counts) = (stop.clone(), counts.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                while !stop.load(Relaxed) {
                    match ask(&http, &url, &token, list, body.clone()).await {
                        Ok(()) => {
                            counts.answers.fetch_add(1, Relaxed);
                        }
                        Err(error) => {
                            counts
                                .failures
                                .lock()
                                .expect("no client panics with it")
                                .push(format!("{error:#}"));
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        Ok(Self { stop, counts, clients })
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.counts.answers.load(Relaxed)
    }

    /// Ends it: how many answers there were, and every failure.
    pub async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            let _ = client.await;
        }
        let failures = std::mem::take(&mut *self.counts.failures.lock().expect("no client panics with it"));
        (self.counts.answers.load(Relaxed), failures)
    }

    /// Ends it, and fails if any query did.
    pub async fn stop_without_failures(self) -> Result<u64> {
        let (answers, failures) = self.stop().await;
        ensure!(answers > 0, "the client had no answer at all");
        ensure!(
            failures.is_empty(),
            "{} of {} requests failed: {:#?}",
            failures.len(),
            answers + failures.len() as u64,
            &failures[..failures.len().min(5)]
        );
        Ok(answers)
    }
}

async fn ask(http: &reqwest::Client, url: &str, token: &str, list: &str, body: String) -> Result<()> {
    let call = http.post(url).bearer_auth(token).header("content-type", "application/json");
    let answer = call.timeout(Duration::from_secs(30)).body(body).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{status}: {text}");
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(answer[list].as_array().is_some_and(|list| !list.is_empty()), "no {list} in {text}");
    Ok(())
}
