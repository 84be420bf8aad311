//! `lakehouse serve`: one role or several, as a pod runs them.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use axum::Router;
use clap::Args;
use lakehouse_contract::Role;
use lakehouse_gateway::Upstream;
use lakehouse_http::{Service, shutdown_signal};
use lakehouse_store::{Location, Store};

use crate::{
    access::Access,
    data_dir,
    limits::Limits,
    listen::bind,
    services::{Places, Services, owner},
};

/// Serve one role, or several in one process, over a store
///
/// A role alone has its routes at the root (`POST /sql`). With the gateway among the roles, every route lies below `/v1`,
/// and roles that run elsewhere are named with --upstream.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lakehouse serve --role queryd --store s3://bucket --listen 0.0.0.0:3214
  lakehouse serve --role gateway,storaged,catalogd,ingestd --store s3://bucket --upstream queryd=http://query:3214")]
pub(crate) struct Serve {
    /// The roles: gateway, storaged, catalogd, ingestd, queryd
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
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    limits: Limits,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Some(&first) = self.roles.first() else { bail!("no role was given") };
        let cache = match self.cache {
            Some(cache) => cache,
            None => data_dir::default_path()
                .context("no home folder is known; name one with --cache")?
                .join("serve"),
        };
        let settings = self.access.settings()?;
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], first.port())));
        settings.auth.check_listen(listen)?;
        let listener = bind(listen).await?;

        let store = Store::open(&self.store).await.with_context(|| format!("the store {}", self.store))?;
        let places = Places { cache: &cache.join("cache"), spool: &cache.join("spool") };
        let services = Services::open(store, &self.roles, places, self.limits).await?;
        let routes = if self.roles.contains(&Role::Gateway) {
            let mut upstreams = services.upstreams(&self.roles);
            for upstream in &self.upstreams {
                let (role, url) = upstream
                    .split_once('=')
                    .with_context(|| format!("--upstream {upstream}: it is written as ROLE=URL"))?;
                let role: Role = role.parse().with_context(|| format!("--upstream {upstream}"))?;
                let Some(owner) = owner(role) else {
                    bail!("--upstream {role}: the gateway cannot stand behind itself")
                };
                if upstreams.insert(owner, Upstream::http(&format!("--upstream {role}"), url)?).is_some() {
                    bail!("--upstream {role}: the role runs in this process already, or was named twice");
                }
            }
            lakehouse_gateway::router(upstreams, &lakehouse_gateway::Settings::default())
        } else {
            if !self.upstreams.is_empty() {
                bail!("--upstream is for the gateway, and `gateway` is not among the roles");
            }
            self.roles.iter().fold(Router::new(), |routes, &role| routes.merge(services.routes(role)))
        };
        let service = Service::new(first.as_str(), routes).with_readiness(services.readiness());
        println!("{first} listens on http://{}", listener.local_addr()?);
        Ok(lakehouse_http::serve(listener, service, settings, shutdown_signal()).await?)
    }
}
