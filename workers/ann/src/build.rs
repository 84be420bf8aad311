//! Links the rows of a segment into a graph.
//!
//! Nodes are added in batches. Those of a batch search the graph as it was before, side by side and without locks, and are compared with each
//! other; then all their links are made ([ParlayANN](https://arxiv.org/abs/2305.04359) builds so). What comes out does therefore not depend on
//! threads. The order of nodes is random but for those of upper layers, who come first: all ways into the graph are there from the beginning.
//!
//! A list may grow beyond its width for a while, so that it is not thinned out at every link that comes. At the end every node searches for itself;
//! one that is not found gets a link from where the search ended.

use std::{
    hash::{DefaultHasher, Hasher},
    io, iter, mem,
    ops::Range,
};

use lakehouse_contract::vectors::Hnsw;
use rayon::prelude::*;

use crate::{
    codes::Codes,
    graph::{Graph, Layer, NONE, Near, Scratch, with_scratch},
    huge::Huge,
};

/// Nodes that are added at once. Small against any graph; each is compared with all others of its batch.
const BATCH: usize = 512;
/// No graph needs more layers.
const HIGHEST: usize = 15;
/// A search for itself finds a node with so many candidates, which is fewer than searches have.
const SELF_EF: usize = 16;
/// How often what is not found is linked again.
const ROUNDS: usize = 10;

/// A finished graph.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Built {
    /// Places for links of a node in the base; half as many above.
    pub(crate) width: usize,
    pub(crate) base: Vec<u32>,
    pub(crate) upper: Vec<Vec<u32>>,
    pub(crate) members: Vec<u32>,
    /// Of each row the next that has the same codes, or itself; empty if no two have. Only the first of equal rows is a node with links.
    pub(crate) same: Vec<u32>,
}

/// Links of one layer while it grows.
struct Links {
    /// Places of a node now, and in the end.
    room: usize,
    width: usize,
    ids: Huge<u32>,
    /// How far each link leads.
    scores: Huge<f32>,
}

type Link = (f32, u32);

impl Links {
    fn new(nodes: usize, width: usize) -> io::Result<Self> {
        let room = width + width / 2;
        let mut ids = Huge::zeros(nodes * room)?;
        ids.fill(NONE);
        Ok(Self { room, width, ids, scores: Huge::zeros(nodes * room)? })
    }

    fn layer(&self) -> Layer<'_> {
        Layer { width: self.room, links: &self.ids }
    }

    fn get(&self, node: u32) -> impl Iterator<Item = Link> {
        let from = node as usize * self.room;
        self.layer().of(node).zip(&self.scores[from..]).map(|(id, &score)| (score, id))
    }

    fn set(&mut self, node: u32, links: &[Link]) {
        let from = node as usize * self.room;
        self.ids[from..from + self.room].fill(NONE);
        for (at, &(score, id)) in (from..).zip(links) {
            (self.ids[at], self.scores[at]) = (id, score);
        }
    }

    /// Whether there was a place.
    fn push(&mut self, node: u32, (score, id): Link, width: usize) -> bool {
        let from = node as usize * self.room;
        let Some(free) = self.ids[from..from + width].iter().position(|&id| id == NONE) else { return false };
        (self.ids[from + free], self.scores[from + free]) = (id, score);
        true
    }
}

/// Builds the graph of all rows. Says how many are done.
pub(crate) fn build(codes: &Codes<'_>, hnsw: &Hnsw, progress: &(dyn Fn(u64) + Sync)) -> io::Result<Built> {
    let m = hnsw.m.max(2) as usize;
    let same = same(codes);
    let (order, sizes) = order(codes, &same, m);
    let ef = (hnsw.ef_construction as usize).max(m);
    let mut builder = Builder::new(codes, m, ef, order, &sizes)?;
    let mut done = (codes.terms.len() - builder.order.len()) as u64;
    let (members, all) = (builder.members.len(), builder.order.len());
    for (from, to) in [(0, members), (members, all)] {
        if from > 0 {
            builder.sort(from);
        }
        for start in (from..to).step_by(BATCH) {
            let batch = start..(start + BATCH).min(to);
            done += batch.len() as u64;
            builder.add(batch);
            progress(done);
        }
    }
    Ok(builder.finish(same))
}

struct Builder<'c> {
    codes: &'c Codes<'c>,
    m: usize,
    ef: usize,
    /// Rows in the order they are added. Those of upper layers are the beginning, by layer.
    order: Vec<u32>,
    /// Nodes of each upper layer.
    sizes: Vec<usize>,
    /// The base, then the upper layers.
    layers: Vec<Links>,
    members: Vec<u32>,
    /// The nearest member of each row of `order` that is none.
    entries: Vec<u32>,
}

impl<'c> Builder<'c> {
    fn new(codes: &'c Codes<'c>, m: usize, ef: usize, order: Vec<u32>, sizes: &[usize]) -> io::Result<Self> {
        let widths = iter::once((codes.terms.len(), 2 * m)).chain(sizes.iter().map(|&size| (size, m)));
        let layers = widths.map(|(nodes, width)| Links::new(nodes, width)).collect::<io::Result<_>>()?;
        // The first of them is where walks begin, so there is one.
        let members = order[..sizes.first().copied().unwrap_or(0).max(1).min(order.len())].to_vec();
        Ok(Self { codes, m, ef, order, sizes: sizes.to_vec(), layers, members, entries: Vec::new() })
    }

    fn graph(&self) -> Graph<'_> {
        let (base, upper) = self.layers.split_first().expect("there is a base");
        Graph { base: base.layer(), upper: upper.iter().map(Links::layer).collect(), members: &self.members }
    }

    /// Sorts what is still to be added by the members that are nearest, and those by the ones above them: so what is added together lies
    /// together, and the part of the graph that is needed for one is at hand for the next.
    fn sort(&mut self, from: usize) {
        let graph = self.graph();
        let nearest = |row: u32, layer: usize| {
            with_scratch(|scratch| {
                self.codes.row(row, &mut scratch.target);
                graph.descend(self.codes, layer, scratch)
            })
        };
        let above: Vec<u32> = self.members.par_iter().map(|&row| nearest(row, 1)).collect();
        let mut rest: Vec<_> = self.order[from..]
            .par_iter()
            .map(|&row| {
                let member = nearest(row, 0);
                (above[member as usize], member, row)
            })
            .collect();
        rest.par_sort_unstable();
        self.entries = rest.iter().map(|&(_, member, _)| member).collect();
        self.order.truncate(from);
        self.order.extend(rest.into_iter().map(|(.., row)| row));
    }

    /// Adds a run of `order`.
    fn add(&mut self, batch: Range<usize>) {
        let graph = self.graph();
        let found: Vec<Vec<Vec<Link>>> = batch
            .clone()
            .into_par_iter()
            .map(|at| with_scratch(|scratch| self.neighbours(&graph, at, &batch, scratch)))
            .collect();
        for layer in 0..self.layers.len() {
            let lists = batch.clone().zip(&found).filter_map(|(at, lists)| Some((at, lists.get(layer)?)));
            let lists: Vec<(u32, &Vec<Link>)> =
                lists.map(|(at, list)| (self.local(layer, at), list)).collect();
            self.link(layer, &lists);
        }
    }

    /// What a layer calls the node at this place of the order.
    #[expect(clippy::cast_possible_truncation, reason = "rows are counted in 32 bits")]
    fn local(&self, layer: usize, at: usize) -> u32 {
        if layer == 0 { self.order[at] } else { at as u32 }
    }

    /// The links of a new node in each of its layers, from the base.
    fn neighbours(
        &self,
        graph: &Graph<'_>,
        at: usize,
        batch: &Range<usize>,
        scratch: &mut Scratch,
    ) -> Vec<Vec<Link>> {
        self.codes.row(self.order[at], &mut scratch.target);
        let top = self.sizes.iter().take_while(|&&size| at < size).count();
        let known = at.checked_sub(self.members.len()).and_then(|at| self.entries.get(at));
        let mut entry = match known {
            Some(&member) => Some(member),
            None => (batch.start > 0).then(|| graph.descend(self.codes, top, scratch)),
        };
        let mut lists = vec![Vec::new(); top + 1];
        for layer in (0..=top).rev() {
            scratch.pool.clear(self.ef);
            if let Some(from) = entry {
                // Above the base nodes are called by their place.
                let from = if layer == 0 { self.order[from as usize] } else { from };
                graph.walk(self.codes, layer, from, self.ef, scratch);
            }
            let above = scratch.pool.nodes().first().map(|near| near.node());
            self.offer_batch(layer, at, batch, scratch);
            let candidates: Vec<Link> =
                scratch.pool.nodes().iter().map(|near| (near.score(), near.node())).collect();
            lists[layer] = self.select(layer, &candidates, self.m, scratch);
            if layer > 0 {
                entry = above.or(entry);
            }
        }
        lists
    }

    /// The others of the batch are candidates too.
    fn offer_batch(&self, layer: usize, at: usize, batch: &Range<usize>, scratch: &mut Scratch) {
        let end = if layer == 0 { batch.end } else { batch.end.min(self.sizes[layer - 1]) };
        let others = &self.order[batch.start..end];
        let Scratch { target, pool, dots, scores, .. } = scratch;
        self.codes.scores(target, others, dots, scores);
        for (other, &score) in (batch.start..end).zip(&*scores) {
            if other != at {
                pool.offer(Near::new(score, self.local(layer, other)));
            }
        }
    }

    /// Of candidates, nearest first, those up to `most` that are nearer to the node than to any one chosen before: links that lead
    /// into different directions (algorithm 4 of the paper).
    fn select(&self, layer: usize, candidates: &[Link], most: usize, scratch: &mut Scratch) -> Vec<Link> {
        let Scratch { other, rows, left, dots, scores, .. } = scratch;
        let mut chosen = Vec::with_capacity(most);
        left.clear();
        left.extend_from_slice(candidates);
        while let Some(&(score, id)) = left.first() {
            chosen.push((score, id));
            left.remove(0);
            if chosen.len() == most || left.is_empty() {
                break;
            }
            self.codes.row(self.row(layer, id), other);
            rows.clear();
            rows.extend(left.iter().map(|&(_, id)| self.row(layer, id)));
            self.codes.scores(other, rows, dots, scores);
            let mut scores = scores.iter();
            left.retain(|&(score, _)| scores.next().is_some_and(|&between| between >= score));
        }
        chosen
    }

    fn row(&self, layer: usize, local: u32) -> u32 {
        if layer == 0 { local } else { self.members[local as usize] }
    }

    /// Links new nodes with what they have found, there and back.
    fn link(&mut self, layer: usize, lists: &[(u32, &Vec<Link>)]) {
        for &(node, list) in lists {
            self.layers[layer].set(node, list);
        }
        let mut back: Vec<(u32, u32, f32)> = lists
            .iter()
            .flat_map(|&(node, list)| list.iter().map(move |&(score, id)| (id, node, score)))
            .collect();
        back.par_sort_unstable_by_key(|&(id, node, _)| (id, node));
        let groups: Vec<&[(u32, u32, f32)]> = back.chunk_by(|a, b| a.0 == b.0).collect();
        let changed: Vec<(u32, Vec<Link>)> =
            groups.into_par_iter().map(|group| (group[0].0, self.grown(layer, group))).collect();
        for (node, links) in changed {
            self.layers[layer].set(node, &links);
        }
    }

    /// A node's links with the new ones; thinned out where they would not fit.
    fn grown(&self, layer: usize, news: &[(u32, u32, f32)]) -> Vec<Link> {
        let links = &self.layers[layer];
        let mut all: Vec<Link> = links.get(news[0].0).collect();
        let old = all.len();
        for &(_, id, score) in news {
            if all[..old].iter().all(|&(_, known)| known != id) {
                all.push((score, id));
            }
        }
        if all.len() > links.room { self.thinned(layer, all) } else { all }
    }

    fn thinned(&self, layer: usize, mut links: Vec<Link>) -> Vec<Link> {
        links.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        with_scratch(|scratch| self.select(layer, &links, self.layers[layer].width, scratch))
    }

    fn finish(mut self, same: Vec<u32>) -> Built {
        for layer in 0..self.layers.len() {
            let nodes =
                u32::try_from(self.layers[layer].layer().nodes()).expect("rows are counted in 32 bits");
            let width = self.layers[layer].width;
            let long: Vec<u32> = (0..nodes)
                .into_par_iter()
                .filter(|&node| self.layers[layer].get(node).count() > width)
                .collect();
            let thin: Vec<(u32, Vec<Link>)> = long
                .into_par_iter()
                .map(|node| (node, self.thinned(layer, self.layers[layer].get(node).collect())))
                .collect();
            for (node, links) in thin {
                self.layers[layer].set(node, &links);
            }
        }
        self.repair();
        let mut layers = self.layers.into_iter().map(|links| {
            let rows = links.ids.chunks_exact(links.room);
            rows.flat_map(|ids| &ids[..links.width]).copied().collect::<Vec<u32>>()
        });
        let base = layers.next().expect("there is a base");
        Built { width: 2 * self.m, base, upper: layers.collect(), members: self.members, same }
    }

    /// Lets every node be found by a search for itself.
    fn repair(&mut self) {
        let mut suspects: Vec<u32> = self.order.clone();
        let mut evicted = false;
        for round in 0..ROUNDS {
            let graph = self.graph();
            let lost: Vec<(u32, Vec<Near>)> = suspects
                .par_iter()
                .filter_map(|&row| Some((row, with_scratch(|scratch| self.lost(&graph, row, scratch))?)))
                .collect();
            if lost.is_empty() && !evicted {
                return;
            }
            tracing::debug!(lost = lost.len(), round, "Nodes that a search for themselves does not find");
            if lost.is_empty() {
                // A link that had to go may have been on the way to any other.
                (suspects, evicted) = (self.order.clone(), false);
                continue;
            }
            suspects.clear();
            for (row, near) in lost {
                suspects.push(row);
                let other = self.lead_to(row, &near, round);
                evicted |= other.is_some();
                suspects.extend(other);
            }
            suspects.sort_unstable();
            suspects.dedup();
        }
    }

    /// Where a search for this row ends, unless it ends there.
    fn lost(&self, graph: &Graph<'_>, row: u32, scratch: &mut Scratch) -> Option<Vec<Near>> {
        self.codes.row(row, &mut scratch.target);
        let entry = graph.descend(self.codes, 0, scratch);
        graph.walk(self.codes, 0, self.members[entry as usize], SELF_EF, scratch);
        let nodes = scratch.pool.nodes();
        if nodes.iter().any(|near| near.node() == row) { None } else { Some(nodes.to_vec()) }
    }

    /// Links to a lost node from near ones; where no one has a place left, instead of another node, which may be lost then.
    fn lead_to(&mut self, row: u32, near: &[Near], round: usize) -> Option<u32> {
        let base = &mut self.layers[0];
        let width = base.width;
        for near in near {
            if base.push(near.node(), (near.score(), row), width) {
                return None;
            }
        }
        // Another one in each round, so that two lost nodes do not take a place from each other for ever.
        let near = near.get(round % near.len().max(1))?;
        let mut links: Vec<Link> = base.get(near.node()).collect();
        let at = links.len() - 1 - (row as usize + round) % (links.len() / 2).max(1);
        let (_, evicted) = mem::replace(&mut links[at], (near.score(), row));
        base.set(near.node(), &links);
        Some(evicted)
    }
}

/// Finds rows with equal codes: see [`Built::same`].
fn same(codes: &Codes<'_>) -> Vec<u32> {
    let row_of = |row: u32| {
        let from = row as usize * codes.stride;
        (&codes.bytes[from..from + codes.stride], codes.terms[row as usize].map(f32::to_bits))
    };
    let rows = u32::try_from(codes.terms.len()).expect("rows are counted in 32 bits");
    let mut hashed: Vec<(u64, u32)> = (0..rows)
        .into_par_iter()
        .map(|row| {
            let mut hasher = DefaultHasher::new();
            hasher.write(row_of(row).0);
            (hasher.finish(), row)
        })
        .collect();
    hashed.par_sort_unstable();
    let mut same = Vec::new();
    for group in hashed.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
        // Unequal rows with equal hashes are hardly ever there, so there is hardly ever more than one list.
        let mut lists: Vec<Vec<u32>> = Vec::new();
        for &(_, row) in group {
            match lists.iter_mut().find(|list| row_of(list[0]) == row_of(row)) {
                Some(list) => list.push(row),
                None => lists.push(vec![row]),
            }
        }
        if same.is_empty() {
            same = (0..rows).collect();
        }
        for list in lists {
            for pair in list.windows(2) {
                same[pair[0] as usize] = pair[1];
            }
        }
    }
    same
}

/// The rows that become nodes, in the order they are added, and how many are in each upper layer.
fn order(codes: &Codes<'_>, same: &[u32], m: usize) -> (Vec<u32>, Vec<usize>) {
    let mut follows = vec![false; codes.terms.len()];
    for (row, &next) in same.iter().enumerate() {
        if next as usize != row {
            follows[next as usize] = true;
        }
    }
    let chance = 1.0 / (m as f64).ln();
    let drawn = |row: u32| {
        let random = mixed(row);
        let level = -(((random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64).ln() * chance;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 15")]
        let level = level.min(HIGHEST as f64) as usize;
        (level, mixed(row ^ 0x5bd1_e995), row)
    };
    let rows = u32::try_from(follows.len()).expect("rows are counted in 32 bits");
    let mut drawn: Vec<_> = (0..rows).filter(|&row| !follows[row as usize]).map(drawn).collect();
    drawn.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let top = drawn.first().map_or(0, |&(level, ..)| level);
    let sizes = (1..=top).map(|layer| drawn.partition_point(|&(level, ..)| level >= layer)).collect();
    (drawn.into_iter().map(|(.., row)| row).collect(), sizes)
}

/// A random number for each row, always the same ([SplitMix64](https://doi.org/10.1145/2714064.2660195)).
fn mixed(row: u32) -> u64 {
    let mut z = (u64::from(row) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
