//! Sources in a bucket.

use futures::TryStreamExt;
use lakehouse_contract::Key;
use lakehouse_store::{
    Error as StoreError, Store,
    s3::{S3, S3Settings},
};

use crate::{Error, Local, Reading, Spool};

/// Fetches an object unless it still has the entity tag `seen`. The store's own retries cover passing failures.
pub(crate) async fn read(
    spool: &Spool,
    settings: &S3Settings,
    key: &Key,
    seen: Option<&str>,
    copied: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Reading, Error> {
    // Reading needs no conditional writes, so the bucket is not probed for them.
    let bucket = Store::new(S3::connect(settings.clone()).await.map_err(failure)?);
    let object = bucket.get(key, None).await.map_err(failure)?;
    let digest = object.meta.etag.0.clone();
    if seen == Some(digest.as_str()) {
        return Ok(Reading::Unchanged);
    }
    let mut copy = spool.create().await?;
    let mut body = object.body;
    while let Some(piece) = body.try_next().await.map_err(failure)? {
        copy.write(&piece).await?;
        copied(copy.bytes(), Some(object.meta.size));
    }
    let (path, _, bytes) = copy.finish().await?;
    Ok(Reading::Here(Local::spooled(path, digest, bytes)))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failure(error: StoreError) -> Error {
    let message = error.to_string();
    match error {
        StoreError::NotFound { .. } | StoreError::Unfit { .. } => Error::NotFound(message),
        StoreError::Denied { .. } => Error::Denied(message),
        _ => Error::Unreachable(message),
    }
}
