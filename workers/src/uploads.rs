//! What Datasets say of requests that change their rows: uploads and rollbacks.
//!
//! `up` runs its Datasets itself. In a cluster the operator does, and leaves in the catalogue what uploads have to follow.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use lakehouse_catalog::{Catalog, Error as CatalogError};
use lakehouse_contract::{DatasetName, catalog::Declaration, ingest::IngestSpec};
use lakehouse_crds::Dataset;
use lakehouse_http::Problem;
use lakehouse_plan::{
    ReadyDataset, check,
    dataset::{Refusal, Source},
};
use serde_json::Value;

/// Where Datasets say it. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub(crate) enum Uploads {
    /// In this process, which runs them.
    Resident(Resident),
    /// In the catalogue, by who runs them elsewhere.
    Told(Catalog),
}

/// The Datasets that this process runs. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resident(Arc<RwLock<BTreeMap<DatasetName, Arc<Declared>>>>);

/// A Dataset, and the file that fills it where there is one.
#[derive(Debug)]
struct Declared {
    /// With the sentence of what is wrong with it.
    dataset: Result<ReadyDataset, String>,
    file: Option<PathBuf>,
}

impl Uploads {
    /// What an upload of `file_name` into `name` is asked for; `None` where no Dataset says anything.
    ///
    /// 409 where the Dataset does not take uploads; the store's failure where it cannot be known.
    pub(crate) async fn spec(
        &self,
        name: &DatasetName,
        file_name: &str,
    ) -> Result<Option<IngestSpec>, Problem> {
        let Some(declared) = self.of(name).await? else { return Ok(None) };
        declared.upload(name, file_name).map(Some).map_err(Problem::conflict)
    }

    /// Fails with a sentence where a rollback would be undone at the next look at the Dataset.
    pub(crate) fn rollback(&self, name: &DatasetName) -> Result<(), String> {
        match self {
            Self::Resident(resident) => resident.of(name).map_or(Ok(()), |declared| declared.rollback(name)),
            // Who runs the Datasets asks for rollbacks in this way, too.
            Self::Told(_) => Ok(()),
        }
    }

    /// How many versions the Dataset keeps, where one says so.
    pub(crate) async fn keep(&self, name: &DatasetName) -> Result<Option<NonZeroU32>, CatalogError> {
        let declared = self.of(name).await?;
        Ok(declared.and_then(|declared| Some(declared.dataset.as_ref().ok()?.keep_versions)))
    }

    async fn of(&self, name: &DatasetName) -> Result<Option<Arc<Declared>>, CatalogError> {
        Ok(match self {
            Self::Resident(resident) => resident.of(name),
            Self::Told(catalog) => {
                let told = catalog.declared(name).await?;
                told.map(|declaration| Arc::new(Declared::told(name, declaration)))
            }
        })
    }
}

impl Resident {
    /// Takes these Datasets, each with the file that fills it where there is one, in place of those before.
    pub(crate) fn set(
        &self,
        datasets: impl Iterator<Item = (DatasetName, Result<ReadyDataset, Refusal>, Option<PathBuf>)>,
    ) {
        let declared = datasets.map(|(name, checked, file)| {
            let dataset = checked.map_err(|refusal| refusal.to_string());
            (name, Arc::new(Declared { dataset, file }))
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = declared.collect();
    }

    fn of(&self, name: &DatasetName) -> Option<Arc<Declared>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Declared {
    fn told(name: &DatasetName, Declaration { spec }: Declaration) -> Self {
        let dataset = match serde_json::from_value(Value::Object(spec)) {
            Ok(spec) => check(&Dataset::new(name.as_str(), spec)).map_err(|refusal| refusal.to_string()),
            Err(error) => Err(format!("spec: {error}")),
        };
        Self { dataset, file: None }
    }

    fn upload(&self, name: &DatasetName, file_name: &str) -> Result<IngestSpec, String> {
        let dataset = match &self.dataset {
            Ok(dataset) => dataset,
            Err(refusal) => return Err(format!("the Dataset `{name}` has to be mended first: {refusal}")),
        };
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
        Ok(dataset.ingest_of(file_name))
    }

    fn rollback(&self, name: &DatasetName) -> Result<(), String> {
        // Nothing is done for a Dataset that is refused, so nothing undoes the rollback.
        let Ok(dataset) = &self.dataset else { return Ok(()) };
        match (dataset.pin, &dataset.source, &self.file) {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use lakehouse_contract::ColumnType;
    use lakehouse_store::Store;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollback_that_would_be_undone_says_what_to_do_instead() {
        let sentence =
            |spec, file: Option<&str>| resident(spec, file.map(PathBuf::from)).rollback(&name()).err();
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
        assert_eq!(Uploads::Resident(Resident::default()).rollback(&name()), Ok(()), "nobody says anything");
    }

    #[tokio::test]
    async fn a_dataset_means_the_same_wherever_it_is_declared() {
        let columns = json!({"source": {"upload": {}}, "columns": [{"name": "zip", "type": "string"}]});
        for uploads in both(columns.clone()).await {
            let spec = uploads.spec(&name(), "a.tsv").await.unwrap().unwrap();
            assert_eq!((spec.columns[0].column_type, spec.csv.delimiter), (ColumnType::String, '\t'));
            assert_eq!(uploads.keep(&name()).await.unwrap().map(NonZeroU32::get), Some(3));
            let other = DatasetName::parse("other").unwrap();
            assert_eq!(uploads.spec(&other, "").await.unwrap(), None);
            assert_eq!(uploads.keep(&other).await.unwrap(), None);
        }
        for (change, sentence) in [
            (json!({"source": {"http": {"url": "http://host/a.csv"}}}), "reads from http://host/a.csv"),
            (json!({"version": 2}), "is pinned to version 2"),
            (json!({"suspend": true}), "is suspended"),
            (json!({"csv": {"delimiter": "::"}}), "has to be mended first: spec.csv.delimiter"),
        ] {
            let mut spec = columns.clone();
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            for uploads in both(spec).await {
                let problem = uploads.spec(&name(), "").await.unwrap_err();
                assert_eq!(problem.status, StatusCode::CONFLICT);
                assert!(problem.message.contains(sentence), "{}", problem.message);
            }
        }
    }

    #[tokio::test]
    async fn a_declaration_that_cannot_be_understood_is_not_guessed() {
        let catalog = Catalog::new(Store::memory());
        let declaration: Declaration = serde_json::from_value(json!({"spec": {"columns": 1}})).unwrap();
        catalog.declare(&name(), &declaration).await.unwrap();
        let problem = Uploads::Told(catalog).spec(&name(), "").await.unwrap_err();
        assert_eq!(problem.status, StatusCode::CONFLICT);
        assert!(problem.message.contains("has to be mended first: spec: "), "{}", problem.message);
    }

    #[tokio::test]
    async fn a_bucket_that_fails_is_not_taken_for_one_that_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).await.unwrap();
        let declared = folder.path().join("_catalog/declared");
        std::fs::create_dir_all(&declared).unwrap();
        // A way that leads to itself: there is something, and it cannot be read.
        std::os::unix::fs::symlink("sales.json", declared.join("sales.json")).unwrap();
        let problem = Uploads::Told(Catalog::new(store)).spec(&name(), "").await.unwrap_err();
        assert_eq!(problem.status, StatusCode::BAD_GATEWAY, "{}", problem.message);
    }

    async fn both(spec: Value) -> [Uploads; 2] {
        let catalog = Catalog::new(Store::memory());
        let declaration: Declaration = serde_json::from_value(json!({ "spec": spec })).unwrap();
        catalog.declare(&name(), &declaration).await.unwrap();
        [resident(spec, None), Uploads::Told(catalog)]
    }

    fn resident(spec: Value, file: Option<PathBuf>) -> Uploads {
        let resident = Resident::default();
        let dataset = Dataset::new("sales", serde_json::from_value(spec).unwrap());
        resident.set([(name(), check(&dataset), file)].into_iter());
        Uploads::Resident(resident)
    }

    fn name() -> DatasetName {
        DatasetName::parse("sales").unwrap()
    }
}
