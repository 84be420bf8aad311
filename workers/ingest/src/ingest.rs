//! An ingest from end to end: convert, put, register.

use std::{
    num::NonZero,
    panic,
    path::{Path, PathBuf},
    thread,
};

use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    Column, DataObject, Origin,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{Format, IngestAnswer, IngestSpec, OnError, Phase},
};
use tokio::runtime::Handle;

use crate::{
    Error, Tracker,
    convert::{Converted, Layout, Request, convert},
    spool::Spool,
};

/// The default of [`Options::memory`].
const DEFAULT_MEMORY: usize = 192 << 20;

/// Where the source came from, for the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// A path or URL, never with credentials.
    pub source: String,
    /// Names the source's content: another content has another digest.
    pub digest: String,
}

/// What an ingest may use of this machine. None of it changes the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many threads encode.
    pub threads: usize,
    /// About how many bytes of memory they may take together; fewer threads are used when it is not enough for all.
    pub memory: usize,
    /// Where Parquet files wait for the store. Ingests of several processes may share it.
    pub spool_dir: PathBuf,
}

impl Options {
    /// All cores, little memory.
    pub fn new(spool_dir: impl Into<PathBuf>) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self { threads, memory: DEFAULT_MEMORY, spool_dir: spool_dir.into() }
    }

    /// How many threads the memory is enough for.
    fn affordable_threads(&self) -> usize {
        // A block of text and what it becomes, for each thread and for the two that wait.
        let each = 2 * Layout::default().group_bytes;
        (self.memory / each).saturating_sub(2).clamp(1, self.threads.max(1))
    }
}

/// Makes the rows of the local file `source` the dataset's content, or adds them to it.
///
/// Every value is read before anything reaches the store, and the manifest is written last: an ingest that fails, is cancelled or
/// dropped, or dies with its process publishes nothing, and the next one starts afresh. The same file and spec again give the same bytes and no new version.
pub async fn ingest(
    catalog: &Catalog,
    source: &Path,
    spec: &IngestSpec,
    origin: SourceInfo,
    tracker: &Tracker,
    options: &Options,
) -> Result<IngestAnswer, Error> {
    let mut guard = CancelOnDrop { tracker, armed: true };
    let result = run(catalog, source, spec, origin, tracker, options).await;
    guard.armed = false;
    tracker.end(&result);
    result
}

async fn run(
    catalog: &Catalog,
    source: &Path,
    spec: &IngestSpec,
    origin: SourceInfo,
    tracker: &Tracker,
    options: &Options,
) -> Result<IngestAnswer, Error> {
    refuse_unavailable(spec)?;
    tracker.enter(Phase::Converting);
    let (spool, converted) = convert_on_a_thread(catalog, source, spec, tracker, options).await?;
    tracker.enter(Phase::Uploading);
    let objects = upload(catalog, spec, &converted, tracker).await?;
    drop(spool);
    tracker.check()?;
    tracker.enter(Phase::Publishing);
    let Converted { columns, source_bytes, .. } = converted;
    let request = RegisterRequest {
        name: spec.name.to_string(),
        schema_fingerprint: schema_fingerprint(&columns),
        schema: columns,
        objects,
        origin: Some(Origin {
            inputs: spec.inputs_digest(&origin.digest),
            source: origin.source,
            source_digest: origin.digest,
            format: spec.format.to_string(),
            source_bytes,
            rejected_rows: 0,
            duration_ms: tracker.elapsed_ms(),
        }),
        schema_policy: spec.schema_policy,
        write_mode: spec.write_mode,
    };
    let before = catalog.get(&spec.name).await?;
    let answer = catalog.register(&request).await?;
    let unchanged = before.is_some_and(|before| before.version == answer.manifest.version);
    Ok(IngestAnswer::of(&answer.manifest, answer.existing, unchanged))
}

/// Reading and encoding keep cores busy, so they stay away from the threads that serve others.
async fn convert_on_a_thread(
    catalog: &Catalog,
    source: &Path,
    spec: &IngestSpec,
    tracker: &Tracker,
    options: &Options,
) -> Result<(Spool, Converted), Error> {
    let (catalog, source, spec, options) =
        (catalog.clone(), source.to_owned(), spec.clone(), options.clone());
    let (runtime, working) = (Handle::current(), tracker.clone());
    let task = tokio::task::spawn_blocking(move || {
        let spool = Spool::create(&options.spool_dir)?;
        let request = Request {
            source: &source,
            csv: &spec.csv,
            declared: &spec.columns,
            layout: Layout::default(),
            threads: options.affordable_threads(),
        };
        let admit = |columns: Vec<Column>| {
            let columns = catalog.columns_for(&spec.name, &columns, spec.schema_policy);
            runtime.block_on(columns).map_err(Error::from)
        };
        let converted = convert(&request, spool.folder(), &working, &admit)?;
        Ok((spool, converted))
    });
    task.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
}

async fn upload(
    catalog: &Catalog,
    spec: &IngestSpec,
    converted: &Converted,
    tracker: &Tracker,
) -> Result<Vec<DataObject>, Error> {
    let fingerprint = schema_fingerprint(&converted.columns);
    let mut objects = Vec::with_capacity(converted.files.len());
    for file in &converted.files {
        tracker.check()?;
        objects.push(catalog.put_rows(&spec.name, &fingerprint, &file.path, &file.sha256, file.rows).await?);
    }
    Ok(objects)
}

/// Names what this version does not do yet, before any work is done.
fn refuse_unavailable(spec: &IngestSpec) -> Result<(), Error> {
    match spec.format {
        Format::CSV => {}
        Format::NDJSON => return Err(Error::Unavailable("format: NDJSON")),
        Format::Parquet => return Err(Error::Unavailable("format: Parquet")),
    }
    for column in &spec.columns {
        match column.on_error {
            OnError::Fail => {}
            OnError::Null => return Err(Error::Unavailable("onError: Null")),
            OnError::Quarantine => return Err(Error::Unavailable("onError: Quarantine")),
        }
    }
    if !spec.sort_by.is_empty() {
        return Err(Error::Unavailable("sortBy"));
    }
    Ok(())
}

/// Tells the working thread, and whoever watches, that the caller has dropped the ingest.
struct CancelOnDrop<'a> {
    tracker: &'a Tracker,
    armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.tracker.cancel();
            self.tracker.end::<()>(&Err(Error::Cancelled));
        }
    }
}
