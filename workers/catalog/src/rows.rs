//! Files of rows on their way into the store, under keys that no collector is about to take away.

use std::path::Path;

use lakehouse_contract::{DataObject, DatasetName, Key, keys};
use lakehouse_store::Error as StoreError;
use uuid::Uuid;

use crate::{Catalog, Result, collect::is_older};

impl Catalog {
    /// Puts a Parquet file of this machine among the dataset's rows, for a register that follows. `sha256` is the hash of its content.
    ///
    /// A file that the current version has is not written again. [`Self::collect`] says why one that merely lies there may be.
    pub async fn put_rows(
        &self,
        name: &DatasetName,
        schema_fingerprint: &str,
        file: &Path,
        sha256: &str,
        rows: u64,
    ) -> Result<DataObject> {
        if let Some(object) = self.published(name, sha256).await? {
            return Ok(object);
        }
        let put =
            async |folder: Key| self.store().put_blob_file(&folder, "parquet", sha256.to_owned(), file).await;
        let mut blob = put(keys::rows(name, schema_fingerprint)).await?;
        if blob.existed && self.may_go_soon(&blob.key).await? {
            let writer = Uuid::new_v4().simple().to_string();
            blob = put(keys::rows_apart(name, schema_fingerprint, &writer)).await?;
        }
        Ok(DataObject { key: blob.key, size: blob.size, rows, sha256: blob.sha256 })
    }

    /// The file of the current version with this content, where it lies in the store as it should.
    async fn published(&self, name: &DatasetName, sha256: &str) -> Result<Option<DataObject>> {
        let Some(current) = self.get(name).await? else { return Ok(None) };
        let Some(object) = current.objects.iter().find(|object| object.sha256 == sha256) else {
            return Ok(None);
        };
        match self.store().head(&object.key).await {
            Ok(meta) => Ok((meta.size == object.size).then(|| object.clone())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a collector might take the object before it could be registered.
    async fn may_go_soon(&self, key: &Key) -> Result<bool> {
        match self.store().head(key).await {
            Ok(meta) => Ok(is_older(&meta, self.grace / 2)),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
