//! The services of one process over one store, and the routes of each.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use lakehouse_catalog::{Catalog, Catalogd};
use lakehouse_chat::{Chatd, Settings as ChatSettings};
use lakehouse_contract::{DatasetName, IndexName, Role, provider::Providers};
use lakehouse_embed::{Embedd, Embedder};
use lakehouse_gateway::{Owner, Upstream, Upstreams};
use lakehouse_http::{Metrics, Readiness};
use lakehouse_ingest::{
    Options,
    service::{self as ingestd, Ingestd},
};
use lakehouse_query::Engine;
use lakehouse_store::Store;
use lakehouse_vector::{Settings as VectorSettings, Vectord};
use opentelemetry::global::BoxedTracer;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use crate::{limits::Limits, models::Models, notify::Notifier, run, uploads::Uploads};

/// How often the readiness of queries and of an index is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The part of `/readyz` that speaks about an index.
pub(crate) const VECTORD: &str = "vectord";

/// Where the services of a process keep what they need besides the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// Copies of immutable files for queries, and what they spill.
    pub(crate) cache: &'a Path,
    /// Files on their way.
    pub(crate) spool: &'a Path,
}

/// How the services of a process work.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    /// How clients may change what resources declare.
    pub(crate) uploads: Uploads,
    /// Tells query pods elsewhere what this process publishes.
    pub(crate) notifier: Option<Notifier>,
    pub(crate) vectors: VectorSettings,
    pub(crate) models: Models,
    /// The providers of embedd's and chatd's models.
    pub(crate) providers: watch::Receiver<Providers>,
    /// The embedd of another process, for a vectord without one in this.
    pub(crate) embedder: Option<Arc<dyn Embedder>>,
    pub(crate) metrics: Metrics,
    /// What makes chatd's spans.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
}

/// The services that a process can run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) store: Store,
    pub(crate) catalog: Catalog,
    catalogd: Catalogd,
    pub(crate) ingestd: Ingestd,
    /// What one ingest may use.
    pub(crate) ingest: Options,
    limits: Limits,
    /// Only where queries are answered: it takes the most memory.
    pub(crate) engine: Option<Engine>,
    pub(crate) vectord: Option<Vectord>,
    pub(crate) embedd: Option<Embedd>,
    pub(crate) chatd: Option<Chatd>,
}

impl Services {
    /// The services that `roles` need. With queryd among them, queries follow at once what this process publishes.
    pub(crate) async fn open(
        store: Store,
        roles: &[Role],
        places: Places<'_>,
        setup: Setup,
    ) -> anyhow::Result<Self> {
        let Setup { limits, uploads, notifier, vectors, models, providers, embedder, metrics, tracer } =
            setup;
        let catalog = limits.catalog(store.clone());
        let engine = if roles.contains(&Role::Queryd) {
            Some(Engine::open(store.clone(), catalog.clone(), limits.query(places.cache)?).await?)
        } else {
            None
        };
        let chatd = roles.contains(&Role::Chatd).then(|| {
            let settings = ChatSettings { metrics: metrics.clone(), tracer, ..ChatSettings::default() };
            Chatd::new(settings, providers.clone())
        });
        let embedd =
            roles.contains(&Role::Embedd).then(|| models.embedd(&store, places.cache, providers, &metrics));
        let embedder = embedd.clone().map(|embedd| Arc::new(embedd) as Arc<dyn Embedder>).or(embedder);
        let vectord = if roles.contains(&Role::Vectord) {
            let cache = places.cache.join("vectors");
            let opened = Box::pin(Vectord::open(store.clone(), &cache, embedder, vectors, &metrics)).await;
            Some(opened.with_context(|| format!("vectord with its copies in {}", cache.display()))?)
        } else {
            None
        };
        let ingest = Options::new(places.spool);
        let ingestd = Ingestd::new(catalog.clone(), limits.ingest(ingest.clone()));
        // A request is answered when queries see what it changed; whatever else changes in this process is seen a moment later.
        let told = Told { engine: engine.clone(), notifier };
        let catalogd = Catalogd::new(catalog.clone()).on_published({
            let told = told.clone();
            move |_| told.clone().tell()
        });
        let catalogd = catalogd.rolls_back_where({
            let uploads = uploads.clone();
            move |name| uploads.rollback(name)
        });
        let ingestd = ingestd.declared_by({
            let uploads = uploads.clone();
            move |name, file_name| {
                let uploads = uploads.clone();
                async move { uploads.spec(&name, &file_name).await }
            }
        });
        let ingestd = ingestd.on_published({
            let catalog = catalog.clone();
            move |name| {
                tokio::spawn(collect(catalog.clone(), uploads.clone(), name));
                told.clone().tell()
            }
        });
        tokio::spawn(follow_catalog(engine.clone(), catalog.changes()));
        Ok(Self { store, catalog, catalogd, ingestd, ingest, limits, engine, vectord, embedd, chatd })
    }

    /// The routes of one role, without the `/v1` that the gateway takes off. The gateway itself has none here.
    pub(crate) fn routes(&self, role: Role) -> Router {
        match role {
            Role::Gateway => Router::new(),
            Role::Storaged => lakehouse_storaged::router(self.store.clone(), &self.limits.storage()),
            Role::Catalogd => lakehouse_catalog::router(self.catalogd.clone()),
            Role::Ingestd => ingestd::router(self.ingestd.clone()),
            Role::Queryd => self.engine.clone().map(lakehouse_query::router).unwrap_or_default(),
            Role::Vectord => self.vectord.clone().map(lakehouse_vector::router).unwrap_or_default(),
            Role::Embedd => self.embedd.clone().map(lakehouse_embed::router).unwrap_or_default(),
            Role::Chatd => self.chatd.clone().map(lakehouse_chat::router).unwrap_or_default(),
        }
    }

    /// Holds `readiness` for as long as these services cannot answer: queryd does not before it has read the catalogue.
    pub(crate) fn hold(&self, readiness: &Readiness) {
        if let Some(engine) = self.engine.clone() {
            show(&engine, readiness);
            tokio::spawn(follow_engine(engine, readiness.clone()));
        }
    }

    /// Lets go of `readiness` once vectord has opened this index, or knows that there is none yet.
    pub(crate) fn release_with_index(&self, name: IndexName, readiness: &Readiness) {
        if let Some(vectord) = self.vectord.clone() {
            tokio::spawn(open_index(vectord, name, readiness.clone()));
        }
    }

    /// The gateway's way to each of these roles, in this process.
    pub(crate) fn upstreams(&self, roles: &[Role]) -> Upstreams {
        roles.iter().filter_map(|&role| Some((owner(role)?, Upstream::local(self.routes(role))))).collect()
    }
}

/// What the gateway calls a role; nothing for the gateway itself.
pub(crate) fn owner(role: Role) -> Option<Owner> {
    Owner::of(role.path()?)
}

async fn open_index(vectord: Vectord, name: IndexName, readiness: Readiness) {
    while let Err(error) = vectord.preload(&name).await {
        readiness.hold(VECTORD, format!("index `{name}` cannot be opened: {error}"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    readiness.release(VECTORD);
}

/// Holds the process back from traffic for as long as queries cannot be answered.
async fn follow_engine(engine: Engine, readiness: Readiness) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        show(&engine, &readiness);
    }
}

fn show(engine: &Engine, readiness: &Readiness) {
    const PART: &str = "queryd";
    if engine.is_ready() {
        readiness.release(PART);
    } else {
        readiness.hold(PART, "the catalogue has not been read yet");
    }
}

/// Lets go of the versions that a dataset need not keep after an upload.
async fn collect(catalog: Catalog, uploads: Uploads, name: DatasetName) {
    match uploads.keep(&name).await {
        Ok(Some(keep)) => run::collect(&catalog, &name, keep).await,
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(dataset.name = %name, %error, "Old versions of dataset `{name}` stay for now");
        }
    }
}

/// Who is told of what a request has published.
#[derive(Clone)]
struct Told {
    engine: Option<Engine>,
    notifier: Option<Notifier>,
}

impl Told {
    async fn tell(self) {
        refresh(self.engine).await;
        if let Some(notifier) = self.notifier {
            notifier.tell().await;
        }
    }
}

/// Lets queries see what this process changes in the catalogue, until the catalogue is gone.
async fn follow_catalog(engine: Option<Engine>, mut changes: broadcast::Receiver<DatasetName>) {
    while !matches!(changes.recv().await, Err(RecvError::Closed)) {
        refresh(engine.clone()).await;
    }
}

/// Lets queries see what was just published.
async fn refresh(engine: Option<Engine>) {
    if let Some(engine) = engine
        && let Err(error) = engine.refresh().await
    {
        tracing::warn!(%error, "Queries do not see the newest versions yet");
    }
}
