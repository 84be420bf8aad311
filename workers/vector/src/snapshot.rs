//! An index at one moment: what every reader works on. Nothing in it changes, and no writer waits for who holds it.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use jiff::Timestamp;
use lakehouse_ann::Query;
use lakehouse_contract::vectors::{Hit, Item, RowRef};
use lakehouse_store::Etag;
use rayon::prelude::*;
use roaring::RoaringBitmap;

use crate::{
    Error, Result,
    filter::{Fields, Filter},
    ids,
    manifest::Manifest,
    part::Part,
    value,
};

/// Ids and metadata of one answer, or vectors too where those are asked for.
pub(crate) const ANSWER_BYTES: usize = 64 << 20;

/// An index at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) manifest: Arc<Manifest>,
    /// The manifest's mark.
    pub(crate) etag: Etag,
    /// Segments, then heads; what is newer comes later.
    pub(crate) parts: Vec<Part>,
    pub(crate) fields: Arc<Fields>,
    pub(crate) length: u64,
    /// The record of the log that comes next.
    pub(crate) next: u64,
    pub(crate) updated_at: Timestamp,
    /// The index was removed.
    pub(crate) closed: bool,
    /// What cannot be read.
    pub(crate) damaged: Arc<Vec<String>>,
    /// A segment cannot be opened.
    pub(crate) lacks_parts: bool,
}

/// What is searched for.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) queries: Vec<Query>,
    pub(crate) k: usize,
    pub(crate) ef: Option<u32>,
    pub(crate) filter: Option<Filter>,
    /// Whether the filter must fit to the fields that are here; a part of an index may lack one that another part has.
    pub(crate) checked: bool,
    /// Set when nobody waits for the answer any more: no further part is searched then.
    pub(crate) given_up: Arc<AtomicBool>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Nearest first; a list for each query.
    pub(crate) batches: Vec<Vec<Hit>>,
    /// How many vectors the filter lets through.
    pub(crate) matches: Option<u64>,
}

/// The bytes that one answer may still take. Lists of a thousand, each with a thousand rows with all their metadata, fit into no memory.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: AtomicUsize,
    list: &'static str,
}

impl Allowance {
    /// For the answer to this list.
    pub(crate) fn new(list: &'static str) -> Self {
        Self { left: AtomicUsize::new(ANSWER_BYTES), list }
    }

    /// Takes the bytes of a row.
    pub(crate) fn take(&self, bytes: usize) -> Result<()> {
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| Error::AnswerTooLarge { limit: ANSWER_BYTES, list: self.list })
    }
}

/// A row that was found.
#[derive(Clone, Copy)]
struct Near {
    part: usize,
    row: u32,
    distance: f32,
}

impl Snapshot {
    /// The nearest to each query. Uses this thread, and others where there are several queries.
    pub(crate) fn search(&self, search: &Search) -> Result<Found> {
        let Search { queries, k, ef, filter, checked, given_up } = search;
        let selected = match filter {
            None => None,
            // Nothing has no fields, so none of them is unknown.
            Some(_) if self.length == 0 && self.manifest.fields.is_empty() => {
                Some(vec![RoaringBitmap::new(); self.parts.len()])
            }
            Some(filter) => {
                if *checked {
                    filter.check(&self.fields)?;
                }
                Some(self.parts.iter().map(|part| part.select(filter)).collect::<Vec<_>>())
            }
        };
        let ef = ef.unwrap_or(self.manifest.shape.hnsw.ef_search) as usize;
        let answer = Allowance::new("vectors");
        let one = |query: &Query| {
            let near = self.nearest(query, *k, ef, selected.as_deref(), given_up)?;
            near.into_iter().map(|near| self.hit(near, &answer)).collect::<Result<Vec<_>>>()
        };
        let batches = match queries.as_slice() {
            [query] => vec![one(query)?],
            many => many.par_iter().map(one).collect::<Result<_>>()?,
        };
        let matches = selected.map(|selected| selected.iter().map(RoaringBitmap::len).sum());
        Ok(Found { batches, matches })
    }

    fn nearest(
        &self,
        query: &Query,
        k: usize,
        ef: usize,
        selected: Option<&[RoaringBitmap]>,
        given_up: &AtomicBool,
    ) -> Result<Vec<Near>> {
        let (mut near, mut hits) = (Vec::new(), Vec::new());
        for (place, part) in self.parts.iter().enumerate() {
            if given_up.load(Relaxed) {
                return Err(Error::GivenUp);
            }
            let selected = selected.map(|selected| &selected[place]);
            if selected.is_some_and(RoaringBitmap::is_empty) || part.length() == 0 {
                continue;
            }
            part.search(query, k, ef, selected, &mut hits);
            near.extend(hits.iter().map(|hit| Near { part: place, row: hit.row, distance: hit.distance }));
        }
        let id = |near: &Near| self.parts[near.part].id(near.row);
        near.sort_by(|left, right| {
            left.distance.total_cmp(&right.distance).then_with(|| id(left).cmp(id(right)))
        });
        near.truncate(k);
        Ok(near)
    }

    fn hit(&self, Near { part, row, distance }: Near, answer: &Allowance) -> Result<Hit> {
        let part = &self.parts[part];
        let id = part.id(row).to_owned();
        let metadata = part.metadata(row).into_owned();
        answer.take(id.len() + value::bytes_of(&metadata))?;
        let source = self.row_ref(&id);
        Ok(Hit { id, distance, metadata, source })
    }

    /// The row that a vector was made from.
    fn row_ref(&self, id: &str) -> Option<RowRef> {
        let source = self.manifest.source.as_ref()?;
        let key = id.strip_prefix(source.id.prefix.as_str())?.strip_suffix(source.id.suffix.as_str())?;
        Some(RowRef {
            dataset: source.dataset.clone(),
            version: source.version,
            column: source.id.column.clone(),
            key: key.to_owned(),
        })
    }

    /// Where an id is.
    pub(crate) fn find(&self, id: &str) -> Option<(usize, u32)> {
        find(&self.parts, id)
    }

    /// A vector with everything.
    pub(crate) fn item(&self, part: usize, row: u32) -> Item {
        let part = &self.parts[part];
        Item {
            id: part.id(row).to_owned(),
            vector: part.vector(row),
            metadata: Some(part.metadata(row).into_owned()),
        }
    }

    /// Every vector, part by part, with the record of the log that wrote it.
    pub(crate) fn items(self: &Arc<Self>) -> impl Iterator<Item = (Item, u64)> + Send + 'static {
        let snapshot = Arc::clone(self);
        (0..self.parts.len()).flat_map(move |place| {
            let snapshot = Arc::clone(&snapshot);
            let rows = snapshot.parts[place].alive_rows();
            rows.into_iter().map(move |row| (snapshot.item(place, row), snapshot.parts[place].stamp(row)))
        })
    }

    /// The rows behind hits as SQL over the version that they were made from.
    pub(crate) fn sql<'h>(&self, hits: impl Iterator<Item = &'h Hit>) -> Option<String> {
        let source = self.manifest.source.as_ref()?;
        let keys: BTreeSet<&str> =
            hits.filter_map(|hit| hit.source.as_ref()).map(|source| source.key.as_str()).collect();
        let from = format!("SELECT * FROM {}", quoted(&format!("{}@{}", source.dataset, source.version)));
        if keys.is_empty() {
            return Some(format!("{from} WHERE false"));
        }
        let keys: Vec<String> =
            keys.into_iter().map(|key| format!("'{}'", key.replace('\'', "''"))).collect();
        Some(format!("{from} WHERE CAST({} AS VARCHAR) IN ({})", quoted(&source.id.column), keys.join(", ")))
    }

    /// Why a search may miss vectors.
    pub(crate) fn incomplete(&self) -> Option<String> {
        (!self.damaged.is_empty()).then(|| format!("vectors may be missing: {}", self.damaged.join("; ")))
    }

    /// A query for each vector, checked.
    pub(crate) fn queries(&self, vectors: &[Vec<f32>], list: &'static str) -> Result<Vec<Query>> {
        let shape = &self.manifest.shape;
        let query = |(index, vector): (usize, &Vec<f32>)| {
            Query::new(shape, vector).map_err(|error| match list {
                "vectors" => Error::Item { list, index, message: error.to_string() },
                field => Error::Invalid(format!("`{field}`: {error}")),
            })
        };
        vectors.iter().enumerate().map(query).collect()
    }
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where an id is. Only one part has it alive; the newest is asked first.
pub(crate) fn find(parts: &[Part], id: &str) -> Option<(usize, u32)> {
    let hash = ids::hash(id);
    let found = |(place, part): (usize, &Part)| Some((place, part.find(id, hash)?));
    parts.iter().enumerate().rev().find_map(found)
}

/// The nearest `k` of several lists, each nearest first.
pub(crate) fn merged(lists: Vec<Vec<Hit>>, k: usize) -> Vec<Hit> {
    let mut all: Vec<Hit> = lists.into_iter().flatten().collect();
    all.sort_by(|left, right| match left.distance.total_cmp(&right.distance) {
        Ordering::Equal => left.id.cmp(&right.id),
        order => order,
    });
    all.truncate(k);
    all
}
