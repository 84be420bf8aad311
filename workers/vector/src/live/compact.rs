//! Rows in memory become a segment, and segments others, beside reads and writes.
//!
//! ```text
//! flush   heads, and segments that are small ─► one segment; the manifest's log begins after what it holds
//! merge   segments of about one size, or with many deleted rows ─► one segment; the log stays where it is
//! ```
//! A new segment is complete in the store before the manifest names it, and rows that died meanwhile are dead in it from the start. Of two
//! processes that do the same, the one whose manifest comes second drops its work.

use std::{num::NonZeroU32, sync::Arc, time::Duration, time::Instant};

use lakehouse_store::Etag;
use tokio::{sync::MutexGuard, task::spawn_blocking};
use tracing::{info, warn};

use super::{Live, Tuning};
use crate::{
    Error, Result,
    manifest::{Manifest, SegmentEntry},
    part::{Body, Part},
    segment::{Finished, MAX_ROWS, SegmentWriter},
    snapshot::Snapshot,
    state::died_since,
};

/// Parts that were replaced stay so long for readers who are just opening them.
const GRACE: Duration = Duration::from_hours(1);
/// How often they are looked for.
const COLLECT_EVERY: Duration = Duration::from_mins(10);
/// Segments with more ids and metadata than this together stay apart: who writes a segment has these in memory.
const MOST_BESIDE: u64 = 1 << 30;
/// A segment with one dead row of so many is written anew.
const DEAD_SHARE: u64 = 5;

impl Live {
    /// Begins a flush if one is due and none runs.
    pub(super) fn flush_if_due(self: &Arc<Self>) {
        // Whoever holds the state looks again when it is done.
        if let Ok(state) = self.state.try_lock()
            && self.is_flush_due(&state)
        {
            drop(state);
            self.flush_soon();
        }
    }

    pub(super) fn flush_soon(self: &Arc<Self>) {
        let live = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(turn) = live.changing.try_lock() else { return };
            let flushed = Box::pin(live.flush_in(turn)).await;
            live.flushed.notify_waiters();
            match flushed {
                Ok(()) => live.tidy().await,
                Err(error) => {
                    warn!(index.name = %live.name, "Rows of index `{}` stay in the log for now: {error}", live.name);
                }
            }
        });
    }

    /// Puts everything that is in memory into a segment. What the log holds beyond the manifest is none of it afterwards.
    pub(crate) async fn flush(&self) -> Result<()> {
        let turn = self.changing.lock().await;
        let flushed = Box::pin(self.flush_in(turn)).await;
        self.flushed.notify_waiters();
        flushed
    }

    async fn flush_in(&self, turn: MutexGuard<'_, ()>) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        // It is never closed.
        let _place = self.context.flushing.acquire().await;
        let base = {
            let mut state = self.state.lock().await;
            if state.next == state.manifest.log_from || state.closed || state.lacks_parts {
                return Ok(());
            }
            let base = state.snapshot();
            if state.parts.last().is_some_and(|part| part.is_head() && part.rows > 0) {
                state.seal();
            }
            base
        };
        let small = self.context.tuning.small_rows;
        let mut room = u64::from(MAX_ROWS)
            .saturating_sub(base.parts.iter().filter(|part| part.is_head()).map(Part::length).sum());
        let mut bytes = MOST_BESIDE;
        let mut taken = |part: &&Part| {
            let is_small = part.length() < small && part.length() <= room && beside_vectors(part) <= bytes;
            if is_small && !part.is_head() {
                room -= part.length();
                bytes -= beside_vectors(part);
            }
            if part.is_head() { part.rows > 0 } else { is_small }
        };
        let sources: Vec<Part> = base.parts.iter().filter(&mut taken).cloned().collect();
        let made = self.make(&base, sources.clone()).await?;
        let mut segments = Vec::new();
        for part in &base.parts {
            let Body::Segment { entry, .. } = &part.body else { continue };
            if sources.iter().any(|source| source.sha256() == Some(&entry.sha256)) {
                continue;
            }
            let dead = part.dead_rows();
            let known = entry.dead.as_ref().map_or(0, |dead| u64::from(dead.rows));
            let mut entry = SegmentEntry::clone(entry);
            if dead.len() != known {
                entry.dead = self.context.indexes.upload_dead(&self.name, &dead).await?;
            }
            segments.push(entry);
        }
        segments.extend(made.as_ref().map(|(entry, _)| entry.clone()));
        let next = Manifest {
            segments,
            log_from: base.next,
            length: base.length,
            updated_at: base.updated_at,
            ..Manifest::clone(&base.manifest)
        };
        let made = made.map(|(_, part)| part);
        if self.publish(turn, &base.etag, next, &sources, made, &base.parts).await? {
            log.truncate_before(base.next).await?;
        }
        Ok(())
    }

    /// Makes one segment of the rows of several that are alive; `None` when no row is.
    async fn make(&self, base: &Snapshot, sources: Vec<Part>) -> Result<Option<(SegmentEntry, Part)>> {
        if sources.iter().all(|part| part.length() == 0) {
            return Ok(None);
        }
        let shape = base.manifest.shape.clone();
        let (folder, threads) = (self.context.cache.folder(&self.name).await?, self.context.tuning.threads);
        let written = spawn_blocking(move || -> Result<Finished> {
            let mut writer = SegmentWriter::create(&folder, &shape, 0)?;
            for part in &sources {
                for row in part.alive_rows() {
                    writer.push_stamped(
                        part.id(row),
                        &part.vector(row),
                        &part.metadata(row),
                        part.stamp(row),
                    )?;
                }
            }
            writer.finish(threads, &|_| {})
        });
        let finished =
            written.await.map_err(|error| Error::Local(format!("writing a segment failed: {error}")))??;
        let entry = self.context.indexes.upload(&self.name, &finished).await;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // It will be written anew.
                let _ = tokio::fs::remove_file(&finished.path).await;
                return Err(error);
            }
        };
        self.context.cache.adopt(&self.name, &entry.sha256, &finished.path).await?;
        let opened = self.context.cache.open(&self.name, &entry, &base.manifest.shape).await?;
        let part = opened.map_err(|message| Error::damaged(&self.name, message))?;
        Ok(Some((entry, part)))
    }

    /// Swaps the manifest and shows what it says; says whether it did. When somebody else was first, his is taken and ours
    /// dropped: the log must keep what only ours would have held.
    async fn publish(
        &self,
        turn: MutexGuard<'_, ()>,
        seen: &Etag,
        next: Manifest,
        sources: &[Part],
        made: Option<Part>,
        then: &[Part],
    ) -> Result<bool> {
        let rows: u64 = sources.iter().map(Part::length).sum();
        let Some(etag) = self.context.indexes.swap(Some(seen.clone()), &next).await? else {
            Box::pin(self.reload(turn)).await?;
            return Ok(false);
        };
        let (segments, from) = (next.segments.clone(), next.log_from);
        let mut state = self.state.lock().await;
        state.replace(sources, made, then, next, etag);
        self.show(&state);
        drop(state);
        drop(turn);
        info!(index.name = %self.name, rows, from, segments = segments.len(), "Wrote {rows} rows of index `{}` into a segment", self.name);
        self.context.cache.retain(&self.name, &segments).await?;
        Ok(true)
    }

    /// Merges what should be, until nothing is left to, and collects what no manifest names.
    pub(crate) async fn tidy(&self) {
        let tidied = async {
            let Ok(_turn) = self.merging.try_lock() else { return Ok(()) };
            while Box::pin(self.merge()).await? {}
            let due = self.times(|times| {
                let due = times.collected.is_none_or(|last| last.elapsed() >= COLLECT_EVERY);
                if due {
                    times.collected = Some(Instant::now());
                }
                due
            });
            if due {
                self.context.indexes.clone().with_grace(GRACE).collect(&self.name, NonZeroU32::MIN).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = Box::pin(tidied).await {
            warn!(index.name = %self.name, "Segments of index `{}` stay as they are for now: {error}", self.name);
        }
    }

    /// Makes one segment of several; says whether it did.
    async fn merge(&self) -> Result<bool> {
        let base = self.snapshot();
        if self.log.is_none() || base.lacks_parts {
            return Ok(false);
        }
        let tuning = &self.context.tuning;
        let sources = mergeable(&base, fan_in_now(&base, tuning), tuning.flush_rows);
        if sources.is_empty() {
            return Ok(false);
        }
        // It is never closed.
        let place = self.context.merging.acquire().await;
        let made = self.make(&base, sources.clone()).await?;
        drop(place);
        let turn = self.changing.lock().await;
        let (manifest, etag, now) = {
            let state = self.state.lock().await;
            (Manifest::clone(&state.manifest), state.etag.clone(), state.parts.clone())
        };
        let is_there = |source: &Part| {
            manifest.segments.iter().any(|entry| Some(entry.sha256.as_str()) == source.sha256())
        };
        if !sources.iter().all(is_there) {
            return Ok(false);
        }
        let kept_now = |source: &Part| {
            now.iter().find(|part| part.sha256() == source.sha256()).and_then(|part| match &part.body {
                Body::Segment { kept, .. } => kept.clone(),
                Body::Head(_) => None,
            })
        };
        let died = died_since(&sources, kept_now);
        let made = match made {
            None => None,
            Some((mut entry, part)) => {
                entry.dead = self.context.indexes.upload_dead(&self.name, &died).await?;
                let Body::Segment { segment, .. } = part.body else { return Ok(false) };
                let kept = (!died.is_empty()).then(|| Arc::new(crate::part::all(segment.rows()) - &died));
                Some((entry.clone(), Part::segment(segment, entry, kept)))
            }
        };
        let mut segments = manifest.segments.clone();
        segments.retain(|entry| !sources.iter().any(|source| source.sha256() == Some(&entry.sha256)));
        segments.extend(made.as_ref().map(|(entry, _)| entry.clone()));
        let next = Manifest { segments, ..manifest };
        self.publish(turn, &etag, next, &sources, made.map(|(_, part)| part), &[]).await
    }
}

/// About the bytes of a segment that are no vectors: ids and metadata, whose distinct values are in memory while it is written, and links.
fn beside_vectors(part: &Part) -> u64 {
    match &part.body {
        Body::Segment { segment, entry, .. } => entry.size.saturating_sub(segment.vector_bytes()),
        Body::Head(_) => 0,
    }
}

/// How many segments of about one size become one.
///
/// While rows in memory wait for a segment of their own, both kinds of work want the same cores. Wider steps then write each row half as
/// often, for some more segments to search; the narrow ones are made up for when it is quiet.
fn fan_in_now(base: &Snapshot, tuning: &Tuning) -> usize {
    let waiting: u64 = base.parts.iter().filter(|part| part.is_head()).map(|part| u64::from(part.rows)).sum();
    if waiting >= tuning.flush_rows { tuning.fan_in.saturating_mul(tuning.fan_in) } else { tuning.fan_in }
}

/// The segments that should become one, as they were where the manifest's log begins; none when all is well.
///
/// Sizes are in steps of `fan_in`; where as many segments are of one step, they are merged. So each row is written anew once a step.
fn mergeable(base: &Snapshot, fan_in: usize, smallest: u64) -> Vec<Part> {
    let segments: Vec<Part> = base
        .parts
        .iter()
        .filter_map(|part| match &part.body {
            Body::Segment { kept, .. } => Some(Part { alive: kept.clone(), ..part.clone() }),
            Body::Head(_) => None,
        })
        .collect();
    let worn = segments
        .iter()
        .find(|part| (u64::from(part.rows) - part.length()) * DEAD_SHARE >= u64::from(part.rows));
    if let Some(worn) = worn {
        return vec![worn.clone()];
    }
    let step = |part: &Part| (part.length() / smallest.max(1)).max(1).ilog(fan_in.max(2) as u64);
    for at in 0..u64::BITS {
        let alike: Vec<Part> =
            segments.iter().filter(|part| step(part) == at).take(fan_in).cloned().collect();
        let rows: u64 = alike.iter().map(Part::length).sum();
        let beside: u64 = alike.iter().map(beside_vectors).sum();
        if alike.len() == fan_in && rows <= u64::from(MAX_ROWS) && beside <= MOST_BESIDE {
            return alike;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use lakehouse_contract::IndexName;
    use lakehouse_store::Store;
    use serde_json::json;
    use tokio::{sync::Semaphore, time::timeout};

    use super::*;
    use crate::{
        Indexes,
        cache::Cache,
        live::{Context, checked_writes},
        record::Op,
    };

    #[tokio::test]
    async fn while_rows_wait_for_a_segment_few_segments_are_not_merged_and_afterwards_they_are() {
        let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
        let tuning = Tuning { flush_rows: 64, small_rows: 16, fan_in: 2, ..Tuning::default() };
        let context = Arc::new(Context {
            indexes: Indexes::new(store.clone()),
            cache: Cache::new(folder.path(), store).await.unwrap(),
            tuning,
            shard: None,
            flushing: Semaphore::new(1),
            merging: Semaphore::new(1),
        });
        let name = IndexName::parse("shelf").unwrap();
        let shape = serde_json::from_value(json!({"dimension": 2})).unwrap();
        context.indexes.create(&name, &shape, None).await.unwrap();
        let live = Live::open(Arc::clone(&context), &name).await.unwrap();
        let add = async |rows: std::ops::Range<u32>| {
            let item = |row: u32| json!({"id": row.to_string(), "vector": [1, row]});
            let items = serde_json::from_value(json!(rows.map(item).collect::<Vec<_>>())).unwrap();
            live.write(Op::Upsert(checked_writes(&shape, items).unwrap())).await.unwrap();
        };
        for first in [0, 60] {
            add(first..first + 60).await;
            live.flush().await.unwrap();
        }
        let segments = || live.snapshot().manifest.segments.len();
        assert_eq!(segments(), 2);
        let busy = context.flushing.acquire().await.unwrap();
        add(120..200).await;
        let merged = timeout(Duration::from_secs(5), live.merge()).await;
        assert!(!merged.expect("it does not wait for the flush").unwrap());
        drop(busy);
        let began = Instant::now();
        while segments() != 1 || live.snapshot().next != live.snapshot().manifest.log_from {
            assert!(began.elapsed() < Duration::from_secs(20), "{} segments", segments());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
