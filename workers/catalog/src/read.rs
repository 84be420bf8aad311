//! Reading current manifests: decoded once for each content, and never ahead of the store.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{DatasetManifest, DatasetName, catalog::Damaged, keys};
use lakehouse_store::{Error as StoreError, Etag, Listed};

use crate::{Catalog, Error, Result, codec, codec::Damage};

/// How many manifests are fetched at once.
pub(crate) const PARALLEL: usize = 16;

/// Every dataset that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By name.
    pub datasets: Vec<Arc<DatasetManifest>>,
    /// Manifests that cannot be read, by name; each hides only its own dataset.
    pub damaged: Vec<Damaged>,
}

/// A current manifest as it lies in the store.
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) etag: Etag,
    pub(crate) manifest: Result<Arc<DatasetManifest>, Damage>,
}

impl Stored {
    /// The manifest, or the error that names its dataset.
    pub(crate) fn healthy(&self, name: &DatasetName) -> Result<&Arc<DatasetManifest>> {
        self.manifest
            .as_ref()
            .map_err(|Damage(message)| Error::Damaged { name: name.clone(), message: message.clone() })
    }
}

/// What was made of a content, by the mark that the store gives it.
pub(crate) type Decoded = HashMap<DatasetName, (Etag, Result<Arc<DatasetManifest>, Damage>)>;

impl Catalog {
    /// The current manifest of a dataset, or `None` when there is no such dataset.
    pub async fn get(&self, name: &DatasetName) -> Result<Option<Arc<DatasetManifest>>> {
        match self.read(name).await? {
            Some(stored) => Ok(Some(stored.healthy(name)?.clone())),
            None => Ok(None),
        }
    }

    /// Every dataset's current manifest. Costs one listing, and one read for each manifest that changed since the last one.
    pub async fn list(&self) -> Result<Listing> {
        let listed = self.store().list_all(keys::MANIFESTS).await?;
        let found: Vec<_> = stream::iter(listed)
            .map(|listed| self.listed(listed))
            .buffer_unordered(PARALLEL)
            .try_filter_map(|entry| async { Ok(entry) })
            .try_collect()
            .await?;
        let mut listing = Listing::default();
        for entry in found {
            match entry {
                Ok(manifest) => listing.datasets.push(manifest),
                Err(damaged) => listing.damaged.push(damaged),
            }
        }
        listing.datasets.sort_by(|a, b| a.name.cmp(&b.name));
        listing.damaged.sort_by(|a, b| a.name.cmp(&b.name));
        self.forget_all_but(&listing);
        Ok(listing)
    }

    /// The current manifest and its mark, fresh from the store.
    pub(crate) async fn read(&self, name: &DatasetName) -> Result<Option<Stored>> {
        match self.store().read_manifest(&keys::manifest(name)).await {
            Ok(None) => Ok(None),
            Ok(Some((bytes, etag))) => {
                let manifest = self.decoded(name, &etag, &bytes);
                Ok(Some(Stored { bytes, etag, manifest }))
            }
            // What the store gives is no manifest; what it fails to give says nothing about the manifest.
            Err(error @ (StoreError::TooLarge { .. } | StoreError::Damaged { .. })) => {
                Err(Error::Damaged { name: name.clone(), message: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One entry of the listing; `None` when it was removed in the meantime.
    async fn listed(&self, listed: Listed) -> Result<Option<Result<Arc<DatasetManifest>, Damaged>>> {
        let Listed { key, meta } = listed;
        let Some(name) = keys::dataset_of_manifest(key.as_str()) else {
            let name = key.as_str().strip_prefix(keys::MANIFESTS).unwrap_or(key.as_str()).to_owned();
            let message = format!("`{key}` is not `{}<dataset>.parquet`", keys::MANIFESTS);
            return Ok(Some(Err(Damaged { name, message })));
        };
        let known = self.known(&name, &meta.etag);
        let manifest = match known {
            Some(manifest) => manifest,
            None => match self.read(&name).await {
                Ok(None) => return Ok(None),
                Ok(Some(stored)) => stored.manifest,
                Err(Error::Damaged { message, .. }) => Err(Damage(message)),
                Err(error) => return Err(error),
            },
        };
        Ok(Some(manifest.map_err(|Damage(message)| Damaged { name: name.to_string(), message })))
    }

    fn decoded(
        &self,
        name: &DatasetName,
        etag: &Etag,
        bytes: &Bytes,
    ) -> Result<Arc<DatasetManifest>, Damage> {
        if let Some(known) = self.known(name, etag) {
            return known;
        }
        let manifest = codec::decode(name, bytes.clone()).map(Arc::new);
        self.remember(name, etag.clone(), manifest.clone());
        manifest
    }

    /// What was made of this content of the dataset's manifest, if it was read before.
    fn known(&self, name: &DatasetName, etag: &Etag) -> Option<Result<Arc<DatasetManifest>, Damage>> {
        let known = self.inner.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(seen, _)| seen == etag).map(|(_, manifest)| manifest.clone())
    }

    pub(crate) fn remember(
        &self,
        name: &DatasetName,
        etag: Etag,
        manifest: Result<Arc<DatasetManifest>, Damage>,
    ) {
        let mut known = self.inner.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.clone(), (etag, manifest));
    }

    /// Lets go of datasets that are gone. One that was made since the listing is only read once more.
    fn forget_all_but(&self, listing: &Listing) {
        let here: HashSet<&str> = listing.datasets.iter().map(|manifest| manifest.name.as_str()).collect();
        let damaged: HashSet<&str> = listing.damaged.iter().map(|damaged| damaged.name.as_str()).collect();
        let mut known = self.inner.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| here.contains(name.as_str()) || damaged.contains(name.as_str()));
    }
}
