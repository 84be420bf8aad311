//! One run over a dataset's source: whether it has changed, the way of its rows into the store, and what may go afterwards.
//!
//! `up` and the ingest Job both execute their plan with it, so that a Dataset means the same on a laptop and in a cluster.

use std::{num::NonZeroU32, sync::Arc};

use lakehouse_catalog::{Catalog, Error as CatalogError};
use lakehouse_contract::{
    DatasetManifest, DatasetName, Origin,
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
            .filter(|origin| names_content(origin, source))
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

/// Whether the digest of the last reading names the content of this source, too.
///
/// A SHA-256 does, wherever the content lies. A server's entity tag means something at its own address alone, of which a status
/// leaves the query out; and it cannot keep the promise that a spec makes with a SHA-256.
fn names_content(origin: &Origin, source: &Source) -> bool {
    let (promised, address_is_whole) = match source {
        Source::Http { url, sha256, .. } => (sha256.as_deref(), url.query().is_none()),
        Source::File(_) | Source::Text { .. } | Source::S3 { .. } => (None, true),
    };
    match origin.source_digest.strip_prefix("sha256:") {
        Some(content) => promised.is_none_or(|promised| promised == content),
        None => promised.is_none() && address_is_whole && origin.source == source.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use lakehouse_source::HeaderMap;

    #[test]
    fn an_entity_tag_names_a_content_at_its_own_address_alone() {
        let at = |url: &str| http(url, None);
        let read = origin("http://a/rows.csv", "\"v1\"");
        assert!(names_content(&read, &at("http://a/rows.csv")));
        assert!(!names_content(&read, &at("http://b/rows.csv")), "another server counts for itself");
        let signed = origin("http://a/rows.csv?…", "\"v1\"");
        assert!(
            !names_content(&signed, &at("http://a/rows.csv?page=2")),
            "nobody knows which query that was"
        );
    }

    #[test]
    fn a_hash_names_a_content_wherever_it_lies() {
        let read = origin("http://a/rows.csv", &format!("sha256:{}", "a".repeat(64)));
        assert!(names_content(&read, &http("http://b/other.csv?x=1", None)));
        assert!(names_content(&read, &http("http://a/rows.csv", Some('a'))));
        assert!(!names_content(&read, &http("http://a/rows.csv", Some('b'))), "the promise is checked");
    }

    #[test]
    fn a_promised_hash_is_not_kept_by_an_entity_tag() {
        let read = origin("http://a/rows.csv", "\"v1\"");
        assert!(!names_content(&read, &http("http://a/rows.csv", Some('a'))));
    }

    fn origin(source: &str, digest: &str) -> Origin {
        Origin { source: source.to_owned(), source_digest: digest.to_owned(), ..Origin::default() }
    }

    fn http(url: &str, promised: Option<char>) -> Source {
        let sha256 = promised.map(|digit| digit.to_string().repeat(64));
        Source::Http { url: url.parse().unwrap(), headers: HeaderMap::new(), sha256 }
    }
}
