//! Uploads that run at the same time, and uploads that break off, seen from the store.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Server, error_of, patiently};
use futures::StreamExt;
use lakehouse_contract::Key;
use lakehouse_storaged::Settings;
use lakehouse_store::{
    ByteRange, Condition, Etag, Meta, Object, Objects, Page, Payload, Result, Store, memory::Memory,
};
use reqwest::header;
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, Semaphore},
};

#[tokio::test]
async fn of_twenty_uploads_at_once_four_run_and_the_others_are_503_with_retry_after() {
    let watch = Watch::closed();
    let server = Server::with(watch.store(), &Settings::default()).await;
    let server = Arc::new(server);
    let mut answers = futures::stream::iter(0..20)
        .map(|n| {
            let server = server.clone();
            async move { server.put(format!("object-{n}"), "content").await }
        })
        .buffer_unordered(20);

    // Sixteen are answered while the store still holds the other four.
    for _ in 0..16 {
        let answer = patiently(answers.next()).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "5");
        let (code, message) = error_of(answer).await;
        assert!(code == "unavailable" && message.starts_with("4 uploads"), "{message}");
    }
    // Uploads alone are counted: reading goes on.
    assert_eq!(server.get("object-x").await.status(), 404);
    watch.gate.add_permits(20);
    for _ in 0..4 {
        assert_eq!(patiently(answers.next()).await.unwrap().status(), 200);
    }
    assert_eq!(server.put("later", "content").await.status(), 200);
    assert_eq!(server.list("prefix=object-").await.objects.len(), 4);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_what_was_there_and_its_place_free() {
    let watch = Watch::closed();
    watch.gate.add_permits(20);
    let settings = Settings { max_puts_in_flight: 1, ..Settings::default() };
    let server = Server::with(watch.store(), &settings).await;
    server.put("a", "before").await;
    patiently(async { tokio::join!(watch.reading.notified(), watch.ended.notified()) }).await;

    let mut connection = server.begin_put("a", 10).await;
    connection.write_all(b"after").await.unwrap();
    patiently(watch.reading.notified()).await;
    drop(connection);
    patiently(watch.ended.notified()).await;
    assert_eq!(server.get("a").await.text().await.unwrap(), "before");
    assert_eq!(server.put("a", "again").await.status(), 200);
}

/// A bucket in memory that tells when an upload begins to be read and when it is over, and lets uploads pass one by one.
#[derive(Clone, Debug)]
struct Watch {
    memory: Arc<Memory>,
    gate: Arc<Semaphore>,
    reading: Arc<Notify>,
    ended: Arc<Notify>,
}

impl Watch {
    /// No upload passes before the gate gets a permit.
    fn closed() -> Self {
        Self {
            memory: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            reading: Arc::default(),
            ended: Arc::default(),
        }
    }

    fn store(&self) -> Store {
        Store::new(self.clone())
    }
}

struct Over(Arc<Notify>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Objects for Watch {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        let _over = Over(self.ended.clone());
        self.gate.acquire().await.unwrap().forget();
        let reading = self.reading.clone();
        let body = match body {
            Payload::Stream(pieces) => Payload::Stream(pieces.inspect(move |_| reading.notify_one()).boxed()),
            whole => whole,
        };
        self.memory.put(key, body, condition).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        self.memory.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.memory.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.memory.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.memory.delete(key).await
    }
}
