//! Earlier versions: archived when another one takes their place, and immutable from then on.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    catalog::{Damaged, HistoryAnswer},
    keys,
};
use lakehouse_store::{Error as StoreError, manifest};

use crate::{Catalog, Error, Result, codec, codec::Damage, read::PARALLEL};

impl Catalog {
    /// Every kept version of a dataset, the current one among them, newest first.
    pub async fn history(&self, name: &DatasetName) -> Result<HistoryAnswer> {
        let Some(current) = self.get(name).await? else {
            return Err(Error::UnknownDataset(name.clone()));
        };
        let kept = self.kept_versions(name).await?;
        let earlier = kept.into_iter().filter(|version| *version != current.version);
        let read = async |version| match self.version(name, version).await {
            Ok(manifest) => Ok(Some(Ok(manifest))),
            Err(Error::Damaged { message, .. }) => Ok(Some(Err(Damaged { name: name.to_string(), message }))),
            // Pruned since it was listed.
            Err(Error::UnknownVersion { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let read: Vec<_> = stream::iter(earlier)
            .map(read)
            .buffered(PARALLEL)
            .try_filter_map(|entry| async { Ok(entry) })
            .try_collect()
            .await?;
        let mut answer = HistoryAnswer {
            name: name.to_string(),
            current: current.version,
            versions: vec![DatasetManifest::clone(&current)],
            damaged: Vec::new(),
        };
        for entry in read {
            match entry {
                Ok(manifest) => answer.versions.push(manifest),
                Err(damaged) => answer.damaged.push(damaged),
            }
        }
        answer.versions.sort_by_key(|manifest| std::cmp::Reverse(manifest.version));
        Ok(answer)
    }

    /// One kept version of a dataset by its number: the current one, or one of the history. A dataset that was removed or whose
    /// current manifest is damaged still has its history.
    pub async fn get_version(&self, name: &DatasetName, version: u64) -> Result<Arc<DatasetManifest>> {
        let current = match self.get(name).await {
            Ok(current) => current,
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(current) = current.as_ref().filter(|current| current.version == version) {
            return Ok(current.clone());
        }
        // What was current meanwhile lies in the history already: it is archived before another takes its place.
        match self.version(name, version).await {
            Ok(found) => Ok(Arc::new(found)),
            Err(Error::UnknownVersion { .. }) => {
                let kept = with_current(self.kept_versions(name).await?, current.as_ref());
                if kept.is_empty() {
                    return Err(Error::UnknownDataset(name.clone()));
                }
                Err(Error::UnknownVersion { name: name.clone(), version: Some(version), kept })
            }
            Err(error) => Err(error),
        }
    }

    /// The versions in the history, newest first. The current one is among them when it was archived before.
    pub(crate) async fn kept_versions(&self, name: &DatasetName) -> Result<Vec<u64>> {
        let folder = keys::history(name);
        let version_of = |key: &str| key.strip_prefix(&folder)?.strip_suffix(".parquet")?.parse().ok();
        let listed = self.store().list_all(&folder).await?;
        let mut versions: Vec<u64> =
            listed.iter().filter_map(|entry| version_of(entry.key.as_str())).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(versions)
    }

    /// The highest version that the history holds, or 0.
    pub(crate) async fn highest_kept(&self, name: &DatasetName) -> Result<u64> {
        Ok(self.kept_versions(name).await?.first().copied().unwrap_or(0))
    }

    /// One version of the history.
    pub(crate) async fn version(&self, name: &DatasetName, version: u64) -> Result<DatasetManifest> {
        let damaged = |message: String| Error::Damaged {
            name: name.clone(),
            message: format!("version {version}: {message}"),
        };
        let object = self.store().get(&keys::history_entry(name, version), None).await;
        let bytes = match object {
            Ok(object) => object.bytes(manifest::MAX_BYTES).await,
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|error| match error {
            StoreError::NotFound { .. } => {
                Error::UnknownVersion { name: name.clone(), version: Some(version), kept: Vec::new() }
            }
            StoreError::TooLarge { .. } | StoreError::Damaged { .. } => damaged(error.to_string()),
            error => error.into(),
        })?;
        let found = codec::decode(name, bytes).map_err(|Damage(message)| damaged(message))?;
        if found.version != version {
            return Err(damaged(format!("it is version {}", found.version)));
        }
        Ok(found)
    }
}

/// The kept versions and the current one, newest first.
pub(crate) fn with_current(mut kept: Vec<u64>, current: Option<&Arc<DatasetManifest>>) -> Vec<u64> {
    if let Some(current) = current
        && !kept.contains(&current.version)
    {
        kept.push(current.version);
        kept.sort_unstable_by(|a, b| b.cmp(a));
    }
    kept
}
