//! Which specs uploads follow: those of the Datasets that wait for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use lakehouse_contract::{DatasetName, ingest::IngestSpec};
use lakehouse_plan::{ReadyDataset, dataset::Source};

/// Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploads(Arc<RwLock<BTreeMap<DatasetName, ReadyDataset>>>);

impl Uploads {
    /// Takes these Datasets in place of those before.
    pub(crate) fn set(&self, datasets: impl Iterator<Item = ReadyDataset>) {
        let datasets = datasets.map(|dataset| (dataset.name.clone(), dataset)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = datasets;
    }

    /// What an upload of `file_name` into `name` is asked for; `None` where no Dataset says anything.
    ///
    /// Fails with a sentence where the Dataset does not take uploads.
    pub(crate) fn spec(&self, name: &DatasetName, file_name: &str) -> Result<Option<IngestSpec>, String> {
        let datasets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(dataset) = datasets.get(name) else { return Ok(None) };
        if dataset.source != Source::Upload {
            return Err(format!("the Dataset `{name}` reads from {}; it takes no uploads", dataset.source));
        }
        if let Some(version) = dataset.pin {
            return Err(format!(
                "the Dataset `{name}` is pinned to version {version}; remove spec.version first"
            ));
        }
        if dataset.suspend {
            return Err(format!("the Dataset `{name}` is suspended; remove spec.suspend first"));
        }
        Ok(Some(dataset.ingest_of(file_name)))
    }
}
