//! ingestd: a file that comes over HTTP becomes a dataset's new version.
//!
//! Receives a multipart field `file` or a raw body; hands on the ingest's answer. The body is spooled to disk and hashed first.
//! A client that leaves while it uploads leaves nothing behind; once the whole file is here, the ingest ends with or without
//! the client, and `GET /ingest/progress` says how.
//!
//! ```text
//! claim the name ─► spool the body ─► ingest ─► publish ─► answer
//!   │ 409, 503        │ 413, 400        │ 400, 409, 50x
//! ```

mod problem;
mod request;
mod running;
mod upload;

use std::{future::Future, panic::resume_unwind, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State, rejection::QueryRejection},
    routing::{get, post},
};
use futures::future::BoxFuture;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    DatasetName,
    ingest::{IngestAnswer, IngestSpec, Phase, Progress},
};
use lakehouse_http::{BodyLimit, Problem};
use serde::Deserialize;

use crate::{Options, SourceInfo, ingest};
use request::Params;
pub use running::Claim;
use running::Running;
use upload::Upload;

/// The default of [`Settings::max_ingest_bytes`].
pub const DEFAULT_MAX_INGEST_BYTES: u64 = 256 << 20;

/// What ingestd may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest body, in bytes. A larger source belongs to an ingest Job, which has no cap.
    pub max_ingest_bytes: u64,
    /// How many ingests run at once; the next one is refused with 503. Each takes what `options` allows.
    pub max_running: usize,
    /// What one ingest may use. Bodies wait in its spool folder.
    pub options: Options,
}

impl Settings {
    /// 256 MiB, two ingests at once.
    pub fn new(options: Options) -> Self {
        Self { max_ingest_bytes: DEFAULT_MAX_INGEST_BYTES, max_running: 2, options }
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Ingestd {
    catalog: Catalog,
    settings: Settings,
    running: Running,
    published: Published,
    declared: Declared,
}

type Published = Arc<dyn Fn(DatasetName) -> BoxFuture<'static, ()> + Send + Sync>;
type Declared =
    Arc<dyn Fn(DatasetName, String) -> BoxFuture<'static, Result<Option<IngestSpec>, Problem>> + Send + Sync>;

impl Ingestd {
    /// A service that registers with `catalog` and writes to its store.
    pub fn new(catalog: Catalog, settings: Settings) -> Self {
        let running = Running::new(settings.max_running);
        let published: Published = Arc::new(|_| Box::pin(std::future::ready(())));
        let declared: Declared = Arc::new(|_, _| Box::pin(std::future::ready(Ok(None))));
        Self { catalog, settings, running, published, declared }
    }

    /// Calls `hook` after each new version and waits for it before the answer, so that a client that has its answer can
    /// query what it sent.
    #[must_use]
    pub fn on_published<F>(mut self, hook: impl Fn(DatasetName) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.published = Arc::new(move |name| Box::pin(hook(name)));
        self
    }

    /// Reads the files of a dataset that a resource declares as the resource says. `lookup` is given the dataset and the file's
    /// name, empty where the client told none; its problem says why the resource takes no upload, and is the answer.
    #[must_use]
    pub fn declared_by<F>(mut self, lookup: impl Fn(DatasetName, String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<IngestSpec>, Problem>> + Send + 'static,
    {
        self.declared = Arc::new(move |name, file_name| Box::pin(lookup(name, file_name)));
        self
    }

    /// The right to ingest into the dataset by another way than a request, until it is dropped. `None` while another ingest into
    /// it runs; how many run together is the caller's affair. Its tracker shows under `GET /ingest/progress`.
    pub fn claim(&self, name: &DatasetName) -> Option<Claim> {
        self.running.claim_beyond_the_cap(name)
    }

    /// The ingest itself. Runs as a task of its own, so it holds all it needs.
    async fn finish(
        self,
        claim: Claim,
        upload: Upload,
        spec: IngestSpec,
    ) -> Result<IngestAnswer, crate::Error> {
        let Upload { spool, path, source, digest } = upload;
        let origin = SourceInfo { source, digest };
        let options = &self.settings.options;
        let answer = ingest(&self.catalog, &path, &spec, origin, claim.tracker(), options).await?;
        drop(spool);
        drop(claim);
        (self.published)(spec.name).await;
        Ok(answer)
    }
}

/// ingestd's routes.
pub fn router(ingestd: Ingestd) -> Router {
    let limit = BodyLimit(ingestd.settings.max_ingest_bytes);
    Router::new()
        .route("/ingest", post(receive).layer((limit, DefaultBodyLimit::disable())))
        .route("/ingest/progress", get(progress))
        .with_state(ingestd)
}

/// The one route of a process that ingests and takes no uploads: how far it is.
pub fn progress_router(ingestd: Ingestd) -> Router {
    Router::new().route("/ingest/progress", get(progress)).with_state(ingestd)
}

async fn receive(
    State(ingestd): State<Ingestd>,
    params: Result<Query<Params>, QueryRejection>,
    request: Request,
) -> Result<Json<IngestAnswer>, Problem> {
    let Query(params) = params.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = params.name()?;
    let claim = ingestd.running.claim(&name)?;
    claim.tracker().enter(Phase::Fetching);
    let body = upload::receive(request, &ingestd.settings.options.spool_dir, claim.tracker()).await?;
    let file_name = body.told.file_name.clone().unwrap_or_default();
    let spec = match (ingestd.declared)(name.clone(), file_name).await? {
        Some(spec) => params.of_declared(spec)?,
        None => params.spec(name, &body.told)?,
    };
    let work = tokio::spawn(ingestd.finish(claim, body.upload, spec));
    match work.await {
        Ok(answer) => Ok(Json(answer?)),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Problem::unavailable("the service is stopping; nothing was published", 5)),
        },
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: Option<String>,
}

/// The ingests that run and the last ended one of each dataset, by name.
async fn progress(
    State(ingestd): State<Ingestd>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<Progress>>, Problem> {
    let Query(Asked { name }) = asked.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(Json(ingestd.running.progress(name.as_deref())))
}
