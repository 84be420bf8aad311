//! catalogd: the catalogue over HTTP.

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    routing::{get, post, put},
};
use futures::future::BoxFuture;
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    catalog::{Declaration, HistoryAnswer, ListAnswer, RegisterAnswer, RegisterRequest, RollbackRequest},
};
use lakehouse_http::{BodyLimit, Problem, body};

use crate::{Catalog, Error, declared};

/// The largest body of a rollback, in bytes.
const ROLLBACK_LIMIT: u64 = 64 << 10;

/// A name in a path, not yet checked.
type Name = Result<Path<String>, PathRejection>;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Catalogd {
    catalog: Catalog,
    published: Published,
    allowed: Allowed,
}

type Published = Arc<dyn Fn(DatasetName) -> BoxFuture<'static, ()> + Send + Sync>;
type Allowed = Arc<dyn Fn(&DatasetName) -> Result<(), String> + Send + Sync>;

impl Catalogd {
    /// A service over `catalog`.
    pub fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            published: Arc::new(|_| Box::pin(std::future::ready(()))),
            allowed: Arc::new(|_| Ok(())),
        }
    }

    /// Calls `hook` after each change that a request has made, and waits for it before the answer.
    #[must_use]
    pub fn on_published<F>(mut self, hook: impl Fn(DatasetName) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.published = Arc::new(move |name| Box::pin(hook(name)));
        self
    }

    /// Rolls back only where `allowed` has nothing against it: its sentence says why a rollback would not last, which is a 409.
    #[must_use]
    pub fn rolls_back_where(
        mut self,
        allowed: impl Fn(&DatasetName) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.allowed = Arc::new(allowed);
        self
    }
}

/// catalogd's routes.
pub fn router(catalogd: Catalogd) -> Router {
    Router::new()
        .route("/catalog/register", post(register))
        .route("/catalog/manifest/{name}", get(manifest))
        .route("/catalog/list", get(list))
        .route("/catalog/history/{name}", get(history))
        .route("/catalog/rollback/{name}", post(rollback))
        .route("/catalog/declared/{name}", get(declared).delete(undeclare))
        .route("/catalog/declared/{name}", put(declare).layer(BodyLimit(declared::MAX_BYTES)))
        .with_state(catalogd)
}

async fn register(
    State(Catalogd { catalog, published, .. }): State<Catalogd>,
    body::Json(request): body::Json<RegisterRequest>,
) -> Result<Json<RegisterAnswer>, Problem> {
    let answer = catalog.register(&request).await?;
    published(answer.manifest.name.clone()).await;
    Ok(Json(answer))
}

async fn manifest(State(catalogd): State<Catalogd>, name: Name) -> Result<Json<DatasetManifest>, Problem> {
    let name = checked(name)?;
    let manifest = catalogd.catalog.get(&name).await?.ok_or(Error::UnknownDataset(name))?;
    Ok(Json(Arc::unwrap_or_clone(manifest)))
}

async fn list(State(catalogd): State<Catalogd>) -> Result<Json<ListAnswer>, Problem> {
    let listing = catalogd.catalog.list().await?;
    let datasets = listing.datasets.into_iter().map(Arc::unwrap_or_clone).collect();
    Ok(Json(ListAnswer { datasets, damaged: listing.damaged }))
}

async fn history(State(catalogd): State<Catalogd>, name: Name) -> Result<Json<HistoryAnswer>, Problem> {
    Ok(Json(catalogd.catalog.history(&checked(name)?).await?))
}

/// An empty body asks for the version before the current one.
async fn rollback(
    State(Catalogd { catalog, published, allowed }): State<Catalogd>,
    name: Name,
    body: Body,
) -> Result<Json<DatasetManifest>, Problem> {
    let name = checked(name)?;
    let body = body::read(body, ROLLBACK_LIMIT).await?;
    let version = if body.is_empty() {
        None
    } else {
        let request: RollbackRequest = serde_json::from_slice(&body).map_err(|error| {
            Problem::bad_request(format!("the body is not `{{\"version\": <number>}}`: {error}"))
        })?;
        request.version
    };
    allowed(&name).map_err(Problem::conflict)?;
    let manifest = catalog.rollback(&name, version).await?;
    published(name).await;
    Ok(Json(Arc::unwrap_or_clone(manifest)))
}

async fn declared(State(catalogd): State<Catalogd>, name: Name) -> Result<Json<Declaration>, Problem> {
    let name = checked(name)?;
    let declaration = catalogd.catalog.declared(&name).await?;
    declaration
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("nothing is declared of dataset `{name}`")))
}

async fn declare(
    State(catalogd): State<Catalogd>,
    name: Name,
    body::Json(declaration): body::Json<Declaration>,
) -> Result<StatusCode, Problem> {
    catalogd.catalog.declare(&checked(name)?, &declaration).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn undeclare(State(catalogd): State<Catalogd>, name: Name) -> Result<StatusCode, Problem> {
    catalogd.catalog.undeclare(&checked(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn checked(name: Name) -> Result<DatasetName, Problem> {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    DatasetName::parse(name).map_err(|error| Problem::bad_request(error.to_string()))
}
