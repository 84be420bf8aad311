//! A bucket in memory, for tests.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use lakehouse_contract::Key;

use crate::{ByteRange, Condition, Error, Etag, Listed, Meta, Object, Objects, Page, Payload, Result};

/// Objects by key.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    meta: Meta,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that hold the lock, so a panic elsewhere cannot have hurt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Result<Stored> {
        self.state().objects.get(key.as_str()).cloned().ok_or_else(|| Error::NotFound { key: key.clone() })
    }
}

#[async_trait]
impl Objects for Memory {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        let mut stream = body.into_stream().await?;
        let mut all = BytesMut::new();
        while let Some(piece) = stream.try_next().await? {
            all.extend_from_slice(&piece);
        }
        let mut state = self.state();
        let current = state.objects.get(key.as_str()).map(|stored| &stored.meta.etag);
        let holds = match &condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Matches(etag) => current == Some(etag),
        };
        if !holds {
            return Err(Error::Conflict { key: key.clone() });
        }
        state.writes += 1;
        let etag = Etag(format!("\"{}\"", state.writes));
        let meta = Meta { size: all.len() as u64, etag: etag.clone(), modified: Timestamp::now() };
        state.objects.insert(key.to_string(), Stored { body: all.freeze(), meta });
        Ok(etag)
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        let Stored { body, meta } = self.find(key)?;
        let (start, end) = match range {
            None => (0, meta.size),
            Some(range) => {
                range.within(meta.size).ok_or_else(|| Error::Range { key: key.clone(), size: meta.size })?
            }
        };
        let index = |at: u64| usize::try_from(at).expect("within a body that lies in memory");
        let piece = body.slice(index(start)..index(end));
        Ok(Object { meta, range: (start, end), body: futures::stream::iter([Ok(piece)]).boxed() })
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        Ok(self.find(key)?.meta)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let state = self.state();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut below = state
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| Listed {
                key: Key::parse(key.clone()).expect("only checked keys are stored"),
                meta: stored.meta.clone(),
            });
        let objects = below.by_ref().take(limit).collect();
        Ok(Page { objects, more: below.next().is_some() })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.state().objects.remove(key.as_str());
        Ok(())
    }
}
