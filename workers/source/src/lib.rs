//! Brings a dataset's source to this machine.
//!
//! Receives a [`Source`] and what is known of its last reading; hands on a [`Reading`]: a local file and the digest that names its
//! content. What comes over a network is spooled to disk first, because typing is exact over the whole file and may
//! read it twice, and a network source read twice may be two different files.

mod http;
mod s3;
mod spool;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lakehouse_contract::Key;
use lakehouse_store::s3::S3Settings;
use url::Url;

pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use spool::Spool;

/// How often it is told how much of a local file has been hashed.
const GLANCE: Duration = Duration::from_millis(100);

/// Where rows come from.
#[derive(Clone)]
pub enum Source {
    /// A file of this machine, read where it lies.
    File(PathBuf),
    /// A small text that came with the resource, and the name that it has there.
    Text {
        /// Such as `ConfigMap prices, key prices.csv`.
        name: String,
        /// The content.
        content: Bytes,
    },
    /// A URL.
    Http {
        /// With scheme `http` or `https`.
        url: Url,
        /// Sent with the request; may hold secrets.
        headers: HeaderMap,
        /// What the content must hash to, lower-case hexadecimal.
        sha256: Option<String>,
    },
    /// An object in a bucket.
    S3 {
        /// How to reach the bucket.
        settings: Box<S3Settings>,
        /// The object.
        key: Key,
    },
}

impl Source {
    /// Whether it is read without a network.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::File(_) | Self::Text { .. })
    }

    /// The name whose ending may tell the format.
    pub fn file_name(&self) -> String {
        match self {
            Self::File(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            Self::Text { name, .. } => name.clone(),
            Self::Http { url, .. } => url.path().to_owned(),
            Self::S3 { key, .. } => key.to_string(),
        }
    }
}

impl fmt::Display for Source {
    /// The source in words, without credentials: a URL's user, password and query are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text { name, .. } => f.write_str(name),
            Self::Http { url, .. } => f.write_str(&without_secrets(url)),
            Self::S3 { settings, key } => write!(f, "s3://{}/{key}", settings.bucket),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// What came of looking at a source.
#[derive(Debug)]
pub enum Reading {
    /// It is what it was at the last reading.
    Unchanged,
    /// It is here.
    Here(Local),
}

/// A source as a file of this machine.
#[derive(Debug)]
pub struct Local {
    /// The file.
    pub path: PathBuf,
    /// Names the content: the server's entity tag where it promises the same bytes, else `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub bytes: u64,
    /// Removes the file when the reading is done with, where it is a spooled copy.
    _spooled: Option<tempfile::TempPath>,
}

impl Local {
    fn spooled(path: tempfile::TempPath, digest: String, bytes: u64) -> Self {
        Self { path: path.to_path_buf(), digest, bytes, _spooled: Some(path) }
    }
}

/// Why a source could not be brought here. No message holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing at that place.
    #[error("{0}")]
    NotFound(String),
    /// The place wants other credentials or permissions.
    #[error("{0}")]
    Denied(String),
    /// The place failed or cannot be reached; later it may do.
    #[error("{0}")]
    Unreachable(String),
    /// The content is not what the resource says it must be.
    #[error("{0}")]
    Mismatch(String),
    /// This machine could not keep the copy.
    #[error("{0}")]
    Spool(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing the resource.
    pub fn retry_helps(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Unreachable(_) | Self::Spool(_))
    }
}

/// Brings sources here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    spool: Spool,
    http: reqwest::Client,
}

impl Reader {
    /// A reader that spools into `folder`.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        Ok(Self { spool: Spool::open(folder)?, http: http::client()? })
    }

    /// Looks at `source`. With `seen`, the digest of the last reading, a source that still has it is not copied again.
    ///
    /// `copied` is told the bytes so far, of a local file those that were looked at, and, where known, the bytes in all.
    pub async fn read(
        &self,
        source: &Source,
        seen: Option<&str>,
        copied: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<Reading, Error> {
        match source {
            Source::File(path) => local_file(path, seen, copied).await,
            Source::Text { content, .. } => self.text(content, seen).await,
            Source::Http { url, headers, sha256 } => {
                http::read(&self.http, &self.spool, url, headers, sha256.as_deref(), seen, copied).await
            }
            Source::S3 { settings, key } => s3::read(&self.spool, settings, key, seen, copied).await,
        }
    }

    async fn text(&self, content: &Bytes, seen: Option<&str>) -> Result<Reading, Error> {
        let mut file = self.spool.create().await?;
        file.write(content).await?;
        let (path, digest, bytes) = file.finish().await?;
        if seen == Some(digest.as_str()) {
            return Ok(Reading::Unchanged);
        }
        Ok(Reading::Here(Local::spooled(path, digest, bytes)))
    }
}

async fn local_file(
    path: &Path,
    seen: Option<&str>,
    read: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Reading, Error> {
    let done = Arc::<AtomicU64>::default();
    let mut work = tokio::task::spawn_blocking({
        let (path, done) = (path.to_owned(), Arc::clone(&done));
        move || spool::digest_of(&path, &done)
    });
    let total = std::fs::metadata(path).ok().map(|file| file.len());
    let hashed = loop {
        tokio::select! {
            hashed = &mut work => break hashed,
            () = tokio::time::sleep(GLANCE) => read(done.load(Ordering::Relaxed), total),
        }
    };
    let (digest, bytes) =
        hashed.map_err(|error| Error::Spool(error.to_string()))?.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(format!("there is no file {}", path.display())),
            std::io::ErrorKind::PermissionDenied => {
                Error::Denied(format!("{} may not be read: {error}", path.display()))
            }
            _ => Error::Unreachable(format!("{} could not be read: {error}", path.display())),
        })?;
    if seen == Some(digest.as_str()) {
        return Ok(Reading::Unchanged);
    }
    Ok(Reading::Here(Local { path: path.to_owned(), digest, bytes, _spooled: None }))
}

/// A URL as it may be shown: without user, password, query and fragment.
fn without_secrets(url: &Url) -> String {
    let mut shown = url.clone();
    // Neither can fail for a URL with a host, and one without a host has neither.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    let had_query = shown.query().is_some();
    shown.set_query(None);
    shown.set_fragment(None);
    if had_query { format!("{shown}?…") } else { shown.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_without_its_secrets() {
        let url = Url::parse("https://me:secret@host.example/a/b.csv?sig=secret#top").unwrap();
        let source = Source::Http { url, headers: HeaderMap::new(), sha256: None };
        assert_eq!(source.to_string(), "https://host.example/a/b.csv?…");
        assert!(!format!("{source:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_file_that_is_as_it_was_is_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "a\n1\n").unwrap();
        let reader = reader(folder.path());
        let source = Source::File(path.clone());

        let Reading::Here(first) = reader.read(&source, None, &|_, _| {}).await.unwrap() else {
            panic!("nothing was read before")
        };
        assert_eq!((first.path.as_path(), first.bytes), (path.as_path(), 4));
        let again = reader.read(&source, Some(&first.digest), &|_, _| {}).await.unwrap();
        assert!(matches!(again, Reading::Unchanged));

        std::fs::write(&path, "a\n2\n").unwrap();
        let changed = reader.read(&source, Some(&first.digest), &|_, _| {}).await.unwrap();
        assert!(matches!(changed, Reading::Here(_)));
    }

    #[tokio::test]
    async fn a_large_file_tells_how_much_of_it_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.csv");
        let bytes = 512 << 20;
        // A hole of the file system: it takes time to read and no room.
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let told = std::sync::Mutex::new(Vec::new());
        let copied = |bytes: u64, total: Option<u64>| told.lock().unwrap().push((bytes, total));
        reader(folder.path()).read(&Source::File(path), None, &copied).await.unwrap();
        let told = told.into_inner().unwrap();
        assert!(told.iter().all(|(_, total)| *total == Some(bytes)), "{told:?}");
        assert!(told.is_sorted() && told.iter().any(|(so_far, _)| (1..bytes).contains(so_far)), "{told:?}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::File(folder.path().join("none.csv"));
        let error = reader(folder.path()).read(&source, None, &|_, _| {}).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound(says) if says.contains("none.csv")), "{error}");
    }

    #[tokio::test]
    async fn a_spooled_copy_goes_with_its_reading() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Text { name: "ConfigMap a".into(), content: Bytes::from_static(b"a\n1\n") };
        let Reading::Here(local) = reader(folder.path()).read(&source, None, &|_, _| {}).await.unwrap()
        else {
            panic!("nothing was read before")
        };
        assert_eq!(std::fs::read(&local.path).unwrap(), b"a\n1\n");
        let path = local.path.clone();
        drop(local);
        assert!(!path.exists());
    }

    fn reader(folder: &Path) -> Reader {
        // Only one test can be the first to install it; the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Reader::new(&folder.join("spool")).unwrap()
    }
}
