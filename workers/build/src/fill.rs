//! Rows get their vectors: those that are kept, and for the other texts those that the model makes.
//!
//! Several requests are at work at once; the rows stay in their order. What is embedded is kept at once, whatever ends the build.

use std::{collections::BTreeMap, io};

use futures::{StreamExt, stream::FuturesOrdered};
use lakehouse_contract::vectors::Metadata;
use lakehouse_embed::Vector;
use lakehouse_vector::{Error as VectorError, IndexWriter};
use tokio::sync::Mutex;

use crate::{
    Error, Tracker,
    embed::Model,
    embeddings::{self, Embeddings, Hash},
    rejects::{Rejects, Why},
    spool::{self, Row},
};

/// Requests to the embedding service at the same time.
const CONCURRENT: usize = 4;
/// Texts of one request. What runs in this process has no deadline to meet.
const LOCAL_BATCH: usize = 512;
const REMOTE_BATCH: usize = 64;
/// About so many bytes of text of one request at most.
const BATCH_BYTES: usize = 1 << 20;

/// Rows and how their vectors come about.
struct Batch {
    rows: Vec<Row>,
    hashes: Vec<Hash>,
    /// Of each row, where it was kept.
    kept: Vec<Option<Vec<f32>>>,
    /// Of each text that was not kept: its vector, or why there is none.
    embedded: BTreeMap<Hash, Result<Vector, String>>,
}

/// What came of the rows.
pub(crate) struct Filled {
    pub(crate) writer: IndexWriter,
    pub(crate) rejects: Rejects,
    /// Texts that were embedded.
    pub(crate) embedded: u64,
    /// Rows whose vectors were there.
    pub(crate) reused: u64,
    /// What the model said of the first text that it refused.
    pub(crate) refused: Option<String>,
}

/// Every row gets its vector and goes into the writer, or to the rejects.
pub(crate) async fn fill(
    mut rows: spool::Reader,
    mut filled: Filled,
    model: Model<'_>,
    kept: Option<Embeddings>,
) -> Result<Filled, Stop> {
    let kept = kept.map(Mutex::new);
    let size = if model.identity.model.starts_with("local/") { LOCAL_BATCH } else { REMOTE_BATCH };
    let (mut at_work, mut more) = (FuturesOrdered::new(), true);
    loop {
        while more && at_work.len() < CONCURRENT {
            let taken = rows.take(size, BATCH_BYTES).map_err(Stop::Local)?;
            more = !taken.is_empty();
            if more {
                at_work.push_back(Batch::made(taken, model, kept.as_ref()));
            }
        }
        let Some(batch) = at_work.next().await else { return Ok(filled) };
        filled.take(batch?, model.tracker)?;
    }
}

impl Batch {
    /// Finds the vectors that are kept, embeds the other texts, each once, and keeps them.
    async fn made(
        rows: Vec<Row>,
        model: Model<'_>,
        store: Option<&Mutex<Embeddings>>,
    ) -> Result<Self, Error> {
        let hashes: Vec<Hash> = rows.iter().map(|row| embeddings::hash(&row.text)).collect();
        let kept = match store {
            Some(store) => store.lock().await.find(&hashes).await?,
            None => vec![None; rows.len()],
        };
        let missing = rows.iter().zip(&hashes).zip(&kept).filter(|(_, kept)| kept.is_none());
        let texts: BTreeMap<Hash, String> =
            missing.map(|((row, hash), _)| (*hash, row.text.clone())).collect();
        let (missing, texts): (Vec<Hash>, Vec<String>) = texts.into_iter().unzip();
        let embedded: BTreeMap<_, _> = missing.into_iter().zip(model.vectors(&texts).await?).collect();
        if let Some(store) = store {
            let new =
                embedded.iter().filter_map(|(hash, vector)| Some((*hash, vector.as_ref().ok()?.to_vec())));
            store.lock().await.keep(new.collect()).await?;
        }
        Ok(Self { rows, hashes, kept, embedded })
    }
}

/// What ends the filling of a writer.
pub(crate) enum Stop {
    /// A file of this run failed.
    Local(io::Error),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Filled {
    pub(crate) fn new(writer: IndexWriter, rejects: Rejects) -> Self {
        Self { writer, rejects, embedded: 0, reused: 0, refused: None }
    }

    fn take(&mut self, batch: Batch, tracker: &Tracker) -> Result<(), Stop> {
        let Batch { rows, hashes, kept, embedded } = batch;
        let (before, mut taken) = (self.rejects.count(), 0);
        for ((row, hash), kept) in rows.iter().zip(&hashes).zip(&kept) {
            let vector = match (kept, embedded.get(hash)) {
                (Some(vector), _) => vector.as_slice(),
                (None, Some(Ok(vector))) => vector,
                (None, Some(Err(message))) => {
                    self.refused.get_or_insert_with(|| message.clone());
                    self.reject(row, Why::Refused(message.clone()))?;
                    continue;
                }
                (None, None) => unreachable!("each text that was not kept was embedded or refused"),
            };
            let metadata: Metadata =
                serde_json::from_str(&row.metadata).map_err(|error| Stop::Local(error.into()))?;
            match self.writer.push(&row.id, vector, &metadata) {
                Ok(()) => taken += 1,
                Err(VectorError::Invalid(message)) => self.reject(row, Why::Unfit(message))?,
                Err(error) => return Err(Stop::Failed(error.into())),
            }
        }
        let embedded = (embedded.values().filter(|vector| vector.is_ok()).count() as u64).min(taken);
        self.embedded += embedded;
        self.reused += taken - embedded;
        tracker.give(embedded, taken - embedded);
        tracker.reject(self.rejects.count() - before);
        Ok(())
    }

    fn reject(&mut self, row: &Row, why: Why) -> Result<(), Stop> {
        self.rejects.push(row.number, Some(&row.id), why).map_err(Stop::Local)
    }
}
