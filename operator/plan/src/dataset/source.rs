//! Where rows come from, checked.

use std::fmt;

use lakehouse_contract::ingest::Format;
use lakehouse_crds::dataset::{self as spec, HttpSource, S3Source};
use url::Url;

use super::Problem;
use crate::Reason;

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file behind a URL.
    Http {
        /// With scheme `http` or `https`, a host, and no user or password.
        url: Url,
        /// The SHA-256 that the file must have, lower-case hexadecimal.
        sha256: Option<String>,
        /// The Secret whose entries are sent as headers.
        headers_secret: Option<String>,
    },
    /// Objects in a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// Which of its objects.
        objects: Objects,
        /// The address of an S3 that is not Amazon's.
        endpoint: Option<Url>,
        /// The bucket's region.
        region: Option<String>,
        /// The Secret with the access key; anonymous without one.
        credentials_secret: Option<String>,
    },
    /// An entry of a ConfigMap.
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// The entry.
        key: String,
    },
    /// What a client sends.
    Upload,
}

/// Which objects of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// This one.
    Key(String),
    /// Those that start so, in the order of their keys.
    Prefix(String),
    /// Those that match, in the order of their keys.
    Glob(String),
}

impl Objects {
    fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Prefix(text) | Self::Glob(text) => text,
        }
    }
}

impl Source {
    /// The format that the source's name tells.
    pub(super) fn told_format(&self) -> Option<Format> {
        match self {
            Self::Http { url, .. } => Format::of_name(url.path()),
            Self::S3 { objects: Objects::Key(name) | Objects::Glob(name), .. } => Format::of_name(name),
            Self::ConfigMap { key, .. } => Format::of_name(key),
            Self::S3 { objects: Objects::Prefix(_), .. } | Self::Upload => None,
        }
    }
}

impl fmt::Display for Source {
    /// The source in words. A URL's query is left out: signed URLs carry their credentials in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, .. } => {
                let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "{scheme}://{host}{port}{}", url.path())
            }
            Self::S3 { bucket, objects, .. } => {
                let every = if matches!(objects, Objects::Prefix(_)) { "*" } else { "" };
                write!(f, "s3://{bucket}/{}{every}", objects.text())
            }
            Self::ConfigMap { name, key } => write!(f, "ConfigMap {name}, key {key}"),
            Self::Upload => f.write_str("upload"),
        }
    }
}

pub(super) fn check(source: &spec::Source, problems: &mut Vec<Problem>) -> Option<Source> {
    let spec::Source { http, s3, config_map, upload } = source;
    match (http, s3, config_map, upload) {
        (Some(source), None, None, None) => http_source(source, problems),
        (None, Some(source), None, None) => s3_source(source, problems),
        (None, None, Some(entry), None) => {
            Some(Source::ConfigMap { name: entry.name.clone(), key: entry.key.clone() })
        }
        (None, None, None, Some(spec::UploadSource {})) => Some(Source::Upload),
        _ => {
            let sentence = "exactly one of `http`, `s3`, `configMap` and `upload` must be set";
            problems.push(Problem::new("spec.source", Reason::InvalidSource, sentence));
            None
        }
    }
}

fn http_source(source: &HttpSource, problems: &mut Vec<Problem>) -> Option<Source> {
    let HttpSource { url, sha256, headers_secret_ref } = source;
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !sha256.as_ref().is_none_or(is_digest) {
        let sentence = "must be a SHA-256: 64 hexadecimal digits";
        problems.push(Problem::new("spec.source.http.sha256", Reason::InvalidSource, sentence));
    }
    Some(Source::Http {
        url: address("spec.source.http.url", url, "`headersSecretRef`", Reason::InvalidSource, problems)?,
        sha256: sha256.as_deref().map(str::to_ascii_lowercase),
        headers_secret: headers_secret_ref.as_ref().map(|secret| secret.name.clone()),
    })
}

fn s3_source(source: &S3Source, problems: &mut Vec<Problem>) -> Option<Source> {
    let S3Source { bucket, key, prefix, glob, endpoint, region, credentials_secret_ref } = source;
    let objects = match (key, prefix, glob) {
        (Some(key), None, None) => Some(Objects::Key(key.clone())),
        (None, Some(prefix), None) => Some(Objects::Prefix(prefix.clone())),
        (None, None, Some(glob)) => Some(Objects::Glob(glob.clone())),
        _ => {
            let sentence = "exactly one of `key`, `prefix` and `glob` must be set";
            problems.push(Problem::new("spec.source.s3", Reason::InvalidSource, sentence));
            None
        }
    };
    let endpoint = endpoint.as_ref().map(|endpoint| {
        let (field, secret) = ("spec.source.s3.endpoint", "`credentialsSecretRef`");
        address(field, endpoint, secret, Reason::InvalidSource, problems)
    });
    Some(Source::S3 {
        bucket: bucket.clone(),
        objects: objects?,
        endpoint: match endpoint {
            None => None,
            Some(address) => Some(address?),
        },
        region: region.clone(),
        credentials_secret: credentials_secret_ref.as_ref().map(|secret| secret.name.clone()),
    })
}

/// An address without credentials. No message repeats it: it may hold the very password that has no place in it.
pub(crate) fn address(
    field: &str,
    text: &str,
    secret_field: &str,
    reason: Reason,
    problems: &mut Vec<Problem>,
) -> Option<Url> {
    let sentence = match Url::parse(text) {
        Err(error) => format!("is no URL: {error}"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            format!("must start with `http://` or `https://`, not `{}:`", url.scheme())
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            format!("must not hold a user or password; put them into a Secret and name it in {secret_field}")
        }
        Ok(url) => return Some(url),
    };
    problems.push(Problem::new(field, reason, sentence));
    None
}
