//! Durable state: three primitives over one bucket.
//!
//! - [`blob`]: immutable, named by its content's SHA-256, written once;
//! - [`manifest`]: a small object that says what is current, swapped only by compare-and-set;
//! - [`log`]: an ordered run of records, appended by put-if-absent of the next number.
//!
//! Data first, manifest last: the manifest write is the commit. All three stand on [`Objects`], the few operations that
//! a backend offers; the backends are [`s3`], [`folder`] and [`memory`], and one conformance suite holds them to the same promises.

mod below;
pub mod blob;
mod error;
pub mod folder;
mod location;
pub mod log;
pub mod manifest;
pub mod memory;
mod objects;
pub mod probe;
pub mod s3;

use std::{path::Path, sync::Arc, time::Duration};

use lakehouse_contract::Key;

pub use error::Error;
pub use location::Location;
pub use objects::{ByteRange, ByteStream, Condition, Etag, Listed, Meta, Object, Objects, Page, Payload};

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How long [`Store::open_soon`] asks a server that does not answer.
const SOON: Duration = Duration::from_secs(2);

/// How many objects one step of [`Store::list_all`] asks for. A folder reads a directory anew for each step.
const LIST_ALL_PAGE: usize = 10_000;

/// A bucket, or the part of one below a prefix. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn Objects>,
}

impl Store {
    /// A store over any backend.
    pub fn new(objects: impl Objects) -> Self {
        Self { objects: Arc::new(objects) }
    }

    /// A store that lives as long as its last clone. For tests.
    pub fn memory() -> Self {
        Self::new(memory::Memory::default())
    }

    /// Opens the store at `location` and probes it. How to reach S3 is read from the environment.
    pub async fn open(location: &Location) -> Result<Self> {
        match location {
            Location::S3 { bucket, prefix } => Self::s3(from_env(bucket, prefix.as_ref())?).await,
            Location::Folder(path) => Self::folder(path).await,
            Location::Memory => Ok(Self::memory()),
        }
    }

    /// The same, except that a bucket which cannot be reached is waited for a moment only: the caller tries again.
    pub async fn open_soon(location: &Location) -> Result<Self> {
        let Location::S3 { bucket, prefix } = location else { return Self::open(location).await };
        let settings = from_env(bucket, prefix.as_ref())?;
        let impatient = s3::S3Settings { deadline: SOON, ..settings.clone() };
        Self::s3(impatient).await?;
        Self::unprobed(settings).await
    }

    /// Finds what is wrong with `location` and the environment before anything is asked: no retry would help.
    pub async fn check(location: &Location) -> Result<()> {
        if let Location::S3 { bucket, prefix } = location {
            Self::unprobed(from_env(bucket, prefix.as_ref())?).await?;
        }
        Ok(())
    }

    /// Opens a folder of this machine as a store, making it when it is not there, and probes it.
    pub async fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let store = Self::new(folder::Folder::open(path).await?);
        probe::conditional_writes(&*store.objects, &format!("the folder {}", path.display())).await?;
        Ok(store)
    }

    /// Opens a bucket, or the part of one below a prefix, and probes it.
    pub async fn s3(settings: s3::S3Settings) -> Result<Self> {
        let name = settings.to_string();
        let store = Self::unprobed(settings).await?;
        probe::conditional_writes(&*store.objects, &name).await?;
        Ok(store)
    }

    async fn unprobed(settings: s3::S3Settings) -> Result<Self> {
        let prefix = settings.prefix.clone();
        let whole = Self::new(s3::S3::connect(settings).await?);
        Ok(prefix.map_or_else(|| whole.clone(), |prefix| whole.below(prefix)))
    }

    /// The part of this store below `prefix`, as a store of its own.
    #[must_use]
    pub fn below(&self, prefix: Key) -> Self {
        Self::new(below::Below { objects: Arc::clone(&self.objects), prefix })
    }

    /// Writes an object when `condition` holds; whole or not at all.
    pub async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.objects.put(key, body, condition).await
    }

    /// Opens an object, or the part of it that `range` asks for.
    pub async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        self.objects.get(key, range).await
    }

    /// What is known of an object without reading it.
    pub async fn head(&self, key: &Key) -> Result<Meta> {
        self.objects.head(key).await
    }

    /// At most `limit` objects whose keys start with `prefix` and come after `after`, in the order of their keys' bytes.
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.objects.list(prefix, after, limit).await
    }

    /// Every object whose key starts with `prefix`, in the order of their keys' bytes.
    pub async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.list(prefix, after.as_deref(), LIST_ALL_PAGE).await?;
            all.extend(page.objects);
            if !page.more {
                return Ok(all);
            }
            after = all.last().map(|listed| listed.key.to_string());
        }
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, key: &Key) -> Result<()> {
        self.objects.delete(key).await
    }

    /// The same in a single attempt, for a caller who looks at the object again before the next one: a retry after a lost answer
    /// would remove what somebody has put there meanwhile. A failure leaves open whether the object was removed.
    pub async fn delete_once(&self, key: &Key) -> Result<()> {
        self.objects.delete_once(key).await
    }

    /// The object as a file of this machine, where the backend has it as one. Only for blobs: they never change.
    pub fn local_file(&self, key: &Key) -> Option<std::path::PathBuf> {
        self.objects.local_file(key)
    }
}

/// How to reach a bucket, or the part of it below a prefix, as the environment says.
fn from_env(bucket: &str, prefix: Option<&Key>) -> Result<s3::S3Settings> {
    Ok(s3::S3Settings { prefix: prefix.cloned(), ..s3::S3Settings::from_env(bucket)? })
}
