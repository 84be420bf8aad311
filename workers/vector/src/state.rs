//! An index as its one writer in this process holds it: the newest snapshot in the making.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use lakehouse_contract::vectors::Metadata;
use lakehouse_store::Etag;
use roaring::RoaringBitmap;
use tracing::warn;

use crate::{
    filter::Fields,
    head::Head,
    manifest::Manifest,
    part::{Alive, Body, Part},
    record::{Op, Record, Removal, Write},
    snapshot::{Snapshot, find},
    value::{Kind, Kinds},
};

/// What a record did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Vectors written, the replaced ones among them.
    pub(crate) written: u64,
    /// Of these, ids that were there.
    pub(crate) replaced: u64,
    /// Vectors that were not written because their ids were there.
    pub(crate) skipped: u64,
    /// Vectors removed.
    pub(crate) removed: u64,
    /// Vectors in the index afterwards.
    pub(crate) length: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) etag: Etag,
    /// Segments, then heads.
    pub(crate) parts: Vec<Part>,
    fields: Arc<Fields>,
    /// The record of the log that comes next.
    pub(crate) next: u64,
    pub(crate) updated_at: Timestamp,
    /// A record of the log has ended the index.
    pub(crate) closed: bool,
    pub(crate) damaged: Arc<Vec<String>>,
    /// A segment cannot be opened. What the log says of it must not be forgotten, so nothing is compacted.
    pub(crate) lacks_parts: bool,
}

impl State {
    /// The state where the manifest's log begins.
    pub(crate) fn new(manifest: Manifest, etag: Etag, segments: Vec<Part>, damaged: Vec<String>) -> Self {
        let mut state = Self {
            etag,
            parts: segments,
            fields: Arc::default(),
            next: manifest.log_from,
            updated_at: manifest.updated_at,
            manifest: Arc::new(manifest),
            closed: false,
            lacks_parts: !damaged.is_empty(),
            damaged: Arc::new(damaged),
        };
        state.fields = Arc::new(state.all_fields());
        state
    }

    fn all_fields(&self) -> Fields {
        let mut fields: Fields =
            self.manifest.fields.iter().map(|field| (field.as_str().into(), Kinds::default())).collect();
        for part in &self.parts {
            let Body::Segment { segment, .. } = &part.body else { continue };
            for (field, kinds) in segment.columns().fields() {
                add_kinds(&mut fields, field, kinds);
            }
        }
        fields
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            manifest: Arc::clone(&self.manifest),
            etag: self.etag.clone(),
            parts: self.parts.clone(),
            fields: Arc::clone(&self.fields),
            length: self.length(),
            next: self.next,
            updated_at: self.updated_at,
            closed: self.closed,
            damaged: Arc::clone(&self.damaged),
            lacks_parts: self.lacks_parts,
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.parts.iter().map(Part::length).sum()
    }

    /// Rows in memory, also those that are not alive.
    pub(crate) fn head_rows(&self) -> u64 {
        self.parts.iter().filter(|part| part.is_head()).map(|part| u64::from(part.rows)).sum()
    }

    /// Bytes of these rows: vectors, ids and metadata.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.parts.iter().map(Part::held).sum()
    }

    /// Names something that cannot be read.
    pub(crate) fn note(&mut self, damage: String) {
        if !self.damaged.contains(&damage) {
            Arc::make_mut(&mut self.damaged).push(damage);
        }
    }

    /// Does what a record says. Records come in the order of their numbers.
    pub(crate) fn apply(&mut self, number: u64, record: Record) -> Outcome {
        let Record { index, at, op } = record;
        self.next = number + 1;
        if index != self.manifest.id && !index.is_nil() {
            return Outcome { length: self.length(), ..Outcome::default() };
        }
        self.updated_at = self.updated_at.max(at);
        let mut outcome = Outcome::default();
        match op {
            Op::Upsert(writes) => {
                for write in writes {
                    self.upsert(number, write, &mut outcome);
                }
            }
            Op::Insert(writes) => {
                for write in writes {
                    if find(&self.parts, &write.id).is_some() {
                        outcome.skipped += 1;
                    } else {
                        self.upsert(number, write, &mut outcome);
                    }
                }
            }
            Op::Remove(removals) => {
                for Removal { id, stamp } in removals {
                    if let Some((part, row)) = find(&self.parts, &id)
                        && (stamp == 0 || self.parts[part].stamp(row) == stamp)
                    {
                        self.parts[part].kill(row);
                        outcome.removed += 1;
                    }
                }
            }
            Op::Close => self.closed = true,
        }
        outcome.length = self.length();
        outcome
    }

    fn upsert(&mut self, number: u64, write: Write, outcome: &mut Outcome) {
        let Write { id, vector, metadata } = write;
        let old = find(&self.parts, &id);
        let metadata = match (metadata, old) {
            (Some(metadata), _) => metadata,
            (None, Some((part, row))) => self.parts[part].metadata(row).into_owned(),
            (None, None) => Metadata::new(),
        };
        self.learn(&metadata);
        let head = self.growing();
        let Body::Head(rows) = &self.parts[head].body else { return };
        match rows.push(&id, &vector, metadata, number + 1) {
            Ok(row) => {
                self.parts[head].grow(row);
                outcome.written += 1;
                if let Some((part, row)) = old {
                    self.parts[part].kill(row);
                    outcome.replaced += 1;
                }
            }
            // Whoever wrote the record should have checked it. Nothing that cannot be searched may come in.
            Err(error) => {
                warn!(id, number, "A record of the log holds a vector that cannot be kept: {error}");
            }
        }
    }

    /// The place of the head that takes rows.
    fn growing(&mut self) -> usize {
        if !self.parts.last().is_some_and(Part::is_head) {
            self.seal();
        }
        self.parts.len() - 1
    }

    /// Begins a new head; those before it take no more rows.
    pub(crate) fn seal(&mut self) {
        self.parts.push(Part::head(Arc::new(Head::new(&self.manifest.shape))));
    }

    fn learn(&mut self, metadata: &Metadata) {
        for (field, value) in metadata {
            let kinds = Kind::of(value).map(Kinds::of).unwrap_or_default();
            let known = self.fields.get(field.as_str()).is_some_and(|known| known.with(kinds) == *known);
            if !known {
                add_kinds(Arc::make_mut(&mut self.fields), field, kinds);
            }
        }
    }

    /// Takes a new manifest, in which `made` replaces `sources`. `made` has the rows that were alive in them then, in their order; of these,
    /// those that have died since are dead in it too. `then` are the parts as the new manifest's log begins, where that has moved.
    pub(crate) fn replace(
        &mut self,
        sources: &[Part],
        made: Option<Part>,
        then: &[Part],
        manifest: Manifest,
        etag: Etag,
    ) {
        let gone: HashSet<usize> = sources
            .iter()
            .filter_map(|source| self.parts.iter().position(|part| same(part, source)))
            .collect();
        let made = made.map(|mut made| {
            let now = |source: &Part| {
                self.parts.iter().find(|part| same(part, source)).and_then(|part| part.alive.clone())
            };
            let died = died_since(sources, now);
            if !died.is_empty() {
                made.alive = Some(Arc::new(made.alive_rows() - died));
            }
            made
        });
        let mut place = 0;
        self.parts.retain(|_| {
            place += 1;
            !gone.contains(&(place - 1))
        });
        let heads = self.parts.iter().position(Part::is_head).unwrap_or(self.parts.len());
        if let Some(made) = made {
            self.parts.insert(heads, made);
        }
        for part in &mut self.parts {
            let Some(then) = then.iter().find(|then| same(part, then)) else { continue };
            let alive_then = then.alive.clone();
            if let Body::Segment { entry, kept, .. } = &mut part.body
                && let Some(new) = manifest.segments.iter().find(|new| new.sha256 == entry.sha256)
            {
                *entry = Arc::new(new.clone());
                *kept = alive_then;
            }
        }
        self.manifest = Arc::new(manifest);
        self.etag = etag;
    }
}

/// The rows of what was made of `sources` that have died since. A source without a bitmap has lost none.
pub(crate) fn died_since(sources: &[Part], now: impl Fn(&Part) -> Alive) -> RoaringBitmap {
    let mut died = RoaringBitmap::new();
    let mut first = 0;
    for source in sources {
        let then = source.alive_rows();
        if let Some(now) = now(source) {
            let rows = (first..).zip(&then).filter(|(_, row)| !now.contains(*row));
            died.extend(rows.map(|(made, _)| made));
        }
        first += u32::try_from(then.len()).expect("what is made has at most a million rows");
    }
    died
}

/// Whether two parts are the same segment or head, whatever is alive in them.
fn same(left: &Part, right: &Part) -> bool {
    match (&left.body, &right.body) {
        (Body::Segment { segment: left, .. }, Body::Segment { segment: right, .. }) => {
            Arc::ptr_eq(left, right)
        }
        (Body::Head(left), Body::Head(right)) => Arc::ptr_eq(left, right),
        _ => false,
    }
}

fn add_kinds(fields: &mut Fields, field: &str, kinds: Kinds) {
    match fields.get_mut(field) {
        Some(known) => *known = known.with(kinds),
        None => {
            fields.insert(field.into(), kinds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_spares_a_row_that_was_written_anew_since_also_the_first_of_a_log() {
        let mut manifest = crate::manifest::tests::sample("shelf");
        manifest.segments.clear();
        let index = manifest.id;
        let mut state = State::new(manifest, Etag("mark".into()), Vec::new(), Vec::new());
        let record = |op| Record { index, at: Timestamp::UNIX_EPOCH, op };
        let write = || Write { id: "a".into(), vector: vec![1.0, 0.0, 0.0], metadata: None };
        let stamp = |state: &State| {
            let (part, row) = find(&state.parts, "a").unwrap();
            state.parts[part].stamp(row)
        };
        state.apply(0, record(Op::Upsert(vec![write()])));
        let seen = stamp(&state);
        state.apply(1, record(Op::Upsert(vec![write()])));
        let removal = |stamp| record(Op::Remove(vec![Removal { id: "a".into(), stamp }]));
        assert_eq!(state.apply(2, removal(seen)).removed, 0);
        let now = stamp(&state);
        assert_eq!(state.apply(3, removal(now)).removed, 1);
    }
}
