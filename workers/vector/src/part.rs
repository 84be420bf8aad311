//! A part of an index as a snapshot sees it: a segment or a head, and which of its rows are alive.

use std::{borrow::Cow, sync::Arc};

use lakehouse_ann::{Hit, Query};
use lakehouse_contract::vectors::Metadata;
use roaring::RoaringBitmap;

use crate::{filter::Filter, head::Head, manifest::SegmentEntry, segment::Segment};

/// Which rows are alive; `None` when all are.
pub(crate) type Alive = Option<Arc<RoaringBitmap>>;

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Segment {
        segment: Arc<Segment>,
        /// As the manifest has it.
        entry: Arc<SegmentEntry>,
        /// Which rows were alive where the manifest's log begins.
        kept: Alive,
    },
    Head(Arc<Head>),
}

/// Cheap to clone; a clone does not see what happens to the other.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) body: Body,
    /// Rows that this sees.
    pub(crate) rows: u32,
    pub(crate) alive: Alive,
}

impl Part {
    pub(crate) fn segment(segment: Arc<Segment>, entry: SegmentEntry, kept: Alive) -> Self {
        let rows = segment.rows();
        let entry = Arc::new(entry);
        Self { body: Body::Segment { segment, entry, kept: kept.clone() }, rows, alive: kept }
    }

    pub(crate) fn head(head: Arc<Head>) -> Self {
        Self { body: Body::Head(head), rows: 0, alive: Some(Arc::default()) }
    }

    pub(crate) fn is_head(&self) -> bool {
        matches!(self.body, Body::Head(_))
    }

    /// Bytes of rows in memory.
    pub(crate) fn held(&self) -> u64 {
        match &self.body {
            Body::Segment { .. } => 0,
            Body::Head(head) => head.bytes(),
        }
    }

    /// The name of the segment.
    pub(crate) fn sha256(&self) -> Option<&str> {
        match &self.body {
            Body::Segment { entry, .. } => Some(&entry.sha256),
            Body::Head(_) => None,
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.alive.as_ref().map_or(u64::from(self.rows), |alive| alive.len())
    }

    pub(crate) fn is_alive(&self, row: u32) -> bool {
        self.alive.as_ref().map_or(row < self.rows, |alive| alive.contains(row))
    }

    /// The row of an id, where it is alive.
    pub(crate) fn find(&self, id: &str, hash: u64) -> Option<u32> {
        let row = match &self.body {
            Body::Segment { segment, .. } => segment.find(id, hash),
            Body::Head(head) => head.find(id, self.rows),
        };
        row.filter(|row| self.is_alive(*row))
    }

    pub(crate) fn id(&self, row: u32) -> &str {
        match &self.body {
            Body::Segment { segment, .. } => segment.id(row),
            Body::Head(head) => &head.row(row).id,
        }
    }

    pub(crate) fn metadata(&self, row: u32) -> Cow<'_, Metadata> {
        match &self.body {
            Body::Segment { segment, .. } => Cow::Owned(segment.metadata(row)),
            Body::Head(head) => Cow::Borrowed(&head.row(row).metadata),
        }
    }

    pub(crate) fn vector(&self, row: u32) -> Vec<f32> {
        match &self.body {
            Body::Segment { segment, .. } => segment.vector(row),
            Body::Head(head) => head.vector(row),
        }
    }

    /// The record of the log that wrote a row.
    pub(crate) fn stamp(&self, row: u32) -> u64 {
        match &self.body {
            Body::Segment { segment, .. } => segment.stamp(row),
            Body::Head(head) => head.row(row).stamp,
        }
    }

    /// The rows that are alive, in their order.
    pub(crate) fn alive_rows(&self) -> RoaringBitmap {
        self.alive.as_deref().cloned().unwrap_or_else(|| all(self.rows))
    }

    /// The rows that are not alive.
    pub(crate) fn dead_rows(&self) -> RoaringBitmap {
        self.alive.as_deref().map_or_else(RoaringBitmap::new, |alive| all(self.rows) - alive)
    }

    pub(crate) fn kill(&mut self, row: u32) {
        let alive = self.alive.get_or_insert_with(|| Arc::new(all(self.rows)));
        Arc::make_mut(alive).remove(row);
    }

    /// Takes a row in that its head was given.
    pub(crate) fn grow(&mut self, row: u32) {
        self.rows = row + 1;
        Arc::make_mut(self.alive.get_or_insert_default()).insert(row);
    }

    /// The rows that are alive and pass a filter, exactly.
    pub(crate) fn select(&self, filter: &Filter) -> RoaringBitmap {
        match &self.body {
            Body::Segment { segment, .. } => {
                let passed = passed(segment, filter);
                match self.alive.as_deref() {
                    None => passed,
                    Some(alive) => passed & alive,
                }
            }
            Body::Head(head) => {
                let alive = self.alive.iter().flat_map(|alive| alive.iter());
                alive.filter(|row| filter.passes(&head.row(*row).metadata)).collect()
            }
        }
    }

    /// The nearest `k` rows that are alive and, where it is given, in `selected`.
    pub(crate) fn search(
        &self,
        query: &Query,
        k: usize,
        ef: usize,
        selected: Option<&RoaringBitmap>,
        out: &mut Vec<Hit>,
    ) {
        let allowed = selected.or(self.alive.as_deref());
        match &self.body {
            Body::Segment { segment, .. } => segment.search(query, k, ef, allowed, out),
            Body::Head(head) => head.vectors().search(query, k, allowed, out),
        }
    }
}

/// All of the first `rows` rows.
pub(crate) fn all(rows: u32) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(0..rows);
    all
}

fn passed(segment: &Segment, filter: &Filter) -> RoaringBitmap {
    match filter {
        Filter::All(filters) => {
            let mut each = filters.iter();
            let Some(first) = each.next() else { return all(segment.rows()) };
            each.fold(passed(segment, first), |rows, next| {
                if rows.is_empty() { rows } else { rows & passed(segment, next) }
            })
        }
        Filter::Any(filters) => {
            filters.iter().fold(RoaringBitmap::new(), |rows, next| rows | passed(segment, next))
        }
        Filter::Not(filter) => all(segment.rows()) - passed(segment, filter),
        Filter::Field(field, test) => segment.select(field, test),
    }
}
