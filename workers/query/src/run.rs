//! One query from its text to its bytes, on a thread of its own.
//!
//! ```text
//! session ─► fence ─► files here ─► prepare ─► bind ─► batches ─► encoder ─► pieces ─► body
//! ```

use std::{
    cell::Cell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use arrow::array::Array;
use bytes::Bytes;
use duckdb::{Connection, Statement};
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc};
use tracing::error;

use crate::{
    Error, Format,
    cache::Pin,
    database::Session,
    encode::Encoder,
    engine::Inner,
    error::is_fatal,
    fence,
    gate::Place,
    generation::Generation,
    memory, params,
    recast::{self, Recast},
    values::Shape,
    watch::Watch,
};

/// What a thread hands to the answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next bytes of the body.
    Bytes(Bytes),
    /// The last bytes, if any are left: the body is whole. Without this, what came before is not an answer.
    End(Bytes),
    /// There is no answer, or the body breaks off here.
    Failed(Error),
}

/// A query that has a place.
pub(crate) struct Job {
    pub(crate) engine: Arc<Inner>,
    pub(crate) sql: String,
    pub(crate) params: Vec<Value>,
    pub(crate) limit: Option<u64>,
    pub(crate) format: Format,
    pub(crate) watch: Arc<Watch>,
    pub(crate) pieces: mpsc::Sender<Piece>,
    pub(crate) runtime: Handle,
    /// Whether the caller has had a part of the answer.
    pub(crate) sent: Cell<bool>,
    /// Given back when the thread ends, or some time after an interrupt that DuckDB does not notice.
    pub(crate) place: Arc<Place>,
}

/// Bytes of a streamed body that are handed on together.
const PIECE: usize = 256 << 10;

/// Room for the deepest tree that DuckDB's parser lets through, in DuckDB's planner and in ours.
const STACK: usize = 64 << 20;

impl Job {
    /// Starts the thread.
    pub(crate) fn spawn(self) -> std::io::Result<()> {
        std::thread::Builder::new().name("query".into()).stack_size(STACK).spawn(move || self.run()).map(drop)
    }

    fn run(self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.work()));
        self.watch.finish();
        self.engine.cache.evict();
        let last = match result {
            Ok(Ok((session, rest))) => {
                // No interrupt is on its way: none is sent once the watchdog knows that the query is over.
                if self.watch.verdict().is_none() {
                    session.keep();
                }
                Piece::End(rest.into())
            }
            Ok(Err(error)) => Piece::Failed(error),
            Err(_) => Piece::Failed(Error::Internal("the thread of a query panicked".into())),
        };
        let Self { place, pieces, runtime, engine, .. } = self;
        // DuckDB has done its work; the reader may take its time with the rest.
        drop(place);
        match last {
            Piece::Failed(Error::Gone) => drop(pieces.try_send(last)),
            last => drop(runtime.block_on(hand(&pieces, engine.settings.stall_timeout, last))),
        }
        memory::make_room();
    }

    /// Answers the query but for the last bytes.
    fn work(&self) -> Result<(Session, Vec<u8>), Error> {
        match self.work_with(params::start) {
            // When a thread of a stream fails, DuckDB may tell of the interrupt that stopped the others and not of the
            // failure, which has ended the transaction. Run as a whole, in one of its own, the statement tells what is wrong.
            Err(Error::Gone) if self.watch.verdict().is_none() && !self.sent.get() => {
                self.work_with(params::start_whole)
            }
            worked => worked,
        }
    }

    fn work_with(&self, start: params::Start) -> Result<(Session, Vec<u8>), Error> {
        let engine = &self.engine;
        let database = engine.generation.load().database.clone();
        let opened = database.session(|| engine.generation.load_full());
        let (session, generation) = opened.map_err(|error| engine.scrub.error(&error))?;
        self.watch.watch(session.connection().interrupt_handle());
        let answered = self.answer(session.connection(), &generation, start);
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
        start: params::Start,
    ) -> Result<Vec<u8>, Error> {
        let engine = &self.engine;
        let parsed = fence::parse(connection, &engine.scrub, &self.sql, engine.settings.max_sql_bytes)?;
        let statement = parsed.check(connection, generation, &engine.scrub, self.limit)?;
        let _pins = self.pins(generation, &statement.datasets)?;
        let answered = self.attempt(connection, &statement.sql, start);
        answered.map_err(|error| blamed(error, generation, &statement.datasets))
    }

    /// Runs a statement that may run.
    fn attempt(&self, connection: &Connection, sql: &str, start: params::Start) -> Result<Vec<u8>, Error> {
        let failed = |error: duckdb::Error| self.engine.scrub.error(&error);
        let mut prepared = connection.prepare(sql).map_err(failed)?;
        let params = params::bind(&prepared, &self.params)?;
        let shape = match start(&mut prepared, &params) {
            Ok(()) => Some(Shape::of(&prepared)).filter(|shape| !recast::is_needed(shape)),
            Err(error) if recast::is_unreadable(&error) => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(shape) = shape {
            return self.encode(&prepared, &shape);
        }
        drop(prepared);
        let recast = Recast::of(connection, sql, &params).map_err(failed)?;
        let mut around = connection.prepare(&recast.around(sql)).map_err(failed)?;
        start(&mut around, &params).map_err(failed)?;
        self.encode(&around, &recast.shape())
    }

    /// Brings the files of the datasets here, unless they are here, and keeps them.
    fn pins(&self, generation: &Generation, names: &BTreeSet<String>) -> Result<Vec<Pin>, Error> {
        let manifests = names.iter().filter_map(|name| generation.manifest(name));
        let mut pins = Vec::new();
        for manifest in manifests {
            for object in &manifest.objects {
                let pin = self.runtime.block_on(async {
                    tokio::select! {
                        pin = self.engine.cache.pin(object) => pin.map_err(|error| Error::Dataset {
                            dataset: manifest.name.to_string(),
                            message: error.to_string(),
                        }),
                        ended = self.watch.ended() => Err(ended),
                    }
                })?;
                pins.push(pin);
            }
        }
        Ok(pins)
    }

    /// Hands on the rows, all but the last bytes of them.
    fn encode(&self, rows: &Statement<'_>, shape: &Shape) -> Result<Vec<u8>, Error> {
        let limit = self.engine.settings.max_result_bytes;
        let mut encoder = Encoder::start(self.format, shape, &rows.schema(), limit)?;
        let mut left = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        while left > 0 {
            let batch = rows.step().map_err(|error| self.engine.scrub.error(&error))?;
            let Some(batch) = batch else { break };
            let batch = if batch.len() > left { batch.slice(0, left) } else { batch };
            left -= batch.len();
            encoder.rows(batch)?;
            if encoder.streams() && encoder.buffered() >= PIECE {
                self.send(encoder.take())?;
            }
        }
        encoder.finish()?;
        Ok(encoder.take())
    }

    fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.sent.set(true);
        let patience = self.engine.settings.stall_timeout;
        let handed = hand(&self.pieces, patience, Piece::Bytes(bytes.into()));
        self.watch.off_the_clock(|| self.runtime.block_on(handed))
    }
}

/// An error that names a file is about the dataset that the file belongs to. A reader that stumbles without a name can
/// only have stumbled over the one dataset that there is.
fn blamed(error: Error, generation: &Generation, names: &BTreeSet<String>) -> Error {
    let (Error::Sql(message) | Error::Refused(message) | Error::Internal(message)) = &error else {
        return error;
    };
    let stumbled = message.starts_with("IO Error") || message.starts_with("Invalid Error");
    let mut owners = names.iter().filter_map(|name| generation.manifest(name)).filter(|manifest| {
        (stumbled && names.len() == 1)
            || manifest.objects.iter().any(|object| message.contains(&object.sha256))
    });
    match owners.next() {
        Some(manifest) => Error::Dataset { dataset: manifest.name.to_string(), message: message.clone() },
        None => error,
    }
}

/// Gives a piece to the body. A reader that takes nothing for too long has gone for us.
async fn hand(pieces: &mpsc::Sender<Piece>, patience: Duration, piece: Piece) -> Result<(), Error> {
    match tokio::time::timeout(patience, pieces.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Error::Gone),
    }
}
