//! Where an ingest Job reads, with what its pod has mounted beside it.

use std::{collections::BTreeMap, fs, io, path::Path};

use bytes::Bytes;
use lakehouse_contract::job::JobSource;
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_source::{HeaderMap, Source};

use crate::source::{Secret, object};

/// The source. `mounted` holds the entries of its Secret, or those of its ConfigMap; without a Secret it is missing or empty.
pub(super) fn resolve(source: &JobSource, mounted: Option<&Path>) -> Result<Source, Failure> {
    match source {
        JobSource::Http { url, sha256 } => {
            let url = url.parse().map_err(|error| {
                Failure::new(Reason::InvalidSource, format!("spec.source.http.url: {error}"))
            })?;
            let headers = match secret(mounted)? {
                Some(secret) => secret.headers()?,
                None => HeaderMap::new(),
            };
            Ok(Source::Http { url, headers, sha256: sha256.clone() })
        }
        JobSource::S3 { bucket, key, endpoint, region } => {
            object(bucket, key, endpoint.as_deref(), region.as_deref(), secret(mounted)?.as_ref())
        }
        JobSource::ConfigMap { name, key } => {
            let missing =
                |why: String| Failure::new(Reason::SourceMissing, format!("the ConfigMap `{name}` {why}"));
            let folder = mounted.ok_or_else(|| missing("is not mounted".to_owned()))?;
            let content = fs::read(folder.join(key)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => missing(format!("has no entry `{key}`")),
                _ => missing(format!("cannot be read, entry `{key}`: {error}")),
            })?;
            Ok(Source::Text { name: format!("ConfigMap {name}, key {key}"), content: Bytes::from(content) })
        }
    }
}

/// The mounted entries; hidden ones are how kubelet swaps a Secret's versions.
fn secret(mounted: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let Some(folder) = mounted else { return Ok(None) };
    let failed = |error: io::Error| {
        let sentence = format!("the source's Secret in {} cannot be read: {error}", folder.display());
        Failure::new(Reason::SecretMissing, sentence)
    };
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut entries = BTreeMap::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.insert(name, fs::read(entry.path()).map_err(failed)?);
        }
    }
    Ok((!entries.is_empty()).then(|| Secret { named: "the source's Secret".to_owned(), entries }))
}
