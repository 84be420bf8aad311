//! Segments of the store as files of this machine.
//!
//! ```text
//! <folder>/<index>/<sha256>.segment
//! ```
//! A file is checked when it is opened. One that is damaged here is fetched anew; one that is damaged in the store is said to be.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lakehouse_contract::{IndexName, dataset::hex, vectors::Shape};
use lakehouse_store::{Error as StoreError, Store};
use roaring::RoaringBitmap;
use sha2::{Digest, Sha256};
use tracing::warn;
use uuid::Uuid;

use crate::{
    Error, Result,
    indexes::{DEAD, DEAD_NONCE, part_key, segment_key},
    manifest::{DeadEntry, SegmentEntry},
    part::{self, Part},
    segment::Segment,
};

/// A part of an index that can be searched, or what is wrong with it.
pub(crate) type Opened = Result<Part, String>;

#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    store: Store,
}

impl Cache {
    pub(crate) async fn new(folder: &Path, store: Store) -> Result<Self> {
        tokio::fs::create_dir_all(folder).await.map_err(|error| Error::local(folder, error))?;
        Ok(Self { folder: folder.to_owned(), store })
    }

    /// Where the files of an index lie.
    pub(crate) async fn folder(&self, name: &IndexName) -> Result<PathBuf> {
        let folder = self.folder.join(name.as_str());
        tokio::fs::create_dir_all(&folder).await.map_err(|error| Error::local(&folder, error))?;
        Ok(folder)
    }

    /// Takes in a segment that was written here.
    pub(crate) async fn adopt(&self, name: &IndexName, sha256: &str, written: &Path) -> Result<()> {
        let path = self.folder(name).await?.join(file_name(sha256));
        tokio::fs::rename(written, &path).await.map_err(|error| Error::local(&path, error))
    }

    /// Opens a segment and reads which of its rows were deleted. Only a store that fails for now is an error.
    pub(crate) async fn open(&self, name: &IndexName, entry: &SegmentEntry, shape: &Shape) -> Result<Opened> {
        let opened = match self.segment(name, entry, shape).await? {
            Ok(segment) => match &entry.dead {
                None => Ok(Part::segment(segment, entry.clone(), None)),
                Some(dead) => self.dead(name, dead).await?.map(|dead| {
                    let alive = part::all(segment.rows()) - dead;
                    Part::segment(segment, entry.clone(), Some(Arc::new(alive)))
                }),
            },
            Err(damage) => Err(damage),
        };
        Ok(opened.map_err(|damage| format!("segment {}: {damage}", entry.sha256)))
    }

    /// The same for one that is open already: only the list of deleted rows is read.
    pub(crate) async fn reopen(
        &self,
        name: &IndexName,
        entry: &SegmentEntry,
        segment: Arc<Segment>,
    ) -> Result<Opened> {
        let Some(dead) = &entry.dead else { return Ok(Ok(Part::segment(segment, entry.clone(), None))) };
        let alive = self.dead(name, dead).await?.map(|dead| part::all(segment.rows()) - dead);
        Ok(alive
            .map(|alive| Part::segment(segment, entry.clone(), Some(Arc::new(alive))))
            .map_err(|damage| format!("segment {}: {damage}", entry.sha256)))
    }

    async fn segment(
        &self,
        name: &IndexName,
        entry: &SegmentEntry,
        shape: &Shape,
    ) -> Result<Result<Arc<Segment>, String>> {
        let path = self.folder(name).await?.join(file_name(&entry.sha256));
        if tokio::fs::try_exists(&path).await.map_err(|error| Error::local(&path, error))? {
            match open(path.clone(), entry, shape).await {
                Ok(segment) => return Ok(Ok(segment)),
                Err(damage) => {
                    warn!(index.name = %name, "A cached segment is fetched anew: {damage}");
                    tokio::fs::remove_file(&path).await.map_err(|error| Error::local(&path, error))?;
                }
            }
        }
        match self.fetch(name, entry, &path).await {
            Ok(()) => Ok(open(path, entry, shape).await),
            Err(Error::Store(error @ (StoreError::NotFound { .. } | StoreError::Damaged { .. }))) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Brings a segment here: a link where the store has it as a file, else a copy whose hash is checked.
    async fn fetch(&self, name: &IndexName, entry: &SegmentEntry, path: &Path) -> Result<()> {
        let key = segment_key(name, &entry.sha256);
        if let Some(file) = self.store.local_file(&key)
            && tokio::fs::hard_link(&file, path).await.is_ok()
        {
            return Ok(());
        }
        let partial = path.with_extension(format!("{}.partial", Uuid::new_v4().simple()));
        let fetched = self.store.fetch_blob(&key, &entry.sha256, &partial).await;
        if let Err(error) = fetched {
            // What is left of it would only take up space.
            let _ = tokio::fs::remove_file(&partial).await;
            return Err(error.into());
        }
        tokio::fs::rename(&partial, path).await.map_err(|error| Error::local(path, error))
    }

    async fn dead(&self, name: &IndexName, entry: &DeadEntry) -> Result<Result<RoaringBitmap, String>> {
        let key = part_key(name, &entry.sha256, DEAD);
        let content = match self.store.get(&key, None).await {
            Ok(object) => object.bytes(entry.size).await,
            Err(error) => Err(error),
        };
        let content = match content {
            Ok(content) => content,
            Err(error) if error.retry_helps() => return Err(error.into()),
            Err(error) => return Ok(Err(format!("which rows were deleted is not known: {error}"))),
        };
        let damaged = || "which rows were deleted is not known: the list does not have its hash".to_owned();
        if hex(&Sha256::digest(&content)) != entry.sha256 {
            return Ok(Err(damaged()));
        }
        let bitmap = content.get(DEAD_NONCE..).and_then(|bytes| RoaringBitmap::deserialize_from(bytes).ok());
        Ok(bitmap.ok_or_else(damaged))
    }

    /// Removes the files of an index that are none of these. What is mapped stays readable.
    pub(crate) async fn retain(&self, name: &IndexName, segments: &[SegmentEntry]) -> Result<()> {
        let folder = self.folder(name).await?;
        let kept: HashSet<String> = segments.iter().map(|entry| file_name(&entry.sha256)).collect();
        let mut files = tokio::fs::read_dir(&folder).await.map_err(|error| Error::local(&folder, error))?;
        while let Some(file) = files.next_entry().await.map_err(|error| Error::local(&folder, error))? {
            let complete = file.path().extension().is_some_and(|extension| extension == "segment");
            let name = file.file_name().to_string_lossy().into_owned();
            // A name that is no digest is of a segment that is being written.
            if complete && name.len() == file_name(&"0".repeat(64)).len() && !kept.contains(&name) {
                // Another task may have removed it.
                let _ = tokio::fs::remove_file(file.path()).await;
            }
        }
        Ok(())
    }

    /// Removes all files of an index.
    pub(crate) async fn forget(&self, name: &IndexName) -> Result<()> {
        let folder = self.folder.join(name.as_str());
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::local(&folder, error)),
            _ => Ok(()),
        }
    }
}

fn file_name(sha256: &str) -> String {
    format!("{sha256}.segment")
}

async fn open(path: PathBuf, entry: &SegmentEntry, shape: &Shape) -> Result<Arc<Segment>, String> {
    let (rows, shape) = (entry.rows, shape.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let segment = Segment::open(&path, &shape)?;
        if segment.rows() != rows {
            return Err(format!("it has {} rows, and the manifest says {rows}", segment.rows()));
        }
        Ok(Arc::new(segment))
    });
    opened.await.unwrap_or_else(|error| Err(format!("opening it failed: {error}")))
}
