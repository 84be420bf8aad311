//! From the entries of Secrets to what a source is read with: shared by who has resources at hand and who has mounted files.

use std::collections::BTreeMap;

use lakehouse_contract::Key;
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_source::{HeaderMap, HeaderName, HeaderValue, Source};
use lakehouse_store::s3::{S3Credentials, S3Settings};

/// The entries of one Secret, and how a message names it.
pub(crate) struct Secret {
    /// Such as ``the Secret `key` ``.
    pub(crate) named: String,
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// Every entry as a header of a request.
    pub(crate) fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for (key, value) in &self.entries {
            let invalid = || self.lacks(&format!("has an entry `{key}` that is no request header"));
            let name = key.parse::<HeaderName>().map_err(|_| invalid())?;
            let mut value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// The keys of a bucket.
    pub(crate) fn credentials(&self) -> Result<S3Credentials, Failure> {
        let wanted = |key: &str| self.text(key)?.ok_or_else(|| self.lacks(&format!("has no entry `{key}`")));
        Ok(S3Credentials {
            access_key: wanted("AWS_ACCESS_KEY_ID")?,
            secret_key: wanted("AWS_SECRET_ACCESS_KEY")?,
            session_token: self.text("AWS_SESSION_TOKEN")?,
        })
    }

    fn text(&self, key: &str) -> Result<Option<String>, Failure> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        let text = String::from_utf8(value.trim_ascii().to_vec())
            .map_err(|_| self.lacks(&format!("has an entry `{key}` that is not UTF-8")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn lacks(&self, what: &str) -> Failure {
        Failure::new(Reason::SecretMissing, format!("{} {what}", self.named))
    }
}

/// An object in a bucket; read anonymously without a Secret, whatever keys this process has for its own store.
pub(crate) fn object(
    bucket: &str,
    key: &str,
    endpoint: Option<&str>,
    region: Option<&str>,
    secret: Option<&Secret>,
) -> Result<Source, Failure> {
    let key = Key::parse(key)
        .map_err(|error| Failure::new(Reason::InvalidSource, format!("spec.source.s3.key: {error}")))?;
    let mut settings = S3Settings::new(bucket);
    settings.path_style = endpoint.is_some();
    settings.endpoint = endpoint.map(|url| url.trim_end_matches('/').to_owned());
    if let Some(region) = region {
        region.clone_into(&mut settings.region);
    }
    match secret {
        Some(secret) => settings.credentials = Some(secret.credentials()?),
        None => settings.anonymous = true,
    }
    Ok(Source::S3 { settings: Box::new(settings), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_headers_that_are_never_shown() {
        let headers =
            secret(&[("Authorization", "Bearer hunter2\n"), ("X-Team", "sales")]).headers().unwrap();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
        let failure = secret(&[("not a header", "x")]).headers().unwrap_err();
        assert_eq!(failure.message, "the Secret `key` has an entry `not a header` that is no request header");
    }

    #[test]
    fn half_a_pair_of_keys_is_told_by_name() {
        let failure = secret(&[("AWS_ACCESS_KEY_ID", "a")]).credentials().unwrap_err();
        assert_eq!(failure.reason, Reason::SecretMissing);
        assert_eq!(failure.message, "the Secret `key` has no entry `AWS_SECRET_ACCESS_KEY`");
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b\n"), ("AWS_SESSION_TOKEN", "t")];
        let credentials = secret(&keys).credentials().unwrap();
        assert_eq!((credentials.secret_key.as_str(), credentials.session_token.as_deref()), ("b", Some("t")));
    }

    #[test]
    fn without_a_secret_a_bucket_is_asked_anonymously() {
        let source = object("sales", "a/b.csv", Some("http://minio:9000/"), None, None).unwrap();
        let Source::S3 { settings, key } = source else { panic!("{source:?}") };
        assert!(settings.anonymous && settings.path_style);
        assert_eq!((settings.endpoint.as_deref(), key.as_str()), (Some("http://minio:9000"), "a/b.csv"));
        assert_eq!(object("sales", "/a", None, None, None).unwrap_err().reason, Reason::InvalidSource);
    }

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let entries = entries.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        Secret { named: "the Secret `key`".into(), entries }
    }
}
