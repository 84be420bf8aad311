//! Vectors that were paid for once, by the hash of their text and the model that made them; shared by all indexes of a store.
//!
//! ```text
//! _embeddings/<digest of the model's identity>/<sha256>.vectors     parts, immutable, merged when they become many
//! ```
//! A part is written before anybody relies on it, and removed only when another one that holds all of it is there. So a crash between
//! any two steps loses nothing, and any number of builds may write, merge and remove at the same time. A part that is damaged is named
//! and removed, and a single damaged vector is passed over: their texts are embedded again.

mod merge;
mod part;

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::TryStreamExt;
use lakehouse_contract::{Key, dataset::hex, embed::ModelIdentity, keys};
use lakehouse_store::{ByteRange, Error as StoreError, Listed, Store};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, sync::OnceCell};

use crate::{Error, on_thread};
pub(crate) use part::Hash;
use part::{Head, PREAMBLE, Preamble};

/// How a part's key ends.
const EXTENSION: &str = "vectors";

/// What one model has embedded.
pub(crate) struct Embeddings {
    store: Store,
    folder: Key,
    dimension: u32,
    /// Files of this run.
    work: PathBuf,
    parts: Vec<Arc<Part>>,
    /// Parts that cannot be read.
    passed_over: HashSet<Key>,
}

/// A part as this run knows it.
#[derive(Debug)]
struct Part {
    key: Key,
    head: Head,
    /// The whole file, once a vector of it was asked for.
    whole: OnceCell<PathBuf>,
}

/// The hash by which a text's vector is kept.
pub(crate) fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

impl Embeddings {
    /// Looks at what there is of this model. Files of this run go to `work`.
    pub(crate) async fn open(store: Store, model: &ModelIdentity, work: &Path) -> Result<Self, Error> {
        let ModelIdentity { model, digest, dimension, normalised } = model;
        let identity = serde_json::to_string(&(model, digest, dimension, normalised))
            .expect("plain data always has a JSON form");
        let mut opened = Self {
            store,
            folder: keys::embeddings(&hex(&Sha256::digest(identity))),
            dimension: *dimension,
            work: work.to_owned(),
            parts: Vec::new(),
            passed_over: HashSet::new(),
        };
        opened.look().await?;
        Ok(opened)
    }

    /// The vectors of these texts, where they are kept.
    pub(crate) async fn find(&mut self, hashes: &[Hash]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut found: Vec<Option<Vec<f32>>> = vec![None; hashes.len()];
        let mut looked_again = false;
        'again: loop {
            for part in self.parts.clone() {
                let wanted: Vec<(usize, Hash)> = found
                    .iter()
                    .zip(hashes)
                    .enumerate()
                    .filter(|(_, (vector, _))| vector.is_none())
                    .map(|(place, (_, hash))| (place, *hash))
                    .collect();
                if wanted.is_empty() {
                    break;
                }
                match self.find_in(part, wanted).await {
                    Ok(vectors) => {
                        for (place, vector) in vectors {
                            found[place] = Some(vector);
                        }
                    }
                    // Somebody has merged it into another one meanwhile.
                    Err(Error::Store(StoreError::NotFound { .. })) if !looked_again => {
                        looked_again = true;
                        self.look().await?;
                        continue 'again;
                    }
                    Err(Error::Store(StoreError::NotFound { .. })) => {}
                    Err(error) => self.survive(error).await?,
                }
            }
            return Ok(found);
        }
    }

    /// Keeps vectors: they are safe when this returns. Merges parts when they have become many.
    pub(crate) async fn keep(&mut self, vectors: BTreeMap<Hash, Vec<f32>>) -> Result<(), Error> {
        if vectors.is_empty() {
            return Ok(());
        }
        let (path, dimension) = (self.file("new"), self.dimension);
        let written = on_thread({
            let path = path.clone();
            move || {
                let mut entries = vectors.into_iter();
                part::write(&path, dimension, || Ok(entries.next()))
            }
        });
        written.await.map_err(|error| self.local(error))?;
        let key = self.put(&path).await?;
        self.passed_over.remove(&key);
        self.parts.push(Arc::new(self.open_local(key, path)?));
        self.merge_some().await
    }

    /// Opens the heads of parts that are not known yet, and forgets those that are gone.
    async fn look(&mut self) -> Result<(), Error> {
        let listed = self.store.list_all(&format!("{}/", self.folder)).await?;
        self.parts.retain(|part| listed.iter().any(|listed| listed.key == part.key));
        for Listed { key, .. } in listed {
            let known = self.parts.iter().any(|part| part.key == key) || self.passed_over.contains(&key);
            if known || sha256_of(&key).is_none() {
                continue;
            }
            match self.open_part(&key).await {
                Ok(part) if part.head.preamble.dimension == self.dimension => self.parts.push(Arc::new(part)),
                Ok(_) => self.pass_over(key, "its vectors have another dimension"),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) => match damage(&error) {
                    Some(why) => self.distrust(key, &why).await?,
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, key: Key, why: &str) {
        tracing::warn!(%key, "`{key}` is passed over, and what it held is embedded again: {why}");
        self.parts.retain(|part| part.key != key);
        self.passed_over.insert(key);
    }

    /// Goes on without a part that is damaged; any other failure stays one.
    async fn survive(&mut self, error: Error) -> Result<(), Error> {
        match (damage(&error), error) {
            (Some(why), Error::Store(StoreError::Damaged { key, .. })) => self.distrust(key, &why).await,
            (_, error) => Err(error),
        }
    }

    /// Passes a part over, and removes it where its content is not that of its name: then it stands in the way of the one that is written again.
    /// One whose content is right was written by another release.
    async fn distrust(&mut self, key: Key, why: &str) -> Result<(), Error> {
        self.pass_over(key.clone(), why);
        let copy = self.file("suspect");
        let fetched = self.store.fetch_blob(&key, sha256_of(&key).unwrap_or_default(), &copy).await;
        let _ = tokio::fs::remove_file(&copy).await;
        match fetched {
            Err(StoreError::Damaged { .. }) => {
                self.store.delete(&key).await?;
                tracing::warn!(%key, "`{key}` was damaged and is removed");
                Ok(())
            }
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings a part's head here, or opens the part where it is a file of this machine.
    async fn open_part(&self, key: &Key) -> Result<Part, Error> {
        if let Some(path) = self.store.local_file(key) {
            return self.open_local(key.clone(), path);
        }
        let start = self.store.get(key, Some(ByteRange::Bounded { start: 0, end: PREAMBLE as u64 })).await?;
        let size = start.meta.size;
        let preamble =
            Preamble::parse(&start.bytes(PREAMBLE as u64).await?).map_err(|error| self.local(error))?;
        preamble.fit(size).map_err(|error| self.local(error))?;
        let range = ByteRange::Bounded { start: 0, end: preamble.head_bytes() };
        let mut body = self.store.get(key, Some(range)).await?.body;
        let path = self.file(&format!("{}.head", sha256_of(key).unwrap_or_default()));
        let local = |error| self.local(error);
        let mut out = tokio::fs::File::create(&path).await.map_err(local)?;
        while let Some(piece) = body.try_next().await? {
            out.write_all(&piece).await.map_err(local)?;
        }
        out.flush().await.map_err(local)?;
        let head = on_thread(move || Head::open(File::open(path)?)).await.map_err(local)?;
        Ok(Part { key: key.clone(), head, whole: OnceCell::new() })
    }

    fn open_local(&self, key: Key, path: PathBuf) -> Result<Part, Error> {
        let open = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            let head = Head::open(file)?;
            head.preamble.fit(size).map(|()| head)
        };
        let head = open().map_err(|error| self.local(error))?;
        Ok(Part { key, head, whole: OnceCell::new_with(Some(path)) })
    }

    /// Those of the wanted vectors that a part holds, with their places.
    async fn find_in(
        &self,
        part: Arc<Part>,
        wanted: Vec<(usize, Hash)>,
    ) -> Result<Vec<(usize, Vec<f32>)>, Error> {
        let local = |error| self.local(error);
        let places = on_thread({
            let part = Arc::clone(&part);
            move || {
                let mut places = Vec::new();
                for (index, hash) in wanted {
                    if let Some(place) = part.head.find(&hash)? {
                        places.push((index, hash, place));
                    }
                }
                Ok(places)
            }
        });
        let places = places.await.map_err(local)?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.whole(&part).await?.to_owned();
        let preamble = part.head.preamble;
        let vectors = on_thread(move || {
            let file = File::open(path)?;
            let mut vectors = Vec::with_capacity(places.len());
            for (index, hash, place) in places {
                if let Some(vector) = part::vector(&file, preamble, place, &hash)? {
                    vectors.push((index, vector));
                }
            }
            Ok(vectors)
        });
        vectors.await.map_err(local)
    }

    /// The whole part as a file of this machine, fetched when it is first asked for.
    async fn whole<'a>(&self, part: &'a Part) -> Result<&'a Path, Error> {
        let fetch = || async {
            let sha256 = sha256_of(&part.key).unwrap_or_default();
            let path = self.file(sha256);
            self.store.fetch_blob(&part.key, sha256, &path).await?;
            Ok::<_, Error>(path)
        };
        part.whole.get_or_try_init(fetch).await.map(PathBuf::as_path)
    }

    /// Writes a finished file to the store.
    async fn put(&self, path: &Path) -> Result<Key, Error> {
        let sha256 = on_thread({
            let path = path.to_owned();
            move || {
                let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
                loop {
                    match file.read(&mut piece)? {
                        0 => return Ok(hex(&hash.finalize())),
                        read => hash.update(&piece[..read]),
                    }
                }
            }
        });
        let sha256 = sha256.await.map_err(|error| self.local(error))?;
        Ok(self.store.put_blob_file(&self.folder, EXTENSION, sha256, path).await?.key)
    }

    /// A file of this run.
    fn file(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}-{}", uuid::Uuid::new_v4().simple()))
    }

    fn local(&self, error: io::Error) -> Error {
        Error::Local { folder: self.work.clone(), error }
    }
}

/// The hash in a part's key; `None` for a key that is no part's.
fn sha256_of(key: &Key) -> Option<&str> {
    let name = key.as_str().rsplit('/').next()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// What is wrong with a part; `None` for a failure that says nothing of it.
fn damage(error: &Error) -> Option<String> {
    match error {
        Error::Store(StoreError::Damaged { message, .. }) => Some(message.clone()),
        Error::Store(StoreError::Range { size, .. }) => Some(format!("it has {size} bytes")),
        Error::Local { error, .. }
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Some(error.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
