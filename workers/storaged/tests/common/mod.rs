//! A storaged on a port of its own.
#![allow(dead_code, reason = "each test file uses its part of these helpers")]

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use lakehouse_contract::storage::StorageListAnswer;
use lakehouse_http::{Service, serve};
use lakehouse_storaged::{Settings, router};
use lakehouse_store::Store;
use reqwest::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Store::memory(), &Settings::default()).await
    }

    pub(crate) async fn with(store: Store, settings: &Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service::new("storaged", router(store, settings));
        let serving = lakehouse_http::Settings::default();
        let task = tokio::spawn(async {
            serve(listener, service, serving, std::future::pending()).await.unwrap();
        });
        Self { address, task }
    }

    /// The URL of `/storage/<rest>`.
    pub(crate) fn url(&self, rest: &str) -> String {
        format!("http://{}/storage/{rest}", self.address)
    }

    pub(crate) async fn put(&self, key: impl AsRef<str>, body: impl Into<reqwest::Body>) -> Response {
        client().put(self.url(&format!("put/{}", key.as_ref()))).body(body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, key: &str) -> Response {
        client().get(self.url(&format!("get/{key}"))).send().await.unwrap()
    }

    pub(crate) async fn list(&self, query: &str) -> StorageListAnswer {
        client().get(self.url(&format!("list?{query}"))).send().await.unwrap().json().await.unwrap()
    }

    /// Sends a request whose path no client library has touched, and reads the whole answer.
    pub(crate) async fn raw(&self, method: &str, path: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        patiently(connection.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Begins an upload whose body does not come.
    pub(crate) async fn begin_put(&self, key: &str, length: usize) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let head =
            format!("PUT /storage/put/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body without a length, in pieces of ten bytes.
pub(crate) fn chunked(pieces: usize) -> reqwest::Body {
    let pieces = futures::stream::iter(std::iter::repeat_n("0123456789", pieces));
    reqwest::Body::wrap_stream(pieces.map(Ok::<_, std::io::Error>))
}

pub(crate) fn client() -> reqwest::Client {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// `(code, message)` of the error body; panics on any other body.
pub(crate) async fn error_of(response: Response) -> (String, String) {
    let body: lakehouse_contract::ErrorBody = response.json().await.unwrap();
    (body.error.code, body.error.message)
}

/// No test waits for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
