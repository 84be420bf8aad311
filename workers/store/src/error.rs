//! What can go wrong with the store, and whether trying again would help.

use std::path::Path;

use lakehouse_contract::Key;

/// A failure of the store. No message ever holds a credential.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing lies under the key.
    #[error("nothing is stored under `{key}`")]
    NotFound {
        /// The key.
        key: Key,
    },
    /// The condition of a write did not hold: somebody else was first.
    #[error("`{key}` was changed by another writer")]
    Conflict {
        /// The key.
        key: Key,
    },
    /// A range that starts past the end.
    #[error("the range starts past the end of `{key}`, which has {size} bytes")]
    Range {
        /// The key.
        key: Key,
        /// Bytes of the object.
        size: u64,
    },
    /// An object that is larger than the reader allows.
    #[error("the object is larger than the {limit} bytes that are allowed here")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The disk or the bucket's quota is full.
    #[error("the store is full: {message}")]
    Full {
        /// What the backend says.
        message: String,
    },
    /// The credentials or the file permissions do not allow it.
    #[error("the store denies access: {message}")]
    Denied {
        /// What the backend says.
        message: String,
    },
    /// The store was made by a newer version, does not honour conditional writes, does not exist, or is set up wrongly.
    #[error("{message}")]
    Unfit {
        /// What is wrong and what would help.
        message: String,
    },
    /// A key that this backend cannot hold, though others can. Nothing can lie under it, so reading it finds nothing.
    #[error("`{key}` cannot be a key here: {message}")]
    UnfitKey {
        /// The key.
        key: Key,
        /// Why not.
        message: String,
    },
    /// Records that were removed because a snapshot holds what they said.
    #[error("the log below `{log}` starts at record {first}; the earlier ones were removed")]
    Gone {
        /// The log's prefix.
        log: String,
        /// The first record that is still there.
        first: u64,
    },
    /// What was read is not what was written.
    #[error("`{key}` is damaged: {message}")]
    Damaged {
        /// The key.
        key: Key,
        /// What is wrong with it.
        message: String,
    },
    /// The body to be written could not be read to its end; nothing was written.
    #[error("the body could not be read: {message}")]
    Body {
        /// Why.
        message: String,
    },
    /// The backend failed or did not answer in time.
    #[error("the store failed: {message}")]
    Unavailable {
        /// What the backend says.
        message: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retry_helps(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The same failure, told about the key that the caller knows.
    pub(crate) fn about(self, key: &Key) -> Self {
        let key = key.clone();
        match self {
            Self::NotFound { .. } => Self::NotFound { key },
            Self::Conflict { .. } => Self::Conflict { key },
            Self::Range { size, .. } => Self::Range { key, size },
            Self::UnfitKey { message, .. } => Self::UnfitKey { key, message },
            Self::Damaged { message, .. } => Self::Damaged { key, message },
            other => other,
        }
    }

    /// A failure of this machine's file system.
    #[allow(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
    pub(crate) fn local(path: &Path, error: std::io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { message },
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { message }
            }
            _ => Self::Unavailable { message },
        }
    }
}
