//! Where a Dataset's rows are, for a process that has the resources' files at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use bytes::Bytes;
use lakehouse_plan::{
    ReadyDataset, Reason,
    dataset::{Objects, Source as Planned},
    documents::Resource,
    status::Failure,
};
use lakehouse_source::{HeaderMap, Source};

use super::inputs::Inputs;
use crate::source::{Secret, object};

/// What a Dataset reads, or why it cannot be told. `None` is an upload that has no file: clients send it.
pub(crate) fn resolve(
    dataset: &ReadyDataset,
    file: Option<&PathBuf>,
    inputs: &Inputs,
) -> Result<Option<Source>, Failure> {
    match &dataset.source {
        Planned::Upload => Ok(file.cloned().map(Source::File)),
        Planned::ConfigMap { name, key } => {
            let content = inputs
                .entry("ConfigMap", name, key)
                .map_err(|sentence| Failure::new(Reason::SourceMissing, sentence))?;
            Ok(Some(Source::Text { name: dataset.source.to_string(), content: Bytes::from(content) }))
        }
        Planned::Http { url, sha256, headers_secret } => {
            let headers = match headers_secret {
                Some(name) => secret(inputs, name)?.headers()?,
                None => HeaderMap::new(),
            };
            Ok(Some(Source::Http { url: url.clone(), headers, sha256: sha256.clone() }))
        }
        Planned::S3 { bucket, objects: Objects::Key(key), endpoint, region, credentials_secret } => {
            let secret = credentials_secret.as_ref().map(|name| secret(inputs, name)).transpose()?;
            let endpoint = endpoint.as_ref().map(AsRef::<str>::as_ref);
            object(bucket, key, endpoint, region.as_deref(), secret.as_ref()).map(Some)
        }
        Planned::S3 { objects: Objects::Prefix(_) | Objects::Glob(_), .. } => Err(Failure::new(
            Reason::NotSupported,
            "spec.source.s3: `prefix` and `glob` are not available yet; name one object with `key`",
        )),
    }
}

fn secret(inputs: &Inputs, name: &str) -> Result<Secret, Failure> {
    let missing = |sentence: String| Failure::new(Reason::SecretMissing, sentence);
    let resource = inputs.text("Secret", name).map_err(missing)?;
    let mut entries = BTreeMap::new();
    for key in keys(resource) {
        let value = inputs.entry("Secret", name, &key).map_err(missing)?;
        entries.insert(key, value);
    }
    Ok(Secret { named: format!("the Secret `{name}`"), entries })
}

/// The names of a Secret's entries.
fn keys(resource: &Resource) -> BTreeSet<String> {
    let Resource::Secret(secret) = resource else { return BTreeSet::new() };
    let encoded = secret.data.iter().flat_map(|data| data.keys());
    let plain = secret.string_data.iter().flat_map(|data| data.keys());
    encoded.chain(plain).cloned().collect()
}
