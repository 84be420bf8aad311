//! What collecting and purging promise, also when others publish or a collector dies at any of its steps.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use lakehouse_catalog::{Catalog, Collected, Error};
use lakehouse_contract::{DatasetManifest, Key, catalog::Declaration, dataset::hex, keys};
use lakehouse_store::{
    ByteRange, Condition, Error as StoreError, Etag, Meta, Object, Objects, Page, Payload, Result, Store,
    memory::Memory,
};
use sha2::{Digest, Sha256};
use support::{columns, name, on_every_store, register, request};

#[tokio::test]
async fn the_newest_versions_stay_and_the_rows_of_the_others_go() {
    on_every_store(async |store| {
        let all = versions(&store, 5).await;
        let catalog = impatient(&store);
        assert_eq!(catalog.collect(&name("sales"), keep(3)).await.unwrap().versions, 2);
        settle(&catalog, 3).await;
        assert_eq!(kept(&catalog).await, [5, 4, 3]);
        assert_eq!(rows(&store).await, objects(&all[2..]));
        assert_eq!(below(&store, &keys::expired(&name("sales"))).await, [""; 0]);
        assert_eq!(catalog.collect(&name("sales"), keep(3)).await.unwrap(), Collected::default());
    })
    .await;
}

#[tokio::test]
async fn the_current_version_stays_however_old_it_is() {
    on_every_store(async |store| {
        let all = versions(&store, 4).await;
        let catalog = impatient(&store);
        catalog.rollback(&name("sales"), Some(1)).await.unwrap();
        settle(&catalog, 1).await;
        assert_eq!(kept(&catalog).await, [4, 1]);
        assert_eq!(rows(&store).await, objects(&[all[0].clone(), all[3].clone()]));
        assert_eq!(register(&store, "sales", "anew").await.version, 5, "no number is given out twice");
    })
    .await;
}

#[tokio::test]
async fn rows_that_a_kept_version_shares_stay() {
    on_every_store(async |store| {
        let first = register(&store, "sales", "monday").await;
        register(&store, "sales", "tuesday").await;
        let third = register(&store, "sales", "monday").await;
        assert_eq!((third.version, &third.objects), (3, &first.objects));
        settle(&impatient(&store), 1).await;
        assert_eq!(rows(&store).await, objects(&[third]));
    })
    .await;
}

#[tokio::test]
async fn rows_that_are_young_or_recently_expired_stay() {
    let (bucket, store) = stepped();
    let all = versions(&store, 4).await;
    let catalog = Catalog::new(store.clone());
    let first = catalog.collect(&name("sales"), keep(2)).await.unwrap();
    assert_eq!((first.versions, first.objects), (2, 0), "all is young");
    bucket.age(objects(&all));
    assert_eq!(catalog.collect(&name("sales"), keep(2)).await.unwrap().objects, 0, "expired a moment ago");
    bucket.age(below(&store, &keys::expired(&name("sales"))).await);
    assert_eq!(catalog.collect(&name("sales"), keep(2)).await.unwrap().objects, 2);
    assert_eq!(rows(&store).await, objects(&all[2..]));
}

#[tokio::test]
async fn what_belongs_to_others_is_not_touched() {
    let store = Store::memory();
    versions(&store, 3).await;
    let other = register(&store, "sales-old", "rows").await;
    let rejects = keys::rejects(&name("sales"), "run-1");
    store.put(&rejects, b"x".to_vec().into(), Condition::Always).await.unwrap();
    settle(&impatient(&store), 1).await;
    store.head(&rejects).await.unwrap();
    store.head(&other.objects[0].key).await.unwrap();
    assert_eq!(impatient(&store).collect(&name("none"), keep(1)).await.unwrap(), Collected::default());
}

#[tokio::test]
async fn a_kept_version_that_cannot_be_read_keeps_all_rows() {
    let store = Store::memory();
    let all = versions(&store, 4).await;
    let damaged = keys::history_entry(&name("sales"), 3);
    store.put(&damaged, b"rot".to_vec().into(), Condition::Always).await.unwrap();
    settle(&impatient(&store), 2).await;
    assert_eq!(rows(&store).await, objects(&all));
}

#[tokio::test]
async fn one_collector_works_on_a_dataset_at_a_time() {
    let (bucket, store) = stepped();
    let all = versions(&store, 3).await;
    let catalog = impatient(&store);
    let lease = keys::collecting(&name("sales"));
    store.put(&lease, b"{}".to_vec().into(), Condition::Always).await.unwrap();
    settle(&catalog, 1).await;
    assert_eq!(rows(&store).await, objects(&all), "another one is at work");
    bucket.age([lease.to_string()]);
    settle(&catalog, 1).await;
    assert_eq!(rows(&store).await, objects(&all[2..]), "it was dead");
    assert!(store.head(&lease).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_what_is_about_to_be_collected_survives_at_every_step() {
    at_every_step(
        async |store| drop(Catalog::new(store).collect(&name("sales"), keep(1)).await),
        |store| {
            Box::pin(async move {
                // The content of version 1, whose rows are old and named by nobody.
                let manifest = upload(&store, "content 1").await;
                assert!(manifest.version >= 4, "{manifest:?}");
            })
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_at_every_step_of_an_upload_takes_nothing_from_it() {
    at_every_step(
        async |store| drop(upload(&store, "content 1").await),
        |store| {
            Box::pin(async move {
                Catalog::new(store).collect(&name("sales"), keep(1)).await.unwrap();
            })
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_at_every_step_of_a_collector_serves_a_whole_version_or_none() {
    at_every_step(
        async |store| drop(Catalog::new(store).collect(&name("sales"), keep(1)).await),
        |store| {
            Box::pin(async move {
                match Catalog::new(store).rollback(&name("sales"), Some(2)).await {
                    Ok(manifest) => assert_eq!(manifest.version, 2),
                    Err(error) => assert!(matches!(error, Error::UnknownVersion { .. }), "{error}"),
                }
            })
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_at_every_step_of_a_rollback_leaves_a_whole_version() {
    at_every_step(
        async |store| drop(Catalog::new(store).rollback(&name("sales"), Some(2)).await),
        |store| {
            Box::pin(async move {
                Catalog::new(store).collect(&name("sales"), keep(1)).await.unwrap();
            })
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_dies_at_any_step_leaves_whole_versions_and_the_next_one_goes_on() {
    at_every_step(
        async |store| drop(Catalog::new(store).collect(&name("sales"), keep(1)).await),
        |_| Box::pin(std::future::pending()),
    )
    .await;
}

#[tokio::test]
async fn a_purge_removes_everything_of_its_dataset_and_nothing_else() {
    on_every_store(async |store| {
        let all = versions(&store, 4).await;
        let other = register(&store, "sales-old", "rows").await;
        let catalog = Catalog::new(store.clone());
        catalog.collect(&name("sales"), keep(2)).await.unwrap();
        store
            .put(&keys::rejects(&name("sales"), "run-1"), b"x".to_vec().into(), Condition::Always)
            .await
            .unwrap();
        let before = below(&store, "").await.len();
        let declaration = Declaration { spec: serde_json::Map::new() };
        catalog.declare(&name("sales"), &declaration).await.unwrap();
        let purged = catalog.purge(&name("sales")).await.unwrap();
        let rest = below(&store, "").await;
        assert_eq!(rest, [keys::manifest(&name("sales-old")).to_string(), other.objects[0].key.to_string()]);
        assert_eq!(purged.objects, (before - rest.len()) as u64);
        assert!(
            purged.bytes > all.iter().flat_map(|version| &version.objects).map(|object| object.size).sum()
        );
        assert_eq!(catalog.purge(&name("sales")).await.unwrap(), Collected::default());
        assert_eq!(register(&store, "sales", "anew").await.version, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_dies_at_any_step_is_ended_by_the_next() {
    for step in 0.. {
        let (bucket, store) = stepped();
        versions(&store, 3).await;
        let catalog = Catalog::new(store.clone());
        bucket.at(step, |_| Box::pin(std::future::pending()));
        let ended = ends(catalog.purge(&name("sales"))).await;
        bucket.hook.lock().unwrap().take();
        let listed = catalog.list().await.unwrap().datasets;
        assert!(listed.is_empty() || whole(&store).await, "step {step}: readers see all of it or nothing");
        catalog.purge(&name("sales")).await.unwrap();
        assert_eq!(below(&store, "").await, [""; 0], "step {step}");
        if ended {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_at_any_step_of_a_purge_is_whole_or_gone() {
    for step in 0.. {
        let (bucket, store) = stepped();
        versions(&store, 3).await;
        bucket.at(step, |store| Box::pin(async move { drop(upload(&store, "late").await) }));
        Catalog::new(store.clone()).purge(&name("sales")).await.unwrap();
        let is_over = bucket.hook.lock().unwrap().take().is_some();
        let listed = Catalog::new(store.clone()).list().await.unwrap().datasets;
        assert!(listed.is_empty() || whole(&store).await, "step {step}");
        if is_over {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_answer_is_lost_takes_nothing_that_was_written_anew() {
    let (bucket, store) = stepped();
    let all = versions(&store, 2).await;
    store.delete(&keys::history_entry(&name("sales"), 1)).await.unwrap();
    bucket.age(objects(&all));
    bucket.lose_answer(|store| Box::pin(async move { drop(upload(&store, "content 1").await) }));
    let collected = Catalog::new(store.clone()).collect(&name("sales"), keep(1)).await.unwrap();
    assert_eq!(collected.objects, 0, "what is there now is of this moment");
    assert!(bucket.lost.lock().unwrap().is_none() && whole(&store).await);
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_answer_is_lost_is_counted() {
    let (bucket, store) = stepped();
    let all = versions(&store, 2).await;
    store.delete(&keys::history_entry(&name("sales"), 1)).await.unwrap();
    bucket.age(objects(&all));
    bucket.lose_answer(|_| Box::pin(std::future::ready(())));
    let collected = Catalog::new(store.clone()).collect(&name("sales"), keep(1)).await.unwrap();
    assert_eq!((collected.objects, collected.bytes), (1, "content 1".len() as u64));
}

#[tokio::test]
async fn a_collector_that_fails_lets_the_next_one_work() {
    let (bucket, store) = stepped();
    let all = versions(&store, 2).await;
    store.delete(&keys::history_entry(&name("sales"), 1)).await.unwrap();
    bucket.age(objects(&all));
    bucket.deny(objects(&all[..1]));
    let catalog = Catalog::new(store.clone());
    let error = catalog.collect(&name("sales"), keep(1)).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Denied { .. })), "{error}");
    assert_eq!(below(&store, "_catalog/collecting/").await, [""; 0]);
    bucket.deny([]);
    assert_eq!(catalog.collect(&name("sales"), keep(1)).await.unwrap().objects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_was_taken_for_dead_leaves_the_claim_to_the_other() {
    let (bucket, store) = stepped();
    let all = versions(&store, 2).await;
    store.delete(&keys::history_entry(&name("sales"), 1)).await.unwrap();
    bucket.age(objects(&all));
    let lease = keys::collecting(&name("sales"));
    bucket.lose_answer({
        let lease = lease.clone();
        move |store| {
            let lease = lease.clone();
            Box::pin(async move {
                store.put(&lease, b"{}".to_vec().into(), Condition::Always).await.unwrap();
            })
        }
    });
    Catalog::new(store.clone()).collect(&name("sales"), keep(1)).await.unwrap();
    store.head(&lease).await.unwrap();
}

/// Runs `deed` again and again on three old versions, the first of which has expired, and each time one step later `other` comes
/// between. Whatever happens, every version that can be reached is whole.
async fn at_every_step(
    deed: impl AsyncFn(Store),
    other: impl Fn(Store) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
) {
    for step in 0.. {
        let (bucket, store) = stepped();
        let all = versions(&store, 3).await;
        Catalog::new(store.clone()).collect(&name("sales"), keep(2)).await.unwrap();
        bucket.age(objects(&all));
        bucket.age(below(&store, &keys::expired(&name("sales"))).await);

        bucket.at(step, other.clone());
        let ended = ends(deed(store.clone())).await;
        let came_between = bucket.hook.lock().unwrap().take().is_none();
        assert!(whole(&store).await, "step {step}");

        bucket.age(below(&store, "_catalog/collecting/").await);
        Catalog::new(store.clone()).collect(&name("sales"), keep(1)).await.unwrap();
        assert!(whole(&store).await, "step {step}, and a collection later");
        if ended && !came_between {
            assert!(step > 3, "{step} steps are too few to be all");
            return;
        }
    }
}

/// Whether `work` comes to its end. One that met a hook that never ends is dropped, as by a kill. The clock stands still as long as
/// there is anything to do.
async fn ends<T>(work: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_secs(1), work).await.is_ok()
}

/// Whether every manifest that a reader or a rollback can reach names rows that are there.
async fn whole(store: &Store) -> bool {
    let catalog = Catalog::new(store.clone());
    let history = catalog.history(&name("sales")).await.unwrap();
    assert_eq!(history.damaged, []);
    let there: HashSet<String> = rows(store).await.into_iter().collect();
    objects(&history.versions).iter().all(|key| there.contains(key))
}

/// What an ingest does with a file that it has made.
async fn upload(store: &Store, content: &str) -> DatasetManifest {
    let schema = columns("id:int64 city:string");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let sha256 = hex(&Sha256::digest(content));
    let catalog = Catalog::new(store.clone());
    let fingerprint = lakehouse_contract::dataset::schema_fingerprint(&schema);
    let object = catalog.put_rows(&name("sales"), &fingerprint, file.path(), &sha256, 3).await.unwrap();
    let mut request = request(&Store::memory(), "sales", "id:int64 city:string", content).await;
    request.objects = vec![object];
    catalog.register(&request).await.unwrap().manifest
}

async fn versions(store: &Store, count: u64) -> Vec<DatasetManifest> {
    let mut all = Vec::new();
    for number in 1..=count {
        all.push(register(store, "sales", &format!("content {number}")).await);
    }
    all
}

/// A catalogue that waits for nobody: whatever is not of this very moment may go.
fn impatient(store: &Store) -> Catalog {
    Catalog::new(store.clone()).with_grace(Duration::ZERO)
}

/// Collects twice, as what has expired in the first run goes in the second at the latest.
async fn settle(catalog: &Catalog, count: u32) {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        catalog.collect(&name("sales"), keep(count)).await.unwrap();
    }
}

fn keep(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

async fn kept(catalog: &Catalog) -> Vec<u64> {
    let history = catalog.history(&name("sales")).await.unwrap();
    history.versions.iter().map(|manifest| manifest.version).collect()
}

fn objects(versions: &[DatasetManifest]) -> Vec<String> {
    let mut keys: Vec<String> =
        versions.iter().flat_map(|version| &version.objects).map(|object| object.key.to_string()).collect();
    keys.sort();
    keys.dedup();
    keys
}

async fn rows(store: &Store) -> Vec<String> {
    below(store, &keys::dataset(&name("sales"))).await
}

async fn below(store: &Store, prefix: &str) -> Vec<String> {
    store.list_all(prefix).await.unwrap().into_iter().map(|listed| listed.key.to_string()).collect()
}

fn stepped() -> (Arc<Stepped>, Store) {
    let bucket = Arc::<Stepped>::default();
    (bucket.clone(), Store::new(Shared(bucket)))
}

type Hook = Box<dyn Fn(Store) -> BoxFuture<'static, ()> + Send + Sync>;

/// A bucket in memory in which objects can be made old, and in which something happens before a step of one's choice.
#[derive(Default)]
struct Stepped {
    memory: Memory,
    old: Mutex<HashSet<String>>,
    /// What happens, and how many steps from now.
    hook: Mutex<Option<(usize, Hook)>>,
    /// What happens after the next removal of an object, which then looks as if it had failed.
    lost: Mutex<Option<Hook>>,
    /// What may not be removed.
    denied: Mutex<HashSet<String>>,
}

impl Stepped {
    fn age(&self, keys: impl IntoIterator<Item = String>) {
        self.old.lock().unwrap().extend(keys);
    }

    fn at(&self, step: usize, hook: impl Fn(Store) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some((step, Box::new(hook)));
    }

    fn lose_answer(&self, hook: impl Fn(Store) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.lost.lock().unwrap() = Some(Box::new(hook));
    }

    fn deny(&self, keys: impl IntoIterator<Item = String>) {
        *self.denied.lock().unwrap() = keys.into_iter().collect();
    }

    fn due(&self) -> Option<Hook> {
        let mut hook = self.hook.lock().unwrap();
        let (step, found) = hook.take()?;
        if step == 0 {
            return Some(found);
        }
        *hook = Some((step - 1, found));
        None
    }

    fn seen(&self, key: &Key, meta: Meta) -> Meta {
        let is_old = self.old.lock().unwrap().contains(key.as_str());
        let age = SignedDuration::from_hours(if is_old { 48 } else { 0 });
        Meta { modified: meta.modified - age, ..meta }
    }
}

#[derive(Clone)]
struct Shared(Arc<Stepped>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stepped")
    }
}

impl Shared {
    async fn step(&self) {
        if let Some(hook) = self.0.due() {
            hook(Store::new(self.clone())).await;
        }
    }
}

#[async_trait]
impl Objects for Shared {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.step().await;
        let etag = self.0.memory.put(key, body, condition).await?;
        self.0.old.lock().unwrap().remove(key.as_str());
        Ok(etag)
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        self.step().await;
        self.0.memory.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.step().await;
        Ok(self.0.seen(key, self.0.memory.head(key).await?))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.step().await;
        let mut page = self.0.memory.list(prefix, after, limit).await?;
        for listed in &mut page.objects {
            listed.meta = self.0.seen(&listed.key, listed.meta.clone());
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.step().await;
        if self.0.denied.lock().unwrap().contains(key.as_str()) {
            return Err(StoreError::Denied { message: "it may not be removed".to_owned() });
        }
        self.0.memory.delete(key).await?;
        let lost = self.0.lost.lock().unwrap().take();
        let Some(hook) = lost else { return Ok(()) };
        hook(Store::new(self.clone())).await;
        Err(StoreError::Unavailable { message: "no answer".to_owned() })
    }
}
