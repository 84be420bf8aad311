//! Indexes in the store: made, published, rolled back, collected, purged. Knows manifests and parts; opens and searches none.
//!
//! Data first, manifest last. A version's number names its content for ever: a rollback brings an old number back.

mod collect;
mod list;
mod purge;

use std::{collections::HashSet, future::Future, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lakehouse_contract::{
    IndexName, Key,
    embed::ModelIdentity,
    keys,
    vectors::{BuiltFrom, Shape},
};
use lakehouse_store::{Condition, Error as StoreError, Etag, Store, log::Log};
use roaring::RoaringBitmap;
use uuid::Uuid;

pub use collect::{Collected, GRACE};
use purge::Vacant;

use crate::{
    Error, Result,
    manifest::{self, DeadEntry, Kind, Manifest, SegmentEntry},
    segment::Finished,
};

/// How often a change is tried against others who were first.
const TRIES: u32 = 12;
/// The extension of segments.
pub(crate) const SEGMENT: &str = "segment";
/// The extension of lists of deleted rows.
pub(crate) const DEAD: &str = "dead";
/// What a list of deleted rows begins with, so that no two files are equal and nobody relies on another's.
pub(crate) const DEAD_NONCE: usize = 16;

/// A version as a build publishes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVersion {
    /// What the index is.
    pub shape: Shape,
    /// Parts that the vectors are spread over.
    pub shards: u32,
    /// What it is made of; they lie in the store already.
    pub segments: Vec<SegmentEntry>,
    /// Metadata fields that vectors may have.
    pub fields: Vec<String>,
    /// The model that made the vectors.
    pub embedding: ModelIdentity,
    /// Where the rows came from.
    pub source: BuiltFrom,
    /// Rows that gave no vector.
    pub failed: u64,
    /// The share of neighbours that searches find.
    pub recall: Option<f64>,
}

/// All indexes of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Indexes {
    store: Store,
    grace: Duration,
}

impl Indexes {
    /// The indexes of a store.
    pub fn new(store: Store) -> Self {
        Self { store, grace: GRACE }
    }

    /// The same with another age for what [`Self::collect`] removes. For tests: a build that runs must end within half of it.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The manifest of an index; `None` where there is no such index.
    pub async fn manifest(&self, name: &IndexName) -> Result<Option<Manifest>> {
        Ok(self.read(name).await?.map(|(manifest, _)| manifest))
    }

    /// The manifest and its mark.
    pub(crate) async fn read(&self, name: &IndexName) -> Result<Option<(Manifest, Etag)>> {
        match self.store.read_manifest(&keys::index_manifest(name)).await? {
            None => Ok(None),
            Some((bytes, _)) if manifest::decode_removed(&bytes).is_some() => Ok(None),
            Some((bytes, etag)) => {
                let manifest =
                    manifest::decode(name, &bytes).map_err(|message| Error::damaged(name, message))?;
                Ok(Some((manifest, etag)))
            }
        }
    }

    /// The mark of the manifest, without reading it.
    pub(crate) async fn mark(&self, name: &IndexName) -> Result<Option<Etag>> {
        match self.store.head(&keys::index_manifest(name)).await {
            Ok(meta) => Ok(Some(meta.etag)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The log of an index.
    pub(crate) async fn log(&self, name: &IndexName) -> Result<Log> {
        Ok(Log::open(self.store.clone(), &keys::index_log(name)).await?)
    }

    /// Makes an empty index that clients fill. One that is there already is [`Error::Exists`], whatever it is.
    pub async fn create(
        &self,
        name: &IndexName,
        shape: &Shape,
        embedding: Option<ModelIdentity>,
    ) -> Result<Manifest> {
        let Some(vacant) = self.vacant(name, &HashSet::new()).await? else {
            return Err(Error::Exists(name.clone()));
        };
        // An earlier index of this name may have left records behind: its end of the log is the start of this one's.
        let log_from = self.log(name).await?.next().await?;
        let now = Timestamp::now();
        let manifest = Manifest {
            id: Uuid::new_v4(),
            name: name.clone(),
            shape: shape.clone(),
            kind: Kind::Pushed,
            version: 0,
            latest_version: 0,
            embedding,
            source: None,
            fields: Vec::new(),
            segments: Vec::new(),
            log_from,
            length: 0,
            failed: 0,
            recall: None,
            shards: 1,
            created_at: now,
            updated_at: now,
        };
        match self.swap(vacant.seen, &manifest).await? {
            Some(_) => Ok(manifest),
            None => Err(Error::Exists(name.clone())),
        }
    }

    /// Puts a segment that was written here into the store. No manifest names it yet.
    pub async fn upload(&self, name: &IndexName, finished: &Finished) -> Result<SegmentEntry> {
        let Finished { path, sha256, size, rows, shard } = finished;
        let folder = keys::segments(name);
        self.store.put_blob_file(&folder, SEGMENT, sha256.clone(), path).await?;
        Ok(SegmentEntry { sha256: sha256.clone(), size: *size, rows: *rows, shard: *shard, dead: None })
    }

    /// Puts a list of deleted rows into the store; `None` where there are none.
    pub(crate) async fn upload_dead(
        &self,
        name: &IndexName,
        dead: &RoaringBitmap,
    ) -> Result<Option<DeadEntry>> {
        if dead.is_empty() {
            return Ok(None);
        }
        let mut content = Uuid::new_v4().as_bytes().to_vec();
        dead.serialize_into(&mut content).expect("writing to memory cannot fail");
        let blob = self.store.put_blob(&keys::segments(name), DEAD, Bytes::from(content)).await?;
        let rows = u32::try_from(dead.len()).expect("a segment has at most a million rows");
        Ok(Some(DeadEntry { sha256: blob.sha256, size: blob.size, rows }))
    }

    /// Publishes the next version of a built index, or its first. The earlier one is kept.
    pub async fn publish(&self, name: &IndexName, version: NewVersion) -> Result<Manifest> {
        let NewVersion { shape, shards, segments, fields, embedding, source, failed, recall } = version;
        self.verify(name, &segments).await?;
        let length = segments.iter().map(|segment| u64::from(segment.alive())).sum();
        let own: HashSet<Key> = segments
            .iter()
            .map(|segment| segment_key(name, &segment.sha256))
            .chain([keys::index_rejects_of(name, &source.inputs)])
            .collect();
        retried(name, async || {
            let current = self.read(name).await?;
            let seen = match &current {
                Some((current, etag)) => {
                    built(current)?;
                    self.archive(current).await?;
                    Some(etag.clone())
                }
                None => match self.vacant(name, &own).await? {
                    Some(Vacant { seen }) => seen,
                    None => return Ok(None),
                },
            };
            let highest = self.versions(name).await?.first().copied().unwrap_or(0);
            let latest = current.as_ref().map_or(0, |(current, _)| current.latest_version).max(highest);
            let now = Timestamp::now();
            let next = Manifest {
                id: current.as_ref().map_or_else(Uuid::new_v4, |(current, _)| current.id),
                name: name.clone(),
                shape: shape.clone(),
                kind: Kind::Built,
                version: latest + 1,
                latest_version: latest + 1,
                embedding: Some(embedding.clone()),
                source: Some(source.clone()),
                fields: fields.clone(),
                segments: segments.clone(),
                log_from: 0,
                length,
                failed,
                recall,
                shards,
                created_at: current.as_ref().map_or(now, |(current, _)| current.created_at),
                updated_at: now,
            };
            Ok(self.swap(seen, &next).await?.map(|_| next))
        })
        .await
    }

    /// Serves a kept version again: `version`, or the newest one before the current.
    pub async fn rollback(&self, name: &IndexName, version: Option<u64>) -> Result<Manifest> {
        retried(name, async || {
            let Some((current, etag)) = self.read(name).await? else {
                return Err(Error::UnknownIndex(name.clone()));
            };
            built(&current)?;
            if version == Some(current.version) {
                return Ok(Some(current));
            }
            let kept = self.versions(name).await?;
            let found = kept
                .iter()
                .find(|kept| version.map_or(**kept < current.version, |version| **kept == version));
            let unknown = |kept: Vec<u64>| Error::UnknownVersion { name: name.clone(), version, kept };
            let Some(found) = found else { return Err(unknown(with(kept, current.version))) };
            let Some(target) = self.kept(name, *found).await? else { return Ok(None) };
            self.verify(name, &target.segments).await?;
            self.archive(&current).await?;
            let next = Manifest {
                id: current.id,
                latest_version: current.latest_version.max(target.latest_version),
                created_at: current.created_at,
                updated_at: Timestamp::now(),
                ..target
            };
            Ok(self.swap(Some(etag), &next).await?.map(|_| next))
        })
        .await
    }

    /// Sets how many candidates a search of a built index looks at that does not say. It is the only thing of a version that can change.
    pub async fn tune(&self, name: &IndexName, ef_search: u32) -> Result<Manifest> {
        retried(name, async || {
            let Some((current, etag)) = self.read(name).await? else {
                return Err(Error::UnknownIndex(name.clone()));
            };
            built(&current)?;
            if current.shape.hnsw.ef_search == ef_search {
                return Ok(Some(current));
            }
            let mut next = current;
            next.shape.hnsw.ef_search = ef_search;
            Ok(self.swap(Some(etag), &next).await?.map(|_| next))
        })
        .await
    }

    /// The versions that can be served, in rising order; the current one is among them.
    pub async fn served_versions(&self, manifest: &Manifest) -> Result<Vec<u64>> {
        if manifest.kind == Kind::Pushed {
            return Ok(Vec::new());
        }
        let mut versions = with(self.versions(&manifest.name).await?, manifest.version);
        versions.reverse();
        Ok(versions)
    }

    /// The versions in the history, newest first.
    async fn versions(&self, name: &IndexName) -> Result<Vec<u64>> {
        let prefix = keys::index_history(name);
        let listed = self.store.list_all(&prefix).await?;
        let version = |key: &Key| key.as_str().strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok();
        Ok(listed.iter().rev().filter_map(|listed| version(&listed.key)).collect())
    }

    /// A manifest of the history; `None` when it was collected meanwhile.
    pub async fn version(&self, name: &IndexName, version: u64) -> Result<Option<Manifest>> {
        self.kept(name, version).await
    }

    async fn kept(&self, name: &IndexName, version: u64) -> Result<Option<Manifest>> {
        let Some((bytes, _)) = self.store.read_manifest(&keys::index_version(name, version)).await? else {
            return Ok(None);
        };
        let damaged = |message| Error::damaged(name, format!("version {version}: {message}"));
        manifest::decode(name, &bytes).map(Some).map_err(damaged)
    }

    /// Keeps a manifest under its version. One that is kept already stays as it is.
    async fn archive(&self, manifest: &Manifest) -> Result<()> {
        let key = keys::index_version(&manifest.name, manifest.version);
        match self.store.put(&key, manifest::encode(manifest).into(), Condition::Absent).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails with the first part that is not in the store as it is described.
    async fn verify(&self, name: &IndexName, segments: &[SegmentEntry]) -> Result<()> {
        for SegmentEntry { sha256, size, .. } in segments {
            match self.store.head(&segment_key(name, sha256)).await {
                Ok(meta) if meta.size == *size => {}
                Ok(meta) => {
                    let message =
                        format!("segment {sha256} has {} bytes in the store and not {size}", meta.size);
                    return Err(Error::damaged(name, message));
                }
                Err(StoreError::NotFound { .. }) => {
                    return Err(Error::damaged(name, format!("segment {sha256} is not in the store")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Swaps the manifest that has the mark `seen` for `next`, or makes the first one; `None` when somebody else was first.
    pub(crate) async fn swap(&self, seen: Option<Etag>, next: &Manifest) -> Result<Option<Etag>> {
        let key = keys::index_manifest(&next.name);
        match self.store.swap_manifest(&key, seen, manifest::encode(next)).await {
            Ok(etag) => Ok(Some(etag)),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The key of a segment.
pub(crate) fn segment_key(name: &IndexName, sha256: &str) -> Key {
    part_key(name, sha256, SEGMENT)
}

/// The key of a segment or of a list of deleted rows.
pub(crate) fn part_key(name: &IndexName, sha256: &str, extension: &str) -> Key {
    Key::parse(format!("{}/{sha256}.{extension}", keys::segments(name)))
        .expect("made of a checked name and a digest")
}

/// Refuses what has no versions.
fn built(manifest: &Manifest) -> Result<()> {
    match manifest.kind {
        Kind::Built => Ok(()),
        Kind::Pushed => Err(Error::FilledByClients(manifest.name.clone())),
    }
}

/// The versions with one more, newest first.
fn with(mut versions: Vec<u64>, version: u64) -> Vec<u64> {
    if !versions.contains(&version) {
        versions.push(version);
        versions.sort_unstable_by(|a, b| b.cmp(a));
    }
    versions
}

/// Tries a change until nobody else was first, a little later each time.
async fn retried<T, F: Future<Output = Result<Option<T>>>>(
    name: &IndexName,
    attempt: impl Fn() -> F,
) -> Result<T> {
    for lost in 1..=TRIES {
        if let Some(done) = attempt().await? {
            return Ok(done);
        }
        // Up to 4, 8, … 256 ms: writers that met once do not meet again.
        let longest = 4_u64 << lost.min(6);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..=longest))).await;
    }
    Err(Error::Contended { name: name.clone(), tries: TRIES })
}
