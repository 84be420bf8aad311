//! Kept versions of datasets, which SQL names `"workers@3"`.
//!
//! Receives the names that the fence has found in a statement; hands on their manifests. A version's number names its content
//! for ever, but a dataset that was purged counts from 1 again: what was found is forgotten with each refresh, so a query
//! notices that as late as anything else that happens to the catalogue.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lakehouse_catalog::{Catalog, Error as CatalogError};
use lakehouse_contract::{DatasetManifest, DatasetName};
use tokio::sync::OnceCell;

use crate::Error;

/// A dataset and the number of one of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    pub(crate) dataset: DatasetName,
    pub(crate) number: u64,
}

impl Version {
    /// Reads `<dataset>@<number>`. No dataset has such a name, for none holds an `@`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (dataset, digits) = text.rsplit_once('@')?;
        let number: u64 = digits.parse().ok()?;
        // `a@03` and `a@+3` are other names than `a@3`, and name nothing.
        (number.to_string() == digits).then_some(Self { dataset: DatasetName::parse(dataset).ok()?, number })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.number)
    }
}

/// The manifests that were asked for since the last refresh.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    found: Mutex<HashMap<Version, Found>>,
}

/// Filled once, however many ask.
type Found = Arc<OnceCell<Arc<DatasetManifest>>>;

/// So many manifests are remembered at most.
const MOST: usize = 256;

impl Versions {
    /// The manifest of a version. Read once until the next refresh, however many ask.
    pub(crate) async fn find(
        &self,
        catalog: &Catalog,
        version: &Version,
    ) -> Result<Arc<DatasetManifest>, Error> {
        let place = self.place(version);
        let Version { dataset, number } = version;
        let found = place.get_or_try_init(|| catalog.get_version(dataset, *number)).await.cloned();
        found.map_err(|error| {
            self.found().retain(|_, other| other.initialized() || !Arc::ptr_eq(other, &place));
            match error {
                CatalogError::UnknownDataset(_) => {
                    Error::UnknownVersion { message: error.to_string(), kept: Vec::new() }
                }
                CatalogError::UnknownVersion { ref kept, .. } => {
                    Error::UnknownVersion { message: error.to_string(), kept: kept.clone() }
                }
                error => Error::Dataset { dataset: version.to_string(), message: error.to_string() },
            }
        })
    }

    /// Lets the next query look anew. Those that run keep what they have.
    pub(crate) fn forget(&self) {
        self.found().clear();
    }

    fn place(&self, version: &Version) -> Found {
        let mut found = self.found();
        if found.len() >= MOST && !found.contains_key(version) {
            found.clear();
        }
        found.entry(version.clone()).or_default().clone()
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Version, Found>> {
        // The map is whole between any two statements that hold the lock.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_name_and_its_number() {
        let version = Version::parse("us-airports.v2@17").unwrap();
        assert_eq!((version.dataset.as_str(), version.number), ("us-airports.v2", 17));
        assert_eq!(version.to_string(), "us-airports.v2@17");
        for text in [
            "a",
            "a@",
            "@3",
            "a@x",
            "a@03",
            "a@+3",
            "a@-3",
            "a@3 ",
            "a b@3",
            "a@1@2",
            "a@18446744073709551616",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn what_was_found_stays_bounded() {
        let versions = Versions::default();
        for number in 0..1000 {
            versions.place(&Version { dataset: DatasetName::parse("a").unwrap(), number });
        }
        assert!(versions.found().len() <= MOST);
    }
}
