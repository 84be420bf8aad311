//! What the Datasets that this process runs say of requests that change their rows: uploads and rollbacks.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use lakehouse_contract::{DatasetName, ingest::IngestSpec};
use lakehouse_plan::{ReadyDataset, dataset::Source};

/// Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploads(Arc<RwLock<BTreeMap<DatasetName, Declared>>>);

/// A Dataset, and the file that fills it where there is one.
#[derive(Debug)]
struct Declared {
    dataset: ReadyDataset,
    file: Option<PathBuf>,
}

impl Uploads {
    /// Takes these Datasets in place of those before.
    pub(crate) fn set(&self, datasets: impl Iterator<Item = (ReadyDataset, Option<PathBuf>)>) {
        let declared =
            |(dataset, file): (ReadyDataset, _)| (dataset.name.clone(), Declared { dataset, file });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = datasets.map(declared).collect();
    }

    /// What an upload of `file_name` into `name` is asked for; `None` where no Dataset says anything.
    ///
    /// Fails with a sentence where the Dataset does not take uploads.
    pub(crate) fn spec(&self, name: &DatasetName, file_name: &str) -> Result<Option<IngestSpec>, String> {
        self.ask(name, |Declared { dataset, .. }| {
            if dataset.source != Source::Upload {
                return Err(format!(
                    "the Dataset `{name}` reads from {}; it takes no uploads",
                    dataset.source
                ));
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
        })
        .unwrap_or(Ok(None))
    }

    /// Fails with a sentence where a rollback would be undone at the next look at the Dataset.
    pub(crate) fn rollback(&self, name: &DatasetName) -> Result<(), String> {
        self.ask(name, |Declared { dataset, file }| match (dataset.pin, &dataset.source, file) {
            _ if dataset.suspend => Ok(()),
            (Some(version), _, _) => Err(format!(
                "the Dataset `{name}` is pinned to version {version}, so a rollback would be undone; change spec.version"
            )),
            (None, Source::Upload, None) => Ok(()),
            (None, Source::Upload, Some(file)) => Err(format!(
                "the dataset `{name}` is filled from {}, so a rollback would be undone; \
                 use spec.version of a Dataset to pin a version",
                file.display()
            )),
            (None, source, _) => Err(format!(
                "the Dataset `{name}` reads from {source}, so a rollback would be undone; use spec.version"
            )),
        })
        .unwrap_or(Ok(()))
    }

    /// How many versions the Dataset keeps, where one says so.
    pub(crate) fn keep(&self, name: &DatasetName) -> Option<NonZeroU32> {
        self.ask(name, |Declared { dataset, .. }| dataset.keep_versions)
    }

    fn ask<T>(&self, name: &DatasetName, question: impl FnOnce(&Declared) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).map(question)
    }
}

#[cfg(test)]
mod tests {
    use lakehouse_crds::{Dataset, DatasetSpec};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollback_that_would_be_undone_says_what_to_do_instead() {
        let sentence = |spec, file: Option<&str>| {
            let uploads = Uploads::default();
            uploads.set([(dataset(spec), file.map(PathBuf::from))].into_iter());
            uploads.rollback(&name()).err()
        };
        assert_eq!(sentence(json!({"source": {"upload": {}}}), None), None);
        let http = json!({"source": {"http": {"url": "http://host/a.csv"}}});
        let says = sentence(http, None).unwrap();
        assert!(
            says.contains("reads from http://host/a.csv") && says.ends_with("use spec.version"),
            "{says}"
        );
        let pinned = sentence(json!({"source": {"upload": {}}, "version": 2}), None).unwrap();
        assert!(pinned.contains("pinned to version 2"), "{pinned}");
        let filled = sentence(json!({"source": {"upload": {}}}), Some("data/sales.csv")).unwrap();
        assert!(filled.contains("filled from data/sales.csv"), "{filled}");
        assert_eq!(Uploads::default().rollback(&name()), Ok(()), "nobody says anything");
    }

    fn dataset(spec: serde_json::Value) -> ReadyDataset {
        let spec: DatasetSpec = serde_json::from_value(spec).unwrap();
        lakehouse_plan::check(&Dataset::new("sales", spec)).unwrap()
    }

    fn name() -> DatasetName {
        DatasetName::parse("sales").unwrap()
    }
}
