//! Removing versions that are no longer kept, and parts and lists of rejects that no version names.
//!
//! ```text
//! history entry ─► expired entry ─► (a grace period later) its parts, then itself
//! ```
//! No two parts are equal, so what nobody names will never be named again, unless whoever wrote it is just about to: he must do so
//! within half of the grace period. A version that expires keeps its parts for another one, so that a rollback that has begun can end.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{IndexName, Key, keys};
use lakehouse_store::{Condition, Error as StoreError, Listed};
use tracing::{info, warn};

use super::{Indexes, part_key, with};
use crate::{
    Result,
    indexes::{DEAD, SEGMENT},
    manifest::{self, Manifest, SegmentEntry},
};

/// So long what nobody names stays in the store.
pub const GRACE: Duration = Duration::from_hours(24);

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Versions that are no longer kept. Their parts follow after the grace period.
    pub versions: u64,
    /// Objects that were removed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Indexes {
    /// Keeps the newest `keep` versions of an index and the current one, and removes the parts that no version needs any more.
    pub async fn collect(&self, name: &IndexName, keep: NonZeroU32) -> Result<Collected> {
        // What is listed before the manifest is read, and is old, was named by it or by nobody.
        let mut parts = self.store().list_all(&format!("{}/", keys::segments(name))).await?;
        parts.extend(self.store().list_all(&keys::index_rejects(name)).await?);
        parts.retain(|listed| self.is_old(listed));
        let Some(current) = self.manifest(name).await? else { return Ok(Collected::default()) };
        let mut collected =
            Collected { versions: self.expire(&current, keep).await?, ..Collected::default() };
        let expired = self.store().list_all(&keys::index_expired(name)).await?;
        let (over, fresh): (Vec<Listed>, Vec<Listed>) =
            expired.into_iter().partition(|listed| self.is_old(listed));
        let Some(named) = self.named(&current, &fresh).await? else { return Ok(collected) };
        for listed in parts.into_iter().filter(|listed| !named.contains(&listed.key)) {
            if self.was_written_again(name, &listed).await? {
                continue;
            }
            self.store().delete(&listed.key).await?;
            collected.objects += 1;
            collected.bytes += listed.meta.size;
        }
        for listed in over {
            self.store().delete(&listed.key).await?;
        }
        if collected != Collected::default() {
            let Collected { versions, objects, bytes } = collected;
            info!(index.name = %name, versions, objects, bytes, "Collected what index `{name}` no longer needs");
        }
        Ok(collected)
    }

    /// Takes versions beyond the newest `keep` out of the history; says how many.
    async fn expire(&self, current: &Manifest, keep: NonZeroU32) -> Result<u64> {
        let name = &current.name;
        let archived = self.versions(name).await?;
        let kept = usize::try_from(keep.get()).unwrap_or(usize::MAX);
        let mut count = 0;
        for version in with(archived.clone(), current.version).into_iter().skip(kept) {
            let entry = keys::index_version(name, version);
            if version == current.version || !archived.contains(&version) {
                continue;
            }
            let Some((bytes, _)) = self.store().read_manifest(&entry).await? else { continue };
            // Anew even where an interrupted run has left one: the grace period begins now.
            let expired = keys::index_expired_entry(name, version);
            self.store().put(&expired, bytes.into(), Condition::Always).await?;
            self.store().delete(&entry).await?;
            count += 1;
        }
        Ok(count)
    }

    /// The parts that must stay; `None` when that cannot be known because a manifest cannot be read.
    async fn named(&self, current: &Manifest, fresh: &[Listed]) -> Result<Option<HashSet<Key>>> {
        let name = &current.name;
        let mut named: HashSet<Key> = parts_of(current).collect();
        let history = self.store().list_all(&keys::index_history(name)).await?;
        for Listed { key, .. } in history.iter().chain(fresh) {
            // Another collector has moved it since.
            let Some((bytes, _)) = self.store().read_manifest(key).await? else { return Ok(None) };
            match manifest::decode(name, &bytes) {
                Ok(manifest) => named.extend(parts_of(&manifest)),
                Err(message) => {
                    warn!(index.name = %name, %key, "No parts of `{name}` are collected, since nobody knows which this names: {message}");
                    return Ok(None);
                }
            }
        }
        Ok(Some(named))
    }

    /// Whether a build has put a list of rejects under the name of an earlier one since: it is named by the build's inputs.
    async fn was_written_again(&self, name: &IndexName, listed: &Listed) -> Result<bool> {
        if !listed.key.as_str().starts_with(&keys::index_rejects(name)) {
            return Ok(false);
        }
        match self.store().head(&listed.key).await {
            Ok(meta) => Ok(meta.modified != listed.meta.modified),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn is_old(&self, listed: &Listed) -> bool {
        let grace = SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX);
        Timestamp::now().duration_since(listed.meta.modified) > grace
    }
}

/// The keys of everything that a manifest names.
pub(super) fn parts_of(manifest: &Manifest) -> impl Iterator<Item = Key> {
    let name = &manifest.name;
    let parts = manifest.segments.iter().flat_map(|SegmentEntry { sha256, dead, .. }| {
        let dead = dead.as_ref().map(|dead| part_key(name, &dead.sha256, DEAD));
        [Some(part_key(name, sha256, SEGMENT)), dead].into_iter().flatten()
    });
    parts.chain(manifest.source.as_ref().map(|from| keys::index_rejects_of(name, &from.inputs)))
}
