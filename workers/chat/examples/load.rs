//! The two ends of `bench/run.sh`: an upstream that answers at once, and clients that do not wait for each other.
//!
//!     load upstream PORT                  OpenAI's protocol; the model `endless` says one word and stays silent
//!     load forward PORT TO                bytes from one port to another: what anything in between costs at least
//!     load ask URL MODEL RATE SECONDS     whole answers, as one line of JSON in microseconds
//!     load stream URL MODEL RATE SECONDS  the time to the first word of streams
//!     load hold URL MODEL STREAMS PID     memory of process PID while so many streams are open
//!
//! Each request has a time at which it is due, whatever became of those before it, and its latency counts from then: a server that
//! stalls is charged for all that it kept waiting.

use std::{
    convert::Infallible,
    error::Error,
    fs, future, thread,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    http::header,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};

type Failure = Box<dyn Error + Send + Sync>;

/// The peer's key, which `bench/compare.py` sets.
const KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef";

/// Words of a stream: it is measured until the first, and every other one only keeps the machine busy.
const PIECES: usize = 2;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Runtime::new()?;
    // Only the first one of a process can fail, and this is it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match *arguments {
        ["upstream", port] => runtime.block_on(upstream(port.parse()?)),
        ["forward", port, to] => runtime.block_on(forward(port.parse()?, to.parse()?)),
        [what @ ("ask" | "stream"), url, model, rate, seconds] => {
            let load = Load::new(url, model, what == "stream")?;
            println!("{}", load.measure(&runtime, rate.parse()?, seconds.parse()?));
            Ok(())
        }
        ["hold", url, model, streams, process] => {
            let load = Load::new(url, model, true)?;
            println!("{}", runtime.block_on(load.hold(streams.parse()?, process))?);
            Ok(())
        }
        _ => {
            Err("usage: load upstream PORT | forward PORT TO | ask|stream URL MODEL RATE SECONDS | hold URL MODEL STREAMS PID"
                .into())
        }
    }
}

async fn upstream(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, Router::new().route("/v1/chat/completions", post(complete))).await?)
}

async fn forward(port: u16, to: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut upstream = TcpStream::connect(("127.0.0.1", to)).await?;
            upstream.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut upstream).await
        });
    }
}

async fn complete(Json(asked): Json<Value>) -> Response {
    if asked["stream"] != true {
        let message = json!({"role": "assistant", "content": "It is sunny in Paris."});
        let whole = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "fast",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13},
        });
        return Json(whole).into_response();
    }
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fast",
            "choices": choices, "usage": usage,
        });
        Ok::<_, Infallible>(Bytes::from(format!("data: {chunk}\n\n")))
    };
    let word =
        chunk(json!([{"index": 0, "delta": {"content": "sunny "}, "finish_reason": null}]), Value::Null);
    let events = [(header::CONTENT_TYPE, "text/event-stream")];
    if asked["model"] == "endless" {
        let silent = stream::iter([word]).chain(stream::once(future::pending()));
        return (events, Body::from_stream(silent)).into_response();
    }
    let mut pieces = vec![word; PIECES];
    pieces.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), Value::Null));
    let usage = json!({"prompt_tokens": 7, "completion_tokens": PIECES, "total_tokens": 7 + PIECES});
    pieces.push(chunk(json!([]), usage));
    pieces.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    (events, Body::from_stream(stream::iter(pieces))).into_response()
}

/// What is asked.
#[derive(Clone)]
struct Load {
    client: Client,
    url: String,
    body: Bytes,
    streams: bool,
}

impl Load {
    fn new(url: &str, model: &str, streams: bool) -> Result<Self, Failure> {
        let client = Client::builder().no_proxy().http1_only().timeout(Duration::from_mins(1)).build()?;
        let messages = json!([{"role": "user", "content": "What is the weather in Paris?"}]);
        let body = json!({"model": model, "messages": messages, "stream": streams}).to_string().into();
        Ok(Self { client, url: url.to_owned(), body, streams })
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let request = self.client.post(&self.url).body(self.body.clone());
        // The peer does not start without one.
        request.header(header::CONTENT_TYPE, "application/json").bearer_auth(KEY)
    }

    fn measure(&self, runtime: &Runtime, rate: u32, seconds: u32) -> Value {
        // Connections are made before anything is measured.
        drop(self.run(runtime, rate.min(200), 1));
        let start = Instant::now();
        let mut told = self.run(runtime, rate, seconds);
        let took = start.elapsed();
        told.sort_unstable_by_key(|latency| latency.unwrap_or(Duration::MAX));
        let answered = told.iter().flatten().count();
        let at = |share: usize| {
            let latency = told.get((told.len() * share / 1000).min(told.len().saturating_sub(1)))?;
            Some(latency.as_ref()?.as_micros())
        };
        json!({
            "p50": at(500), "p99": at(990), "p999": at(999), "failed": told.len() - answered,
            "rate": f64::from(rate * seconds) / took.as_secs_f64(),
        })
    }

    /// The latency of each request, `None` where it failed.
    fn run(&self, runtime: &Runtime, rate: u32, seconds: u32) -> Vec<Option<Duration>> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let start = Instant::now();
        for number in 0..rate * seconds {
            let due = start + Duration::from_secs(1) * number / rate;
            // A thread's sleep is finer than the millisecond of the runtime's.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (load, tell) = (self.clone(), tell.clone());
            runtime.spawn(async move {
                let answered = load.answer(due).await;
                // Who measures waits for all of them.
                let _ = tell.send(answered.ok());
            });
        }
        drop(tell);
        runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(latency) = told.recv().await {
                all.push(latency);
            }
            all
        })
    }

    /// How long after `due` the answer is there, or the first word of it.
    async fn answer(&self, due: Instant) -> Result<Duration, Failure> {
        let mut answer = self.request().send().await?.error_for_status()?;
        let mut first = None;
        let mut seen = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            if first.is_none() {
                seen.extend_from_slice(&piece);
                first = has_word(&seen).then(|| due.elapsed());
            }
        }
        let first = first.ok_or("there is no word in the answer")?;
        Ok(if self.streams { first } else { due.elapsed() })
    }

    /// Opens streams and tells what a process holds in memory, before and with them.
    async fn hold(&self, streams: usize, process: &str) -> Result<Value, Failure> {
        let before = mebibytes(process)?;
        let open = |_| async {
            let mut answer = self.request().send().await?.error_for_status()?;
            let mut seen = Vec::new();
            while !has_word(&seen) {
                seen.extend_from_slice(&answer.chunk().await?.ok_or("a stream ended")?);
            }
            Ok::<_, Failure>(answer)
        };
        let opened: Vec<_> = stream::iter(0..streams).map(open).buffer_unordered(50).collect().await;
        let open: Vec<_> = opened.into_iter().collect::<Result<_, _>>()?;
        let all = mebibytes(process)?;
        Ok(json!({"streams": open.len(), "before": before, "mib": all}))
    }
}

fn has_word(seen: &[u8]) -> bool {
    seen.windows(5).any(|bytes| bytes == b"sunny")
}

fn mebibytes(process: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
