//! A bucket of any server that speaks S3: AWS, MinIO, Ceph and others.
//!
//! Owns the client, the meaning of the server's answers, and what makes calls sound over a network: retries until a
//! deadline, writes whose answer was lost, reads that go on after a broken connection. A server of one's own with fixed
//! keys, the bucket in the path and a private certificate authority is the first path here, not the exception.

mod download;
mod failure;
mod retry;
mod settings;
mod upload;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        self, BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig,
    },
    operation::head_object::HeadObjectOutput,
    primitives::DateTime,
};
use aws_smithy_http_client::{
    Builder as HttpClient,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use jiff::Timestamp;
use lakehouse_contract::Key;
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub use settings::{S3Credentials, S3Settings};

use self::{download::Reading, failure::Failure};
use crate::{ByteRange, Condition, Error, Etag, Listed, Meta, Object, Objects, Page, Payload, Result};

/// The most objects that S3 lists at once.
const PAGE: usize = 1000;

/// An open bucket. Cheap to clone.
#[derive(Clone)]
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: S3Settings,
}

impl S3 {
    /// Makes ready to ask the bucket. Nothing is sent yet; [`Store::s3`](crate::Store::s3) probes it too.
    pub async fn connect(settings: S3Settings) -> Result<Self> {
        settings.check()?;
        let http = http_client(&settings).await?;
        let mut config = credentials(&settings, http.clone())
            .await
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(settings.region.clone()))
            .http_client(http)
            .force_path_style(settings.path_style)
            // Retries and timeouts are this module's own: the SDK's would hide that a write may have happened.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Bodies are signed as a whole; servers other than AWS stumble over the checksum trailers.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(settings.endpoint.clone());
        Ok(Self { inner: Arc::new(Inner { client: Client::from_conf(config.build()), settings }) })
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn settings(&self) -> &S3Settings {
        &self.inner.settings
    }

    fn bucket(&self) -> &str {
        &self.settings().bucket
    }

    fn error(&self, failure: Failure, key: Option<&Key>) -> Error {
        failure.into_error(self.settings(), key)
    }

    /// The server said yes, but not what must come with it.
    fn unclear(&self, what: &str) -> Error {
        Error::Unavailable { message: format!("{}: {what}", self.settings()) }
    }

    fn etag(&self, etag: Option<String>) -> Result<Etag> {
        etag.map(Etag).ok_or_else(|| self.unclear("it answered without an ETag"))
    }

    fn meta(&self, size: Option<i64>, etag: Option<String>, modified: Option<&DateTime>) -> Result<Meta> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.unclear("it answered without the object's size"))?;
        let modified = modified.and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok());
        Ok(Meta { size, etag: self.etag(etag)?, modified: modified.unwrap_or(Timestamp::UNIX_EPOCH) })
    }

    async fn head_until(&self, deadline: Duration, key: &Key) -> Result<Option<HeadObjectOutput>> {
        let head = || self.client().head_object().bucket(self.bucket()).key(key.as_str()).send();
        match self.call_until(deadline, 0, head).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) if failure.is_passing() => Err(self.error(failure, Some(key))),
            Err(failure) => match self.reason(key).await.unwrap_or(failure) {
                failure if failure.is_unfit_name() => Ok(None),
                failure => Err(self.error(failure, Some(key))),
            },
        }
    }

    async fn delete_until(&self, deadline: Duration, key: &Key) -> Result<()> {
        let delete = || self.client().delete_object().bucket(self.bucket()).key(key.as_str()).send();
        match self.call_until(deadline, 0, delete).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_missing() || failure.is_unfit_name() => Ok(()),
            Err(failure) => Err(self.error(failure, Some(key))),
        }
    }

    /// Why the object cannot be read. The answer to a HEAD has no body and so no reason.
    async fn reason(&self, key: &Key) -> Option<Failure> {
        let get = || {
            let get = self.client().get_object().bucket(self.bucket()).key(key.as_str());
            get.range("bytes=0-0").send()
        };
        self.call(0, get).await.err()
    }

    async fn past_the_end(&self, key: &Key, size: Option<u64>) -> Error {
        let size = match size {
            Some(size) => Ok(size),
            None => self.head(key).await.map(|meta| meta.size),
        };
        size.map_or_else(|error| error, |size| Error::Range { key: key.clone(), size })
    }
}

#[async_trait]
impl Objects for S3 {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.upload(key, body, &condition, false).await
    }

    async fn put_large(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.upload(key, body, &condition, true).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        let header = match range {
            // S3 reads such a range as none at all.
            Some(ByteRange::Bounded { start, end }) if start >= end => {
                return Err(self.past_the_end(key, None).await);
            }
            Some(ByteRange::Bounded { start, end }) => Some(format!("bytes={start}-{}", end - 1)),
            Some(ByteRange::From(start)) => Some(format!("bytes={start}-")),
            Some(ByteRange::Last(count)) => Some(format!("bytes=-{count}")),
            None => None,
        };
        let get = || {
            let get = self.client().get_object().bucket(self.bucket()).key(key.as_str());
            get.set_range(header.clone()).send()
        };
        let answer = match self.call(0, get).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_past_the_end() => {
                return Err(self.past_the_end(key, failure.size()).await);
            }
            Err(failure) if failure.is_unfit_name() => return Err(Error::NotFound { key: key.clone() }),
            Err(failure) => return Err(self.error(failure, Some(key))),
        };
        let mut meta = self.meta(answer.content_length, answer.e_tag, answer.last_modified.as_ref())?;
        let (start, end) = match range {
            None => (0, meta.size),
            Some(range) => {
                let total = answer.content_range.as_deref().and_then(failure::total_size);
                let total = total.ok_or_else(|| self.unclear("it ignored the range that was asked for"))?;
                let range = range.within(total).ok_or(Error::Range { key: key.clone(), size: total })?;
                if range.1 - range.0 != meta.size {
                    return Err(self.unclear("it answered with another range than was asked for"));
                }
                meta.size = total;
                range
            }
        };
        let reading = Reading {
            s3: self.clone(),
            key: key.clone(),
            etag: meta.etag.0.clone(),
            at: start,
            end,
            body: answer.body,
        };
        Ok(Object { meta, range: (start, end), body: reading.into_stream() })
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let found = self
            .head_until(self.settings().deadline, key)
            .await?
            .ok_or_else(|| Error::NotFound { key: key.clone() })?;
        self.meta(found.content_length, found.e_tag, found.last_modified.as_ref())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let mut page = Page::default();
        let mut after = after.map(str::to_owned);
        loop {
            // One more than is wanted tells whether there are more.
            let count = (limit + 1 - page.objects.len()).min(PAGE);
            let ask = || {
                let list = self.client().list_objects_v2().bucket(self.bucket()).prefix(prefix);
                list.set_start_after(after.clone()).max_keys(i32::try_from(count).unwrap_or(i32::MAX)).send()
            };
            let answer = match self.call(0, ask).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_unfit_name() => return Ok(page),
                Err(failure) => return Err(self.error(failure, None)),
            };
            let more = answer.is_truncated.unwrap_or(false);
            for object in answer.contents.unwrap_or_default() {
                after.clone_from(&object.key);
                // Objects of other programs may have keys that are none of ours.
                if let Some(Ok(key)) = object.key.map(Key::parse) {
                    let meta = self.meta(object.size, object.e_tag, object.last_modified.as_ref())?;
                    page.objects.push(Listed { key, meta });
                }
            }
            if page.objects.len() > limit {
                page.objects.truncate(limit);
                page.more = true;
                return Ok(page);
            }
            if !more {
                return Ok(page);
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_until(self.settings().deadline, key).await
    }

    async fn delete_once(&self, key: &Key) -> Result<()> {
        self.delete_until(Duration::ZERO, key).await
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3").field(self.settings()).finish()
    }
}

/// A client over rustls with ring that trusts the system's authorities and those of `ca_file`.
async fn http_client(settings: &S3Settings) -> Result<SharedHttpClient> {
    let mut trusted = TrustStore::default();
    if let Some(path) = &settings.ca_file {
        let unfit = |error: String| Error::Unfit {
            message: format!("the certificates in {} cannot be used: {error}", path.display()),
        };
        let pem = tokio::fs::read(path).await.map_err(|error| unfit(error.to_string()))?;
        let count = CertificateDer::pem_slice_iter(&pem)
            .try_fold(0, |count, certificate| certificate.map(|_| count + 1))
            .map_err(|error| unfit(error.to_string()))?;
        if count == 0 {
            return Err(unfit("there is none in PEM form".into()));
        }
        trusted.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let tls = tls.map_err(|error| Error::Unfit { message: format!("TLS cannot be set up: {error}") })?;
    Ok(HttpClient::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}

/// A configuration without keys, with the fixed keys of the settings, or else with those that AWS hands to its pods and machines.
async fn credentials(settings: &S3Settings, http: SharedHttpClient) -> config::Builder {
    if settings.anonymous {
        return aws_sdk_s3::Config::builder().allow_no_auth();
    }
    if let Some(S3Credentials { access_key, secret_key, session_token }) = &settings.credentials {
        let keys = Credentials::new(access_key, secret_key, session_token.clone(), None, "settings");
        return aws_sdk_s3::Config::builder().credentials_provider(keys);
    }
    let region = Region::new(settings.region.clone());
    let chain =
        aws_config::defaults(BehaviorVersion::v2026_01_12()).region(region).http_client(http).load().await;
    config::Builder::from(&chain)
}
