//! Blobs on this machine's disk, where DuckDB reads them.
//!
//! A blob has its hash as its name and never changes. One that the store already has as a local file is linked, not
//! copied; any other is fetched once, however many ask for it, checked, and renamed into place. What nobody reads leaves
//! first, the longest unused before the others.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lakehouse_contract::DataObject;
use lakehouse_store::{Error, Result, Store};
use tokio::sync::OnceCell;

/// A folder of blobs.
#[derive(Debug)]
pub(crate) struct Cache {
    store: Store,
    folder: PathBuf,
    limit: u64,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Counts uses and names partial files; only its order matters.
    clock: AtomicU64,
}

/// The place of one blob. It is filled once; while somebody else than the cache holds it, it is not emptied.
#[derive(Debug, Default)]
struct Slot {
    /// The bytes that the file costs this folder: none for a link.
    charge: OnceCell<u64>,
    used: AtomicU64,
}

/// Keeps a blob on disk for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    _slot: Arc<Slot>,
}

impl Cache {
    /// Opens the folder, keeps the whole blobs of an earlier run and removes what that run left half-done.
    pub(crate) fn open(store: Store, folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut slots = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.strip_suffix(".parquet")).filter(|hash| is_hash(hash)) {
                Some(hash) => {
                    let slot = Slot { charge: OnceCell::from(charge(&entry.metadata()?)), ..Slot::default() };
                    slots.insert(hash.to_owned(), Arc::new(slot));
                }
                None => fs::remove_file(entry.path())?,
            }
        }
        let cache = Self { store, folder, limit, slots: Mutex::new(slots), clock: AtomicU64::new(1) };
        cache.evict();
        Ok(cache)
    }

    /// Where a blob lies while it is pinned.
    pub(crate) fn path(&self, object: &DataObject) -> PathBuf {
        self.folder.join(format!("{}.parquet", object.sha256))
    }

    /// Makes sure that a blob is on disk and stays there.
    pub(crate) async fn pin(&self, object: &DataObject) -> Result<Pin> {
        if !is_hash(&object.sha256) {
            let message =
                format!("its manifest says that its hash is `{}`, which is no SHA-256", object.sha256);
            return Err(Error::Damaged { key: object.key.clone(), message });
        }
        let slot = self.slot(object);
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let fresh = !slot.charge.initialized();
        let filled = slot.charge.get_or_try_init(|| self.fill(object)).await;
        if let Err(error) = filled {
            self.slots().retain(|_, other| other.charge.initialized() || !Arc::ptr_eq(other, &slot));
            return Err(error);
        }
        if fresh {
            self.evict();
        }
        Ok(Pin { _slot: slot })
    }

    /// The blob's slot; a new one when its file is gone or another one than the manifest says.
    fn slot(&self, object: &DataObject) -> Arc<Slot> {
        let mut slots = self.slots();
        let slot = slots.entry(object.sha256.clone()).or_default();
        let whole = || fs::metadata(self.path(object)).is_ok_and(|file| file.len() == object.size);
        if slot.charge.initialized() && !whole() {
            *slot = Arc::default();
        }
        slot.clone()
    }

    async fn fill(&self, object: &DataObject) -> Result<u64> {
        let target = self.path(object);
        if let Some(source) = self.store.local_file(&object.key) {
            match link(&source, &target) {
                Ok(()) => return Self::checked(object, &target),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::NotFound { key: object.key.clone() });
                }
                // Another file system, or one without links: a copy does as well.
                Err(_) => {}
            }
        }
        let partial = self.folder.join(format!(
            "{}.{}.part",
            object.sha256,
            self.clock.fetch_add(1, Ordering::Relaxed)
        ));
        let fetched = self.store.fetch_blob(&object.key, &object.sha256, &partial).await;
        let placed = fetched.and_then(|()| place(&partial, &target).map_err(|error| local(&error)));
        if let Err(error) = placed {
            // The partial file may not even exist; the error that made it partial is the one to tell.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        Self::checked(object, &target)
    }

    /// What the file costs, once it has the size that its manifest promises.
    fn checked(object: &DataObject, file: &Path) -> Result<u64> {
        let found = fs::metadata(file).map_err(|error| local(&error))?;
        if found.len() != object.size {
            let message = format!("it has {} bytes and not the {} of its manifest", found.len(), object.size);
            let _ = fs::remove_file(file);
            return Err(Error::Damaged { key: object.key.clone(), message });
        }
        Ok(charge(&found))
    }

    /// Removes the longest unused blobs that nobody holds until the rest fits.
    pub(crate) fn evict(&self) {
        let mut slots = self.slots();
        let mut excess = total(&slots).saturating_sub(self.limit);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<(u64, u64, String)> = slots
            .iter()
            .filter(|(_, slot)| Arc::strong_count(slot) == 1)
            .filter_map(|(hash, slot)| {
                Some((slot.used.load(Ordering::Relaxed), *slot.charge.get()?, hash.clone()))
            })
            .filter(|(_, charge, _)| *charge > 0)
            .collect();
        idle.sort_unstable();
        for (_, charge, hash) in idle {
            if excess == 0 {
                break;
            }
            // A file that cannot be removed stays counted as gone: the next start finds and counts it again.
            let _ = fs::remove_file(self.folder.join(format!("{hash}.parquet")));
            slots.remove(&hash);
            excess = excess.saturating_sub(charge);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        // The map is whole between any two statements that hold the lock.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(slots: &HashMap<String, Arc<Slot>>) -> u64 {
    slots.values().filter_map(|slot| slot.charge.get()).sum()
}

/// A file with another name elsewhere costs this folder nothing.
fn charge(file: &fs::Metadata) -> u64 {
    if file.nlink() > 1 { 0 } else { file.len() }
}

/// Gives a file a second name; a link that is there already is replaced, for it may point to a damaged file's inode.
fn link(source: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(source, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(target)?;
            fs::hard_link(source, target)
        }
        done => done,
    }
}

/// Moves a whole file to its name, so that whatever bears the name is whole, also after a loss of power. Nobody writes to it any more.
fn place(partial: &Path, target: &Path) -> io::Result<()> {
    let file = fs::File::open(partial)?;
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    file.sync_all()?;
    fs::rename(partial, target)
}

fn local(error: &io::Error) -> Error {
    let message = format!("the query cache: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { message },
        _ => Error::Unavailable { message },
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use bytes::Bytes;
    use lakehouse_contract::{Key, dataset::hex};
    use lakehouse_store::{ByteRange, Condition, Etag, Meta, Object, Objects, Page, Payload, memory::Memory};
    use sha2::{Digest, Sha256};

    use super::*;

    #[tokio::test]
    async fn a_blob_is_fetched_once_however_many_ask() {
        let (bucket, store) = counted();
        let object = put(&store, b"rows").await;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(store, folder.path().join("blobs"), 1 << 20).unwrap();
        let pins = futures::future::join_all((0..16).map(|_| cache.pin(&object))).await;
        assert!(pins.iter().all(Result::is_ok));
        assert_eq!(bucket.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read(cache.path(&object)).unwrap(), b"rows");
    }

    #[tokio::test]
    async fn the_longest_unused_leaves_first_and_what_is_pinned_stays() {
        let (_, store) = counted();
        let (a, b, c) = (put(&store, b"aaaa").await, put(&store, b"bbbb").await, put(&store, b"cccc").await);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(store, folder.path().join("blobs"), 8).unwrap();
        let held = cache.pin(&a).await.unwrap();
        drop(cache.pin(&b).await.unwrap());
        assert_eq!(total(&cache.slots()), 8);
        drop(cache.pin(&c).await.unwrap());
        assert_eq!([&a, &b, &c].map(|object| cache.path(object).exists()), [true, false, true]);
        drop(held);
        drop(cache.pin(&b).await.unwrap());
        assert_eq!([&a, &b, &c].map(|object| cache.path(object).exists()), [false, true, true]);
    }

    #[tokio::test]
    async fn a_blob_with_another_content_is_refused_and_leaves_nothing() {
        let (_, store) = counted();
        let mut object = put(&store, b"rows").await;
        object.sha256 = "0".repeat(64);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(store.clone(), folder.path().join("blobs"), 1 << 20).unwrap();
        assert!(matches!(cache.pin(&object).await, Err(Error::Damaged { .. })));
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
        object.sha256 = "../../etc/passwd".into();
        assert!(matches!(cache.pin(&object).await, Err(Error::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_restart_keeps_whole_blobs_and_removes_half_done_ones() {
        let (bucket, store) = counted();
        let object = put(&store, b"rows").await;
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join("blobs");
        drop(Cache::open(store.clone(), blobs.clone(), 1 << 20).unwrap().pin(&object).await.unwrap());
        fs::write(blobs.join(format!("{}.7.part", object.sha256)), "ro").unwrap();
        let again = Cache::open(store, blobs.clone(), 1 << 20).unwrap();
        again.pin(&object).await.unwrap();
        assert_eq!(bucket.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 1);
        assert!(fs::metadata(again.path(&object)).unwrap().permissions().readonly());
        fs::remove_file(again.path(&object)).unwrap();
        fs::write(again.path(&object), "row").unwrap();
        again.pin(&object).await.unwrap();
        assert_eq!(fs::read(again.path(&object)).unwrap(), b"rows", "a cut file is fetched anew");
    }

    #[tokio::test]
    async fn a_file_of_the_store_is_linked_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("source"), b"rows").unwrap();
        let store = Store::new(Local(folder.path().join("source")));
        let object = described(b"rows");
        let cache = Cache::open(store, folder.path().join("blobs"), 1 << 20).unwrap();
        cache.pin(&object).await.unwrap();
        assert_eq!(fs::metadata(cache.path(&object)).unwrap().nlink(), 2);
        assert_eq!(total(&cache.slots()), 0);
    }

    /// A bucket that counts its reads.
    fn counted() -> (Arc<AtomicUsize>, Store) {
        let reads = Arc::new(AtomicUsize::new(0));
        (reads.clone(), Store::new(Counted(Memory::default(), reads)))
    }

    async fn put(store: &Store, content: &'static [u8]) -> DataObject {
        let object = described(content);
        let body = Payload::Bytes(Bytes::from_static(content));
        store.put(&object.key, body, Condition::Always).await.unwrap();
        object
    }

    fn described(content: &[u8]) -> DataObject {
        let sha256 = hex(&Sha256::digest(content));
        let key = Key::parse(format!("datasets/a/f/{sha256}.parquet")).unwrap();
        DataObject { key, size: content.len() as u64, rows: 1, sha256 }
    }

    #[derive(Debug)]
    struct Counted(Memory, Arc<AtomicUsize>);

    #[async_trait]
    impl Objects for Counted {
        async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
            self.0.put(key, body, condition).await
        }
        async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
            self.1.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.0.get(key, range).await
        }
        async fn head(&self, key: &Key) -> Result<Meta> {
            self.0.head(key).await
        }
        async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
            self.0.list(prefix, after, limit).await
        }
        async fn delete(&self, key: &Key) -> Result<()> {
            self.0.delete(key).await
        }
    }

    /// A backend whose every object is one file.
    #[derive(Debug)]
    struct Local(PathBuf);

    #[async_trait]
    impl Objects for Local {
        async fn put(&self, key: &Key, _: Payload, _: Condition) -> Result<Etag> {
            Err(Error::Conflict { key: key.clone() })
        }
        async fn get(&self, key: &Key, _: Option<ByteRange>) -> Result<Object> {
            Err(Error::NotFound { key: key.clone() })
        }
        async fn head(&self, key: &Key) -> Result<Meta> {
            Err(Error::NotFound { key: key.clone() })
        }
        async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Page> {
            Ok(Page::default())
        }
        async fn delete(&self, _: &Key) -> Result<()> {
            Ok(())
        }
        fn local_file(&self, _: &Key) -> Option<PathBuf> {
            Some(self.0.clone())
        }
    }
}
