//! Manifests: small objects that say what is current, swapped only by compare-and-set.

use bytes::Bytes;
use lakehouse_contract::Key;

use crate::{Condition, Error, Etag, Payload, Result, Store};

/// The largest manifest that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

impl Store {
    /// The manifest under `key` and its mark, or `None` when there is none yet.
    pub async fn read_manifest(&self, key: &Key) -> Result<Option<(Bytes, Etag)>> {
        match self.get(key, None).await {
            Ok(object) => {
                let etag = object.meta.etag.clone();
                Ok(Some((object.bytes(MAX_BYTES).await?, etag)))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the manifest that was read with mark `seen`, or makes the first one when `seen` is `None`.
    ///
    /// Fails with [`Error::Conflict`] when somebody else was first; the caller reads again and decides anew.
    pub async fn swap_manifest(&self, key: &Key, seen: Option<Etag>, content: Bytes) -> Result<Etag> {
        let condition = seen.map_or(Condition::Absent, Condition::Matches);
        self.put(key, Payload::Bytes(content), condition).await
    }
}
