//! Objects on their way in.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, header},
};
use futures::{StreamExt, TryStreamExt};
use lakehouse_contract::{Key, storage::StoragePutAnswer};
use lakehouse_store::{self as store, Condition, Payload};

use crate::{
    Storage,
    download::{quoted, text},
    error::Error,
};

/// `PUT /storage/put/{key}`. A body that breaks off, stalls or passes the cap leaves what was there before.
pub(crate) async fn put(
    State(storage): State<Arc<Storage>>,
    Path(key): Path<String>,
    body: Body,
) -> Result<([(HeaderName, HeaderValue); 1], Json<StoragePutAnswer>), Error> {
    let key = Key::parse(key)?;
    let Ok(_place) = storage.puts.try_acquire() else {
        return Err(Error::Busy(storage.max_puts));
    };
    let size = Arc::new(AtomicU64::new(0));
    let etag = storage.store.put(&key, payload(body, size.clone()), Condition::Always).await?;
    let etag = quoted(&etag);
    let header = text(&etag);
    let answer = StoragePutAnswer { key: key.into(), size: size.load(Relaxed), etag };
    Ok(([(header::ETAG, header)], Json(answer)))
}

/// The body as the store reads it, counted.
fn payload(body: Body, size: Arc<AtomicU64>) -> Payload {
    let pieces = body.into_data_stream().map_err(|error| store::Error::Body { message: error.to_string() });
    let counted = pieces.inspect_ok(move |piece| {
        size.fetch_add(piece.len() as u64, Relaxed);
    });
    Payload::Stream(counted.boxed())
}
