//! Removing versions that are no longer kept, and rows that no version names.
//!
//! ```text
//! history entry ─► expired entry ─► (a grace period later) its rows, then itself
//! ```
//! Stores cannot remove an object on a condition, so nothing that anybody might still publish may be touched at all:
//!
//! - Rows are removed only when they are older than the grace period and no current, kept or recently expired manifest names them.
//! - Who publishes relies on a file only if it has just written it, if the current version has it, or if it is younger than half the
//!   grace period; any other content is written once more under a key of its own (`put_rows`).
//! - A version that expires keeps its rows for another grace period, so that a rollback that has begun to bring it back can end.
//! - One collector works on a dataset at a time: two could each remove what was written anew after the other.
//!
//! A collector that dies at any point leaves whole versions behind, and the next one goes on.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{DatasetManifest, DatasetName, Key, keys};
use lakehouse_store::{Condition, Error as StoreError, Etag, Listed, Meta};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{Catalog, Result, codec, read::PARALLEL};

/// So long what nobody names stays in the store. An ingest must register what it wrote within half of it.
pub const GRACE: Duration = Duration::from_hours(24);

/// When a collector that has not ended is taken for dead. It stops by itself at half of this.
const LEASE: Duration = Duration::from_hours(1);

/// Waits before an object is looked at again whose removal has failed.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// What a collection, or a purge, removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Versions that are no longer kept. Their rows follow after the grace period.
    pub versions: u64,
    /// Objects that were removed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Catalog {
    /// Keeps the newest `keep` versions of a dataset and the current one, and removes the rows that no version needs any more.
    pub async fn collect(&self, name: &DatasetName, keep: NonZeroU32) -> Result<Collected> {
        // The current one first: a version that is replaced after this is in the history before it is replaced.
        let Some(stored) = self.read(name).await? else { return Ok(Collected::default()) };
        let current = stored.healthy(name)?.clone();
        let mut collected =
            Collected { versions: self.expire(&current, keep).await?, ..Collected::default() };

        let expired = self.old_below(&keys::expired(name)).await?;
        let rows = self.old_below(&keys::dataset(name)).await?;
        let Some(named) = self.named(&current, &expired).await? else { return Ok(collected) };
        let is_doomed = |listed: &Listed| is_rows(name, &listed.key) && !named.contains(&listed.key);
        let doomed: Vec<Listed> = rows.into_iter().filter(is_doomed).collect();
        if doomed.is_empty() && expired.is_empty() {
            return Ok(collected);
        }
        let Some(claim) = self.claim(name).await? else { return Ok(collected) };
        let removing = self.remove_old(&doomed, &expired, &mut collected);
        let removed = tokio::time::timeout(LEASE / 2, removing).await;
        let released = self.release(name, &claim).await;
        // What there was no time for is left to the next collector.
        removed.unwrap_or(Ok(()))?;
        released?;
        if collected != Collected::default() {
            let Collected { versions, objects, bytes } = collected;
            info!(dataset.name = %name, versions, objects, bytes, "Collected what dataset `{name}` no longer needs");
        }
        Ok(collected)
    }

    /// Takes versions beyond the newest `keep` out of the history; says how many.
    async fn expire(&self, current: &DatasetManifest, keep: NonZeroU32) -> Result<u64> {
        let name = &current.name;
        let mut versions = self.kept_versions(name).await?;
        let archived = versions.clone();
        if !versions.contains(&current.version) {
            versions.push(current.version);
            versions.sort_unstable_by(|a, b| b.cmp(a));
        }
        let kept = usize::try_from(keep.get()).unwrap_or(usize::MAX);
        let mut count = 0;
        for version in versions.into_iter().skip(kept) {
            if version == current.version || !archived.contains(&version) {
                continue;
            }
            let entry = keys::history_entry(name, version);
            let Some((bytes, _)) = self.store().read_manifest(&entry).await? else { continue };
            // Anew even where an interrupted run has left one: the grace period begins now.
            let expired = keys::expired_entry(name, version);
            self.store().put(&expired, bytes.into(), Condition::Always).await?;
            self.store().delete(&entry).await?;
            count += 1;
        }
        Ok(count)
    }

    /// The rows that must stay; `None` when that cannot be known because a manifest cannot be read.
    async fn named(&self, current: &DatasetManifest, expired: &[Listed]) -> Result<Option<HashSet<Key>>> {
        let name = &current.name;
        let over: HashSet<&Key> = expired.iter().map(|listed| &listed.key).collect();
        let mut manifests = self.store().list_all(&keys::history(name)).await?;
        manifests.extend(self.store().list_all(&keys::expired(name)).await?);
        manifests.retain(|listed| !over.contains(&listed.key));
        let keys: Vec<Key> = manifests.iter().map(|listed| listed.key.clone()).collect();
        let read = stream::iter(keys).map(|key| self.entry(key)).buffered(PARALLEL);
        let read: Vec<Option<Bytes>> = read.try_collect().await?;
        let mut named: HashSet<Key> = current.objects.iter().map(|object| object.key.clone()).collect();
        for (Listed { key, .. }, bytes) in manifests.iter().zip(read) {
            // Another collector has moved it since.
            let Some(bytes) = bytes else { return Ok(None) };
            match codec::decode(name, bytes) {
                Ok(manifest) => named.extend(manifest.objects.into_iter().map(|object| object.key)),
                Err(codec::Damage(message)) => {
                    warn!(dataset.name = %name, %key, "No rows of `{name}` are collected, since nobody knows which this names: {message}");
                    return Ok(None);
                }
            }
        }
        Ok(Some(named))
    }

    async fn entry(&self, key: Key) -> Result<Option<Bytes>> {
        Ok(self.store().read_manifest(&key).await?.map(|(bytes, _)| bytes))
    }

    /// What lies below `prefix` for longer than the grace period.
    async fn old_below(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = self.store().list_all(prefix).await?;
        listed.retain(|listed| is_older(&listed.meta, self.grace));
        Ok(listed)
    }

    /// Removes rows, and then the expired entries that named them.
    async fn remove_old(
        &self,
        doomed: &[Listed],
        expired: &[Listed],
        collected: &mut Collected,
    ) -> Result<()> {
        let is_old = |meta: &Meta| is_older(meta, self.grace);
        for Listed { key, .. } in doomed {
            if let Some(bytes) = self.remove_if(key, is_old).await? {
                collected.objects += 1;
                collected.bytes += bytes;
            }
        }
        for Listed { key, .. } in expired {
            self.remove_if(key, is_old).await?;
        }
        Ok(())
    }

    /// Removes an object as long as it is what `may_go` takes, and says how many bytes it had. It is looked at before each try, as it
    /// may have been written anew since the last look.
    async fn remove_if(&self, key: &Key, may_go: impl Fn(&Meta) -> bool) -> Result<Option<u64>> {
        let mut pauses = PAUSES.iter();
        let mut tried = None;
        loop {
            let size = match self.store().head(key).await {
                Ok(meta) if may_go(&meta) => meta.size,
                Ok(_) => return Ok(None),
                Err(StoreError::NotFound { .. }) => return Ok(tried),
                Err(error) => return Err(error.into()),
            };
            let error = match self.store().delete_once(key).await {
                Ok(()) => return Ok(Some(size)),
                Err(error) => error,
            };
            let pause = pauses.next().filter(|_| error.retry_helps()).ok_or(error)?;
            tried = Some(size);
            tokio::time::sleep(*pause).await;
        }
    }

    /// Makes this the one collector of the dataset, unless another one works on it; gives the mark of the claim.
    async fn claim(&self, name: &DatasetName) -> Result<Option<Etag>> {
        let key = keys::collecting(name);
        // A content of its own gives each claim a mark of its own.
        let mark = || Bytes::from(format!("{{\"collector\":\"{}\"}}\n", Uuid::new_v4())).into();
        let condition = match self.store().head(&key).await {
            Err(StoreError::NotFound { .. }) => Condition::Absent,
            Ok(meta) if is_older(&meta, LEASE) => Condition::Matches(meta.etag),
            Ok(_) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match self.store().put(&key, mark(), condition).await {
            Ok(mark) => Ok(Some(mark)),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets others collect, unless one of them has taken this one for dead and is at work.
    async fn release(&self, name: &DatasetName, mark: &Etag) -> Result<()> {
        self.remove_if(&keys::collecting(name), |meta| meta.etag == *mark).await?;
        Ok(())
    }
}

/// Whether an object was written longer ago than `age`.
pub(crate) fn is_older(meta: &Meta, age: Duration) -> bool {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    Timestamp::now().duration_since(meta.modified) > age
}

/// Whether the key is one of a file of rows, and not of something else below the dataset's prefix.
fn is_rows(name: &DatasetName, key: &Key) -> bool {
    let below = key.as_str().strip_prefix(&keys::dataset(name)).unwrap_or_default();
    !below.starts_with('_') && below.ends_with(".parquet")
}
