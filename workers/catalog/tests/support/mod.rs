//! Datasets to register, and stores that watch what is asked of them.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests panic; clippy knows it only inside test functions")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    Column, ColumnType, DataObject, DatasetManifest, DatasetName, Key,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{SchemaPolicy, WriteMode},
    keys,
};
use lakehouse_store::{
    ByteRange, Condition, Error, Etag, Meta, Object, Objects, Page, Payload, Result, Store, memory::Memory,
};

/// Holds a promise to a store in memory and to one in a folder.
pub async fn on_every_store(promise: impl AsyncFn(Store)) {
    promise(Store::memory()).await;
    let folder = tempfile::tempdir().unwrap();
    promise(Store::folder(folder.path()).await.unwrap()).await;
}

pub fn name(text: &str) -> DatasetName {
    DatasetName::parse(text).unwrap()
}

/// The columns `a: int64, b: string` from `"a:int64 b:string"`, with field ids from 1.
pub fn columns(text: &str) -> Vec<Column> {
    let column = |(id, text): (i32, &str)| {
        let (name, kind) = text.split_once(':').unwrap();
        let column_type = ColumnType::ALL.into_iter().find(|known| known.as_str() == kind).unwrap();
        Column { name: name.into(), column_type, field_id: id }
    };
    (1..).zip(text.split_whitespace()).map(column).collect()
}

/// Puts a file of three rows for the dataset; `content` stands for the rows.
pub async fn put_object(store: &Store, dataset: &str, schema: &[Column], content: &str) -> DataObject {
    let folder = keys::rows(&name(dataset), &schema_fingerprint(schema));
    let blob = store.put_blob(&folder, "parquet", content.to_owned().into()).await.unwrap();
    DataObject { key: blob.key, size: blob.size, rows: 3, sha256: blob.sha256 }
}

/// A request whose only object lies in the store.
pub async fn request(store: &Store, dataset: &str, schema: &str, content: &str) -> RegisterRequest {
    let schema = columns(schema);
    RegisterRequest {
        name: dataset.into(),
        schema_fingerprint: schema_fingerprint(&schema),
        objects: vec![put_object(store, dataset, &schema, content).await],
        schema,
        origin: None,
        schema_policy: SchemaPolicy::Reject,
        write_mode: WriteMode::Replace,
    }
}

/// Registers `content` with the columns `id: int64, city: string`.
pub async fn register(store: &Store, dataset: &str, content: &str) -> DatasetManifest {
    let request = request(store, dataset, "id:int64 city:string", content).await;
    Catalog::new(store.clone()).register(&request).await.unwrap().manifest
}

/// Overwrites the dataset's current manifest with bytes that are none.
pub async fn damage(store: &Store, dataset: &str) {
    let key = keys::manifest(&name(dataset));
    store.put(&key, b"PAR1 but not really PAR1".to_vec().into(), Condition::Always).await.unwrap();
}

/// A store in memory that counts, and that breaks when it is told to.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    inner: Arc<Memory>,
    pub lists: Arc<AtomicUsize>,
    pub gets: Arc<AtomicUsize>,
    /// The answer to the next write of a current manifest, and whether the write happens all the same.
    pub next_swap: Arc<Mutex<Option<(Error, bool)>>>,
}

impl Watched {
    /// Lists and gets since the last call.
    pub fn asked(&self) -> (usize, usize) {
        (self.lists.swap(0, Relaxed), self.gets.swap(0, Relaxed))
    }
}

#[async_trait]
impl Objects for Watched {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        let is_swap = key.as_str().starts_with(keys::MANIFESTS);
        let broken = if is_swap { self.next_swap.lock().unwrap().take() } else { None };
        match broken {
            None => self.inner.put(key, body, condition).await,
            Some((error, false)) => Err(error),
            Some((error, true)) => {
                self.inner.put(key, body, condition).await?;
                Err(error)
            }
        }
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        self.gets.fetch_add(1, Relaxed);
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}
