//! Copies on this machine's disk, hashed while they are written and removed when nobody needs them.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use lakehouse_contract::dataset::hex;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::Error;

const PREFIX: &str = "source-";

/// A folder for copies. One process owns it.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the folder, makes it when it is missing, and removes the copies that a killed process left.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let failed = |error| failed(folder, &error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Starts a copy.
    pub(crate) async fn create(&self) -> Result<Copy, Error> {
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(&self.folder)
            // The library's own words name the file, which has another name at every try.
            .map_err(|error| failed(&self.folder, &error.kind().into()))?
            .into_temp_path();
        let file = tokio::fs::File::create(&path).await.map_err(|error| failed(&self.folder, &error))?;
        Ok(Copy { folder: self.folder.clone(), path, file, hash: Sha256::new(), bytes: 0 })
    }
}

/// A copy while it is written.
pub(crate) struct Copy {
    folder: PathBuf,
    path: tempfile::TempPath,
    file: tokio::fs::File,
    hash: Sha256,
    bytes: u64,
}

impl Copy {
    /// Adds a piece.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).await.map_err(|error| failed(&self.folder, &error))
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the copy: its path, `sha256:<hex>` and its bytes.
    pub(crate) async fn finish(mut self) -> Result<(tempfile::TempPath, String, u64), Error> {
        self.file.flush().await.map_err(|error| failed(&self.folder, &error))?;
        Ok((self.path, named(&self.hash.finalize()), self.bytes))
    }
}

/// Names the folder alone: a copy has another name at every try, and the message must not.
fn failed(folder: &Path, error: &std::io::Error) -> Error {
    Error::Spool(format!("the spool folder {} cannot be written: {error}", folder.display()))
}

/// The digest and the size of a file. `done` counts the bytes meanwhile.
pub(crate) fn digest_of(path: &Path, done: &AtomicU64) -> std::io::Result<(String, u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((named(&hash.finalize()), bytes));
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
        done.store(bytes, Ordering::Relaxed);
    }
}

fn named(hash: &[u8]) -> String {
    format!("sha256:{}", hex(hash))
}
