//! Changing the catalogue. Every change reads the current manifest, decides, and swaps it; a loser reads again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lakehouse_contract::{
    Column, DataObject, DatasetManifest, DatasetName,
    catalog::{RegisterAnswer, RegisterRequest},
    ingest::SchemaPolicy,
    keys,
};
use lakehouse_store::{Condition, Error as StoreError, Store};
use tokio::sync::broadcast;

use crate::{
    Error, Result,
    change::{self, Offer},
    codec,
    collect::GRACE,
    history::with_current,
    read::{Decoded, PARALLEL, Stored},
    schema,
};

/// How often a change is tried against other writers before the caller is told.
const TRIES: u32 = 32;

/// How many changes a slow listener may be behind before it is told that it has missed some.
const CHANGES_KEPT: usize = 1024;

/// The manifests of all datasets in a store. Cheap to clone; clones share what they read.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
    pub(crate) grace: Duration,
}

#[derive(Debug)]
pub(crate) struct Inner {
    store: Store,
    pub(crate) decoded: Mutex<Decoded>,
    changes: broadcast::Sender<DatasetName>,
}

impl Catalog {
    /// The catalogue that lies in `store`.
    pub fn new(store: Store) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let inner = Arc::new(Inner { store, decoded: Mutex::default(), changes });
        Self { inner, grace: GRACE }
    }

    /// Lets files and versions that nobody needs go after `grace` instead of [`GRACE`]. All who write to a store must say the same.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Names each dataset that a clone of this catalogue changes from now on. What other processes change is seen by reading.
    pub fn changes(&self) -> broadcast::Receiver<DatasetName> {
        self.inner.changes.subscribe()
    }

    pub(crate) fn tell(&self, name: &DatasetName) {
        // It fails when nobody listens.
        let _ = self.inner.changes.send(name.clone());
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Makes these objects the dataset's content, or adds them to it.
    ///
    /// The objects must lie in the store already. The same content again keeps its version and bumps `updated_at`;
    /// another content gets the next version, and the one before stays in the history.
    pub async fn register(&self, request: &RegisterRequest) -> Result<RegisterAnswer> {
        let offer = Offer::check(request)?;
        self.verify(&offer.objects).await?;
        let mut tries = Tries::new(&offer.name);
        loop {
            let stored = self.read(&offer.name).await?;
            let next = match &stored {
                None => change::first(&offer, self.highest_kept(&offer.name).await?, Timestamp::now())?,
                Some(stored) => {
                    let current = stored.healthy(&offer.name)?;
                    let retired = self.retired_columns(current, &offer.fingerprint).await?;
                    change::following(&offer, current, &retired, Timestamp::now())?
                }
            };
            if let Some(manifest) = self.publish(stored.as_ref(), next).await? {
                return Ok(RegisterAnswer {
                    existing: stored.is_some(),
                    manifest: Arc::unwrap_or_clone(manifest),
                });
            }
            tries.lost().await?;
        }
    }

    /// The columns as a register would record them now, with the field ids that the files should carry.
    ///
    /// Fails as that register would, so that an ingest can stop before it writes anything.
    pub async fn columns_for(
        &self,
        name: &DatasetName,
        schema: &[Column],
        policy: SchemaPolicy,
    ) -> Result<Vec<Column>> {
        if let Some(message) = schema::fault(schema) {
            return Err(Error::Invalid(message));
        }
        let Some(current) = self.get(name).await? else {
            return Ok(schema.to_vec());
        };
        let fingerprint = lakehouse_contract::dataset::schema_fingerprint(schema);
        let retired = self.retired_columns(&current, &fingerprint).await?;
        change::allowed_schema(name, schema, policy, &current, &retired)
    }

    /// Serves a kept version again: `version`, or the newest one before the current.
    ///
    /// This also repairs a damaged manifest, and brings back a dataset that was removed.
    pub async fn rollback(&self, name: &DatasetName, version: Option<u64>) -> Result<Arc<DatasetManifest>> {
        let mut tries = Tries::new(name);
        loop {
            let stored = self.read(name).await?;
            let current = stored.as_ref().and_then(|stored| stored.manifest.as_ref().ok());
            if let Some(current) = current.filter(|current| Some(current.version) == version) {
                return Ok(current.clone());
            }
            let kept = self.kept_versions(name).await?;
            if stored.is_none() && kept.is_empty() {
                return Err(Error::UnknownDataset(name.clone()));
            }
            let before = current.map_or(u64::MAX, |current| current.version);
            let found = match version {
                Some(version) => kept.iter().find(|kept| **kept == version),
                None => kept.iter().find(|kept| **kept < before),
            };
            let Some(&found) = found else {
                let kept = with_current(kept, current);
                return Err(Error::UnknownVersion { name: name.clone(), version, kept });
            };
            let target = match self.whole_version(name, found).await {
                Ok(target) => target,
                // Collected since it was listed: another look tells what is kept now.
                Err(Error::UnknownVersion { .. }) => {
                    tries.lost().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // The number of a damaged manifest is unknown; it may be the one after the last that was archived.
            let highest =
                kept.first().copied().unwrap_or(0) + u64::from(stored.is_some() && current.is_none());
            let latest = current.map_or(0, |current| current.latest_version).max(highest);
            let current = current.map(Arc::as_ref);
            let next =
                change::restored(&target, current, latest.max(target.latest_version), Timestamp::now());
            if let Some(manifest) = self.publish(stored.as_ref(), next).await? {
                return Ok(manifest);
            }
            tries.lost().await?;
        }
    }

    /// Takes the dataset out of the catalogue; says whether it was in it. Its history and its rows stay.
    ///
    /// Stores cannot delete on a condition: a register that runs at the same moment may be removed with the rest.
    pub async fn remove(&self, name: &DatasetName) -> Result<bool> {
        let stored = match self.read(name).await {
            Ok(None) => return Ok(false),
            Ok(stored) => stored,
            // A manifest that is damaged can at least be removed.
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(Stored { bytes, manifest: Ok(manifest), .. }) = stored {
            self.archive(&manifest, bytes).await?;
        }
        self.store().delete(&keys::manifest(name)).await?;
        self.tell(name);
        Ok(true)
    }

    /// Archives what is current and swaps it for `next`; `None` when somebody else was first.
    async fn publish(
        &self,
        stored: Option<&Stored>,
        next: DatasetManifest,
    ) -> Result<Option<Arc<DatasetManifest>>> {
        if let Some(Stored { bytes, manifest: Ok(current), .. }) = stored
            && current.version != next.version
        {
            self.archive(current, bytes.clone()).await?;
        }
        let seen = stored.map(|stored| stored.etag.clone());
        match self.store().swap_manifest(&keys::manifest(&next.name), seen, codec::encode(&next)).await {
            Ok(etag) => {
                let next = Arc::new(next);
                self.remember(&next.name, etag, Ok(next.clone()));
                self.tell(&next.name);
                Ok(Some(next))
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a manifest under its version, as the bytes that were current. One that is kept already stays as it is.
    async fn archive(&self, manifest: &DatasetManifest, bytes: bytes::Bytes) -> Result<()> {
        let key = keys::history_entry(&manifest.name, manifest.version);
        match self.store().put(&key, bytes.into(), Condition::Absent).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails with the first object that is not in the store as it is described.
    pub(crate) async fn verify(&self, objects: &[DataObject]) -> Result<()> {
        let verify = async |(index, object): (usize, &DataObject)| {
            let DataObject { key, size, rows: _, sha256: _ } = object;
            match self.store().head(key).await {
                Ok(meta) if meta.size == *size => Ok(()),
                Ok(meta) => {
                    let message = format!("`{key}` has {} bytes in the store and not {size}", meta.size);
                    Err(Error::Object { index, message })
                }
                Err(StoreError::NotFound { .. }) => {
                    let message =
                        format!("nothing is stored under `{key}`; data comes first, its registration last");
                    Err(Error::Object { index, message })
                }
                Err(error) => Err(error.into()),
            }
        };
        stream::iter(objects.iter().enumerate()).map(verify).buffered(PARALLEL).try_collect().await
    }

    /// Columns of versions above the current one, whose ids a new schema must respect.
    async fn retired_columns(&self, current: &DatasetManifest, fingerprint: &str) -> Result<Vec<Column>> {
        if current.version == current.latest_version || current.schema_fingerprint == fingerprint {
            return Ok(Vec::new());
        }
        let mut columns = Vec::new();
        for version in self.kept_versions(&current.name).await? {
            if version > current.version {
                match self.version(&current.name, version).await {
                    Ok(manifest) => columns.extend(manifest.schema),
                    // Collected since it was listed.
                    Err(Error::UnknownVersion { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(columns)
    }

    /// A kept version whose objects are all still there.
    async fn whole_version(&self, name: &DatasetName, version: u64) -> Result<DatasetManifest> {
        let manifest = self.version(name, version).await?;
        match self.verify(&manifest.objects).await {
            Ok(()) => Ok(manifest),
            Err(Error::Object { index, message }) => {
                let message = format!("version {version}: objects[{index}]: {message}");
                Err(Error::Damaged { name: name.clone(), message })
            }
            Err(error) => Err(error),
        }
    }
}

/// Counts lost races and waits a little longer after each.
struct Tries<'a> {
    name: &'a DatasetName,
    lost: u32,
}

impl<'a> Tries<'a> {
    fn new(name: &'a DatasetName) -> Self {
        Self { name, lost: 0 }
    }

    async fn lost(&mut self) -> Result<()> {
        self.lost += 1;
        if self.lost == TRIES {
            return Err(Error::Contended { name: self.name.clone(), tries: TRIES });
        }
        // Up to 4, 8, … 256 ms: writers that met once do not meet again.
        let longest = 4_u64 << self.lost.min(6);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..=longest))).await;
        Ok(())
    }
}
