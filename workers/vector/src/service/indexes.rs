//! Indexes as a whole.

use std::collections::BTreeMap;

use axum::{Json, body::Body, extract::State, http::StatusCode};
use futures::{StreamExt, stream};
use lakehouse_contract::{
    IndexName,
    vectors::{CreateRequest, Hnsw, IndexInfo, IndexList, MAX_DIMENSION, RollbackRequest, Shape},
};
use lakehouse_http::{Problem, body};

use super::{Name, SMALL_LIMIT, checked};
use crate::{Error, Result, models, vectord::Vectord};

/// Indexes that are opened at the same time for a list.
const PARALLEL: usize = 16;

pub(super) async fn create(
    State(vectord): State<Vectord>,
    body::Json(request): body::Json<CreateRequest>,
) -> Result<(StatusCode, Json<IndexInfo>), Problem> {
    let name = IndexName::parse(request.name.as_str())
        .map_err(|error| Problem::bad_request(format!("`name`: {error}")))?;
    let shape = shape(&request)?;
    let model = request.model.as_deref().filter(|model| !model.is_empty());
    let embedding = match model {
        None => None,
        Some(model) => Some(models::for_create(vectord.inner().embedder.as_deref(), model, &shape).await?),
    };
    // One that is being removed leaves its name to this one.
    match vectord.live(&name).await {
        Ok(_) => return Err(Error::Exists(name).into()),
        Err(Error::UnknownIndex(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let manifest = vectord.indexes().create(&name, &shape, embedding).await?;
    Ok((StatusCode::CREATED, Json(manifest.info(Vec::new()))))
}

/// Checks the ranges of a request.
fn shape(request: &CreateRequest) -> Result<Shape> {
    let CreateRequest { name: _, dimension, metric, m, ef_construction, ef_search, quantization, model: _ } =
        request;
    let default = Hnsw::default();
    let hnsw = Hnsw {
        m: m.unwrap_or(default.m),
        ef_construction: ef_construction.unwrap_or(default.ef_construction),
        ef_search: ef_search.unwrap_or(default.ef_search),
    };
    for (field, value, least, most) in [
        ("dimension", *dimension, 1, MAX_DIMENSION),
        ("m", hnsw.m, 4, 96),
        ("ef_construction", hnsw.ef_construction, 8, 4096),
        ("ef_search", hnsw.ef_search, 1, 4096),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Error::Invalid(format!("`{field}` is {value}; {least} to {most} is allowed")));
        }
    }
    Ok(Shape { dimension: *dimension, metric: *metric, hnsw, quantization: *quantization })
}

pub(super) async fn list(State(vectord): State<Vectord>) -> Result<Json<IndexList>, Problem> {
    let names = vectord.indexes().names().await?;
    let read = stream::iter(names).map(|name| {
        let vectord = vectord.clone();
        async move { (name.clone(), Box::pin(told(&vectord, &name)).await) }
    });
    let read: Vec<(IndexName, Result<IndexInfo>)> = read.buffered(PARALLEL).collect().await;
    let (mut indexes, mut damaged) = (Vec::new(), BTreeMap::new());
    for (name, info) in read {
        match info {
            Ok(info) => indexes.push(info),
            // It is about to be made, or was just removed.
            Err(Error::UnknownIndex(_)) => {}
            Err(error @ Error::Damaged { .. }) => {
                damaged.insert(name.to_string(), error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(IndexList { indexes, damaged }))
}

pub(super) async fn info(State(vectord): State<Vectord>, name: Name) -> Result<Json<IndexInfo>, Problem> {
    Ok(Json(told(&vectord, &checked(name)?).await?))
}

impl Vectord {
    /// What `GET /vectors/index/{name}` answers; `None` where there is no such index.
    pub async fn info(&self, name: &IndexName) -> Result<Option<IndexInfo>> {
        match told(self, name).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::UnknownIndex(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is known of an index, with what the log holds.
async fn told(vectord: &Vectord, name: &IndexName) -> Result<IndexInfo> {
    let snapshot = vectord.live(name).await?.snapshot();
    let manifest = &snapshot.manifest;
    // While the store is out of reach, the version that is served is the only one that is known.
    let versions = vectord.indexes().served_versions(manifest).await;
    let versions = versions.unwrap_or_else(|_| vec![manifest.version]);
    // A part of a sharded index counts its own vectors only.
    let length = if manifest.shards > 1 { manifest.length } else { snapshot.length };
    Ok(IndexInfo {
        length,
        updated_at: snapshot.updated_at,
        damaged: snapshot.damaged.to_vec(),
        ..manifest.info(versions)
    })
}

pub(super) async fn remove(State(vectord): State<Vectord>, name: Name) -> Result<StatusCode, Problem> {
    let name = checked(name)?;
    match vectord.live(&name).await {
        Ok(live) => vectord.indexes().purge_only(&name, live.snapshot().manifest.id).await?,
        // One that is damaged can at least be removed.
        Err(Error::Damaged { .. }) => vectord.indexes().purge(&name).await?,
        Err(error) => return Err(error.into()),
    };
    vectord.forget(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An empty body asks for the version before the current one.
pub(super) async fn rollback(
    State(vectord): State<Vectord>,
    name: Name,
    body: Body,
) -> Result<Json<IndexInfo>, Problem> {
    let name = checked(name)?;
    let body = body::read(body, SMALL_LIMIT).await?;
    let RollbackRequest { version } = if body.is_empty() {
        RollbackRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            Problem::bad_request(format!("the body is not `{{\"version\": <number>}}`: {error}"))
        })?
    };
    vectord.indexes().rollback(&name, version).await?;
    vectord.refresh(&name).await?;
    Ok(Json(told(&vectord, &name).await?))
}
