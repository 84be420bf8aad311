//! One query from its text to its bytes, on a thread of its own.
//!
//! ```text
//! session ─► fence ─► files here ─► prepare ─► bind ─► batches ─► sink ─► pieces ─► body, or reader
//! ```

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use arrow::array::Array;
use duckdb::{Connection, Statement, types::Value};
use lakehouse_contract::{DatasetManifest, sql::SqlRequest};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
};
use tracing::error;

use crate::{
    Error,
    cache::Pin,
    database::Session,
    engine::Inner,
    error::is_fatal,
    fence,
    gate::Place,
    generation::Generation,
    memory, params,
    recast::{self, Recast},
    sink::{Open, Sink},
    values::Shape,
    version::Version,
    view,
    watch::Watch,
};

/// What a thread hands to the answer.
#[derive(Debug)]
pub(crate) enum Piece<T> {
    /// A part of the answer.
    More(T),
    /// The last part, if any is left: the answer is whole. Without this, what came before is not an answer.
    End(Option<T>),
    /// There is no answer, or it breaks off here.
    Failed(Error),
}

/// A query that has a place.
pub(crate) struct Job<S: Sink> {
    pub(crate) engine: Arc<Inner>,
    pub(crate) request: SqlRequest,
    pub(crate) open: Open<S>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) pieces: mpsc::Sender<Piece<S::Piece>>,
    /// How long a reader may take nothing.
    pub(crate) stall_timeout: Duration,
    pub(crate) runtime: Handle,
    /// Whether the caller has had a part of the answer.
    pub(crate) sent: Cell<bool>,
    /// Given back when the thread ends, or some time after an interrupt that DuckDB does not notice.
    pub(crate) place: Arc<Place>,
}

/// How DuckDB is asked for the rows.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// In a stream, as the argument of DuckDB's function `query`. Of a statement over files, DuckDB makes a plan when it is
    /// prepared and another one when it is run. This one has a gap where its text comes in, so it can be prepared once for each
    /// connection, and is planned when it is run.
    Once,
    /// In a stream.
    Stream,
    /// To its end before the first row is given.
    Whole,
}

impl<S: Sink> Job<S> {
    /// Starts the work.
    pub(crate) fn start(self) -> std::io::Result<()> {
        let threads = self.engine.threads.clone();
        threads.run(Box::new(move || self.run()))
    }

    fn run(self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.work()));
        self.watch.finish();
        self.engine.cache.evict();
        let (session, last) = match result {
            Ok(Ok((session, rest))) => (Some(session), Piece::End(rest)),
            Ok(Err(error)) => (None, Piece::Failed(error)),
            Err(_) => (None, Piece::Failed(Error::Internal("the thread of a query panicked".into()))),
        };
        // No interrupt is on its way: none is sent once the watchdog knows that the query is over.
        let session = session.filter(|_| self.watch.verdict().is_none());
        let Self { place, pieces, runtime, stall_timeout, .. } = self;
        // DuckDB has done its work; the reader may take its time with the rest.
        drop(place);
        let unsent = pieces.try_send(last);
        // The transaction ends while the reader reads.
        if let Some(session) = session {
            session.keep();
        }
        if let Err(TrySendError::Full(last)) = unsent
            && !matches!(last, Piece::Failed(Error::Gone))
        {
            drop(runtime.block_on(hand(&pieces, stall_timeout, last)));
        }
        memory::make_room();
    }

    /// Answers the query but for the last piece.
    fn work(&self) -> Result<(Session, Option<S::Piece>), Error> {
        let mut way = if self.request.params.is_empty() { Way::Once } else { Way::Stream };
        loop {
            let failed = match self.work_as(way) {
                Err(failed) if self.watch.verdict().is_none() && !self.sent.get() => failed,
                worked => return worked,
            };
            // A failure has ended the transaction, so each way has one of its own.
            way = match (way, failed) {
                // Its places are those of a text around the caller's, and not every statement can stand in another.
                (Way::Once, Error::Sql(_)) => Way::Stream,
                // When a thread of a stream fails, DuckDB may tell of the interrupt that stopped the others and not of the
                // failure. Run as a whole, the statement tells what is wrong.
                (Way::Once | Way::Stream, Error::Gone) => Way::Whole,
                (_, failed) => return Err(failed),
            }
        }
    }

    fn work_as(&self, way: Way) -> Result<(Session, Option<S::Piece>), Error> {
        let engine = &self.engine;
        let database = engine.generation.load().database.clone();
        let opened = database.session(|| engine.generation.load_full());
        let (session, generation) = opened.map_err(|error| engine.scrub.error(&error))?;
        self.watch.watch(session.connection().interrupt_handle());
        let answered = self.answer(session.connection(), &generation, way);
        answered.map(|rest| (session, rest)).map_err(|failed| {
            if let Error::Internal(message) = &failed {
                error!(message, "The query engine failed");
                if is_fatal(message) {
                    engine.doom(&generation);
                }
            }
            // An interrupt looks like an error of the query; the watchdog knows why it was sent.
            self.watch.verdict().unwrap_or(failed)
        })
    }

    fn answer(
        &self,
        connection: &Connection,
        generation: &Generation,
        way: Way,
    ) -> Result<Option<S::Piece>, Error> {
        let engine = &self.engine;
        let SqlRequest { sql, limit, .. } = &self.request;
        let max_bytes = engine.settings.max_sql_bytes;
        let parsed = fence::parse(connection, &engine.scrub, &engine.texts, sql, max_bytes, *limit)?;
        let statement = parsed.check(generation)?;
        let sources = self.sources(generation, &statement)?;
        let _pins = self.pins(&sources)?;
        let seen = sources.iter().try_for_each(|source| self.show(connection, source));
        let answered = seen.and_then(|()| self.attempt(connection, &statement, way));
        answered.map_err(|error| blamed(error, &sources))
    }

    /// What a statement reads. A version that is not the current one is looked for in the history.
    fn sources(&self, generation: &Generation, statement: &fence::Statement) -> Result<Vec<Source>, Error> {
        let fence::Statement { datasets, versions, .. } = statement;
        let current = datasets.iter().filter_map(|name| generation.manifest(name));
        let mut sources: Vec<Source> =
            current.map(|manifest| Source { manifest: manifest.clone(), version: None }).collect();
        for version in versions.values() {
            let current = generation.manifest(&version.dataset.as_str().to_lowercase());
            let manifest = match current.filter(|current| current.version == version.number) {
                Some(current) => current.clone(),
                None => self.wait(self.engine.versions.find(&self.engine.catalog, version))?,
            };
            sources.push(Source { manifest, version: Some(version.clone()) });
        }
        Ok(sources)
    }

    /// Makes the view of a version, which goes with the query's transaction. Datasets have theirs already.
    fn show(&self, connection: &Connection, source: &Source) -> Result<(), Error> {
        if source.version.is_none() {
            return Ok(());
        }
        let Source { manifest, .. } = source;
        let files: Vec<_> = manifest.objects.iter().map(|object| self.engine.cache.path(object)).collect();
        let view = view::create_temporary(&source.name(), &view::select(manifest, &files));
        connection.execute_batch(&view).map_err(|error| {
            let message = self.engine.scrub.text(&error.to_string());
            Error::Dataset { dataset: source.name(), message }
        })
    }

    /// Waits for something that the query needs, as long as it may go on.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done,
                ended = self.watch.ended() => Err(ended),
            }
        })
    }

    /// Runs a statement that may run.
    fn attempt(
        &self,
        connection: &Connection,
        statement: &fence::Statement,
        way: Way,
    ) -> Result<Option<S::Piece>, Error> {
        let failed = |error: duckdb::Error| self.engine.scrub.error(&error);
        let start = match way {
            Way::Once if statement.is_movable => {
                if let Some(Encoded { last, .. }) = self.once(connection, &statement.sql)? {
                    return Ok(last);
                }
                params::start
            }
            Way::Once | Way::Stream => params::start,
            Way::Whole => params::start_whole,
        };
        let sql = &statement.sql;
        let mut prepared = connection.prepare(sql).map_err(failed)?;
        let params = params::bind(&prepared, &self.request.params)?;
        let shape = match start(&mut prepared, &params) {
            Ok(()) => Some(Shape::of(&prepared)).filter(|shape| !recast::is_needed(shape)),
            Err(error) if recast::is_unreadable(&error) => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(shape) = shape {
            return self.encode(&prepared, &shape).map(|encoded| encoded.last);
        }
        drop(prepared);
        let recast = Recast::of(connection, sql, &params).map_err(failed)?;
        let mut around = connection.prepare(&recast.around(sql)).map_err(failed)?;
        start(&mut around, &params).map_err(failed)?;
        self.encode(&around, &recast.shape()).map(|encoded| encoded.last)
    }

    /// Runs a statement as [`Way::Once`]; `None` when its columns must be had in another way.
    fn once(&self, connection: &Connection, sql: &str) -> Result<Option<Encoded<S::Piece>>, Error> {
        let failed = |error: duckdb::Error| self.engine.scrub.error(&error);
        let mut around = connection.prepare_cached("FROM query(?)").map_err(failed)?;
        match params::start(&mut around, &[Value::Text(sql.to_owned())]) {
            Ok(()) => {}
            Err(error) if recast::is_unreadable(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let shape = Shape::of(&around);
        if recast::is_needed(&shape) || shape.has_made_up_names() {
            around.discard();
            return Ok(None);
        }
        let encoded = self.encode(&around, &shape)?;
        if !encoded.is_whole {
            // What is left of the rows would stay with the statement.
            around.discard();
        }
        Ok(Some(encoded))
    }

    /// Brings the files of the sources here, unless they are here, and keeps them.
    fn pins(&self, sources: &[Source]) -> Result<Vec<Pin>, Error> {
        let mut pins = Vec::new();
        for source in sources {
            for object in &source.manifest.objects {
                let pin = async {
                    let pin = self.engine.cache.pin(object).await;
                    pin.map_err(|error| Error::Dataset { dataset: source.name(), message: error.to_string() })
                };
                pins.push(self.wait(pin)?);
            }
        }
        Ok(pins)
    }

    /// Hands on the rows, all but the last piece of them.
    fn encode(&self, rows: &Statement<'_>, shape: &Shape) -> Result<Encoded<S::Piece>, Error> {
        let mut sink = (self.open)(shape, &rows.schema())?;
        let limit = self.request.limit;
        let mut left = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut is_whole = false;
        while left > 0 {
            let batch = rows.step().map_err(|error| self.engine.scrub.error(&error))?;
            let Some(batch) = batch else {
                is_whole = true;
                break;
            };
            let batch = if batch.len() > left { batch.slice(0, left) } else { batch };
            left -= batch.len();
            sink.rows(batch)?;
            while let Some(piece) = sink.ready() {
                self.send(piece)?;
            }
        }
        Ok(Encoded { last: sink.finish()?, is_whole })
    }

    fn send(&self, piece: S::Piece) -> Result<(), Error> {
        self.sent.set(true);
        let handed = hand(&self.pieces, self.stall_timeout, Piece::More(piece));
        self.watch.off_the_clock(|| self.runtime.block_on(handed))
    }
}

/// What is left of an answer when its rows have been encoded.
struct Encoded<T> {
    last: Option<T>,
    /// Whether DuckDB has given all rows that it has.
    is_whole: bool,
}

/// A dataset that a statement reads, by its name or by a version's.
struct Source {
    manifest: Arc<DatasetManifest>,
    version: Option<Version>,
}

impl Source {
    /// The name that it has in SQL, but for its case.
    fn name(&self) -> String {
        self.version.as_ref().map_or_else(|| self.manifest.name.to_string(), Version::to_string)
    }
}

/// An error that names a file is about the dataset that the file belongs to. A reader that stumbles without a name can
/// only have stumbled over the one dataset that there is.
fn blamed(error: Error, sources: &[Source]) -> Error {
    let (Error::Sql(message) | Error::Refused(message) | Error::Internal(message)) = &error else {
        return error;
    };
    let stumbled = message.starts_with("IO Error") || message.starts_with("Invalid Error");
    let mut owners = sources.iter().filter(|source| {
        (stumbled && sources.len() == 1)
            || source.manifest.objects.iter().any(|object| message.contains(&object.sha256))
    });
    match owners.next() {
        Some(source) => Error::Dataset { dataset: source.name(), message: message.clone() },
        None => error,
    }
}

/// Gives a piece to the reader. One that takes nothing for too long has gone for us.
async fn hand<T>(pieces: &mpsc::Sender<Piece<T>>, patience: Duration, piece: Piece<T>) -> Result<(), Error> {
    match tokio::time::timeout(patience, pieces.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Error::Gone),
    }
}
