//! The engine: datasets as views, and queries over them.

use std::{
    cell::Cell,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use lakehouse_catalog::Catalog;
use lakehouse_contract::sql::SqlRequest;
use lakehouse_store::Store;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, mpsc},
};
use tracing::warn;

use crate::{
    Error, Format, Settings, Views,
    cache::Cache,
    database::{BLOBS, Database},
    encode::Encoder,
    error::Scrub,
    fence,
    gate::{Gate, Place},
    generation::Generation,
    run::{Job, Piece},
    sink::{Batched, Open, Sink},
    threads::Threads,
    version::Versions,
    watch::Watch,
};

/// SQL over the datasets of a catalogue. Cheap to clone; the last clone ends the follower.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) catalog: Catalog,
    pub(crate) cache: Cache,
    pub(crate) scrub: Scrub,
    pub(crate) generation: Arc<ArcSwap<Generation>>,
    pub(crate) versions: Versions,
    pub(crate) texts: fence::Memory,
    pub(crate) threads: Arc<Threads>,
    pub(crate) refreshing: Mutex<()>,
    /// The current database has failed for good; the next refresh opens another one.
    pub(crate) doomed: AtomicBool,
    /// Whether the catalogue was read at least once.
    followed: AtomicBool,
    wake: Arc<Notify>,
    gate: Gate,
}

impl Engine {
    /// Opens the engine and makes the views. A catalogue that cannot be read yet is tried again by the follower.
    pub async fn open(store: Store, catalog: Catalog, settings: Settings) -> Result<Self, Error> {
        let settings = Settings { cache_dir: real_folder(&settings)?, ..settings };
        let cache = Cache::open(store, settings.cache_dir.join(BLOBS), settings.cache_limit)
            .map_err(|error| unusable(&settings, &error))?;
        let database = open_database(&settings)?;
        let inner = Arc::new(Inner {
            catalog,
            cache,
            scrub: Scrub::new(&settings),
            generation: Arc::new(ArcSwap::from_pointee(Generation::empty(database))),
            refreshing: Mutex::new(()),
            versions: Versions::default(),
            texts: fence::Memory::new(),
            threads: Arc::default(),
            doomed: AtomicBool::new(false),
            followed: AtomicBool::new(false),
            wake: Arc::default(),
            gate: Gate::new(&settings),
            settings,
        });
        let engine = Self { inner };
        if let Err(error) = engine.refresh().await {
            warn!(%error, "The views will follow the catalogue once it can be read");
        }
        let Inner { wake, settings, .. } = &*engine.inner;
        tokio::spawn(follow(Arc::downgrade(&engine.inner), wake.clone(), settings.refresh_interval));
        Ok(engine)
    }

    /// Makes the views what the catalogue says now. Running queries keep what they started with.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.inner.refresh().await?;
        self.inner.followed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the catalogue has been read and queries can be answered.
    pub fn is_ready(&self) -> bool {
        self.inner.followed.load(Ordering::Relaxed) && !self.inner.doomed.load(Ordering::Relaxed)
    }

    /// What can be queried, and what cannot be and why.
    pub fn views(&self) -> Views {
        self.inner.generation.load().views()
    }

    /// Runs a query and waits for the first piece of its answer. Dropping the future or the answer ends the query.
    pub async fn query(&self, request: SqlRequest, format: Format) -> Result<Answer, Error> {
        let Settings { timeout, stall_timeout, max_result_bytes, .. } = self.inner.settings;
        let place = self.inner.gate.enter().await?;
        let open: Open<Encoder> =
            Box::new(move |shape, schema| Encoder::start(format, shape, schema, max_result_bytes));
        let pieces = self.start(request, place, Patience { timeout, stall_timeout }, open).await?;
        Ok(Answer { format, pieces })
    }

    /// Runs a query for this process, which reads its rows in batches. The fence is that of every query.
    ///
    /// The query may work for `timeout`; the time that the reader takes between two batches does not count and has no end.
    /// It takes no place from those that callers wait for: whoever runs it decides how many run beside it. Types that
    /// Arrow has no exact place for come as text. Dropping the future or the batches ends the query.
    pub async fn batches(&self, request: SqlRequest, timeout: Duration) -> Result<Batches, Error> {
        let patience = Patience { timeout, stall_timeout: Duration::MAX };
        let open: Open<Batched> = Box::new(|_, schema| Ok(Batched::start(schema)));
        let mut pieces = self.start(request, Place::apart(), patience, open).await?;
        let empty = pieces.next().await.transpose()?;
        let schema =
            empty.ok_or_else(|| Error::Internal("a query ended without its columns".into()))?.schema();
        Ok(Batches { schema, pieces })
    }

    async fn start<S: Sink>(
        &self,
        request: SqlRequest,
        place: Place,
        patience: Patience,
        open: Open<S>,
    ) -> Result<Pieces<S::Piece>, Error> {
        let place = Arc::new(place);
        let watch = Watch::start(patience.timeout, place.clone());
        // From here on, whatever drops this ends the query.
        let caller = Caller { watch: watch.clone() };
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let job = Job {
            engine: self.inner.clone(),
            request,
            open,
            watch: watch.clone(),
            pieces: sender,
            stall_timeout: patience.stall_timeout,
            runtime: Handle::current(),
            sent: Cell::new(false),
            place,
        };
        job.start().map_err(|error| Error::Internal(format!("a thread for the query: {error}")))?;
        let first = tokio::select! {
            first = receiver.recv() => first,
            // DuckDB may notice an interrupt late; the caller is answered in time all the same.
            ended = late(&watch) => return Err(ended),
        };
        match first {
            Some(Piece::Failed(error)) => Err(error),
            Some(first) => Ok(Pieces { first: Some(first), receiver, whole: false, _caller: caller }),
            None => Err(Error::Internal("a query ended without an answer".into())),
        }
    }
}

/// How long a query may work, and how long it waits for a reader that takes nothing.
struct Patience {
    timeout: Duration,
    stall_timeout: Duration,
}

/// Pieces of a body that wait for the reader.
const AHEAD: usize = 4;

/// How long DuckDB may take to notice that a query is to end before the caller is told without it.
const GRACE: Duration = Duration::from_millis(500);

async fn late(watch: &Watch) -> Error {
    let ended = watch.ended().await;
    tokio::time::sleep(GRACE).await;
    ended
}

/// The one who waits for an answer.
struct Caller {
    watch: Arc<Watch>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.watch.abandon();
    }
}

/// What a query's thread hands on, the first piece of which is there.
struct Pieces<T> {
    first: Option<Piece<T>>,
    receiver: mpsc::Receiver<Piece<T>>,
    /// The last piece was there.
    whole: bool,
    _caller: Caller,
}

impl<T: Unpin> Stream for Pieces<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.whole {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.receiver.poll_recv(context)),
        };
        if !matches!(piece, Some(Piece::More(_))) {
            self.whole = true;
        }
        Poll::Ready(match piece {
            Some(Piece::More(piece)) => Some(Ok(piece)),
            Some(Piece::End(piece)) => piece.map(Ok),
            Some(Piece::Failed(error)) => Some(Err(error)),
            None => Some(Err(Error::Internal("the query broke off".into()))),
        })
    }
}

/// An answer whose first bytes are there. A stream that ends with an error is not a whole answer.
pub struct Answer {
    /// How the bytes are to be read.
    pub format: Format,
    pieces: Pieces<Bytes>,
}

impl Answer {
    /// The whole answer in one piece.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let first = self.next().await.transpose()?.unwrap_or_default();
        let mut rest = Vec::new();
        while let Some(piece) = self.next().await.transpose()? {
            rest.push(piece);
        }
        if rest.is_empty() {
            return Ok(first);
        }
        rest.insert(0, first);
        Ok(rest.concat().into())
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_next_unpin(context)
    }
}

/// The rows of a query for this process, in their order. A stream that ends with an error has not given all of them.
pub struct Batches {
    schema: SchemaRef,
    pieces: Pieces<RecordBatch>,
}

impl Batches {
    /// The columns, also when there are no rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Stream for Batches {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_next_unpin(context)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Inner {
    pub(crate) fn open_database(&self) -> Result<Database, Error> {
        open_database(&self.settings)
    }

    /// DuckDB says that the database of this generation will answer nothing any more.
    pub(crate) fn doom(&self, generation: &Generation) {
        if Arc::ptr_eq(&self.generation.load().database, &generation.database) {
            self.doomed.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }
}

/// Compares the views with the catalogue for as long as somebody holds the engine.
async fn follow(engine: Weak<Inner>, wake: Arc<Notify>, interval: Duration) {
    loop {
        // Woken early when the database has failed, or when nobody holds the engine any more.
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = wake.notified() => {}
        }
        let Some(inner) = engine.upgrade() else { return };
        let engine = Engine { inner };
        if let Err(error) = engine.refresh().await {
            warn!(%error, "The views stay as they are");
        }
    }
}

/// Makes the folder and finds its real path, for that is the one that DuckDB compares.
fn real_folder(settings: &Settings) -> Result<PathBuf, Error> {
    let folder = &settings.cache_dir;
    let real = std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
    real.map_err(|error| unusable(settings, &error))
}

fn unusable(settings: &Settings, error: &std::io::Error) -> Error {
    Error::Internal(format!(
        "the folder for queries, {}, cannot be used: {error}",
        settings.cache_dir.display()
    ))
}

fn open_database(settings: &Settings) -> Result<Database, Error> {
    Database::open(settings).map_err(|error| Error::Internal(format!("DuckDB cannot be opened: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_failed_for_good_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::memory();
        let settings = Settings { refresh_interval: Duration::from_hours(1), ..Settings::new(folder.path()) };
        let engine = Engine::open(store.clone(), Catalog::new(store), settings).await.unwrap();
        let failed = engine.inner.generation.load_full();
        engine.inner.doom(&failed);
        assert!(!engine.is_ready());
        while Arc::ptr_eq(&failed.database, &engine.inner.generation.load().database) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.inner.doom(&failed);
        assert!(engine.is_ready(), "a late failure of the old database dooms nothing");
        let request = SqlRequest { sql: "SELECT 42".into(), ..SqlRequest::default() };
        let answer = engine.query(request, Format::Csv).await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), "42\r\n42\r\n");
    }

    #[tokio::test]
    async fn dropping_the_engine_ends_its_follower() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::memory();
        let settings =
            Settings { refresh_interval: Duration::from_millis(1), ..Settings::new(folder.path()) };
        let engine = Engine::open(store.clone(), Catalog::new(store), settings).await.unwrap();
        let inner = Arc::downgrade(&engine.inner);
        drop(engine);
        while inner.upgrade().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
