//! An immutable segment: mapped, and searched by any number of threads at once.

use std::{iter, mem};

use lakehouse_contract::vectors::Shape;
use roaring::RoaringBitmap;

use crate::{
    Hit, Query, Result,
    codes::{Codes, Frame, Margin},
    filter::{Steps, scan_below},
    graph::{Graph, Layer, NONE, Near, Scratch, with_scratch},
    kept::Kept,
    sections::{Column, File},
    simd::Simd,
    top::Top,
    write::{About, BASE, CODES, MEAN, MEMBERS, SAME, SIZES, TERMS, UPPER},
};

/// Rows that are scored in one go.
const AT_ONCE: usize = 256;

/// The vectors of a file that [`write`](crate::write) has made.
pub struct Segment {
    about: About,
    simd: Simd,
    frame: Frame,
    kept: Kept,
    codes: Column<u8>,
    terms: Column<[f32; 2]>,
    links: Option<Links>,
    same: Column<u32>,
}

/// The graph's sections.
struct Links {
    base: Column<u32>,
    upper: Column<u32>,
    /// Where each upper layer ends.
    ends: Vec<usize>,
    members: Column<u32>,
}

impl Segment {
    /// Opens the vector sections of a file. They must be of this shape; its graph parameters may differ.
    pub fn open(shape: &Shape, file: &File) -> Result<Self> {
        let about = About::read(shape, file)?;
        let rows = about.rows as usize;
        let mean = file.column::<f32>(MEAN, shape.dimension as usize)?.to_vec();
        let kept = Kept::open(shape, about.rows, &mean, file)?;
        let frame = Frame { metric: shape.metric, mean };
        let codes = file.column::<u8>(CODES, rows * frame.stride())?;
        let terms = file.column::<[f32; 2]>(TERMS, rows)?;
        let (codes, terms) = if about.width == 0 { (codes, terms) } else { (codes.hot(), terms.hot()) };
        let links = if about.width == 0 { None } else { Some(Links::open(&about, file)?) };
        let same = file.column::<u32>(SAME, if file.section(SAME)?.is_empty() { 0 } else { rows })?;
        Ok(Self { about, simd: Simd::best(), frame, kept, codes, terms, links, same })
    }

    /// How many rows it has.
    pub fn len(&self) -> u32 {
        self.about.rows
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row's numbers: as given, but for what the quantization loses.
    ///
    /// # Panics
    /// When there is no such row, or `into` has another dimension.
    pub fn vector(&self, row: u32, into: &mut [f32]) {
        self.kept.read(&self.codes(), row, into);
    }

    /// Puts the nearest `k` rows into `out`, nearest first, instead of what is there; among those `allowed`, where that is given. These are
    /// exactly `k`, or as many as are allowed. `ef` is how many candidates are looked at: more find true neighbours more surely.
    /// Rows beyond the segment may be allowed, and mean nothing.
    pub fn search(
        &self,
        query: &Query,
        k: usize,
        ef: usize,
        allowed: Option<&RoaringBitmap>,
        out: &mut Vec<Hit>,
    ) {
        with_scratch(|scratch| {
            self.frame.query(query.numbers(), &mut scratch.target);
            let search = Search {
                segment: self,
                codes: self.codes(),
                query,
                margin: Margin::new(&self.frame, query.numbers(), &scratch.target, self.about.extremes()),
                k,
            };
            let walked = self.links.as_ref().and_then(|links| {
                let graph = links.graph(&self.about);
                let ef = ef.max(k);
                match allowed {
                    None => search.walk(&graph, ef, scratch),
                    Some(allowed) => search.walk_allowed(&graph, ef, allowed, scratch),
                }
            });
            walked.unwrap_or_else(|| search.scan(allowed, scratch)).drain_into(out);
        });
    }

    fn codes(&self) -> Codes<'_> {
        let (stride, bytes, terms) = (self.frame.stride(), &*self.codes, &*self.terms);
        Codes { simd: self.simd, stride, bytes, terms, extra: &[] }
    }

    /// The rows of a node.
    fn rows(&self, node: u32) -> impl Iterator<Item = u32> {
        // Equal rows lead to later ones, so this ends whatever a damaged file says.
        iter::successors(Some(node), |&row| self.same.get(row as usize).copied().filter(|&next| next > row))
    }
}

impl Links {
    fn open(about: &About, file: &File) -> Result<Self> {
        let (rows, width) = (about.rows as usize, about.width as usize);
        let sizes = file.numbers::<u32>(SIZES)?;
        let ends: Vec<usize> = sizes
            .iter()
            .scan(0_usize, |end, &size| {
                *end += size as usize;
                Some(*end)
            })
            .collect();
        let members = file.numbers::<u32>(MEMBERS)?.len();
        let links = Self {
            base: file.column(BASE, rows * width)?.hot(),
            upper: file.column(UPPER, ends.last().copied().unwrap_or(0))?,
            members: file.column(MEMBERS, members)?,
            ends,
        };
        links.check(about).map_err(|what| file.damaged(what.into()))?;
        Ok(links)
    }

    /// Finds links that lead nowhere, which a search would follow.
    fn check(&self, about: &About) -> Result<(), &'static str> {
        let within =
            |links: &[u32], nodes: usize| links.iter().all(|&link| link == NONE || (link as usize) < nodes);
        let rows = about.rows as usize;
        if self.members.is_empty() {
            return Err("its graph has no way in");
        }
        if !within(&self.base, rows) || self.members.iter().any(|&row| row as usize >= rows) {
            return Err("a link of its graph leads outside");
        }
        let half = about.width as usize / 2;
        let mut from = 0;
        let mut below = self.members.len();
        for &end in &self.ends {
            let nodes = (end - from).checked_div(half).unwrap_or(0);
            if half == 0 || (end - from) % half != 0 || nodes == 0 || nodes > below {
                return Err("a layer of its graph has another size");
            }
            if !within(&self.upper[from..end], nodes) {
                return Err("a link of its graph leads outside");
            }
            (from, below) = (end, nodes);
        }
        Ok(())
    }

    fn graph(&self, about: &About) -> Graph<'_> {
        let width = about.width as usize;
        let starts = iter::once(0).chain(self.ends.iter().copied());
        let upper = starts
            .zip(&self.ends)
            .map(|(start, &end)| Layer { width: width / 2, links: &self.upper[start..end] });
        Graph { base: Layer { width, links: &self.base }, upper: upper.collect(), members: &self.members }
    }
}

/// One search of a segment.
struct Search<'s> {
    segment: &'s Segment,
    codes: Codes<'s>,
    query: &'s Query,
    margin: Margin,
    k: usize,
}

impl Search<'_> {
    /// Walks the graph, then measures what it has found. `None` if that is too little.
    fn walk(&self, graph: &Graph<'_>, ef: usize, scratch: &mut Scratch) -> Option<Top> {
        let entry = graph.members[graph.descend(&self.codes, 0, scratch) as usize];
        graph.walk(&self.codes, 0, entry, ef, scratch);
        let top = self.settle(|_| true, scratch);
        (top.len() >= self.k.min(self.segment.len() as usize)).then_some(top)
    }

    /// The same among allowed rows. `None` where a scan is faster, or finds more.
    fn walk_allowed(
        &self,
        graph: &Graph<'_>,
        ef: usize,
        allowed: &RoaringBitmap,
        scratch: &mut Scratch,
    ) -> Option<Top> {
        let len = self.segment.len();
        let matches = allowed.range_cardinality(..len);
        if matches <= scan_below(len).max(ef as u64) {
            return None;
        }
        let entry = graph.members[graph.descend(&self.codes, 0, scratch) as usize];
        let steps = Steps::for_share(matches, len);
        let mut dense = mem::take(&mut scratch.allowed);
        let top = match steps {
            Steps::Through => self.collect(graph, entry, ef, steps, |row| allowed.contains(row), scratch),
            // Asked of so many rows that it is better unpacked.
            Steps::Over => {
                dense.clear(len as usize);
                allowed.iter().take_while(|&row| row < len).for_each(|row| _ = dense.insert(row));
                self.collect(graph, entry, ef, steps, |row| dense.contains(row), scratch)
            }
        };
        scratch.allowed = dense;
        top
    }

    fn collect(
        &self,
        graph: &Graph<'_>,
        entry: u32,
        ef: usize,
        steps: Steps,
        allowed: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> Option<Top> {
        let any = |node| self.segment.rows(node).any(&allowed);
        graph.walk_allowed(&self.codes, entry, ef, steps, any, scratch);
        // A walk that ends early went astray: what is allowed may lie apart from where it came in.
        let found: usize = scratch
            .pool
            .nodes()
            .iter()
            .flat_map(|near| self.segment.rows(near.node()))
            .filter(|&row| allowed(row))
            .count();
        if found < ef { None } else { Some(self.settle(allowed, scratch)) }
    }

    /// Measures what a walk has found, as long as it can be among the nearest.
    fn settle(&self, allowed: impl Fn(u32) -> bool, scratch: &mut Scratch) -> Top {
        let mut top = Top::new(self.k);
        for near in scratch.pool.nodes() {
            if self.margin.hardly(near.score()) > top.bound() {
                break;
            }
            for row in self.segment.rows(near.node()).filter(|&row| allowed(row)) {
                self.measure(row, &mut top, &mut scratch.numbers);
            }
        }
        top
    }

    /// Looks at all that is allowed.
    fn scan(&self, allowed: Option<&RoaringBitmap>, scratch: &mut Scratch) -> Top {
        let Scratch { target, rows, dots, scores, scanned, numbers, .. } = scratch;
        scanned.clear();
        let len = self.segment.len();
        let mut wanted: Box<dyn Iterator<Item = u32>> = match allowed {
            Some(allowed) => Box::new(allowed.iter().take_while(|&row| row < len)),
            None => Box::new(0..len),
        };
        loop {
            rows.clear();
            rows.extend(wanted.by_ref().take(AT_ONCE));
            if rows.is_empty() {
                break;
            }
            self.codes.scores(target, rows, dots, scores);
            scanned.extend(scores.iter().zip(&*rows).map(|(&score, &row)| Near::new(score, row)));
        }
        // The nearest by their codes go first, so that few others are left to measure.
        if self.k < scanned.len() {
            scanned.select_nth_unstable(self.k);
        }
        let mut top = Top::new(self.k);
        for near in scanned {
            if self.margin.surely(near.score()) <= top.bound() {
                self.measure(near.node(), &mut top, numbers);
            }
        }
        top
    }

    fn measure(&self, row: u32, top: &mut Top, numbers: &mut Vec<f32>) {
        let distance = self.segment.kept.distance(&self.codes, self.query, row, numbers);
        top.offer(Hit { row, distance });
    }
}
