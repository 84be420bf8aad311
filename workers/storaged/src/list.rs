//! Listings.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use lakehouse_contract::{
    Key,
    key::InvalidKey,
    storage::{MAX_LISTED, StorageListAnswer, StoredObject},
};
use lakehouse_store::Listed;
use serde::Deserialize;

use crate::{Storage, download::quoted, error::Error};

/// An unknown parameter is refused: who misspells `continuation` would read the first page for ever.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    prefix: String,
    continuation: Option<String>,
}

/// `GET /storage/list`. The continuation is the last key of the page before.
pub(crate) async fn list(
    State(storage): State<Arc<Storage>>,
    Query(asked): Query<Asked>,
) -> Result<Json<StorageListAnswer>, Error> {
    let Asked { prefix, continuation } = asked;
    check_prefix(&prefix).map_err(Error::Prefix)?;
    let after = continuation.map(Key::parse).transpose().map_err(Error::Continuation)?;
    let page = storage.store.list(&prefix, after.as_ref().map(Key::as_str), MAX_LISTED).await?;
    let objects: Vec<_> = page.objects.into_iter().map(stored_object).collect();
    let continuation = if page.more { objects.last().map(|last| last.key.clone()) } else { None };
    Ok(Json(StorageListAnswer { objects, truncated: page.more, continuation }))
}

fn stored_object(Listed { key, meta }: Listed) -> StoredObject {
    StoredObject { key: key.into(), size: meta.size, etag: quoted(&meta.etag), last_modified: meta.modified }
}

/// A prefix is the beginning of a key: empty, a key, or a key with a `/` at its end.
fn check_prefix(prefix: &str) -> Result<(), InvalidKey> {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" if prefix.is_empty() => Ok(()),
        beginning => Key::parse(beginning).map(drop),
    }
}
