//! A bucket in a folder of this machine: one file per object, under names that a person can read.
//!
//! ```text
//! lakehouse.json                             says that the folder is ours, and its layout
//! .lakehouse/locks/<shard>                   held by a writer for the moment of its commit
//! .lakehouse/writing/<random>                bodies on their way in, each held by its writer
//! datasets/sales/<fingerprint>/<sha>.parquet an object
//! ```
//! A write goes to a file of its own, is flushed to the disk, and is renamed into place under a lock that every process
//! honours: a crash leaves the old object or the new one. Readers take no lock, since an open file keeps its content.
//! Folders that have become empty stay; they hold no object and so are in no listing.

mod list;
mod names;
mod open;
mod write;

use std::{
    collections::HashSet,
    fs,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use lakehouse_contract::Key;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::{ByteRange, ByteStream, Condition, Error, Etag, Meta, Object, Objects, Page, Payload, Result};

/// Bytes that a reader gets in one piece.
const PIECE: usize = 256 << 10;

/// A folder that was opened as a store.
#[derive(Clone, Debug)]
pub struct Folder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Absolute.
    root: PathBuf,
    /// Folders of which this process knows that they outlive a crash.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// Opens `path`, which is made when it is not there. A folder that holds other files, or one that a newer version
    /// wrote, is [`Error::Unfit`]. What crashed writers left behind is removed.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let root = blocking(move || open::open(&path)).await?;
        Ok(Self { inner: Arc::new(Inner { root, durable: Mutex::default() }) })
    }

    /// The file in which `key` lies, or [`Error::NotFound`] for a key that no folder can hold.
    fn find(&self, key: &Key) -> Result<PathBuf> {
        names::path(&self.inner.root, key).map_err(|_| Error::NotFound { key: key.clone() })
    }
}

#[async_trait]
impl Objects for Folder {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        let path = names::path(&self.inner.root, key)?;
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        let Payload::Stream(body) = body else {
            return blocking(move || inner.put(&key, &path, body, &condition)).await;
        };
        let write = {
            let (inner, key, path, condition) =
                (Arc::clone(&inner), key.clone(), path.clone(), condition.clone());
            blocking(move || inner.begin(&key, &path, &condition)).await?
        };
        let write = write.stream(body).await?;
        blocking(move || inner.commit(&key, &path, write, &condition)).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        let path = self.find(key)?;
        let missing = || Error::NotFound { key: key.clone() };
        let local =
            |error: io::Error| if is_missing(&error) { missing() } else { Error::local(&path, error) };
        let mut file = tokio::fs::File::open(&path).await.map_err(local)?;
        let meta = meta(&file.metadata().await.map_err(local)?).ok_or_else(missing)?;
        let (start, end) = match range {
            None => (0, meta.size),
            Some(range) => {
                range.within(meta.size).ok_or_else(|| Error::Range { key: key.clone(), size: meta.size })?
            }
        };
        if start > 0 {
            file.seek(SeekFrom::Start(start)).await.map_err(local)?;
        }
        let body = read(key.clone(), path, file, end - start);
        Ok(Object { meta, range: (start, end), body })
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let path = self.find(key)?;
        let found = current(&path).map_err(|error| Error::local(&path, error))?;
        found.ok_or_else(|| Error::NotFound { key: key.clone() })
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let (inner, prefix, after) = (Arc::clone(&self.inner), prefix.to_owned(), after.map(str::to_owned));
        blocking(move || list::page(&inner.root, &prefix, after.as_deref(), limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let Ok(path) = self.find(key) else { return Ok(()) };
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        blocking(move || inner.delete(&key, &path)).await
    }

    fn local_file(&self, key: &Key) -> Option<PathBuf> {
        self.find(key).ok().filter(|path| path.is_file())
    }
}

/// The next `left` bytes of `file`. A file that ends before them was cut by somebody else.
fn read(key: Key, path: PathBuf, file: tokio::fs::File, left: u64) -> ByteStream {
    stream::try_unfold((file, left), move |(mut file, left)| {
        let (key, path) = (key.clone(), path.clone());
        async move {
            if left == 0 {
                return Ok(None);
            }
            let mut piece = Vec::with_capacity(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)));
            let count = (&mut file).take(left.min(PIECE as u64)).read_buf(&mut piece).await;
            match count.map_err(|error| Error::local(&path, error))? {
                0 => {
                    let message = format!("{} ends {left} bytes too early", path.display());
                    Err(Error::Damaged { key, message })
                }
                count => Ok(Some((Bytes::from(piece), (file, left - count as u64)))),
            }
        }
    })
    .boxed()
}

/// What is known of the object in the file `path`, if there is one.
fn current(path: &Path) -> io::Result<Option<Meta>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(meta(&found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The mark is the time of the write and the size. A writer moves the time on under the key's lock, so no two contents
/// of a key share a mark, however fast they follow each other.
fn meta(file: &fs::Metadata) -> Option<Meta> {
    if !file.is_file() {
        return None;
    }
    let written = file.modified().unwrap_or(UNIX_EPOCH);
    let nanoseconds = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let etag = Etag(format!("\"{nanoseconds:x}-{:x}\"", file.len()));
    let modified = Timestamp::try_from(written).unwrap_or(Timestamp::UNIX_EPOCH);
    Some(Meta { size: file.len(), etag, modified })
}

/// Whether nothing lies there; a file in the place of a folder means the same.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Runs `work`, which waits for the disk, where waiting is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Unavailable { message: "the process is stopping".into() }),
        },
    }
}

/// The clock, to the nanosecond.
fn now() -> SystemTime {
    SystemTime::now()
}
