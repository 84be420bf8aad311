//! What callers see when the store fails.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use async_trait::async_trait;
use common::{Server, client, error_of};
use lakehouse_contract::Key;
use lakehouse_storaged::Settings;
use lakehouse_store::{
    ByteRange, Condition, Error, Etag, Meta, Object, Objects, Page, Payload, Result, Store,
};
use reqwest::header;

/// A backend that fails the same way every time.
#[derive(Debug)]
struct Failing(Error);

#[async_trait]
impl Objects for Failing {
    async fn put(&self, _: &Key, _: Payload, _: Condition) -> Result<Etag> {
        Err(self.0.clone())
    }

    async fn get(&self, _: &Key, _: Option<ByteRange>) -> Result<Object> {
        Err(self.0.clone())
    }

    async fn head(&self, _: &Key) -> Result<Meta> {
        Err(self.0.clone())
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Page> {
        Err(self.0.clone())
    }

    async fn delete(&self, _: &Key) -> Result<()> {
        Err(self.0.clone())
    }
}

#[tokio::test]
async fn each_failure_of_the_store_has_its_status_and_its_words() {
    let key = Key::parse("a").unwrap();
    let said = || "the backend's words".to_owned();
    for (error, status, code) in [
        (Error::Full { message: said() }, 507, "store_full"),
        (Error::Denied { message: said() }, 502, "store_failed"),
        (Error::Unfit { message: said() }, 502, "store_failed"),
        (Error::Damaged { key: key.clone(), message: said() }, 502, "store_damaged"),
        (Error::Unavailable { message: said() }, 503, "store_unavailable"),
        (Error::UnfitKey { key, message: said() }, 400, "bad_request"),
    ] {
        let server = Server::with(Store::new(Failing(error)), &Settings::default()).await;
        for request in [
            client().get(server.url("get/a")),
            client().put(server.url("put/a")).body("x"),
            client().delete(server.url("delete/a")),
            client().get(server.url("list")),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), status == 503);
            let (said_code, message) = error_of(answer).await;
            assert_eq!(said_code, code);
            assert!(message.contains("the backend's words"), "{message}");
        }
    }
}
