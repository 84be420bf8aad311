//! A server on a port of its own, and clients that see every byte.
#![allow(dead_code, reason = "each test file uses its part of these helpers")]

use std::{
    cell::RefCell,
    io::{self, Write},
    net::SocketAddr,
    sync::Once,
    time::Duration,
};

use axum::Router;
use lakehouse_http::{Service, Settings, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        Self::with(Service::new("testd", router), Settings::default()).await
    }

    pub(crate) async fn with(service: Service, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or(()) };
        let task = tokio::spawn(async { serve(listener, service, settings, shutdown).await.unwrap() });
        Self { address, stop: Some(stop), task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks it to end, as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) async fn ended(&mut self) {
        (&mut self.task).await.unwrap();
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `request` as it stands and reads until the server closes.
    pub(crate) async fn exchange(&self, request: &str) -> String {
        let mut raw = self.connect().await;
        raw.send(request).await;
        raw.rest().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection without an HTTP library in between.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `mark` has come.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        let mut text = String::new();
        let mut piece = [0; 4096];
        while !text.contains(mark) {
            let count = patiently(self.0.read(&mut piece)).await.unwrap();
            assert!(count > 0, "closed before `{mark}`: {text}");
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
        text
    }

    /// Reads until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut text = String::new();
        patiently(self.0.read_to_string(&mut text)).await.unwrap();
        text
    }
}

/// No test waits for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

pub(crate) fn client() -> reqwest::Client {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// `(code, message)` of the error body; panics on any other body.
pub(crate) async fn error_of(response: reqwest::Response) -> (String, String) {
    let body: lakehouse_contract::ErrorBody = response.json().await.unwrap();
    (body.error.code, body.error.message)
}

thread_local! {
    /// What this thread logged. A test and its server share one thread, and no other test runs on it.
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the test and its server log. The subscriber is one for all tests of a binary: a scoped one would miss lines, since
/// tracing may remember from a thread without a subscriber that nobody wants them.
pub(crate) struct Log;

impl Log {
    pub(crate) fn capture() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_ansi(false)
                .with_writer(|| ThisThread)
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        Self
    }

    #[allow(clippy::unused_self, reason = "nothing is captured before `capture` was called")]
    pub(crate) fn text(&self) -> String {
        LINES.with_borrow(|lines| String::from_utf8(lines.clone()).unwrap())
    }

    /// The line that holds `mark`, once it is there.
    pub(crate) async fn line(&self, mark: &str) -> String {
        for _ in 0..1000 {
            let text = self.text();
            if let Some(line) = text.lines().find(|line| line.contains(mark)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no line with `{mark}` in:\n{}", self.text());
    }
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
