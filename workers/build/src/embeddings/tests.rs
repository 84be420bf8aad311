//! What the store of embeddings promises, also when the machine stops between any two steps.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use lakehouse_store::{
    Condition, Etag, Meta, Object, Objects, Page, Payload, Result as StoreResult, memory::Memory,
};

use super::*;

#[tokio::test]
async fn what_was_kept_is_found_by_whoever_comes_later() {
    let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
    let mut first = open(&store, &folder).await;
    keep(&mut first, 0..10).await.unwrap();
    drop(first);
    let mut second = open(&store, &folder).await;
    assert_eq!(missing(&mut second, 0..10).await, 0);
    assert_eq!(second.find(&[hash("another")]).await.unwrap(), [None]);
    let other = ModelIdentity { digest: "another".into(), ..model() };
    let mut other = Embeddings::open(store, &other, folder.path()).await.unwrap();
    assert_eq!(missing(&mut other, 0..10).await, 10, "another model has embedded nothing");
}

#[tokio::test]
async fn many_parts_become_few_and_lose_nothing() {
    let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
    let mut embeddings = open(&store, &folder).await;
    for number in 0..100 {
        keep(&mut embeddings, number..number + 2).await.unwrap();
    }
    assert_eq!(missing(&mut embeddings, 0..101).await, 0);
    let parts = store.list_all("_embeddings/").await.unwrap().len();
    assert!(parts < 20 && parts == embeddings.parts.len(), "{parts}");
    assert_eq!(missing(&mut open(&store, &folder).await, 0..101).await, 0);
}

#[tokio::test]
async fn two_builds_may_write_and_merge_at_once() {
    let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
    let (mut one, mut two) = (open(&store, &folder).await, open(&store, &folder).await);
    for number in 0..40 {
        // The same texts half the time: both then write a part of one name.
        keep(&mut one, number..number + 1).await.unwrap();
        keep(&mut two, number * (number % 2)..number + 1).await.unwrap();
        assert_eq!(missing(&mut one, 0..number + 1).await, 0);
    }
    assert_eq!(missing(&mut two, 0..40).await, 0, "also what the other one has merged away");
    assert_eq!(missing(&mut open(&store, &folder).await, 0..40).await, 0);
}

#[tokio::test]
async fn a_stop_between_any_two_steps_loses_nothing_that_was_kept() {
    let mut steps = 0;
    for effect in [Effect::Never, Effect::Done] {
        for stop in 0.. {
            let (objects, folder) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
            let failing = Failing { objects: objects.clone(), left: AtomicUsize::new(stop), effect };
            let mut safe = 0;
            let whole = async {
                let mut embeddings = Embeddings::open(Store::new(failing), &model(), folder.path()).await?;
                for number in 0..20 {
                    keep(&mut embeddings, number..number + 1).await?;
                    safe = number + 1;
                }
                Ok::<_, Error>(())
            };
            let ended = whole.await;
            let healthy = Store::new(Failing { objects, left: AtomicUsize::new(usize::MAX), effect });
            let mut after = open(&healthy, &folder).await;
            assert_eq!(missing(&mut after, 0..safe).await, 0, "stopped after {stop} steps, {effect:?}");
            keep(&mut after, 0..20).await.unwrap();
            assert_eq!(missing(&mut after, 0..20).await, 0);
            if ended.is_ok() {
                steps = stop;
                break;
            }
        }
    }
    assert!(steps > 30, "{steps} steps are too few to have merged anything");
}

#[tokio::test]
async fn a_damaged_part_is_passed_over() {
    let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
    let mut embeddings = open(&store, &folder).await;
    keep(&mut embeddings, 0..3).await.unwrap();
    keep(&mut embeddings, 3..6).await.unwrap();
    let damaged = embeddings.parts[0].key.clone();
    store.put(&damaged, Payload::Bytes("nonsense".into()), Condition::Always).await.unwrap();
    let mut after = open(&store, &folder).await;
    assert_eq!((missing(&mut after, 0..3).await, missing(&mut after, 3..6).await), (3, 0));
}

#[tokio::test]
async fn a_part_that_was_changed_or_cut_is_embedded_anew_and_written_again() {
    let whole =
        async |store: &Store, key: &Key| store.get(key, None).await.unwrap().bytes(1 << 20).await.unwrap();
    for damage in [0, 1, 20, 40, 100, usize::MAX] {
        let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
        keep(&mut open(&store, &folder).await, 0..3).await.unwrap();
        let key = open(&store, &folder).await.parts[0].key.clone();
        let was = whole(&store, &key).await;
        let mut bytes = was.to_vec();
        match damage {
            usize::MAX => *bytes.last_mut().unwrap() ^= 1,
            length => bytes.truncate(length),
        }
        store.put(&key, Payload::Bytes(bytes.into()), Condition::Always).await.unwrap();
        let mut after = open(&store, &folder).await;
        assert_eq!(missing(&mut after, 0..3).await, 3, "{damage}");
        keep(&mut after, 0..3).await.unwrap();
        assert_eq!(missing(&mut after, 0..3).await, 0, "{damage}");
        assert_eq!(
            whole(&store, &key).await,
            was,
            "{damage}: equal vectors have the name of the damaged part"
        );
        assert_eq!(missing(&mut open(&store, &folder).await, 0..3).await, 0, "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_part_holds_up_no_merge() {
    let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
    for number in 0..7 {
        keep(&mut open(&store, &folder).await, number..number + 1).await.unwrap();
    }
    let part = open(&store, &folder).await.parts[3].key.clone();
    let mut bytes = store.get(&part, None).await.unwrap().bytes(1 << 20).await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.put(&part, Payload::Bytes(bytes.into()), Condition::Always).await.unwrap();
    let mut after = open(&store, &folder).await;
    keep(&mut after, 7..8).await.unwrap();
    keep(&mut after, 8..9).await.unwrap();
    assert_eq!(missing(&mut after, 0..9).await, 1);
    assert_eq!(store.list_all("_embeddings/").await.unwrap().len(), 1, "they are merged");
}

#[tokio::test]
async fn a_folder_is_read_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path().join("bucket")).await.unwrap();
    keep(&mut open(&store, &folder).await, 0..5).await.unwrap();
    let mut after = open(&store, &folder).await;
    assert_eq!(missing(&mut after, 0..5).await, 0);
    let whole = after.parts[0].whole.get().unwrap();
    assert!(whole.starts_with(folder.path().join("bucket")), "{}", whole.display());
}

fn model() -> ModelIdentity {
    ModelIdentity { model: "ollama/tiny".into(), digest: "sha256:00".into(), dimension: 2, normalised: true }
}

async fn open(store: &Store, folder: &tempfile::TempDir) -> Embeddings {
    Embeddings::open(store.clone(), &model(), folder.path()).await.unwrap()
}

/// Keeps the vectors of these numbers.
async fn keep(embeddings: &mut Embeddings, numbers: std::ops::Range<u16>) -> Result<(), Error> {
    let vector = |number: u16| (hash(&number.to_string()), vec![number.into(), 1.0]);
    embeddings.keep(numbers.map(vector).collect()).await
}

/// How many of these are not found. One that is found must be the right one.
async fn missing(embeddings: &mut Embeddings, numbers: std::ops::Range<u16>) -> usize {
    let hashes: Vec<Hash> = numbers.clone().map(|number| hash(&number.to_string())).collect();
    let found = embeddings.find(&hashes).await.unwrap();
    for (number, vector) in numbers.zip(&found) {
        assert!(vector.as_ref().is_none_or(|vector| *vector == [f32::from(number), 1.0]), "{number}");
    }
    found.iter().filter(|vector| vector.is_none()).count()
}

/// Whether the last step before the stop reaches the store, though its answer is never read.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Never,
    Done,
}

/// A machine that stops after some steps.
struct Failing {
    objects: Arc<Memory>,
    left: AtomicUsize,
    effect: Effect,
}

impl fmt::Debug for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failing")
    }
}

impl Failing {
    /// Whether the step happens, and whether its answer is read.
    fn step(&self) -> (bool, bool) {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match (left, self.effect) {
            (Ok(1), Effect::Done) => (true, false),
            (Ok(1..), _) => (true, true),
            _ => (false, false),
        }
    }

    async fn run<T>(&self, work: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let stopped = || StoreError::Denied { message: "the machine has stopped".into() };
        let (happens, is_read) = self.step();
        let done = if happens { work.await } else { Err(stopped()) };
        if is_read { done } else { Err(stopped()) }
    }
}

#[async_trait]
impl Objects for Failing {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> StoreResult<Etag> {
        self.run(self.objects.put(key, body, condition)).await
    }
    async fn get(&self, key: &Key, range: Option<ByteRange>) -> StoreResult<Object> {
        self.run(self.objects.get(key, range)).await
    }
    async fn head(&self, key: &Key) -> StoreResult<Meta> {
        self.run(self.objects.head(key)).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Page> {
        self.run(self.objects.list(prefix, after, limit)).await
    }
    async fn delete(&self, key: &Key) -> StoreResult<()> {
        self.run(self.objects.delete(key)).await
    }
}
