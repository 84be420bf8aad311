//! vectord: indexes over HTTP.
//!
//! ```text
//! POST   /vectors/index                 makes an index that clients fill
//! GET    /vectors/index                 all indexes
//! GET    /vectors/index/{name}          one index          DELETE removes it for ever
//! POST   /vectors/index/{name}/add      upserts            …/get  …/delete  …/merge
//! POST   /vectors/index/{name}/search   by vector, vectors or text
//! POST   /vectors/index/{name}/rollback an earlier version of a built index
//! GET    /vectors/index/{name}/export   Parquet            POST …/import takes it
//! ```

mod bodies;
mod indexes;
mod items;
mod search;
mod transfer;

use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    routing::{get, post},
};
use lakehouse_contract::IndexName;
use lakehouse_http::{BodyLimit, Problem};

use crate::vectord::Vectord;

pub(crate) use items::{bytes_of, check_fields};

/// The largest body of a write or a search, in bytes.
pub(crate) const BODY_LIMIT: u64 = 64 << 20;
/// The largest body of what names no vectors, in bytes.
const SMALL_LIMIT: u64 = 64 << 10;

/// A name in a path, not yet checked.
type Name = Result<Path<String>, PathRejection>;

/// vectord's routes.
pub fn router(vectord: Vectord) -> Router {
    let import_limit = vectord.inner().settings.max_import_bytes;
    let large = BodyLimit(BODY_LIMIT);
    let small = BodyLimit(SMALL_LIMIT);
    Router::new()
        .route("/vectors/index", get(indexes::list))
        .route("/vectors/index", post(indexes::create).layer(small))
        .route("/vectors/index/{name}", get(indexes::info).delete(indexes::remove))
        .route("/vectors/index/{name}/rollback", post(indexes::rollback).layer(small))
        .route("/vectors/index/{name}/add", post(items::add).layer(large))
        .route("/vectors/index/{name}/get", post(items::get).layer(large))
        .route("/vectors/index/{name}/delete", post(items::delete).layer(large))
        .route("/vectors/index/{name}/merge", post(items::merge).layer(small))
        .route("/vectors/index/{name}/search", post(search::search).layer(large))
        .route("/vectors/index/{name}/export", get(transfer::export))
        .route("/vectors/index/{name}/import", post(transfer::import).layer(BodyLimit(import_limit)))
        .with_state(vectord)
}

fn checked(name: Name) -> Result<IndexName, Problem> {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    IndexName::parse(name).map_err(|error| Problem::bad_request(error.to_string()))
}
