//! Where a Dataset's rows are, for a process that has the resources' files at hand.

use std::path::PathBuf;

use bytes::Bytes;
use lakehouse_contract::Key;
use lakehouse_plan::{
    ReadyDataset, Reason,
    dataset::{Objects, Source as Planned},
    documents::Resource,
    status::Failure,
};
use lakehouse_source::{HeaderMap, HeaderName, HeaderValue, Source};
use lakehouse_store::s3::{S3Credentials, S3Settings};

use super::inputs::Inputs;

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
                Some(secret) => headers(inputs, secret)?,
                None => HeaderMap::new(),
            };
            Ok(Some(Source::Http { url: url.clone(), headers, sha256: sha256.clone() }))
        }
        Planned::S3 { bucket, objects: Objects::Key(key), endpoint, region, credentials_secret } => {
            let key = Key::parse(key.as_str()).map_err(|error| {
                Failure::new(Reason::InvalidSource, format!("spec.source.s3.key: {error}"))
            })?;
            let mut settings = S3Settings::new(bucket);
            settings.path_style = endpoint.is_some();
            settings.endpoint = endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
            if let Some(region) = region {
                settings.region.clone_from(region);
            }
            if let Some(secret) = credentials_secret {
                settings.credentials = Some(credentials(inputs, secret)?);
            }
            Ok(Some(Source::S3 { settings: Box::new(settings), key }))
        }
        Planned::S3 { objects: Objects::Prefix(_) | Objects::Glob(_), .. } => Err(Failure::new(
            Reason::NotSupported,
            "spec.source.s3: `prefix` and `glob` are not available yet; name one object with `key`",
        )),
    }
}

/// A Secret's entries as request headers.
fn headers(inputs: &Inputs, secret: &str) -> Result<HeaderMap, Failure> {
    let missing = |sentence: String| Failure::new(Reason::SecretMissing, sentence);
    let resource = inputs.text("Secret", secret).map_err(missing)?;
    let mut headers = HeaderMap::new();
    for key in keys(resource) {
        let value = inputs.entry("Secret", secret, &key).map_err(missing)?;
        let invalid = || {
            let sentence = format!("the entry `{key}` of the Secret `{secret}` is no request header");
            Failure::new(Reason::SecretMissing, sentence)
        };
        let name = key.parse::<HeaderName>().map_err(|_| invalid())?;
        let mut value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn credentials(inputs: &Inputs, secret: &str) -> Result<S3Credentials, Failure> {
    let entry = |key: &str| {
        let value = inputs
            .entry("Secret", secret, key)
            .map_err(|sentence| Failure::new(Reason::SecretMissing, sentence))?;
        String::from_utf8(value.trim_ascii().to_vec()).map_err(|_| {
            let sentence = format!("the entry `{key}` of the Secret `{secret}` is not UTF-8");
            Failure::new(Reason::SecretMissing, sentence)
        })
    };
    Ok(S3Credentials {
        access_key: entry("AWS_ACCESS_KEY_ID")?,
        secret_key: entry("AWS_SECRET_ACCESS_KEY")?,
        session_token: None,
    })
}

/// The names of a Secret's entries.
fn keys(resource: &Resource) -> Vec<String> {
    let Resource::Secret(secret) = resource else { return Vec::new() };
    let encoded = secret.data.iter().flat_map(|data| data.keys());
    let plain = secret.string_data.iter().flat_map(|data| data.keys());
    let mut keys: Vec<String> = encoded.chain(plain).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}
