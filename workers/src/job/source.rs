//! Where an ingest Job reads, with what its pod has mounted beside it.

use std::{collections::BTreeMap, fs, io, path::Path};

use bytes::Bytes;
use lakehouse_contract::{dataset::hex, job::JobSource};
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_source::{HeaderMap, Source};
use sha2::{Digest, Sha256};

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
        JobSource::ConfigMap { name, key, sha256 } => {
            let missing =
                |why: String| Failure::new(Reason::SourceMissing, format!("the ConfigMap `{name}` {why}"));
            let folder = mounted.ok_or_else(|| missing("is not mounted".to_owned()))?;
            let content = fs::read(folder.join(key)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => missing(format!("has no entry `{key}`")),
                _ => missing(format!("cannot be read, entry `{key}`: {error}")),
            })?;
            if sha256.as_ref().is_some_and(|sha256| *sha256 != hex(&Sha256::digest(&content))) {
                let sentence = format!(
                    "the entry `{key}` of the ConfigMap `{name}`, as this pod's node has it, is not the one that the Job was made for"
                );
                return Err(Failure::new(Reason::Interrupted, sentence));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_its_node_has_from_before_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.csv"), "a\n1\n").unwrap();
        let read = |content: Option<&str>| {
            let sha256 = content.map(|content| hex(&Sha256::digest(content)));
            let source = JobSource::ConfigMap { name: "prices".into(), key: "a.csv".into(), sha256 };
            resolve(&source, Some(folder.path()))
        };
        assert!(read(None).is_ok() && read(Some("a\n1\n")).is_ok());
        let failure = read(Some("a\n2\n")).expect_err("it is another one");
        assert_eq!(failure.reason, Reason::Interrupted, "it is tried again");
    }
}
