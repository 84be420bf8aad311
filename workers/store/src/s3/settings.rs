//! How to reach a bucket.

use std::{env, fmt, path::PathBuf, time::Duration};

use lakehouse_contract::Key;

use crate::{Error, Result};

/// The region of stores that have none, such as MinIO.
const DEFAULT_REGION: &str = "us-east-1";

/// Long enough for a server that restarts.
const DEADLINE: Duration = Duration::from_mins(1);

/// How to reach a bucket. Shown without its secrets.
#[derive(Clone)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What every key starts with, without a `/` at its end.
    pub prefix: Option<Key>,
    /// `http://` or `https://`, a host, perhaps a port; AWS when unset.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Fixed keys; when unset, those that AWS hands to the pod or machine.
    pub credentials: Option<S3Credentials>,
    /// Requests are not signed at all, whatever keys there are.
    pub anonymous: bool,
    /// PEM certificates that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// No call is tried again after this; a minute unless set.
    pub deadline: Duration,
}

/// A fixed pair of keys. Never shown.
#[derive(Clone)]
pub struct S3Credentials {
    /// The access key id.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
    /// For keys that expire.
    pub session_token: Option<String>,
}

impl S3Settings {
    /// Settings for `bucket` at AWS, with the keys of the machine.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: None,
            endpoint: None,
            region: DEFAULT_REGION.to_owned(),
            credentials: None,
            anonymous: false,
            ca_file: None,
            path_style: false,
            deadline: DEADLINE,
        }
    }

    /// Settings for `bucket` from the environment variables that every S3 client knows: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3` or
    /// `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`. An endpoint of one's own is asked with the bucket in the path, unless
    /// `LAKEHOUSE_S3_PATH_STYLE` is `false`.
    pub fn from_env(bucket: &str) -> Result<Self> {
        Self::from_variables(bucket, |name| env::var(name).ok())
    }

    fn from_variables(bucket: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // An empty variable is how Compose files and manifests say "unset".
        let variable =
            |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let unfit = |message: &str| Error::Unfit { message: message.to_owned() };
        let credentials = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key), Some(secret_key)) => {
                Some(S3Credentials { access_key, secret_key, session_token: variable("AWS_SESSION_TOKEN") })
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(unfit("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"));
            }
            (None, Some(_)) => {
                return Err(unfit("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not"));
            }
        };
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let path_style = match variable("LAKEHOUSE_S3_PATH_STYLE").as_deref() {
            None => endpoint.is_some(),
            Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(unfit("LAKEHOUSE_S3_PATH_STYLE is neither `true` nor `false`")),
        };
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        Ok(Self {
            endpoint,
            region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            credentials,
            ca_file: variable("AWS_CA_BUNDLE").map(PathBuf::from),
            path_style,
            ..Self::new(bucket)
        })
    }

    /// Refuses what no request could be made from.
    pub(super) fn check(&self) -> Result<()> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let unfit = |message: &str| Err(Error::Unfit { message: message.to_owned() });
        let Some((_, host)) =
            endpoint.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            return unfit("the S3 endpoint must start with http:// or https://");
        };
        if host.contains('@') {
            return unfit("the S3 endpoint must not hold a user or a password; give them as keys");
        }
        if host.is_empty() || host.contains(char::is_whitespace) {
            return unfit("the S3 endpoint names no host");
        }
        Ok(())
    }

    /// Takes every secret of these settings out of `text`. Servers have been seen to repeat what they were sent.
    pub(super) fn redact(&self, text: &str) -> String {
        let Some(S3Credentials { access_key, secret_key, session_token }) = &self.credentials else {
            return text.to_owned();
        };
        [Some(secret_key), session_token.as_ref(), Some(access_key)]
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[redacted]"))
    }
}

/// How messages name the store: `S3 at http://minio:9000, bucket "sales"`.
impl fmt::Display for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "S3 at {endpoint}, bucket `{}`", self.bucket),
            None => write!(f, "S3 at AWS in {}, bucket `{}`", self.region, self.bucket),
        }
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, region, credentials, anonymous, ca_file, path_style, deadline } =
            self;
        f.debug_struct("S3Settings")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .field("region", region)
            .field("credentials", credentials)
            .field("anonymous", anonymous)
            .field("ca_file", ca_file)
            .field("path_style", path_style)
            .field("deadline", deadline)
            .finish()
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_variables_are_enough_for_a_server_of_ones_own() {
        let settings = from(&[
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", "https://elsewhere"),
            ("AWS_ENDPOINT_URL_S3", "http://minio:9000"),
            ("AWS_SESSION_TOKEN", ""),
        ])
        .unwrap();
        assert_eq!(settings.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!((settings.region.as_str(), settings.path_style), ("us-east-1", true));
        assert!(settings.credentials.unwrap().session_token.is_none());
        assert!(!from(&[]).unwrap().path_style);
        assert!(
            !from(&[("AWS_ENDPOINT_URL", "http://a"), ("LAKEHOUSE_S3_PATH_STYLE", "false")])
                .unwrap()
                .path_style
        );
    }

    #[test]
    fn half_a_pair_of_keys_is_refused_by_name() {
        let message = from(&[("AWS_ACCESS_KEY_ID", "key")]).unwrap_err().to_string();
        assert_eq!(message, "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
    }

    #[test]
    fn an_endpoint_that_no_request_can_go_to_is_refused() {
        for (endpoint, part) in [
            ("minio:9000", "must start with http:// or https://"),
            ("ftp://minio", "must start with http:// or https://"),
            ("http://", "names no host"),
            ("http://me:secret@minio", "must not hold a user or a password"),
        ] {
            let settings = S3Settings { endpoint: Some(endpoint.into()), ..S3Settings::new("sales") };
            let message = settings.check().unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = from(&[
            ("AWS_ACCESS_KEY_ID", "AKIAVISIBLE"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "token9"),
        ])
        .unwrap();
        let shown = format!("{settings:?} {settings} {}", settings.redact("AKIAVISIBLE hunter2 token9"));
        for secret in ["AKIAVISIBLE", "hunter2", "token9"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    fn from(variables: &[(&str, &str)]) -> Result<S3Settings> {
        S3Settings::from_variables("sales", |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }
}
