//! Bodies of storaged.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The most objects one `GET /storage/list` returns.
pub const MAX_LISTED: usize = 10_000;

/// `GET /storage/list?prefix=&continuation=`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageListAnswer {
    /// At most [`MAX_LISTED`] objects, by key.
    pub objects: Vec<StoredObject>,
    /// Whether there are more than these.
    pub truncated: bool,
    /// What to pass as `continuation` to get the next ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<String>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Changes whenever the content does.
    pub etag: String,
    /// When it was last written.
    pub last_modified: Timestamp,
}

/// The answer of `PUT /storage/put/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePutAnswer {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Changes whenever the content does.
    pub etag: String,
}
