//! The build Job: one run over a dataset's version, with its progress on a port of the pod.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use clap::Args;
use lakehouse_build::{Builder, Options, Tracker};
use lakehouse_contract::{
    build::Progress,
    job::{BuildJob, Summary},
    provider::Providers,
};
use lakehouse_embed::{Embedder, HttpEmbedder};
use lakehouse_http::{Metrics, shutdown_signal};
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_query::Engine;
use lakehouse_store::Store;
use tokio::sync::watch;

use super::{Common, of_this_pod};
use crate::{access::Access, data_dir, failure, limits::Limits, models::Models};

/// The Job's own deadline ends a query that reads for too long.
const NO_TIMEOUT: Duration = Duration::from_hours(24);

/// Build an index once from a dataset's version, publish it, and let old versions go
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// What to do, as JSON
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    #[command(flatten)]
    common: Common,
    /// A folder for files on their way; everything in it can be lost
    #[arg(long, env = "LAKEHOUSE_CACHE")]
    cache: Option<PathBuf>,
    /// Where /build/progress and probes are answered meanwhile; nowhere without it
    #[arg(long, env = "LAKEHOUSE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Seconds that an embedding service which turns texts away is asked again [default: 600]
    #[arg(long, env = "LAKEHOUSE_BUILD_PATIENCE", value_name = "SECONDS")]
    patience: Option<u64>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    limits: Limits,
}

impl Build {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let summary = self.common.summary.clone();
        Box::pin(super::run(summary.as_deref(), self.work(), shutdown_signal())).await
    }

    /// The run, and after it the collecting of old versions, during which the pod still answers.
    async fn work(self) -> Result<(Summary, impl Future<Output = ()>), Failure> {
        let BuildJob { spec, dataset_version, model, keep_versions, embedd } =
            super::read_job(&self.job, "build Job")?;
        let tracker = Tracker::new(spec.name.clone());
        let served = super::serve(self.listen, &self.access, "build", routes(tracker.clone())).await?;

        let cache = data_dir::cache(self.cache.as_deref()).map_err(of_this_pod)?;
        let store = self.common.open_store().await?;
        let embedder = self.embedder(embedd.as_deref(), &store, &cache)?;
        let catalog = self.limits.catalog(store.clone());
        let mut query = self.limits.query(&cache.join("cache")).map_err(of_this_pod)?;
        // The catalogue is not read for the sake of one version, which the query names.
        (query.timeout, query.views) = (NO_TIMEOUT, false);
        let engine = Engine::open(store.clone(), catalog.clone(), query).await;
        let engine = engine.map_err(|error| Failure::new(Reason::DiskFailed, error.to_string()))?;
        let builder =
            Builder::new(store, catalog, engine, embedder, &cache.join("spool"), Options::default());
        let builder = builder.map_err(|error| failure::of_build(&error))?;

        let built = Box::pin(builder.build(&spec, dataset_version, &model, &tracker)).await;
        let built = built.map_err(|error| failure::of_build(&error))?;
        let collecting = async move {
            builder.collect(&spec.name, keep_versions).await;
            drop(served);
        };
        Ok((Summary::Built(built), collecting))
    }

    /// The service that the Job names, or the local models in this process.
    fn embedder(
        &self,
        embedd: Option<&str>,
        store: &Store,
        cache: &std::path::Path,
    ) -> Result<Arc<dyn Embedder>, Failure> {
        if let Some(url) = embedd {
            let embedder = HttpEmbedder::new(url, self.access.authorization()).map_err(of_this_pod)?;
            return Ok(Arc::new(embedder));
        }
        let (_, nobody) = watch::channel(Providers::default());
        Ok(Arc::new(self.models.embedd(store, cache, nobody, &Metrics::default())))
    }
}

fn routes(tracker: Tracker) -> Router {
    let progress = get(async move || Json::<[Progress; 1]>([tracker.progress()]));
    Router::new().route("/build/progress", progress)
}
