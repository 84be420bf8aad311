//! An engine under measurement: reads commands from its standard input, one a line, and answers each by a line of JSON.
//!
//! ```text
//! engine lakehouse|hnsw_rs FOLDER DIMENSION M EF_CONSTRUCTION
//!   build THREADS               builds from base.f32                      {"seconds"}
//!   search EF OUT               searches by queries.f32 on one thread     {"seconds"}, and rows as i32 in OUT
//!   filter ROWS EF OUT          the same among the rows of the file ROWS
//!   self EF                     searches for every row                    {"lost"}: those that did not find themselves
//!   size                        bytes that searches touch                 {"hot"}
//!   stream RATE                 adds rows while another thread searches   {"acknowledged", "indexed", "searches"} per second
//! ```
//! `bench/measure.py` speaks to it, and to the peers in its own process, in turns.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing better to do")]

use std::{
    env, fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use hnsw_rs::prelude::DistDot;
use lakehouse_ann::{
    Head, Hit, Query, Segment, Vectors,
    sections::{File, Writer},
    write,
};
use lakehouse_contract::vectors::{Hnsw, Metric, Quantization, Shape};
use memmap2::Mmap;
use roaring::RoaringBitmap;
use serde_json::{Value, json};

const K: usize = 10;
/// Rows of a head before it is made into a segment.
const HEAD: u32 = 20_000;

/// What the bench asks of an engine.
trait Engine {
    fn build(base: &Rows, shape: &Shape, threads: usize, folder: &Path) -> Self;
    fn search(&self, query: &[f32], ef: usize, allowed: Option<&RoaringBitmap>, out: &mut Vec<Hit>);
    /// Bytes that a search may touch without measuring finally.
    fn hot(&self) -> Option<u64>;
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [engine, folder, dimension, m, ef_construction] = arguments.as_slice() else {
        panic!("engine lakehouse|hnsw_rs FOLDER DIMENSION M EF_CONSTRUCTION");
    };
    let hnsw =
        Hnsw { m: m.parse().unwrap(), ef_construction: ef_construction.parse().unwrap(), ..Hnsw::default() };
    let shape = Shape {
        dimension: dimension.parse().unwrap(),
        metric: Metric::Cosine,
        hnsw,
        quantization: Quantization::None,
    };
    let bench = Bench::open(Path::new(folder), shape);
    match engine.as_str() {
        "lakehouse" => bench.serve::<Lakehouse>(),
        "hnsw_rs" => bench.serve::<HnswRs>(),
        other => panic!("{other} is no engine"),
    }
}

struct Bench {
    folder: PathBuf,
    shape: Shape,
    base: Rows,
    queries: Rows,
}

impl Bench {
    fn open(folder: &Path, shape: Shape) -> Self {
        let dimension = shape.dimension as usize;
        let (base, queries) = (
            Rows::open(&folder.join("base.f32"), dimension),
            Rows::open(&folder.join("queries.f32"), dimension),
        );
        Self { folder: folder.to_owned(), shape, base, queries }
    }

    fn serve<E: Engine + Sync>(&self) {
        let mut engine = None;
        for line in io::stdin().lock().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let answer = match (words.as_slice(), &engine) {
                (["build", threads], _) => {
                    drop(engine.take()); // two would not fit everywhere
                    let start = Instant::now();
                    engine = Some(E::build(&self.base, &self.shape, threads.parse().unwrap(), &self.folder));
                    json!({ "seconds": start.elapsed().as_secs_f64() })
                }
                (["search", ef, out], Some(engine)) => self.search(engine, ef.parse().unwrap(), None, out),
                (["filter", rows, ef, out], Some(engine)) => {
                    let rows = fs::read(rows).unwrap();
                    let rows: RoaringBitmap =
                        rows.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
                    self.search(engine, ef.parse().unwrap(), Some(&rows), out)
                }
                (["self", ef], Some(engine)) => json!({ "lost": self.lost(engine, ef.parse().unwrap()) }),
                (["size"], Some(engine)) => json!({ "hot": engine.hot() }),
                (["stream", rate], _) => self.stream(rate.parse().unwrap()),
                _ => panic!("{line} is no command, or nothing is built"),
            };
            println!("{answer}");
            io::stdout().flush().unwrap();
        }
    }

    fn search<E: Engine>(&self, engine: &E, ef: usize, allowed: Option<&RoaringBitmap>, out: &str) -> Value {
        let (mut hits, mut rows) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for query in 0..self.queries.len() {
            engine.search(self.queries.row(query), ef, allowed, &mut hits);
            rows.extend((0..K).map(|at| hits.get(at).map_or(-1, |hit| hit.row.cast_signed())));
        }
        let seconds = start.elapsed().as_secs_f64();
        fs::write(out, bytemuck::cast_slice(&rows)).unwrap();
        json!({ "seconds": seconds })
    }

    fn lost<E: Engine>(&self, engine: &E, ef: usize) -> usize {
        let mut hits = Vec::new();
        (0..self.base.len())
            .filter(|&row| {
                engine.search(self.base.row(row), ef, None, &mut hits);
                !hits.iter().any(|hit| hit.row == row)
            })
            .count()
    }

    /// One thread adds, one makes segments of full heads, one searches heads and segments.
    fn stream(&self, rate: f64) -> Value {
        let stream = Stream::new(&self.shape, &self.folder);
        let total = self.base.len().min(100_000);
        let start = Instant::now();
        let (done, searches, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let (mut acknowledged, mut indexed) = (0.0, 0.0);
        thread::scope(|scope| {
            let adding = scope.spawn(|| {
                for row in 0..total {
                    let due = f64::from(row) / rate;
                    let early = due - start.elapsed().as_secs_f64();
                    if early > 0.001 {
                        thread::sleep(std::time::Duration::from_secs_f64(early));
                    }
                    stream.add(self.base.row(row));
                }
                f64::from(total) / start.elapsed().as_secs_f64()
            });
            let searching = scope.spawn(|| {
                let mut query = 0;
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    stream.search(&Query::new(&self.shape, self.queries.row(query)).unwrap());
                    slowest.fetch_max(u64::try_from(began.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
                    searches.fetch_add(1, Ordering::Relaxed);
                    query = (query + 1) % self.queries.len();
                    // A search now and then, as clients send them; a loop without rest would only measure who gets the core.
                    thread::sleep(std::time::Duration::from_millis(2));
                }
            });
            let mut rows = 0;
            while rows < total {
                match stream.compact(HEAD.min(total - rows)) {
                    0 => thread::sleep(std::time::Duration::from_millis(5)),
                    moved => rows += moved,
                }
            }
            indexed = f64::from(total) / start.elapsed().as_secs_f64();
            acknowledged = adding.join().unwrap();
            done.store(true, Ordering::Relaxed);
            searching.join().unwrap();
        });
        let seconds = start.elapsed().as_secs_f64();
        json!({
            "acknowledged": acknowledged,
            "indexed": indexed,
            "searches": searches.into_inner() as f64 / seconds,
            "slowest_ms": slowest.into_inner() as f64 / 1e3,
        })
    }
}

/// Rows of a file.
struct Rows {
    map: Mmap,
    dimension: usize,
}

impl Rows {
    #[expect(unsafe_code, reason = "the bench's own file, which nobody changes")]
    fn open(path: &Path, dimension: usize) -> Self {
        let file = fs::File::open(path).unwrap();
        // SAFETY: see above.
        Self { map: unsafe { Mmap::map(&file) }.unwrap(), dimension }
    }

    fn row(&self, row: u32) -> &[f32] {
        &bytemuck::cast_slice(&self.map)[row as usize * self.dimension..][..self.dimension]
    }
}

impl Vectors for Rows {
    fn len(&self) -> u32 {
        u32::try_from(self.map.len() / self.dimension / 4).unwrap()
    }

    fn get(&self, row: u32, into: &mut [f32]) {
        into.copy_from_slice(self.row(row));
    }
}

/// Ours.
struct Lakehouse {
    shape: Shape,
    segment: Segment,
    hot: u64,
}

fn made(shape: &Shape, vectors: &dyn Vectors, threads: usize, path: &Path) -> (Segment, u64) {
    let mut writer = Writer::create(path).unwrap();
    write(shape, vectors, threads, &|_| {}, &mut writer).unwrap();
    writer.finish().unwrap();
    let file = File::open(path).unwrap();
    let cold = [*b"ann.kept", *b"ann.leng"].map(|name| file.section(name).unwrap().len() as u64);
    let segment = Segment::open(shape, &file).unwrap();
    fs::remove_file(path).unwrap();
    (segment, file.size() - cold.iter().sum::<u64>())
}

impl Engine for Lakehouse {
    fn build(base: &Rows, shape: &Shape, threads: usize, folder: &Path) -> Self {
        let (segment, hot) = made(shape, base, threads, &folder.join("lakehouse.segment"));
        Self { shape: shape.clone(), segment, hot }
    }

    fn search(&self, query: &[f32], ef: usize, allowed: Option<&RoaringBitmap>, out: &mut Vec<Hit>) {
        self.segment.search(&Query::new(&self.shape, query).unwrap(), K, ef, allowed, out);
    }

    fn hot(&self) -> Option<u64> {
        Some(self.hot)
    }
}

/// A head, one on its way to a segment, and segments.
struct Stream {
    shape: Shape,
    folder: PathBuf,
    heads: std::sync::RwLock<Vec<std::sync::Arc<Head>>>,
    segments: std::sync::RwLock<Vec<std::sync::Arc<Segment>>>,
}

impl Stream {
    fn new(shape: &Shape, folder: &Path) -> Self {
        let heads = std::sync::RwLock::new(vec![std::sync::Arc::new(Head::new(shape))]);
        Self {
            shape: shape.clone(),
            folder: folder.to_owned(),
            heads,
            segments: std::sync::RwLock::default(),
        }
    }

    fn add(&self, vector: &[f32]) {
        let head = self.heads.read().unwrap().last().unwrap().clone();
        if head.push(vector).unwrap() + 1 == HEAD {
            self.heads.write().unwrap().push(std::sync::Arc::new(Head::new(&self.shape)));
        }
    }

    fn search(&self, query: &Query) {
        let (heads, segments) = (self.heads.read().unwrap().clone(), self.segments.read().unwrap().clone());
        let (mut all, mut found) = (Vec::new(), Vec::new());
        for head in heads {
            head.search(query, K, None, &mut found);
            all.append(&mut found);
        }
        for segment in segments {
            segment.search(query, K, 64, None, &mut found);
            all.append(&mut found);
        }
        all.sort_unstable();
    }

    /// Makes the oldest head into a segment once it has so many rows.
    fn compact(&self, rows: u32) -> u32 {
        let head = self.heads.read().unwrap()[0].clone();
        if head.len() < rows {
            return 0;
        }
        let path = self.folder.join("stream.segment");
        let (segment, _) = made(&self.shape, &*head, 1, &path);
        self.segments.write().unwrap().push(segment.into());
        self.heads.write().unwrap().remove(0);
        rows
    }
}

/// The peer in Rust.
struct HnswRs {
    graph: hnsw_rs::prelude::Hnsw<'static, f32, DistDot>,
}

impl Engine for HnswRs {
    fn build(base: &Rows, shape: &Shape, threads: usize, _: &Path) -> Self {
        let (m, ef) = (shape.hnsw.m as usize, shape.hnsw.ef_construction as usize);
        let rows: Vec<Vec<f32>> = (0..base.len()).map(|row| base.row(row).to_vec()).collect();
        let graph = hnsw_rs::prelude::Hnsw::new(m, rows.len(), 16, ef, DistDot {});
        let rows: Vec<_> = rows.iter().zip(0..).collect();
        // Its first points are better added one by one.
        let (first, rest) = rows.split_at(rows.len().min(500));
        for &(row, id) in first {
            graph.insert((row, id));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| graph.parallel_insert(rest));
        Self { graph }
    }

    fn search(&self, query: &[f32], ef: usize, allowed: Option<&RoaringBitmap>, out: &mut Vec<Hit>) {
        let found = match allowed {
            None => self.graph.search(query, K, ef),
            Some(rows) => {
                let rows = |id: &usize| rows.contains(u32::try_from(*id).unwrap());
                self.graph.search_filter(query, K, ef, Some(&rows))
            }
        };
        out.clear();
        out.extend(
            found.iter().map(|hit| Hit { row: u32::try_from(hit.d_id).unwrap(), distance: hit.distance }),
        );
    }

    fn hot(&self) -> Option<u64> {
        None
    }
}
