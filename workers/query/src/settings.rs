//! What an engine may use. Every limit has one place, and every limit that a caller meets is named in its answer.

use std::{path::PathBuf, time::Duration};

/// The default of [`Settings::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// Limits and places of an [`Engine`](crate::Engine).
#[derive(Clone, Debug)]
pub struct Settings {
    /// A folder of this engine's own: blobs that were fetched, and what a sort spills.
    pub cache_dir: PathBuf,
    /// The bytes of fetched blobs that are kept. What running queries read stays even beyond it.
    pub cache_limit: u64,
    /// Whether each dataset is a view by its name. Without, nothing of the catalogue is read before a query asks for it, and a
    /// query names versions: `"workers@3"`.
    pub views: bool,
    /// How often the views are compared with the catalogue.
    pub refresh_interval: Duration,
    /// The memory that all queries share, in bytes. What DuckDB does not count, the texts and lists of the rows at hand, may
    /// take half as much and 256 MiB beyond it.
    pub memory_limit: u64,
    /// The threads that all queries share.
    pub threads: usize,
    /// The bytes that sorts and joins may spill to disk.
    pub temp_limit: u64,
    /// How long one query may work. Time that it waits for a slow reader does not count.
    pub timeout: Duration,
    /// How long a streamed answer waits for a reader that takes nothing.
    pub stall_timeout: Duration,
    /// How many queries work at once.
    pub max_concurrent: usize,
    /// How many more may wait for a place; the next one is refused at once.
    pub max_queue: usize,
    /// How long a query waits for a place.
    pub queue_timeout: Duration,
    /// The largest JSON answer, in bytes. Arrow and CSV are streamed and have no such limit.
    pub max_result_bytes: usize,
    /// The longest SQL text, in bytes.
    pub max_sql_bytes: usize,
}

impl Settings {
    /// Limits for a laptop or a small pod: 2 GiB of memory, a thread for each core.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            cache_dir: cache_dir.into(),
            cache_limit: 20 << 30,
            views: true,
            refresh_interval: Duration::from_secs(30),
            memory_limit: 2 << 30,
            threads,
            temp_limit: 10 << 30,
            timeout: DEFAULT_TIMEOUT,
            stall_timeout: Duration::from_secs(30),
            max_concurrent: 2 * threads,
            max_queue: 64,
            queue_timeout: Duration::from_secs(10),
            max_result_bytes: 64 << 20,
            max_sql_bytes: 128 << 10,
        }
    }
}
