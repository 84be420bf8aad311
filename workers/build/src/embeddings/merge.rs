//! Many small parts become one.
//!
//! Parts are merged with those of about their size, so that a vector is written again only as often as the logarithm of
//! their number. The merged part is written first, then the others are removed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    path::PathBuf,
    sync::Arc,
};

use lakehouse_contract::Key;
use lakehouse_store::Error as StoreError;

use super::{
    Embeddings, Part,
    part::{self, Entries, Hash},
};
use crate::{Error, on_thread};

/// So many parts of about the same size are merged.
const MANY: usize = 8;
/// Parts with more vectors stay as they are.
const LARGE: u64 = 1 << 20;

impl Embeddings {
    /// Merges once for each size of which there are many.
    pub(super) async fn merge_some(&mut self) -> Result<(), Error> {
        while let Some(parts) = self.many_of_a_size() {
            match self.merge(&parts).await {
                Ok(()) => {}
                // Another build merges the same ones.
                Err(Error::Store(StoreError::NotFound { .. })) => return self.look().await,
                Err(error) => self.survive(error).await?,
            }
        }
        Ok(())
    }

    fn many_of_a_size(&self) -> Option<Vec<Arc<Part>>> {
        let mut sizes: BTreeMap<u32, Vec<Arc<Part>>> = BTreeMap::new();
        for part in self.parts.iter().filter(|part| part.head.preamble.count <= LARGE) {
            sizes.entry(part.head.preamble.count.max(1).ilog(MANY as u64)).or_default().push(part.clone());
        }
        sizes.into_values().find(|parts| parts.len() >= MANY)
    }

    async fn merge(&mut self, parts: &[Arc<Part>]) -> Result<(), Error> {
        let mut files = Vec::with_capacity(parts.len());
        for part in parts {
            files.push(self.whole(part).await?.to_owned());
        }
        let (path, dimension) = (self.file("merged"), self.dimension);
        let written = on_thread({
            let path = path.clone();
            move || {
                let mut merged = Merged::open(&files)?;
                part::write(&path, dimension, || merged.next())
            }
        });
        written.await.map_err(|error| self.local(error))?;
        let key = self.put(&path).await?;
        let merged = self.open_local(key.clone(), path)?;
        let gone: Vec<Key> = parts.iter().map(|part| part.key.clone()).collect();
        self.parts.retain(|part| !gone.contains(&part.key) && part.key != key);
        self.parts.push(Arc::new(merged));
        // A part that holds all the others is what their merging gives: it stays.
        for old in gone.iter().filter(|old| **old != key) {
            self.store.delete(old).await?;
        }
        Ok(())
    }
}

/// The entries of several files in the order of their hashes, each hash once.
struct Merged {
    files: Vec<Entries>,
    /// The next entry of each file.
    heads: Vec<Option<Vec<f32>>>,
    order: BinaryHeap<Reverse<(Hash, usize)>>,
}

impl Merged {
    fn open(files: &[PathBuf]) -> io::Result<Self> {
        let files = files.iter().map(|path| Entries::open(path)).collect::<io::Result<Vec<_>>>()?;
        let heads = files.iter().map(|_| None).collect();
        let mut merged = Self { files, heads, order: BinaryHeap::new() };
        for file in 0..merged.files.len() {
            merged.advance(file)?;
        }
        Ok(merged)
    }

    fn advance(&mut self, file: usize) -> io::Result<()> {
        if let Some((hash, vector)) = self.files[file].next()? {
            self.heads[file] = Some(vector);
            self.order.push(Reverse((hash, file)));
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<(Hash, Vec<f32>)>> {
        let Some(Reverse((hash, file))) = self.order.pop() else { return Ok(None) };
        let vector = self.heads[file].take().expect("what stands in the order has its vector");
        self.advance(file)?;
        while let Some(&Reverse((equal, other))) = self.order.peek()
            && equal == hash
        {
            self.order.pop();
            self.advance(other)?;
        }
        Ok(Some((hash, vector)))
    }
}
