//! `lakehouse up`: resources run on this machine, in one process, on a folder, without a cluster.
//!
//! ```text
//! paths ─► inputs ─► controller ─► ingest ─► store ─► catalog ─► queries
//!   ▲                    │
//! follow                 └─► resources (status) ─► /apis/…, `lakehouse get`
//! ```

mod controller;
mod follow;
mod inputs;
mod resources;
mod screen;
mod source;
mod visit;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use lakehouse_contract::Role;
use lakehouse_http::{Readiness, Service, shutdown_signal};
use lakehouse_source::Reader;
use lakehouse_store::{Location, Store};
use tokio::sync::watch;

use crate::{
    access::Access,
    data_dir::{self, DataDir},
    limits::Limits,
    listen::bind,
    run::Runner,
    services::{Places, Services},
    uploads::{Resident, Uploads},
};
use controller::Controller;
use follow::Follower;
use resources::Resources;
use screen::Screen;
use visit::Visitor;

/// Run resources on this machine: ingest their sources, serve SQL, follow their files
///
/// A PATH is a YAML file of resources (Dataset, ConfigMap, Secret), a data file (CSV), or a folder of both. A data file
/// whose name without its ending is that of a Dataset with `source: {upload: {}}` fills that one; any other becomes a
/// Dataset.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lakehouse up sales.csv
  lakehouse up manifests/ sales.csv
  lakehouse up manifests/ --store s3://bucket")]
pub(crate) struct Up {
    /// YAML files, data files, or folders of them; without any, what is in the store is served
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The folder that keeps the data and its copies [default: ~/.local/share/lakehouse]
    #[arg(long, env = "LAKEHOUSE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen
    #[arg(long, env = "LAKEHOUSE_LISTEN", default_value = "127.0.0.1:3110")]
    listen: SocketAddr,
    #[arg(
        long,
        env = "LAKEHOUSE_STORE",
        value_name = "STORE",
        help = "Keep the data in s3://BUCKET[/PREFIX] instead of DIR/bucket; AWS_* variables say how to reach it"
    )]
    store: Option<Location>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    limits: Limits,
}

/// What `up` runs in its process.
const ROLES: [Role; 7] = Role::ALL;

impl Up {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        // Everything that can be wrong with the call is told before anything is touched.
        let inputs = inputs::read(&self.paths)?;
        let settings = self.access.settings()?;
        settings.auth.check_listen(self.listen)?;
        let listener = bind(self.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let data = self.data_dir()?;
        let location = self.store.unwrap_or_else(|| Location::Folder(data.bucket()));
        let store = Store::open(&location).await?;
        let places = Places { cache: &data.cache(), spool: &data.spool() };
        let resident = Resident::default();
        let uploads = Uploads::Resident(resident.clone());
        let services = Services::open(store, &ROLES, places, self.limits, uploads, None).await?;

        let (screen, resources) = (Screen::default(), Resources::default());
        let published = services.catalog.changes();
        let (changes, inputs) = watch::channel(Arc::new(inputs));
        let follower = Follower::new(self.paths)?;
        let reader = Reader::new(&data.spool())?;

        let readiness = Readiness::default();
        services.hold(&readiness);
        let gateway =
            lakehouse_gateway::router(services.upstreams(&ROLES), &lakehouse_gateway::Settings::default());
        let service =
            Service::new("lakehouse", gateway.merge(resources.clone().router())).with_readiness(readiness);
        let (catalog, options) = (services.catalog.clone(), services.ingest.clone());
        let visitor = Visitor {
            services,
            runner: Runner { catalog, reader, options },
            resources,
            screen: screen.clone(),
            endpoint: url.clone(),
            credential: self.access.credential(),
            turn: Arc::default(),
        };
        let mut controller = Controller::new(visitor, resident);
        let first = inputs.borrow().clone();
        controller.accept(first).await;
        screen.line(&format!("lakehouse {} at {url} with its data in {location}", env!("CARGO_PKG_VERSION")));
        tokio::select! {
            served = lakehouse_http::serve(listener, service, settings, shutdown_signal()) => served?,
            () = controller.run(inputs, published) => {}
            () = follower.run(changes, screen.clone()) => {}
        }
        Ok(())
    }

    fn data_dir(&self) -> anyhow::Result<DataDir> {
        let path = match &self.data {
            Some(path) => path.clone(),
            None => {
                data_dir::default_path().context("no home folder is known; name a data folder with --data")?
            }
        };
        DataDir::open(&path)
    }
}
