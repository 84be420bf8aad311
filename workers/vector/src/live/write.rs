//! Writes: checked, then in the log, then in the snapshot, then acknowledged.
//!
//! Writes that wait at the same time share one append, and are done in the order of their records.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use lakehouse_ann as ann;
use lakehouse_contract::vectors::{Item, Shape};
use lakehouse_store::log::{Log, MAX_BYTES, MAX_RECORDS};
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::Live;
use crate::{
    Error, Result,
    record::{Op, Record, Write},
    state::{Outcome, State},
    value,
};

/// Writes that wait share an append until they have so many bytes.
const SHARED_BYTES: usize = 8 << 20;
/// How long a write waits for segments to be made of those before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes that wait for the log.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Waiting>,
    /// Whether a task is at work on them.
    committing: bool,
}

#[derive(Debug)]
struct Waiting {
    record: Record,
    bytes: Bytes,
    answer: oneshot::Sender<Result<Outcome>>,
}

/// Checks the items of a batch: all can be kept, or the first that cannot is named.
pub(crate) fn checked_writes(shape: &Shape, items: Vec<Item>) -> Result<Vec<Write>> {
    let check = |(index, item): (usize, Item)| {
        let Item { id, vector, metadata } = item;
        value::check_id(&id).map_err(|message| Error::item(index, message))?;
        ann::check(shape, &vector).map_err(|error| Error::item(index, format!("`vector`: {error}")))?;
        if let Some(metadata) = &metadata {
            value::check_metadata(metadata).map_err(|message| Error::item(index, message))?;
        }
        Ok(Write { id, vector, metadata })
    };
    items.into_iter().enumerate().map(check).collect()
}

impl Live {
    /// Does what `op` says. When it returns, the log holds it and every search that begins finds it.
    ///
    /// After a failure of the store it may be there or not. The write goes on when the caller goes away.
    pub(crate) async fn write(self: &Arc<Self>, op: Op) -> Result<Outcome> {
        self.pushed()?;
        self.wait_for_room().await?;
        let record = Record { index: self.snapshot().manifest.id, at: Timestamp::now(), op };
        let encoded = spawn_blocking(move || (record.encode(), record)).await;
        let (bytes, record) = encoded.map_err(|_| stopping())?;
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: MAX_BYTES });
        }
        let (answer, answered) = oneshot::channel();
        let idle = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Waiting { record, bytes, answer });
            !std::mem::replace(&mut queue.committing, true)
        };
        if idle {
            tokio::spawn(Arc::clone(self).commit_all());
        }
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Waits while more is in memory than should be.
    async fn wait_for_room(self: &Arc<Self>) -> Result<()> {
        let has_room = || {
            let snapshot = self.snapshot();
            let heads = snapshot.parts.iter().filter(|part| part.is_head());
            let (rows, bytes) =
                heads.fold((0, 0), |(rows, bytes), part| (rows + u64::from(part.rows), bytes + part.held()));
            let tuning = &self.context.tuning;
            rows < tuning.most_rows && bytes < tuning.most_bytes
        };
        if has_room() {
            return Ok(());
        }
        let room = timeout(PATIENCE, async {
            loop {
                let flushed = self.flushed.notified();
                self.flush_soon();
                if has_room() {
                    return;
                }
                // Now and then no flush begins because the manifest is being changed by somebody else.
                let _ = timeout(Duration::from_secs(1), flushed).await;
            }
        });
        room.await.map_err(|_| Error::Behind(self.name.clone()))
    }

    async fn commit_all(self: Arc<Self>) {
        while let Some(group) = self.take_group() {
            let (records, answers): (Vec<_>, Vec<_>) =
                group.into_iter().map(|waiting| ((waiting.record, waiting.bytes), waiting.answer)).unzip();
            match Box::pin(self.commit(records)).await {
                Ok(outcomes) => {
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // Who went away does not want to know.
                        let _ = answer.send(outcome);
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
            self.flush_if_due();
        }
    }

    /// The writes that share the next append; `None`, once, when nothing waits.
    fn take_group(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let fits = |(count, waiting): (usize, &Waiting)| {
            bytes += waiting.bytes.len();
            count == 0 || (count < MAX_RECORDS && bytes <= SHARED_BYTES)
        };
        let count = queue.waiting.iter().enumerate().map(fits).take_while(|fits| *fits).count();
        if count == 0 {
            queue.committing = false;
            return None;
        }
        Some(queue.waiting.drain(..count).collect())
    }

    /// Appends the records and does what they say, after those of others that came before.
    async fn commit(&self, group: Vec<(Record, Bytes)>) -> Result<Vec<Result<Outcome>>> {
        let log: &Log = self.pushed()?;
        let (records, bytes): (Vec<Record>, Vec<Bytes>) = group.into_iter().unzip();
        // Nobody else moves the state on meanwhile, so the records are not done twice.
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let gone = || Error::UnknownIndex(self.name.clone());
        if state.closed {
            return Err(gone());
        }
        let numbers = log.append(bytes).await?;
        self.catch_up(&mut state, log, Some(numbers.start)).await?;
        if state.closed {
            self.show(&state);
            return Err(gone());
        }
        let name = self.name.clone();
        let done = spawn_blocking(move || {
            let index = state.manifest.id;
            let each = numbers.zip(records).map(|(number, record)| {
                // Meant for an earlier index of this name.
                let is_late = record.index != index;
                let outcome = state.apply(number, record);
                if is_late { Err(Error::UnknownIndex(name.clone())) } else { Ok(outcome) }
            });
            let outcomes: Vec<Result<Outcome>> = each.collect();
            (state, outcomes)
        });
        let (state, outcomes) = done.await.map_err(|_| stopping())?;
        self.show(&state);
        self.times(|times| (times.written, times.followed) = (Instant::now(), Instant::now()));
        Ok(outcomes)
    }

    /// Whether what is in memory should become a segment.
    pub(super) fn is_flush_due(&self, state: &State) -> bool {
        let tuning = &self.context.tuning;
        let rows = state.head_rows();
        rows >= tuning.flush_rows
            || state.head_bytes() >= tuning.flush_bytes
            || state.next - state.manifest.log_from >= tuning.flush_records
    }
}

fn stopping() -> Error {
    Error::Store(lakehouse_store::Error::Unavailable { message: "the process is stopping".into() })
}
