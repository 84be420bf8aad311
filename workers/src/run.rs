//! One run over a dataset's source: whether it has changed, the way of its rows into the store, and what may go afterwards.
//!
//! `up` and the ingest Job both execute their plan with it, so that a Dataset means the same on a laptop and in a cluster.

use std::{num::NonZeroU32, sync::Arc};

use lakehouse_catalog::{Catalog, Error as CatalogError};
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    ingest::{IngestAnswer, IngestSpec},
};
use lakehouse_ingest::{Options, SourceInfo, Tracker};
use lakehouse_plan::{human, status::Failure};
use lakehouse_source::{Local, Reader, Reading, Source};

use crate::failure;

/// What runs work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) catalog: Catalog,
    pub(crate) reader: Reader,
    /// What one ingest may use.
    pub(crate) options: Options,
}

impl Runner {
    /// The newest version, served again where a pin or a rollback had put another one in its place.
    pub(crate) async fn newest(&self, name: &DatasetName) -> Result<Option<Arc<DatasetManifest>>, Failure> {
        let manifest = self.catalog.get(name).await.map_err(|error| failure::of_catalog(&error))?;
        match manifest {
            Some(manifest) if manifest.version < manifest.latest_version => {
                match self.catalog.rollback(name, Some(manifest.latest_version)).await {
                    Ok(newest) => Ok(Some(newest)),
                    // It is not kept any more; the source has the rows.
                    Err(CatalogError::UnknownVersion { .. }) => Ok(Some(manifest)),
                    Err(error) => Err(failure::of_catalog(&error)),
                }
            }
            manifest => Ok(manifest),
        }
    }

    /// Brings the source here, unless `newest` was made from what it still is, in the way that `spec` says.
    pub(crate) async fn read(
        &self,
        source: &Source,
        spec: &IngestSpec,
        newest: Option<&DatasetManifest>,
        tracker: &Tracker,
    ) -> Result<Reading, Failure> {
        // A digest that was read for other options says nothing about these.
        let seen = newest
            .and_then(|manifest| manifest.origin.as_ref())
            .filter(|origin| origin.inputs == spec.inputs_digest(&origin.source_digest))
            .map(|origin| origin.source_digest.as_str());
        let copied = |bytes, total: Option<u64>| tracker.fetched(bytes, total);
        Box::pin(self.reader.read(source, seen, &copied)).await.map_err(|error| failure::of_source(&error))
    }

    /// Makes what was read the dataset's next version.
    pub(crate) async fn ingest(
        &self,
        source: &Source,
        local: &Local,
        spec: &IngestSpec,
        tracker: &Tracker,
    ) -> Result<IngestAnswer, Failure> {
        let info = SourceInfo { source: source.to_string(), digest: local.digest.clone() };
        let work = lakehouse_ingest::ingest(&self.catalog, &local.path, spec, info, tracker, &self.options);
        Box::pin(work).await.map_err(|error| failure::of_ingest(&error))
    }
}

/// Lets go of versions beyond the newest `keep`. What cannot be removed now is removed after the next run.
pub(crate) async fn collect(catalog: &Catalog, name: &DatasetName, keep: NonZeroU32) {
    if let Err(error) = Box::pin(catalog.collect(name, keep)).await {
        tracing::warn!(dataset.name = %name, %error, "Old versions of dataset `{name}` stay for now");
    }
}

/// What a status tells of an ingest that ended well.
pub(crate) fn told(answer: &IngestAnswer) -> String {
    let IngestAnswer { version, rows, unchanged, .. } = answer;
    let rows = human::rows(*rows);
    if *unchanged {
        format!("The source still gives the {rows} of version {version}.")
    } else {
        format!("Version {version} was published with {rows}.")
    }
}
