//! `lakehouse serve`: one role or several, as a pod runs them.
//!
//! The server answers probes from its first moment. A bucket that cannot be used yet is asked again and again, and `/readyz` says
//! why; the process ends by itself only for a mistake that no waiting mends.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use axum::Router;
use clap::Args;
use lakehouse_contract::Role;
use lakehouse_gateway::{Upstream, Upstreams};
use lakehouse_http::{Late, Metrics, Readiness, Service, shutdown_signal};
use lakehouse_store::{Location, Store};

use crate::{
    access::Access,
    data_dir,
    limits::Limits,
    listen::bind,
    models::Models,
    notify::Notifier,
    services::{self, Places, Services, Setup, owner},
    traces::Traces,
    uploads::Uploads,
    vectors::Vectors,
};

/// The part of `/readyz` that speaks about the store.
const STORE: &str = "store";
/// The waits between two tries to open the store.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Serve one role, or several in one process, over a store
///
/// A role alone has its routes at the root (`POST /sql`). With the gateway among the roles, every route lies below `/v1`,
/// and roles that run elsewhere are named with --upstream. Where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, chatd's spans go
/// there by OTLP over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lakehouse serve --role queryd --store s3://bucket --listen 0.0.0.0:3214
  lakehouse serve --role gateway,storaged,catalogd,ingestd --store s3://bucket --upstream queryd=http://query:3214")]
pub(crate) struct Serve {
    /// The roles: gateway, storaged, catalogd, ingestd, queryd, vectord, embedd, chatd
    #[arg(long = "role", env = "LAKEHOUSE_ROLE", value_delimiter = ',', required = true)]
    roles: Vec<Role>,
    /// Where to listen [default: the first role's own port on 127.0.0.1]
    #[arg(long, env = "LAKEHOUSE_LISTEN")]
    listen: Option<SocketAddr>,
    #[arg(
        long,
        env = "LAKEHOUSE_STORE",
        help = "The store: s3://BUCKET[/PREFIX] (AWS_* variables say how to reach it) or a folder"
    )]
    store: Location,
    /// A folder for caches and files on their way; everything in it can be lost
    #[arg(long, env = "LAKEHOUSE_CACHE")]
    cache: Option<PathBuf>,
    /// A role that the gateway reaches over HTTP, as ROLE=URL; may be given several times
    #[arg(long = "upstream", env = "LAKEHOUSE_UPSTREAMS", value_delimiter = ',', value_name = "ROLE=URL")]
    upstreams: Vec<String>,
    /// The vectord of an index of its own, with {index} in place of the name; tried before `--upstream vectord` where that host is known
    #[arg(long, env = "LAKEHOUSE_INDEX_UPSTREAM", value_name = "URL")]
    index_upstream: Option<String>,
    /// Tell every queryd behind this URL at once what a request has published, before the request is answered
    #[arg(long, env = "LAKEHOUSE_NOTIFY", value_name = "URL")]
    notify: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    vectors: Vectors,
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    limits: Limits,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Some(&first) = self.roles.first() else { bail!("no role was given") };
        let cache = data_dir::cache(self.cache.as_deref())?;
        let mut settings = self.access.settings()?;
        settings.drain_deadline = settings.drain_deadline.max(self.limits.drain_deadline());
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], first.port())));
        settings.auth.check_listen(listen)?;
        self.vectors.check(&self.roles)?;
        let elsewhere = self.elsewhere()?;
        let (embedder, providers) = (self.vectors.embedder(&self.access)?, self.vectors.providers().await?);
        let notifier = self.notify.as_ref().map(|url| Notifier::new(url, &self.access)).transpose()?;
        Store::check(&self.store).await.with_context(|| format!("the store {}", self.store))?;
        let listener = bind(listen).await?;
        let address = listener.local_addr()?;

        let (late, readiness) = (Late::default(), Readiness::default());
        readiness.hold(STORE, "it is being opened");
        let (metrics, traces) = (Metrics::default(), Traces::start(first.as_str())?);
        let service = Service::late(first.as_str(), late.clone());
        let service = service.with_readiness(readiness.clone()).with_metrics(metrics.clone());
        if let Some(index) = &self.vectors.index {
            readiness.hold(services::VECTORD, format!("index `{index}` is being opened"));
        }
        let started = async {
            let store = open_store(&self.store, &readiness, || announce(first, address)).await?;
            let places = Places { cache: &cache.join("cache"), spool: &cache.join("spool") };
            let setup = Setup {
                uploads: Uploads::Told(self.limits.catalog(store.clone())),
                limits: self.limits,
                notifier,
                vectors: self.vectors.settings(),
                models: self.models,
                providers,
                embedder,
                metrics,
                tracer: traces.tracer(),
            };
            let services = Box::pin(Services::open(store, &self.roles, places, setup)).await?;
            services.hold(&readiness);
            if let Some(index) = self.vectors.index {
                services.release_with_index(index, &readiness);
            }
            late.set(routes(&services, &self.roles, elsewhere));
            readiness.release(STORE);
            announce(first, address);
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            served = lakehouse_http::serve(listener, service, settings, shutdown_signal()) => Ok(served?),
            failed = started => failed,
        }
    }

    /// The roles that the gateway reaches over HTTP.
    fn elsewhere(&self) -> anyhow::Result<Upstreams> {
        if !self.roles.contains(&Role::Gateway) && !self.upstreams.is_empty() {
            bail!("--upstream is for the gateway, and `gateway` is not among the roles");
        }
        if self.index_upstream.is_some() && !self.upstreams.iter().any(|one| one.starts_with("vectord=")) {
            bail!("--index-upstream needs the vectord of all other indexes: --upstream vectord=URL");
        }
        let mut upstreams = Upstreams::new();
        for upstream in &self.upstreams {
            let (role, url) = upstream
                .split_once('=')
                .with_context(|| format!("--upstream {upstream}: it is written as ROLE=URL"))?;
            let role: Role = role.parse().with_context(|| format!("--upstream {upstream}"))?;
            let Some(owner) = owner(role) else {
                bail!("--upstream {role}: the gateway cannot stand behind itself")
            };
            let mut upstream = Upstream::http(&format!("--upstream {role}"), url)?;
            if let (Role::Vectord, Some(url)) = (role, &self.index_upstream) {
                upstream = upstream.with_indexes("--index-upstream", url)?;
            }
            if self.roles.contains(&role) || upstreams.insert(owner, upstream).is_some() {
                bail!("--upstream {role}: the role runs in this process already, or was named twice");
            }
        }
        Ok(upstreams)
    }
}

/// The routes of these roles: below `/v1` where the gateway is among them, at the root where it is not.
fn routes(services: &Services, roles: &[Role], elsewhere: Upstreams) -> Router {
    if roles.contains(&Role::Gateway) {
        let mut upstreams = services.upstreams(roles);
        upstreams.extend(elsewhere);
        return lakehouse_gateway::router(upstreams, &lakehouse_gateway::Settings::default());
    }
    roles.iter().fold(Router::new(), |routes, &role| routes.merge(services.routes(role)))
}

/// Opens the store, however long that takes for a bucket: its server may be restarting, its bucket may be about to be made, its
/// keys may be about to be mended. A folder is this machine's own, so what is wrong with it ends the process.
async fn open_store(
    location: &Location,
    readiness: &Readiness,
    failed_first: impl FnOnce(),
) -> anyhow::Result<Store> {
    let mut failed_first = Some(failed_first);
    let (mut wait, mut told) = (FIRST_WAIT, None);
    loop {
        let error = match Box::pin(Store::open_soon(location)).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if !matches!(location, Location::S3 { .. }) {
            return Err(error).with_context(|| format!("the store {location}"));
        }
        let sentence = error.to_string();
        if told.as_ref() != Some(&sentence) {
            tracing::error!(%error, "The store {location} cannot be used yet; it is tried again");
            readiness.hold(STORE, &sentence);
            told = Some(sentence);
        }
        if let Some(tell) = failed_first.take() {
            tell();
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Where the server is, for who started it.
fn announce(role: Role, address: SocketAddr) {
    println!("{role} listens on http://{address}");
}
