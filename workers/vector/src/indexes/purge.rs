//! Removing all of an index, and nothing of the next one that has its name.
//!
//! ```text
//! manifest ─► mark (not cleared) ─► its parts go, its records are blanked ─► mark (cleared) ─► the next index's manifest
//! ```
//! Each arrow that leads to or from the mark is a compare-and-set, so of any number of purges only one ends an index, and one that comes
//! late finds another name plate than it saw. The mark stays, since no store can remove an object only if it is still the same.

use std::{collections::HashSet, sync::OnceLock};

use bytes::Bytes;
use futures::{TryStreamExt, future::try_join_all};
use lakehouse_contract::{IndexName, Key, keys};
use lakehouse_store::{Condition, Error as StoreError, Etag, Listed, log::Log};
use uuid::Uuid;

use super::{Collected, Indexes, retried};
use crate::{
    Result,
    manifest::{self, Kind, Removed},
    record::{self, Record},
};

/// How many objects are removed at the same time; the name is looked at before each lot.
const PARALLEL: usize = 16;

/// A name that an index may take.
pub(super) struct Vacant {
    /// What lies there.
    pub(super) seen: Option<Etag>,
}

impl Indexes {
    /// Removes everything of an index for ever.
    ///
    /// First its log is closed by a last record, which whoever writes must read before the next acknowledgement: no write is
    /// acknowledged and lost. Then a mark takes the manifest's place. What the log held is overwritten with nothing; its names go when they
    /// are an hour old, since a writer that slept must not take one of them for free. What an interrupted purge has left is removed by the
    /// next one, or by who makes an index of that name; one that finds nothing is no error.
    pub async fn purge(&self, name: &IndexName) -> Result<Collected> {
        self.purge_of(name, OnceLock::new()).await
    }

    /// Removes this index, and not one that has taken its name since.
    pub(crate) async fn purge_only(&self, name: &IndexName, index: Uuid) -> Result<Collected> {
        self.purge_of(name, index.into()).await
    }

    /// Which index is meant stands fast with the first look, whatever others do before the next one; nil where it cannot be told.
    async fn purge_of(&self, name: &IndexName, meant: OnceLock<Uuid>) -> Result<Collected> {
        retried(name, async || {
            let mut purged = Collected::default();
            let key = keys::index_manifest(name);
            let there = self.store().read_manifest(&key).await?;
            let known = there.as_ref().and_then(|(bytes, _)| manifest::decode(name, bytes).ok());
            let index = known.as_ref().map_or_else(Uuid::nil, |known| known.id);
            let is_meant = *meant.get_or_init(|| index) == index;
            let (removed, etag) = match there {
                None => {
                    if self.store().list(&keys::index(name), None, 1).await?.objects.is_empty() {
                        return Ok(Some(purged));
                    }
                    let removed = ended_at(self.known_end(name).await?);
                    let Some(etag) = self.put_mark(name, None, &removed).await? else { return Ok(None) };
                    (removed, etag)
                }
                Some((bytes, etag)) => match manifest::decode_removed(&bytes) {
                    Some(removed) => (removed, etag),
                    None if !is_meant => return Ok(Some(purged)),
                    None => {
                        let log_until = match known {
                            Some(known) if known.kind == Kind::Built => self.known_end(name).await?,
                            Some(_) => self.close(&self.log(name).await?, index).await?,
                            None => match self.close_unknown(name, &etag).await? {
                                Some(end) => end,
                                None => return Ok(None),
                            },
                        };
                        let removed = ended_at(log_until);
                        let Some(etag) = self.put_mark(name, Some(etag), &removed).await? else {
                            return Ok(None);
                        };
                        (purged.objects, purged.bytes) = (1, bytes.len() as u64);
                        (removed, etag)
                    }
                },
            };
            if !removed.cleared {
                self.clear(name, removed, etag, &HashSet::new(), &mut purged).await?;
            }
            Ok(Some(purged))
        })
        .await
    }

    /// A name that no index has; `None` where one has it. What is left of an earlier one goes first, but for what the next one brings.
    pub(super) async fn vacant(&self, name: &IndexName, own: &HashSet<Key>) -> Result<Option<Vacant>> {
        let Some((bytes, etag)) = self.store().read_manifest(&keys::index_manifest(name)).await? else {
            return Ok(Some(Vacant { seen: None }));
        };
        let Some(removed) = manifest::decode_removed(&bytes) else { return Ok(None) };
        if removed.cleared {
            return Ok(Some(Vacant { seen: Some(etag) }));
        }
        let cleared = self.clear(name, removed, etag, own, &mut Collected::default()).await?;
        Ok(cleared.map(|etag| Vacant { seen: Some(etag) }))
    }

    /// Removes what is left of an index that has ended, and notes so in its mark. Gives the new one, or nothing where somebody else was first:
    /// then he has removed it.
    async fn clear(
        &self,
        name: &IndexName,
        removed: Removed,
        seen: Etag,
        spared: &HashSet<Key>,
        purged: &mut Collected,
    ) -> Result<Option<Etag>> {
        let mut parts = Vec::new();
        for prefix in [
            keys::index_history(name),
            keys::index_expired(name),
            keys::index_rejects(name),
            format!("{}/", keys::segments(name)),
        ] {
            parts.extend(self.store().list_all(&prefix).await?);
        }
        parts.retain(|listed| !spared.contains(&listed.key));
        for lot in parts.chunks(PARALLEL) {
            // Histories and lists of rejects have names that the next index uses too.
            if self.mark(name).await?.as_ref() != Some(&seen) {
                return Ok(None);
            }
            try_join_all(lot.iter().map(|listed| self.store().delete(&listed.key))).await?;
            purged.objects += lot.len() as u64;
            purged.bytes += lot.iter().map(|listed| listed.meta.size).sum::<u64>();
        }
        self.blank(name, removed.log_until, purged).await?;
        self.put_mark(name, Some(seen), &Removed { cleared: true, ..removed }).await
    }

    /// Overwrites the objects of a log that begin before a record.
    async fn blank(&self, name: &IndexName, until: u64, purged: &mut Collected) -> Result<()> {
        let prefix = format!("{}/", keys::index_log(name));
        let objects = self.store().list_all(&prefix).await?;
        let first = |key: &Key| key.as_str().strip_prefix(&prefix)?.parse::<u64>().ok();
        let old = |listed: &&Listed| first(&listed.key).is_some_and(|first| first < until);
        for Listed { key, meta } in objects.iter().filter(old).filter(|listed| listed.meta.size > 0) {
            self.store().put(key, Bytes::new().into(), Condition::Always).await?;
            purged.objects += 1;
            purged.bytes += meta.size;
        }
        if !objects.is_empty() {
            self.log(name).await?.truncate_before(until).await?;
        }
        Ok(())
    }

    /// Ends an index for all who write to it. Gives the number of the record that says so.
    async fn close(&self, log: &Log, index: Uuid) -> Result<u64> {
        Ok(log.append(vec![record::close(index)]).await?.start)
    }

    /// The last record of a log that nobody writes to any more. It stays, since it says where the log ends.
    async fn known_end(&self, name: &IndexName) -> Result<u64> {
        Ok(self.log(name).await?.next().await?.saturating_sub(1))
    }

    /// Ends an index whose manifest cannot be read, which may be one that clients fill: the log's last record says which. `None` where the
    /// manifest is another one by now.
    async fn close_unknown(&self, name: &IndexName, seen: &Etag) -> Result<Option<u64>> {
        let log = self.log(name).await?;
        let next = log.next().await?;
        let last = match next.checked_sub(1) {
            None => None,
            Some(last) => match log.read_from(last).try_next().await {
                Ok(last) => last,
                Err(StoreError::Damaged { .. } | StoreError::Gone { .. }) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let index = last.and_then(|last| Record::decode(last.content).ok()).map(|record| record.index);
        // So long as this is there, the last record cannot be that of a next index.
        if self.mark(name).await?.as_ref() != Some(seen) {
            return Ok(None);
        }
        match index {
            Some(index) => self.close(&log, index).await.map(Some),
            None => Ok(Some(next.saturating_sub(1))),
        }
    }

    /// Swaps what lies under a name for the mark of an index that was removed; `None` when somebody else was first.
    async fn put_mark(
        &self,
        name: &IndexName,
        seen: Option<Etag>,
        removed: &Removed,
    ) -> Result<Option<Etag>> {
        let bytes = manifest::encode_removed(removed);
        match self.store().swap_manifest(&keys::index_manifest(name), seen, bytes).await {
            Ok(etag) => Ok(Some(etag)),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn ended_at(log_until: u64) -> Removed {
    Removed { mark: Uuid::new_v4(), log_until, cleared: false }
}
