//! Open streams are many and quiet; what each of them costs decides how many there may be.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{Chat, Upstream, fed, patiently, piece, quick, say};
use futures::{StreamExt, stream};
use lakehouse_chat::{Settings, Timeouts};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const STREAMS: usize = 5_000;
const LIMIT_MIB: usize = 200;

/// Where the second process of this test finds its upstream.
const UPSTREAM: &str = "LAKEHOUSE_TEST_UPSTREAM";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs 10,000 file descriptors in each of two processes"]
async fn five_thousand_open_streams_fit_into_200_mib() {
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let (feed, _, response) = fed();
        feed.try_send(Ok(format!("data: {}\n\n", piece("hi")))).unwrap();
        keep.send(feed).unwrap();
        Box::pin(async move { response })
    })
    .await;
    let mut chatd = Alone::start(&upstream.url);
    let before = chatd.mebibytes();
    let body = say("openai/m", json!({"stream": true})).to_string();
    let request = format!(
        "POST /chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        chatd.address,
        body.len()
    );
    let open = |_| async {
        let mut stream = TcpStream::connect(&chatd.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes == b"\"hi\"") {
            assert!(patiently(stream.read_buf(&mut answer)).await.unwrap() > 0);
        }
        stream
    };
    let streams: Vec<TcpStream> = stream::iter(0..STREAMS).map(open).buffer_unordered(50).collect().await;
    let all = chatd.mebibytes();
    println!("{STREAMS} streams: {all} MiB, {before} MiB without");
    assert!(all < LIMIT_MIB, "{STREAMS} open streams take {all} MiB, {before} MiB without");
    drop(streams);
    kept.close();
    drop(chatd.process.stdin.take());
    chatd.process.wait().unwrap();
}

/// The second process: a chatd and nothing else, until its input ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test starts it"]
async fn chatd_alone() {
    let url = std::env::var(UPSTREAM).unwrap();
    let timeouts =
        Timeouts { idle: Duration::from_hours(1), total: Duration::from_hours(1), ..Timeouts::default() };
    let chat =
        Chat::with(Settings { timeouts, ..quick() }, json!([{"name": "up", "type": "OpenAI", "url": url}]))
            .await;
    println!("\nlistens {}", chat.address);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

struct Alone {
    process: Child,
    address: String,
}

impl Alone {
    fn start(upstream: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "chatd_alone", "--nocapture"])
            .env(UPSTREAM, upstream)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address =
            lines.find_map(|line| Some(line.unwrap().strip_prefix("listens ")?.to_owned())).unwrap();
        // A pipe that nobody reads ends who writes into it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    /// What it holds in memory.
    fn mebibytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }
}
