//! Following the store: other processes publish versions, write records, and make segments of them.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_store::{Error as StoreError, Etag, log::Log};
use tokio::sync::MutexGuard;
use tracing::{error, warn};

use super::{Context, Live};
use crate::{
    Error, Result,
    manifest::{Manifest, SegmentEntry},
    part::{Body, Part},
    record::Record,
    segment::Segment,
    snapshot::Snapshot,
    state::State,
};

/// Segments that are opened at the same time.
const PARALLEL: usize = 4;
/// How often a manifest is read anew whose parts are gone already.
const TRIES: u32 = 5;

impl Live {
    /// Takes in whatever is new in the store. Costs two requests when nothing is.
    pub(crate) async fn follow(&self) -> Result<()> {
        let began = Instant::now();
        let mut turn = None;
        loop {
            let seen = self.snapshot();
            let Some(etag) = self.context.indexes.mark(&self.name).await? else {
                return Err(Error::UnknownIndex(self.name.clone()));
            };
            if etag == seen.etag {
                self.read_on(&seen).await?;
                break;
            }
            match turn.take() {
                // Whoever changes the manifest here shows it himself: it is looked at again after him.
                None => turn = Some(self.changing.lock().await),
                Some(turn) => {
                    self.reload(turn).await?;
                    break;
                }
            }
        }
        self.times(|times| times.followed = began);
        Ok(())
    }

    /// Does what the log says beyond what readers see.
    async fn read_on(&self, seen: &Snapshot) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        if log.starts_from(seen.next).await?.is_none() {
            return Ok(());
        }
        let mut state = self.state.lock().await;
        self.catch_up(&mut state, log, None).await?;
        self.show(&state);
        if state.closed { Err(Error::UnknownIndex(self.name.clone())) } else { Ok(()) }
    }

    /// Opens the manifest as it is now, beside what is served, and swaps.
    pub(super) async fn reload(&self, turn: MutexGuard<'_, ()>) -> Result<()> {
        let Some((manifest, etag)) = self.context.indexes.read(&self.name).await? else {
            return Err(Error::UnknownIndex(self.name.clone()));
        };
        let before = self.snapshot();
        if manifest.kind != before.manifest.kind {
            // Another index has taken the name; it is opened from the start.
            return Err(Error::UnknownIndex(self.name.clone()));
        }
        let mut new = load(&self.context, self.log.as_ref(), manifest, etag, &before.parts).await?;
        let mut state = self.state.lock().await;
        if let Some(log) = &self.log {
            self.catch_up(&mut new, log, None).await?;
        }
        let closed = new.closed;
        *state = new;
        self.show(&state);
        let segments = state.manifest.segments.clone();
        drop(state);
        drop(turn);
        if closed {
            return Err(Error::UnknownIndex(self.name.clone()));
        }
        self.context.cache.retain(&self.name, &segments).await
    }

    /// Does what the records say that the state has not seen, up to record `until`, or all.
    pub(super) async fn catch_up(&self, state: &mut State, log: &Log, until: Option<u64>) -> Result<()> {
        catch_up(state, log, until).await
    }
}

/// Opens the parts of a manifest, and does what the log says after them. Parts that are open already are used again.
pub(super) async fn load(
    context: &Context,
    log: Option<&Log>,
    mut manifest: Manifest,
    mut etag: Etag,
    open: &[Part],
) -> Result<State> {
    let name = manifest.name.clone();
    for tries in 1.. {
        let (segments, damaged) = open_segments(context, &manifest, context.shard, open).await?;
        let unsure = !damaged.is_empty();
        let mut state = State::new(manifest, etag.clone(), segments, damaged);
        let mut gone = None;
        if let Some(log) = log {
            if let Some(cut) = log.cut_tail().filter(|cut| cut.next > state.next) {
                state.note(format!(
                    "`{}` was cut: {}; records from {} on are whole",
                    cut.key, cut.message, cut.next
                ));
            }
            match catch_up(&mut state, log, None).await {
                Ok(()) => {}
                Err(Error::Store(StoreError::Gone { first, .. })) => gone = Some(first),
                Err(error) => return Err(error),
            }
        }
        if !unsure && gone.is_none() {
            return Ok(state);
        }
        // Parts or records that are gone were replaced, if there is another manifest by now.
        match context.indexes.read(&name).await? {
            None => return Err(Error::UnknownIndex(name)),
            Some((new, now)) if now != etag && tries < TRIES => (manifest, etag) = (new, now),
            Some(_) => {
                if let (Some(log), Some(first)) = (log, gone) {
                    state.note(format!("records {} to {} of the log are missing", state.next, first - 1));
                    state.next = first;
                    catch_up(&mut state, log, None).await?;
                }
                for damage in state.damaged.iter() {
                    error!(index.name = %name, "Index `{name}` serves without a part of it: {damage}");
                }
                return Ok(state);
            }
        }
    }
    unreachable!("the last try returns")
}

/// The same version with the segments of all shards.
pub(super) async fn whole(context: &Context, snapshot: &Snapshot) -> Result<Snapshot> {
    let (parts, damaged) = open_segments(context, &snapshot.manifest, None, &snapshot.parts).await?;
    Ok(Snapshot { parts, lacks_parts: !damaged.is_empty(), damaged: Arc::new(damaged), ..snapshot.clone() })
}

async fn open_segments(
    context: &Context,
    manifest: &Manifest,
    shard: Option<(u32, u32)>,
    open: &[Part],
) -> Result<(Vec<Part>, Vec<String>)> {
    let known: HashMap<&str, Arc<Segment>> = open
        .iter()
        .filter_map(|part| match &part.body {
            Body::Segment { segment, entry, .. } => Some((entry.sha256.as_str(), Arc::clone(segment))),
            Body::Head(_) => None,
        })
        .collect();
    // An index that is not spread over shards is whole everywhere.
    let shard = shard.filter(|_| manifest.shards > 1);
    let here = |entry: &&SegmentEntry| shard.is_none_or(|(part, parts)| entry.shard % parts == part);
    let entries: Vec<SegmentEntry> = manifest.segments.iter().filter(here).cloned().collect();
    let opened = stream::iter(entries).map(|entry| {
        let segment = known.get(entry.sha256.as_str()).cloned();
        async move {
            match segment {
                Some(segment) => context.cache.reopen(&manifest.name, &entry, segment).await,
                None => context.cache.open(&manifest.name, &entry, &manifest.shape).await,
            }
        }
    });
    let opened: Vec<_> = opened.buffered(PARALLEL).try_collect().await?;
    let (mut parts, mut damaged) = (Vec::new(), Vec::new());
    for part in opened {
        match part {
            Ok(part) => parts.push(part),
            Err(damage) => damaged.push(damage),
        }
    }
    Ok((parts, damaged))
}

/// Does what the records say that the state has not seen. A record that cannot be read is named and passed over, with what follows in its
/// object; the rest counts.
async fn catch_up(state: &mut State, log: &Log, until: Option<u64>) -> Result<()> {
    let is_over = |state: &State| state.closed || until.is_some_and(|until| state.next >= until);
    'objects: while !is_over(state) {
        let mut records = log.read_from(state.next);
        loop {
            if is_over(state) {
                return Ok(());
            }
            match records.try_next().await {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => match Record::decode(record.content) {
                    Ok(decoded) => {
                        if record.number > state.next {
                            let (from, to) = (state.next, record.number - 1);
                            state.note(format!(
                                "records {from} to {to} of the log are damaged; the rest serves"
                            ));
                        }
                        state.apply(record.number, decoded);
                    }
                    Err(message) => {
                        let name = &state.manifest.name;
                        return Err(Error::damaged(
                            name,
                            format!("record {} of its log: {message}", record.number),
                        ));
                    }
                },
                Err(StoreError::Damaged { key, message }) => {
                    let from = state.next;
                    let next = log.starts_from(from + 1).await?;
                    let damage = format!("`{key}` of the log is damaged: {message}");
                    warn!(index.name = %state.manifest.name, from, next, "{damage}; the rest serves");
                    state.note(damage);
                    let Some(next) = next else { return Ok(()) };
                    state.next = next;
                    continue 'objects;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
