//! Logs: an ordered run of records, appended by put-if-absent of the next number.
//!
//! ```text
//! <prefix>00000000000000000000    records 0, 1, 2
//! <prefix>00000000000000000003    record 3
//! <prefix>00000000000000000004    records 4 to 9
//! ```
//! An object is named by the number of its first record, so its name is free only for who knows the true end of the log:
//! two writers cannot both win, and the loser reads again. Appends that wait at the same time share one object. What was
//! acknowledged lies in the bucket.

mod codec;
mod read;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex as Lock, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::Key;
use tokio::sync::{Mutex, oneshot};

use crate::{Condition, Error, Payload, Result, Store};

/// The most records in one object, and so in one append.
pub const MAX_RECORDS: usize = 4096;
/// The most bytes of records in one append: what the largest body that a service takes can become.
pub const MAX_BYTES: usize = 160 << 20;
/// Appends that wait share an object until it has this many bytes.
const SHARED_BYTES: usize = 4 << 20;

/// How long a writer trusts what it knows of the log's end. Far below [`GRACE`]: a writer that slept must not take the
/// name of an object that was removed meanwhile for the next free one.
const TRUST: Duration = Duration::from_mins(1);
/// How old an object must be to be removed. Above [`TRUST`], the retries of a write and the clock error that S3 allows.
const GRACE: SignedDuration = SignedDuration::from_hours(1);

/// A record with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts from 0. Numbers rise, without gaps unless a damaged end was cut.
    pub number: u64,
    /// What was appended.
    pub content: Bytes,
}

/// What was found wrong at the end of a log when it was opened. The log goes on after the last whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The damaged object; it stays as it is.
    pub key: Key,
    /// The number of the next record.
    pub next: u64,
    /// What is wrong.
    pub message: String,
}

/// An open log. Cheap to clone; its clones share their appends.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// Ends in `/`.
    prefix: String,
    tail: Mutex<Tail>,
    waiting: Lock<Waiting>,
    cut: Option<CutTail>,
    grace: SignedDuration,
}

/// What is known of the log's end.
#[derive(Debug)]
struct Tail {
    next: u64,
    /// When this was true for certain; `None` when it is in doubt.
    known: Option<Instant>,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<Append>,
    /// Whether a task is at work on them.
    committing: bool,
}

struct Append {
    records: Vec<Bytes>,
    bytes: usize,
    answer: oneshot::Sender<Result<Range<u64>>>,
}

impl Log {
    /// Opens the log below `prefix`, which may be new.
    pub async fn open(store: Store, prefix: &Key) -> Result<Self> {
        Self::open_with_grace(store, prefix, GRACE).await
    }

    /// Like [`Log::open`], with another age for what [`Log::truncate_before`] removes. An age of zero is sound only when
    /// nobody else appends.
    pub async fn open_with_grace(store: Store, prefix: &Key, grace: SignedDuration) -> Result<Self> {
        let prefix = format!("{prefix}/");
        let end = read::end(&store, &prefix, None).await?;
        let cut = end.damage.map(|(key, message)| CutTail { key, next: end.next, message });
        if let Some(CutTail { key, next, message }) = &cut {
            tracing::warn!(%key, next, "The end of a log is damaged ({message}); it goes on with record {next}");
        }
        let tail = Mutex::new(Tail { next: end.next, known: Some(Instant::now()) });
        let inner = Inner { store, prefix, tail, waiting: Lock::default(), cut, grace };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What was found wrong at the end when the log was opened.
    pub fn cut_tail(&self) -> Option<&CutTail> {
        self.inner.cut.as_ref()
    }

    /// Appends `records`, all or none, next to each other; their numbers. When it returns they are in the bucket.
    ///
    /// After an error they may be there or not. The append goes on when the caller goes away.
    pub async fn append(&self, records: Vec<Bytes>) -> Result<Range<u64>> {
        let bytes = records.iter().map(Bytes::len).sum();
        if records.is_empty() || records.len() > MAX_RECORDS {
            let message = format!("an append has 1 to {MAX_RECORDS} records, not {}", records.len());
            return Err(Error::Unfit { message });
        }
        if bytes > MAX_BYTES {
            return Err(Error::TooLarge { limit: MAX_BYTES as u64 });
        }
        let (answer, answered) = oneshot::channel();
        let idle = {
            let mut waiting = self.inner.waiting();
            waiting.appends.push(Append { records, bytes, answer });
            !std::mem::replace(&mut waiting.committing, true)
        };
        if idle {
            tokio::spawn(Arc::clone(&self.inner).commit_all());
        }
        let stopped = |_| Err(Error::Unavailable { message: "the process is stopping".into() });
        answered.await.unwrap_or_else(stopped)
    }

    /// The records from `number` on, up to the log's end.
    ///
    /// Fails with [`Error::Gone`] when records from `number` on were removed, and with [`Error::Damaged`] where one that
    /// others follow cannot be read.
    pub fn read_from(&self, number: u64) -> BoxStream<'static, Result<Record>> {
        read::records(self.inner.store.clone(), self.inner.prefix.clone(), number)
    }

    /// The number that the next record gets, as the bucket has it now.
    pub async fn next(&self) -> Result<u64> {
        let mut tail = self.inner.tail.lock().await;
        self.inner.refresh(&mut tail).await?;
        Ok(tail.next)
    }

    /// The first record of the first object that starts at `number` or later: whether there is something new, by one listing, and
    /// where whole records begin again after a damaged object.
    pub async fn starts_from(&self, number: u64) -> Result<Option<u64>> {
        read::starts_from(&self.inner.store, &self.inner.prefix, number).await
    }

    /// Removes objects that hold only records before `number`; how many. What is younger than an hour stays for the next
    /// time, and so does the last object: it says where the log ends.
    pub async fn truncate_before(&self, number: u64) -> Result<usize> {
        let Inner { store, prefix, grace, .. } = &*self.inner;
        let objects = store.list_all(prefix).await?;
        let now = Timestamp::now();
        let mut removed = 0;
        for pair in objects.windows(2) {
            let [listed, after] = pair else { break };
            let old = now.duration_since(listed.meta.modified) >= *grace;
            // In the order of numbers, so that what is left has no hole.
            if !old || read::number(prefix, &after.key).is_none_or(|first| first > number) {
                break;
            }
            store.delete(&listed.key).await?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic cannot have hurt the list: nothing runs between its statements.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what waits, object after object, until nothing does.
    async fn commit_all(self: Arc<Self>) {
        while let Some(group) = self.take_group() {
            let records: Vec<&Bytes> = group.iter().flat_map(|append| &append.records).collect();
            match self.commit(&records).await {
                Ok(mut number) => {
                    for append in group {
                        let numbers = number..number + append.records.len() as u64;
                        number = numbers.end;
                        // Who went away does not want to know.
                        let _ = append.answer.send(Ok(numbers));
                    }
                }
                Err(error) => {
                    for append in group {
                        let _ = append.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// The appends that share the next object; `None`, once, when nothing waits.
    fn take_group(&self) -> Option<Vec<Append>> {
        let mut waiting = self.waiting();
        let (mut records, mut bytes) = (0, 0);
        let fits = |append: &Append| {
            let first = records == 0;
            records += append.records.len();
            bytes += append.bytes;
            first || (records <= MAX_RECORDS && bytes <= SHARED_BYTES)
        };
        let count = waiting.appends.iter().map(fits).take_while(|fits| *fits).count();
        if count == 0 {
            waiting.committing = false;
            return None;
        }
        Some(waiting.appends.drain(..count).collect())
    }

    /// Writes one object at the log's end; the number of its first record.
    async fn commit(&self, records: &[&Bytes]) -> Result<u64> {
        let mut tail = self.tail.lock().await;
        loop {
            if tail.known.is_none_or(|known| known.elapsed() > TRUST) {
                self.refresh(&mut tail).await?;
            }
            let first = tail.next;
            let object = codec::encode(first, records);
            let asked = Instant::now();
            match self
                .store
                .put(&read::key(&self.prefix, first)?, Payload::Bytes(object), Condition::Absent)
                .await
            {
                Ok(_) => {
                    *tail = Tail { next: first + records.len() as u64, known: Some(asked) };
                    return Ok(first);
                }
                Err(Error::Conflict { .. }) => self.refresh(&mut tail).await?,
                Err(error) => {
                    tail.known = None;
                    return Err(error);
                }
            }
        }
    }

    async fn refresh(&self, tail: &mut Tail) -> Result<()> {
        let asked = Instant::now();
        let end = read::end(&self.store, &self.prefix, Some(tail.next)).await?;
        *tail = Tail { next: end.next, known: Some(asked) };
        Ok(())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}
