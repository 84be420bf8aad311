//! Tells the query pods of a cluster at once what this process has published, so that they need not find out by themselves.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::http::HeaderValue;
use futures::future::join_all;
use reqwest::{Client, Url, header::AUTHORIZATION};
use tracing::{debug, warn};

use crate::access::Access;

/// So long the client that published waits for one pod. A pod that is slower follows by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Notifier {
    host: String,
    port: u16,
    /// The base path, without a `/` at its end.
    path: String,
    http: Client,
    authorization: Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>,
}

impl Notifier {
    /// Tells every queryd behind `url`, such as `http://lakehouse-query-pods:3214`.
    pub(crate) fn new(url: &str, access: &Access) -> anyhow::Result<Self> {
        let parsed: Url = url.parse().with_context(|| format!("--notify {url}"))?;
        ensure!(parsed.scheme() == "http", "--notify {url}: it is written as http://host:port");
        let host = parsed.host_str().with_context(|| format!("--notify {url}: it names no host"))?;
        Ok(Self {
            host: host.to_owned(),
            port: parsed.port_or_known_default().unwrap_or(80),
            path: parsed.path().trim_end_matches('/').to_owned(),
            http: client()?,
            authorization: Arc::new(access.authorization()),
        })
    }

    /// Tells all of them, and waits until they have seen it. One that cannot be told is a line in the log.
    pub(crate) async fn tell(&self) {
        // Pods come and go, so the name is asked for each time.
        let lookup = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((self.host.as_str(), self.port)));
        let addresses: BTreeSet<SocketAddr> = match lookup.await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                warn!(host = self.host, %error, "No query pod was told of the new version");
                return;
            }
            Err(_) => {
                warn!(
                    host = self.host,
                    "No query pod was told of the new version: its name was not found in time"
                );
                return;
            }
        };
        join_all(addresses.into_iter().map(|address| self.tell_one(address))).await;
    }

    async fn tell_one(&self, address: SocketAddr) {
        let mut request = self.http.post(format!("http://{address}{}/sql/refresh", self.path));
        if let Some(authorization) = (self.authorization)() {
            request = request.header(AUTHORIZATION, authorization);
        }
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => debug!(%address, "A query pod sees the new version"),
            Err(error) => {
                warn!(%address, error = %error.without_url(), "A query pod was not told of the new version");
            }
        }
    }
}

/// The pods are asked directly: a redirect or a proxy of the environment would carry the token to others.
fn client() -> reqwest::Result<Client> {
    Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().timeout(PATIENCE).build()
}
