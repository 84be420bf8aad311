//! Blobs: immutable, named by the SHA-256 of their content, written once, safe to cache for ever.

use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use lakehouse_contract::{Key, dataset::hex};
use sha2::{Digest, Sha256};

use crate::{Condition, Error, Payload, Result, Store};

/// A blob that lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `<folder>/<sha256>.<extension>`
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
    /// Whether it lay there before, and how old it is then is not said.
    pub existed: bool,
}

impl Store {
    /// Puts a small content below `folder` under its own hash. Content that is already there is not written again.
    pub async fn put_blob(&self, folder: &Key, extension: &str, content: Bytes) -> Result<Blob> {
        let sha256 = hex(&Sha256::digest(&content));
        let size = content.len() as u64;
        self.put_named(folder, extension, sha256, size, Payload::Bytes(content)).await
    }

    /// Puts a file of this machine below `folder`. `sha256` is the hash of its content, taken while the file was written.
    pub async fn put_blob_file(
        &self,
        folder: &Key,
        extension: &str,
        sha256: String,
        file: &Path,
    ) -> Result<Blob> {
        let size = tokio::fs::metadata(file).await.map_err(|error| Error::local(file, error))?.len();
        self.put_named(folder, extension, sha256, size, Payload::File(file.to_owned())).await
    }

    async fn put_named(
        &self,
        folder: &Key,
        extension: &str,
        sha256: String,
        size: u64,
        body: Payload,
    ) -> Result<Blob> {
        let key = Key::parse(format!("{folder}/{sha256}.{extension}")).map_err(|error| Error::Unfit {
            message: format!("no blob can lie below `{folder}`: {error}"),
        })?;
        match self.put(&key, body, Condition::Absent).await {
            Ok(_) => Ok(Blob { key, size, sha256, existed: false }),
            // The same name is the same content, whoever wrote it.
            Err(Error::Conflict { .. }) => Ok(Blob { key, size, sha256, existed: true }),
            Err(error) => Err(error),
        }
    }

    /// Copies a blob into a local file and checks its hash on the way. A blob with another hash is [`Error::Damaged`].
    ///
    /// The file is complete when this returns and may be partial when it fails; give it a temporary name and rename it.
    pub async fn fetch_blob(&self, key: &Key, sha256: &str, file: &Path) -> Result<()> {
        use tokio::io::AsyncWriteExt;
        let local = |error| Error::local(file, error);
        let mut out = tokio::fs::File::create(file).await.map_err(local)?;
        let mut body = self.get(key, None).await?.body;
        let mut hash = Sha256::new();
        while let Some(piece) = body.try_next().await? {
            hash.update(&piece);
            out.write_all(&piece).await.map_err(local)?;
        }
        out.flush().await.map_err(local)?;
        let found = hex(&hash.finalize());
        if found != sha256 {
            let message = format!("its content has the hash {found} and not {sha256}");
            return Err(Error::Damaged { key: key.clone(), message });
        }
        Ok(())
    }
}
