//! Servers on ports of their own: services, and a gateway in front of them.
#![allow(dead_code, reason = "each test file uses its part of these helpers")]

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use lakehouse_gateway::{Owner, Settings, Upstream, Upstreams, router};
use lakehouse_http::{Service, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = lakehouse_http::Settings::default();
        let service = Service::new("testd", router);
        let task = tokio::spawn(async {
            serve(listener, service, settings, std::future::pending()).await.unwrap();
        });
        Self { address, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request whose path no client library has touched, and reads the whole answer.
    pub(crate) async fn exchange(&self, method: &str, path: &str, headers: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        // `Connection: close` in a header of its own, so that `headers` may hold another one.
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        patiently(connection.read_to_string(&mut answer)).await.unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn gateway(upstreams: Upstreams) -> Server {
    Server::start(router(upstreams, &Settings::default())).await
}

/// A gateway that sends storage, ingest and SQL to one service.
pub(crate) async fn gateway_to(url: &str) -> Server {
    let upstream = Upstream::http("LAKEHOUSE_TEST_URL", url).unwrap();
    gateway([Owner::Storage, Owner::Ingest, Owner::Sql].map(|owner| (owner, upstream.clone())).into()).await
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

/// No test waits for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
