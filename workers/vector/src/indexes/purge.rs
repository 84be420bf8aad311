//! Removing all of an index.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{IndexName, keys};
use lakehouse_store::{Condition, Error as StoreError, Listed, log::Log};
use uuid::Uuid;

use super::{Collected, Indexes};
use crate::{Error, Result, manifest::Kind, record};

/// How many objects are removed at the same time.
const PARALLEL: usize = 16;

impl Indexes {
    /// Removes everything of an index for ever.
    ///
    /// First its log is closed by a last record, which whoever writes must read before the next acknowledgement: no write is
    /// acknowledged and lost. Then the manifest goes, then the parts that were there before it went, so that an index that is made anew
    /// meanwhile keeps its own. What the log held is overwritten with nothing; its names go when they are an hour old, since a writer that
    /// slept must not take one of them for free. What an interrupted purge has left is removed by the next one; one that finds nothing is no
    /// error.
    pub async fn purge(&self, name: &IndexName) -> Result<Collected> {
        let mut parts = Vec::new();
        for prefix in [
            keys::index_history(name),
            keys::index_expired(name),
            keys::index_rejects(name),
            format!("{}/", keys::segments(name)),
        ] {
            parts.extend(self.store().list_all(&prefix).await?);
        }
        let mut purged = Collected::default();
        if let Some((log, index)) = self.used_log(name).await? {
            let closed = log.append(vec![record::close(index)]).await?;
            self.remove_manifest(name, &mut purged).await?;
            self.empty_log(name, &mut purged).await?;
            log.truncate_before(closed.end).await?;
        } else {
            self.remove_manifest(name, &mut purged).await?;
        }
        let removed = stream::iter(parts).map(async |Listed { key, meta }: Listed| {
            self.store().delete(&key).await?;
            Ok::<_, StoreError>(meta.size)
        });
        let mut removed = removed.buffer_unordered(PARALLEL);
        while let Some(bytes) = removed.try_next().await? {
            purged.objects += 1;
            purged.bytes += bytes;
        }
        Ok(purged)
    }

    /// The log of an index and which index that is, unless nobody ever wrote to it and nobody can.
    async fn used_log(&self, name: &IndexName) -> Result<Option<(Log, Uuid)>> {
        let prefix = format!("{}/", keys::index_log(name));
        let written = !self.store().list(&prefix, None, 1).await?.objects.is_empty();
        // A manifest that cannot be read may be that of an index that clients fill.
        let (pushed, index) = match self.manifest(name).await {
            Ok(Some(manifest)) => (manifest.kind == Kind::Pushed, manifest.id),
            Ok(None) => (false, Uuid::nil()),
            Err(Error::Damaged { .. }) => (true, Uuid::nil()),
            Err(error) => return Err(error),
        };
        if written || pushed { Ok(Some((self.log(name).await?, index))) } else { Ok(None) }
    }

    /// Empties all objects of a log but the last.
    async fn empty_log(&self, name: &IndexName, purged: &mut Collected) -> Result<()> {
        let mut objects = self.store().list_all(&format!("{}/", keys::index_log(name))).await?;
        objects.pop();
        for Listed { key, meta } in objects.into_iter().filter(|listed| listed.meta.size > 0) {
            self.store().put(&key, Bytes::new().into(), Condition::Always).await?;
            purged.objects += 1;
            purged.bytes += meta.size;
        }
        Ok(())
    }

    async fn remove_manifest(&self, name: &IndexName, purged: &mut Collected) -> Result<()> {
        let key = keys::index_manifest(name);
        match self.store().head(&key).await {
            Ok(meta) => {
                self.store().delete(&key).await?;
                purged.objects += 1;
                purged.bytes += meta.size;
                Ok(())
            }
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
