//! `lakehouse up`: resources run on this machine, in one process, on a folder, without a cluster.
//!
//! ```text
//! paths ─► inputs ─┬─► controller ─► ingest ─► store ─► catalog ─► queries
//!   ▲              │        │                               │
//! follow           └─► providers ─► indexes ─► build ◄──────┘ ─► searches
//!                           └─► chat
//!                           └─► resources (status) ─► /apis/…, `lakehouse get`
//! ```

mod controller;
mod follow;
mod indexes;
mod inputs;
mod providers;
mod resources;
mod screen;
mod source;
mod turns;
mod visit;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use clap::Args;
use lakehouse_build::{Builder, Options as BuildOptions};
use lakehouse_contract::Role;
use lakehouse_http::{Metrics, Readiness, Service, shutdown_signal};
use lakehouse_source::Reader;
use lakehouse_store::{Location, Store};
use tokio::sync::watch;

use crate::{
    access::Access,
    data_dir::{self, DataDir},
    limits::Limits,
    listen::bind,
    models::Models,
    run::Runner,
    services::{Places, Services, Setup},
    traces::Traces,
    uploads::{Resident, Uploads},
};
use controller::Controller;
use follow::Follower;
use inputs::Inputs;
use providers::Keys;
use resources::Resources;
use screen::Screen;
use visit::Visitor;

/// Run resources on this machine: ingest their sources, build their indexes, serve SQL and searches, follow their files
///
/// A PATH is a YAML file of resources (Dataset, VectorIndex, ChatProvider, ConfigMap, Secret), a data file (CSV), or a folder of both. A data file
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
    models: Models,
    #[command(flatten)]
    limits: Limits,
}

/// What `up` runs in its process.
const ROLES: [Role; 8] = Role::ALL;

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
        let resident = Resident::default();
        let (keys, providers) = Keys::new(data.keys());
        let (metrics, traces) = (Metrics::default(), Traces::start("up")?);
        let setup = Setup {
            limits: self.limits,
            uploads: Uploads::Resident(resident.clone()),
            notifier: None,
            vectors: lakehouse_vector::Settings::default(),
            models: self.models,
            providers,
            embedder: None,
            metrics: metrics.clone(),
            tracer: traces.tracer(),
        };
        let places = Places { cache: &data.cache(), spool: &data.spool() };
        let services = Box::pin(Services::open(store, &ROLES, places, setup)).await?;

        let (screen, resources) = (Screen::default(), Resources::default());
        let published = services.catalog.changes();
        let (changes, inputs) = watch::channel(Arc::new(inputs));
        let follower = Follower::new(self.paths)?;
        let reader = Reader::new(&data.spool())?;

        let readiness = Readiness::default();
        services.hold(&readiness);
        let gateway =
            lakehouse_gateway::router(services.upstreams(&ROLES), &lakehouse_gateway::Settings::default());
        let service = Service::new("lakehouse", gateway.merge(resources.clone().router()));
        let service = service.with_readiness(readiness).with_metrics(metrics);
        let (prepared, prepared_inputs) = watch::channel(Arc::default());
        let mut providers = provider_controller(&services, keys, &resources, &screen, &url, prepared)?;
        let index_visitor = index_visitor(&services, &data, &resources, &screen, &url)?;
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
        let mut indexes = indexes::Controller::new(index_visitor);
        let first = inputs.borrow().clone();
        controller.accept(first.clone()).await;
        providers.accept(first.clone());
        indexes.accept(&first);
        screen.line(&format!("lakehouse {} at {url} with its data in {location}", env!("CARGO_PKG_VERSION")));
        tokio::select! {
            served = lakehouse_http::serve(listener, service, settings, shutdown_signal()) => served?,
            () = controller.run(inputs.clone(), published.resubscribe()) => {}
            () = providers.run(inputs) => {}
            () = indexes.run(prepared_inputs, published) => {}
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

/// What brings ChatProviders to those who ask them.
fn provider_controller(
    services: &Services,
    keys: Keys,
    resources: &Resources,
    screen: &Screen,
    url: &str,
    ready: watch::Sender<Arc<Inputs>>,
) -> anyhow::Result<providers::Controller> {
    let (Some(chatd), Some(embedd)) = (services.chatd.clone(), services.embedd.clone()) else {
        bail!("`up` runs every role");
    };
    Ok(providers::Controller {
        chatd,
        embedd,
        keys,
        resources: resources.clone(),
        screen: screen.clone(),
        endpoint: url.to_owned(),
        ready,
        entries: BTreeMap::new(),
    })
}

/// What visits of VectorIndexes work with.
fn index_visitor(
    services: &Services,
    data: &DataDir,
    resources: &Resources,
    screen: &Screen,
    url: &str,
) -> anyhow::Result<indexes::Visitor> {
    let (Some(engine), Some(vectord), Some(embedd)) =
        (services.engine.clone(), services.vectord.clone(), services.embedd.clone())
    else {
        bail!("`up` runs every role");
    };
    let (store, catalog) = (services.store.clone(), services.catalog.clone());
    let options = BuildOptions::default();
    let builder = Builder::new(store, catalog.clone(), engine, Arc::new(embedd), &data.spool(), options)?;
    Ok(indexes::Visitor {
        catalog,
        vectord,
        builder,
        resources: resources.clone(),
        screen: screen.clone(),
        endpoint: url.to_owned(),
        turn: Arc::default(),
    })
}
