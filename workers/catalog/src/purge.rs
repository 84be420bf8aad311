//! Removing all of a dataset.

use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{DatasetName, keys};
use lakehouse_store::{Error as StoreError, Listed};

use crate::{Catalog, Collected, Error, Result, read::PARALLEL};

/// How many objects are listed at a time.
const PAGE: usize = 1000;
/// How often a purge begins anew because others have published meanwhile.
const ROUNDS: u32 = 10;

impl Catalog {
    /// Removes everything of a dataset for ever: what is current, then its history, then its rows, then
    /// what is declared of it.
    ///
    /// What an interrupted purge has left is removed by the next one; one that finds nothing is no error. Nobody may write to the
    /// dataset meanwhile; an upload that had begun before is removed too, when it ends before the purge does.
    pub async fn purge(&self, name: &DatasetName) -> Result<Collected> {
        let mut purged = Collected::default();
        self.purge_current(name, &mut purged).await?;
        for _ in 0..ROUNDS {
            self.purge_rest(name, &mut purged).await?;
            // What was registered since the last look may name rows that have just gone.
            if !self.purge_current(name, &mut purged).await? {
                self.undeclare(name).await?;
                self.store().delete(&keys::collecting(name)).await?;
                return Ok(purged);
            }
        }
        Err(Error::Contended { name: name.clone(), tries: ROUNDS })
    }

    /// Removes what is current, where anything is. Without it no reader knows of the dataset any more, so none meets rows that are gone.
    async fn purge_current(&self, name: &DatasetName, purged: &mut Collected) -> Result<bool> {
        let key = keys::manifest(name);
        let found = match self.store().head(&key).await {
            Ok(meta) => {
                self.remove_all(vec![Listed { key, meta }], purged).await?;
                true
            }
            Err(StoreError::NotFound { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        self.tell(name);
        Ok(found)
    }

    /// Removes the history and the rows.
    async fn purge_rest(&self, name: &DatasetName, purged: &mut Collected) -> Result<()> {
        for prefix in [keys::history(name), keys::expired(name), keys::dataset(name)] {
            let mut more = true;
            while more {
                let page = self.store().list(&prefix, None, PAGE).await?;
                more = page.more;
                self.remove_all(page.objects, purged).await?;
            }
        }
        Ok(())
    }

    async fn remove_all(&self, listed: Vec<Listed>, purged: &mut Collected) -> Result<()> {
        let removed = stream::iter(listed).map(async |listed: Listed| {
            self.store().delete(&listed.key).await?;
            Ok::<_, StoreError>(listed.meta.size)
        });
        let mut removed = removed.buffer_unordered(PARALLEL);
        while let Some(bytes) = removed.try_next().await? {
            purged.objects += 1;
            purged.bytes += bytes;
        }
        Ok(())
    }
}
