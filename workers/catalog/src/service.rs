//! catalogd: the catalogue over HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    routing::{get, post},
};
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    catalog::{HistoryAnswer, ListAnswer, RegisterAnswer, RegisterRequest, RollbackRequest},
};
use lakehouse_http::{Problem, body};

use crate::{Catalog, Error};

/// The largest body of a rollback, in bytes.
const ROLLBACK_LIMIT: u64 = 64 << 10;

/// A name in a path, not yet checked.
type Name = Result<Path<String>, PathRejection>;

/// catalogd's routes.
pub fn router(catalog: Catalog) -> Router {
    Router::new()
        .route("/catalog/register", post(register))
        .route("/catalog/manifest/{name}", get(manifest))
        .route("/catalog/list", get(list))
        .route("/catalog/history/{name}", get(history))
        .route("/catalog/rollback/{name}", post(rollback))
        .with_state(catalog)
}

async fn register(
    State(catalog): State<Catalog>,
    body::Json(request): body::Json<RegisterRequest>,
) -> Result<Json<RegisterAnswer>, Problem> {
    Ok(Json(catalog.register(&request).await?))
}

async fn manifest(State(catalog): State<Catalog>, name: Name) -> Result<Json<DatasetManifest>, Problem> {
    let name = checked(name)?;
    let manifest = catalog.get(&name).await?.ok_or(Error::UnknownDataset(name))?;
    Ok(Json(Arc::unwrap_or_clone(manifest)))
}

async fn list(State(catalog): State<Catalog>) -> Result<Json<ListAnswer>, Problem> {
    let listing = catalog.list().await?;
    let datasets = listing.datasets.into_iter().map(Arc::unwrap_or_clone).collect();
    Ok(Json(ListAnswer { datasets, damaged: listing.damaged }))
}

async fn history(State(catalog): State<Catalog>, name: Name) -> Result<Json<HistoryAnswer>, Problem> {
    Ok(Json(catalog.history(&checked(name)?).await?))
}

/// An empty body asks for the version before the current one.
async fn rollback(
    State(catalog): State<Catalog>,
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
    Ok(Json(Arc::unwrap_or_clone(catalog.rollback(&name, version).await?)))
}

fn checked(name: Name) -> Result<DatasetName, Problem> {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    DatasetName::parse(name).map_err(|error| Problem::bad_request(error.to_string()))
}
