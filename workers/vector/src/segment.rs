//! A segment: an immutable file with vectors, ids and metadata.
//!
//! ```text
//! ids.* columns coldir   by this crate: who each row is, and what is kept with it
//! stamps                 u64 per row: one more than the number of the record that wrote it; absent where no log did
//! nonce                  16 random bytes: no two segments are equal, so nobody relies on another's file
//! ann.*                  by the engine
//! ```

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use lakehouse_ann::{
    self as ann, Hit, Query, Vectors,
    sections::{self, Name},
};
use lakehouse_contract::{
    dataset::hex,
    vectors::{Metadata, Shape},
};
use memmap2::Mmap;
use roaring::RoaringBitmap;
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    columns::{self, Columns},
    filter::Test,
    ids::{self, Ids},
    value,
};

const STAMPS: Name = *b"stamps\0\0";
const NONCE: Name = *b"nonce\0\0\0";
/// The most rows of one segment.
pub const MAX_ROWS: u32 = 1 << 20;

/// A segment that lies on this machine, complete, and is not yet in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Vectors in it.
    pub rows: u32,
    /// The shard that all its ids belong to.
    pub shard: u32,
}

/// Collects rows and writes them as one segment. Vectors wait in a file, so memory holds ids and distinct values only.
#[derive(Debug)]
pub struct SegmentWriter {
    shape: Shape,
    path: PathBuf,
    shard: u32,
    spool: BufWriter<fs::File>,
    ids: ids::Builder,
    columns: columns::Builder,
    stamps: Vec<u64>,
}

impl SegmentWriter {
    /// Begins a segment in the folder `dir`, which must exist.
    pub fn create(dir: &Path, shape: &Shape, shard: u32) -> Result<Self> {
        let path = dir.join(format!("{}.segment", uuid::Uuid::new_v4().simple()));
        let spool = tempfile::tempfile_in(dir).map_err(|error| Error::local(dir, error))?;
        Ok(Self {
            shape: shape.clone(),
            path,
            shard,
            spool: BufWriter::with_capacity(1 << 18, spool),
            ids: ids::Builder::default(),
            columns: columns::Builder::default(),
            stamps: Vec::new(),
        })
    }

    /// How many rows it has.
    pub fn rows(&self) -> u32 {
        u32::try_from(self.ids.len()).expect("a segment has at most a million rows")
    }

    /// Adds a row. The id must be new to the segment.
    pub fn push(&mut self, id: &str, vector: &[f32], metadata: &Metadata) -> Result<()> {
        self.push_stamped(id, vector, metadata, 0)
    }

    /// Adds a row that a record of the log wrote.
    pub(crate) fn push_stamped(
        &mut self,
        id: &str,
        vector: &[f32],
        metadata: &Metadata,
        stamp: u64,
    ) -> Result<()> {
        ann::check(&self.shape, vector)
            .map_err(|error| Error::Invalid(format!("vector of `{id}`: {error}")))?;
        self.spool.write_all(bytes_of(vector)).map_err(|error| Error::local(&self.path, error))?;
        self.ids.push(id);
        self.columns.push(metadata);
        self.stamps.push(stamp);
        Ok(())
    }

    /// Writes the segment with up to `threads` threads. `progress` hears how many rows are done.
    pub fn finish(self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Finished> {
        let rows = self.rows();
        let Self { shape, path, shard, spool, ids, columns, stamps } = self;
        let spool = spool.into_inner().map_err(|error| Error::local(&path, error.into_error()))?;
        let spool = Spool {
            map: map(&spool).map_err(|error| Error::local(&path, error))?,
            rows,
            dimension: shape.dimension,
        };
        let mut out = sections::Writer::create(&path)?;
        out.put_section(NONCE, uuid::Uuid::new_v4().as_bytes())?;
        ids.write(&mut out)?;
        columns.write(&mut out)?;
        if stamps.iter().any(|stamp| *stamp != 0) {
            out.section(STAMPS)?.put_all(&stamps)?;
        }
        ann::write(&shape, &spool, threads, progress, &mut out)?;
        let size = out.finish()?;
        let sha256 = digest(&path).map_err(|error| Error::local(&path, error))?;
        Ok(Finished { path, sha256, size, rows, shard })
    }
}

fn bytes_of(numbers: &[f32]) -> &[u8] {
    bytemuck::cast_slice(numbers)
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut piece) = (fs::File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&piece[..count]),
        }
    }
}

/// `None` for an empty file, which no system maps.
#[expect(unsafe_code, reason = "the system can map a file in no other way")]
fn map(file: &fs::File) -> io::Result<Option<Mmap>> {
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the file has no name any more and nobody else has it open, so it does not change while it is mapped.
    unsafe { Mmap::map(file) }.map(Some)
}

/// The vectors that wait in a file.
struct Spool {
    map: Option<Mmap>,
    rows: u32,
    dimension: u32,
}

impl Vectors for Spool {
    fn len(&self) -> u32 {
        self.rows
    }

    fn get(&self, row: u32, into: &mut [f32]) {
        let size = self.dimension as usize * size_of::<f32>();
        let bytes = self.map.as_deref().unwrap_or_default();
        let row = &bytes[row as usize * size..][..size];
        for (number, bytes) in into.iter_mut().zip(row.chunks_exact(4)) {
            *number = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
    }
}

/// Writes the segments of a whole index: rows go to the shard of their id, and into another segment where one is full.
#[derive(Debug)]
pub struct IndexWriter {
    dir: PathBuf,
    shape: Shape,
    threads: usize,
    shards: Vec<Option<SegmentWriter>>,
    finished: Vec<Finished>,
    /// The row of each id, by half of the id's SHA-256: enough to tell any two apart.
    seen: HashMap<[u8; 16], u64>,
}

impl IndexWriter {
    /// Begins an index in the folder `dir`, which must exist. Graphs are built with up to `threads` threads.
    pub fn create(dir: &Path, shape: &Shape, shards: u32, threads: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| None).collect();
        Self {
            dir: dir.to_owned(),
            shape: shape.clone(),
            threads,
            shards,
            finished: Vec::new(),
            seen: HashMap::new(),
        }
    }

    /// How many rows were pushed.
    pub fn rows(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Adds a row. An id, a vector or metadata that an index cannot keep is [`Error::Invalid`]; an id that was there before is
    /// [`Error::Duplicate`]. Either leaves what was pushed before as it is.
    pub fn push(&mut self, id: &str, vector: &[f32], metadata: &Metadata) -> Result<()> {
        value::check_id(id).map_err(Error::Invalid)?;
        value::check_metadata(metadata).map_err(|message| Error::Invalid(format!("`{id}`: {message}")))?;
        let again = self.rows();
        let key: [u8; 16] = Sha256::digest(id)[..16].try_into().expect("a digest has 32 bytes");
        if let Some(first) = self.seen.get(&key) {
            return Err(Error::Duplicate { id: id.to_owned(), first: *first, again });
        }
        let count = u32::try_from(self.shards.len()).expect("made from a u32");
        let shard = ids::shard(id, count);
        let slot = &mut self.shards[shard as usize];
        if slot.as_ref().is_some_and(|writer| writer.rows() == MAX_ROWS)
            && let Some(full) = slot.take()
        {
            self.finished.push(full.finish(self.threads, &|_| {})?);
        }
        let writer = match slot {
            Some(writer) => writer,
            None => slot.insert(SegmentWriter::create(&self.dir, &self.shape, shard)?),
        };
        writer.push(id, vector, metadata)?;
        self.seen.insert(key, again);
        Ok(())
    }

    /// Writes what is left. `progress` hears how many rows of the whole are done.
    pub fn finish(self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Finished>> {
        let Self { threads, shards, mut finished, seen, .. } = self;
        drop(seen);
        let mut done: u64 = finished.iter().map(|segment| u64::from(segment.rows)).sum();
        for writer in shards.into_iter().flatten() {
            let segment = writer.finish(threads, &|rows| progress(done + rows))?;
            done += u64::from(segment.rows);
            finished.push(segment);
        }
        progress(done);
        Ok(finished)
    }
}

/// A segment that is open. Searched by any number of threads at once.
pub struct Segment {
    file: sections::File,
    vectors: ann::Segment,
    columns: Columns,
    dimension: u32,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("file", &self.file.path()).finish_non_exhaustive()
    }
}

impl Segment {
    /// Opens a file and checks all of its sections; the sentence says which one is damaged.
    pub fn open(path: &Path, shape: &Shape) -> Result<Self, String> {
        let text = |error: ann::Error| error.to_string();
        let file = sections::File::open(path).map_err(text)?;
        file.verify().map_err(text)?;
        let vectors = ann::Segment::open(shape, &file).map_err(text)?;
        let rows = vectors.len();
        Ids::of(&file).map_err(|error| error.to_string())?.check(rows)?;
        if file.find(STAMPS).is_some_and(|stamps| stamps.len() != rows as usize * size_of::<u64>()) {
            return Err("its stamps do not fit its rows".into());
        }
        let columns = Columns::open(&file, rows)?;
        Ok(Self { file, vectors, columns, dimension: shape.dimension })
    }

    /// How many rows it has.
    pub fn rows(&self) -> u32 {
        self.vectors.len()
    }

    /// About the bytes of its vectors, as numbers of 32 bits and as codes.
    pub(crate) fn vector_bytes(&self) -> u64 {
        u64::from(self.rows()) * u64::from(self.dimension) * 5
    }

    fn ids(&self) -> Ids<'_> {
        Ids::of(&self.file).expect("it had them when it was opened, and it is mapped")
    }

    /// The id of a row.
    pub fn id(&self, row: u32) -> &str {
        self.ids().get(row)
    }

    /// The row of an id with this [`ids::hash`].
    pub(crate) fn find(&self, id: &str, hash: u64) -> Option<u32> {
        self.ids().find(id, hash)
    }

    /// The numbers of a row.
    pub fn vector(&self, row: u32) -> Vec<f32> {
        let mut numbers = vec![0.0; self.dimension as usize];
        self.vectors.vector(row, &mut numbers);
        numbers
    }

    /// What is kept with a row.
    pub fn metadata(&self, row: u32) -> Metadata {
        self.columns.metadata(&self.file, row)
    }

    /// One more than the number of the log's record that wrote a row; 0 where no log did.
    pub(crate) fn stamp(&self, row: u32) -> u64 {
        let Some(stamps) = self.file.find(STAMPS) else { return 0 };
        u64::from_le_bytes(stamps[row as usize * 8..][..8].try_into().expect("eight bytes"))
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The rows that pass a test on one field.
    pub(crate) fn select(&self, field: &str, test: &Test) -> RoaringBitmap {
        self.columns.select(&self.file, field, test)
    }

    /// The nearest `k` of the rows that are allowed, nearest first.
    pub fn search(
        &self,
        query: &Query,
        k: usize,
        ef: usize,
        allowed: Option<&RoaringBitmap>,
        out: &mut Vec<Hit>,
    ) {
        self.vectors.search(query, k, ef, allowed, out);
    }
}
