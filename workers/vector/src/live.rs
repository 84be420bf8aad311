//! An index that is open in this process: its snapshot for readers, its one writer, and how it follows the store.
//!
//! ```text
//! write ─► queue ─► one append for all that wait ─► state ─► snapshot (swapped) ─► search
//!                          log ─── records of other processes ──┘
//! ```
//! Any number of processes may serve an index. Each does what the log says, record by record, so all come to the same.

mod compact;
mod follow;
mod write;

use std::{
    sync::{Arc, Mutex as Lock, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use lakehouse_contract::IndexName;
use lakehouse_store::log::Log;
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::{
    Error, Result,
    cache::Cache,
    indexes::Indexes,
    manifest::{Kind, Manifest},
    snapshot::Snapshot,
    state::State,
};

pub(crate) use write::checked_writes;

/// How a process treats the indexes that are open in it.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) indexes: Indexes,
    pub(crate) cache: Cache,
    pub(crate) tuning: Tuning,
    /// Which of the shards are held here, and of how many.
    pub(crate) shard: Option<(u32, u32)>,
    /// Places for those who make segments of rows in memory, and for those who merge segments, which takes longer.
    pub(crate) flushing: Semaphore,
    pub(crate) merging: Semaphore,
}

/// When rows become segments, and segments others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Rows in memory that become a segment.
    pub flush_rows: u64,
    /// Bytes of vectors, ids and metadata in memory that become a segment.
    pub flush_bytes: u64,
    /// Records of the log that are put into a segment, so that a start has no more to read.
    pub flush_records: u64,
    /// Rows in memory beyond which writes wait.
    pub most_rows: u64,
    /// Bytes of these beyond which writes wait.
    pub most_bytes: u64,
    /// A segment with fewer rows goes into the next one that is written.
    pub small_rows: u64,
    /// So many segments of about one size become one.
    pub fan_in: usize,
    /// Threads that build one graph.
    pub threads: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            flush_rows: 16_384,
            flush_bytes: 128 << 20,
            flush_records: 1024,
            most_rows: 131_072,
            most_bytes: 1 << 30,
            small_rows: 10_000,
            fan_in: 4,
            threads: (cores / 2).max(1),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) name: IndexName,
    context: Arc<Context>,
    /// `None` for an index that builds fill.
    log: Option<Log>,
    state: Arc<Mutex<State>>,
    snapshot: ArcSwap<Snapshot>,
    queue: Lock<write::Queue>,
    /// Held by whoever changes or reloads the manifest.
    changing: Mutex<()>,
    merging: Mutex<()>,
    /// A flush came to its end.
    flushed: Notify,
    times: Lock<Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// When the store was last seen to have nothing newer.
    followed: Instant,
    used: Instant,
    written: Instant,
    collected: Option<Instant>,
}

impl Live {
    /// Opens an index as the store has it now.
    pub(crate) async fn open(context: Arc<Context>, name: &IndexName) -> Result<Arc<Self>> {
        let began = Instant::now();
        let (manifest, etag) =
            context.indexes.read(name).await?.ok_or_else(|| Error::UnknownIndex(name.clone()))?;
        let log = match manifest.kind {
            Kind::Built => None,
            Kind::Pushed => Some(context.indexes.log(name).await?),
        };
        let state = follow::load(&context, log.as_ref(), manifest, etag, &[]).await?;
        if state.closed {
            // Somebody who removed it has not come to the end.
            context.indexes.purge_only(name, state.manifest.id).await?;
            return Err(Error::UnknownIndex(name.clone()));
        }
        context.cache.retain(name, &state.manifest.segments).await?;
        let times = Times { followed: began, used: began, written: began, collected: None };
        let (length, next) = (state.length(), state.next);
        tracing::info!(index.name = %name, length, next, duration_ms = began.elapsed().as_secs_f64() * 1000.0, "Opened index `{name}`");
        Ok(Arc::new(Self {
            name: name.clone(),
            log,
            snapshot: ArcSwap::from_pointee(state.snapshot()),
            state: Arc::new(Mutex::new(state)),
            context,
            queue: Lock::default(),
            changing: Mutex::default(),
            merging: Mutex::default(),
            flushed: Notify::new(),
            times: Lock::new(times),
        }))
    }

    /// The index as it is now. Never waits.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The index as it is now, with the parts that other processes hold.
    pub(crate) async fn whole(&self) -> Result<Arc<Snapshot>> {
        let snapshot = self.snapshot();
        if self.context.shard.is_none() || snapshot.manifest.shards == 1 {
            return Ok(snapshot);
        }
        follow::whole(&self.context, &snapshot).await.map(Arc::new)
    }

    /// Shows readers what the writer has come to.
    fn show(&self, state: &State) {
        self.snapshot.store(Arc::new(state.snapshot()));
    }

    fn times<T>(&self, look: impl FnOnce(&mut Times) -> T) -> T {
        look(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody asks for it.
    pub(crate) fn touch(&self) {
        self.times(|times| times.used = Instant::now());
    }

    /// For how long nobody has asked for it.
    pub(crate) fn idle(&self) -> Duration {
        self.times(|times| times.used.elapsed())
    }

    /// For how long the store was not looked at.
    pub(crate) fn unseen(&self) -> Duration {
        self.times(|times| times.followed.elapsed())
    }

    /// For how long nothing was written here.
    pub(crate) fn quiet(&self) -> Duration {
        self.times(|times| times.written.elapsed())
    }

    /// Refuses what clients do not fill.
    pub(crate) fn pushed(&self) -> Result<&Log> {
        self.log.as_ref().ok_or_else(|| built_error(&self.snapshot().manifest))
    }
}

/// What a write to a built index is told.
fn built_error(manifest: &Manifest) -> Error {
    match &manifest.source {
        Some(source) => {
            Error::BuiltFromDataset { name: manifest.name.clone(), dataset: source.dataset.clone() }
        }
        None => Error::damaged(&manifest.name, "its manifest does not say what it was built from"),
    }
}
