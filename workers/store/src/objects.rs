//! What every backend offers: the smallest set of operations on which blobs, manifests and logs stand.

use std::{fmt, path::PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use lakehouse_contract::Key;

use crate::{Error, Result};

/// A body on its way in or out, in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The operations of a backend.
#[async_trait]
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// Writes an object when `condition` holds; readers see all of it or nothing. Fails with [`Error::Conflict`] when the condition does not hold.
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag>;
    /// The same by the way that large bodies take, whatever the size. The start-up probe asks for it, since a server may
    /// honour conditions on one way and not on the other.
    async fn put_large(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.put(key, body, condition).await
    }
    /// Opens an object. Fails with [`Error::NotFound`], or [`Error::Range`] for a range that starts past the end.
    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object>;
    /// What is known of an object without reading it.
    async fn head(&self, key: &Key) -> Result<Meta>;
    /// At most `limit` objects below `prefix` whose keys come after `after`, in the order of their keys' bytes.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page>;
    /// Removes an object; one that is not there is no error.
    async fn delete(&self, key: &Key) -> Result<()>;
    /// The same in a single attempt, for a caller who looks at the object again before the next one: a retry after a lost answer
    /// would remove what somebody has put there meanwhile. A failure leaves open whether the object was removed.
    async fn delete_once(&self, key: &Key) -> Result<()> {
        self.delete(key).await
    }
    /// The object as a file of this machine, where the backend has it as one.
    fn local_file(&self, key: &Key) -> Option<PathBuf> {
        let _ = key;
        None
    }
}

/// What is written.
pub enum Payload {
    /// A small body.
    Bytes(Bytes),
    /// A file of this machine, of any size.
    File(PathBuf),
    /// A body of unknown length that can be read once.
    Stream(ByteStream),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// When a write may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Nothing is there (`If-None-Match: *`).
    Absent,
    /// What is there is still this (`If-Match`).
    Matches(Etag),
}

/// A content's mark: another content has another one. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(pub String);

/// A part of an object, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From `start` to before `end`; an `end` past the object's is cut.
    Bounded {
        /// First byte.
        start: u64,
        /// One past the last byte; above `start`.
        end: u64,
    },
    /// From this byte to the end.
    From(u64),
    /// The last so many bytes; all of a shorter object.
    Last(u64),
}

impl ByteRange {
    /// The bytes `[start, end)` that this asks of an object of `size` bytes; `None` when it starts past the end.
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Self::Bounded { start, end } => (start, end.min(size)),
            Self::From(start) => (start, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        (start < end).then_some((start, end))
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of the whole object.
    pub size: u64,
    /// Its content's mark.
    pub etag: Etag,
    /// When it was written.
    pub modified: Timestamp,
}

/// An opened object.
pub struct Object {
    /// What is known of the whole object.
    pub meta: Meta,
    /// The bytes `[start, end)` of it that `body` gives.
    pub range: (u64, u64),
    /// The content.
    pub body: ByteStream,
}

impl Object {
    /// The content in memory, refused with [`Error::TooLarge`] past `limit` bytes.
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes> {
        let size = self.range.1 - self.range.0;
        if size > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut all = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
        while let Some(piece) = self.body.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("meta", &self.meta).field("range", &self.range).finish_non_exhaustive()
    }
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// What is known of it.
    pub meta: Meta,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys' bytes.
    pub objects: Vec<Listed>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

impl Payload {
    /// The content as a stream of pieces.
    pub(crate) async fn into_stream(self) -> Result<ByteStream> {
        match self {
            Self::Bytes(bytes) => Ok(futures::stream::iter([Ok(bytes)]).boxed()),
            Self::File(path) => {
                let file = tokio::fs::File::open(&path).await.map_err(|error| Error::local(&path, error))?;
                let stream = tokio_util::io::ReaderStream::with_capacity(file, 1 << 18);
                Ok(stream.map_err(move |error| Error::local(&path, error)).boxed())
            }
            Self::Stream(stream) => Ok(stream),
        }
    }
}
