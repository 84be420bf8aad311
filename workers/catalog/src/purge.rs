//! Removing all of a dataset.

use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{DatasetName, keys};
use lakehouse_store::{Error as StoreError, Listed};

use crate::{Catalog, Collected, Result, read::PARALLEL};

/// How many objects are listed at a time.
const PAGE: usize = 1000;

impl Catalog {
    /// Removes everything of a dataset for ever: what is current, then its history, then its rows, then
    /// what is declared of it.
    ///
    /// What an interrupted purge has left is removed by the next one; one that finds nothing is no error. Nobody may write to the
    /// dataset meanwhile.
    pub async fn purge(&self, name: &DatasetName) -> Result<Collected> {
        let mut purged = Collected::default();
        let current = keys::manifest(name);
        match self.store().head(&current).await {
            // Without it no reader knows of the dataset any more, so none meets rows that are gone.
            Ok(meta) => self.remove_all(vec![Listed { key: current, meta }], &mut purged).await?,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.tell(name);
        for prefix in [keys::history(name), keys::expired(name), keys::dataset(name)] {
            let mut more = true;
            while more {
                let page = self.store().list(&prefix, None, PAGE).await?;
                more = page.more;
                self.remove_all(page.objects, &mut purged).await?;
            }
        }
        self.undeclare(name).await?;
        self.store().delete(&keys::collecting(name)).await?;
        Ok(purged)
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
