//! The promises of storaged, on a real socket.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{Server, chunked, client, error_of};
use lakehouse_contract::{
    Key,
    storage::{MAX_LISTED, StorageListAnswer, StoragePutAnswer, StoredObject},
};
use lakehouse_storaged::Settings;
use lakehouse_store::{Condition, Store};
use reqwest::header;

#[tokio::test]
async fn what_was_put_is_got_back() {
    let server = Server::start().await;
    let put = server.put("a/b c%2Fd.txt", "hello").await;
    assert_eq!(put.status(), 200);
    let etag = put.headers()[header::ETAG].clone();
    let answer: StoragePutAnswer = put.json().await.unwrap();
    assert_eq!(
        (answer.key.as_str(), answer.size, answer.etag.as_bytes()),
        ("a/b c/d.txt", 5, etag.as_bytes())
    );

    let got = server.get("a/b%20c/d.txt").await;
    assert_eq!(got.status(), 200);
    assert_eq!(got.headers()[header::ETAG], etag);
    assert_eq!(got.headers()[header::CONTENT_LENGTH], "5");
    assert_eq!(got.headers()[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(got.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(got.headers()[header::LAST_MODIFIED].to_str().unwrap().ends_with(" GMT"));
    assert_eq!(got.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn another_content_has_another_etag() {
    let server = Server::start().await;
    let first = server.put("a", "one").await.headers()[header::ETAG].clone();
    let second = server.put("a", "two").await.headers()[header::ETAG].clone();
    assert_ne!(first, second);
    assert_eq!(server.get("a").await.text().await.unwrap(), "two");
}

#[tokio::test]
async fn a_missing_object_is_404_and_deleting_it_succeeds() {
    let server = Server::start().await;
    let answer = server.get("nothing").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(error_of(answer).await.0, "not_found");
    assert_eq!(client().head(server.url("get/nothing")).send().await.unwrap().status(), 404);
    server.put("a", "x").await;
    for _ in 0..2 {
        assert_eq!(client().delete(server.url("delete/a")).send().await.unwrap().status(), 204);
    }
    assert_eq!(server.get("a").await.status(), 404);
}

#[tokio::test]
async fn a_key_that_is_none_is_400_with_a_sentence() {
    let server = Server::start().await;
    let long = "k".repeat(1025);
    for (key, says) in [
        ("", "empty"),
        (long.as_str(), "1025 bytes"),
        ("a%00b", "control character"),
        ("a%0Db", "control character"),
        ("a%0Ab", "control character"),
        ("a%09b", "control character"),
        ("a%1Fb", "control character"),
        ("/a", "starts with `/`"),
        ("%2Fa", "starts with `/`"),
        ("a%2F..%2Fb", "`..` segment"),
        ("%2E%2E%2Fb", "`..` segment"),
        ("a//b", "empty segment"),
        ("a%FFb", "UTF-8"),
    ] {
        for (method, verb) in [("GET", "get"), ("PUT", "put"), ("DELETE", "delete"), ("HEAD", "get")] {
            let answer = server.raw(method, &format!("/storage/{verb}/{key}")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{method} {key}: {answer}");
            assert!(method == "HEAD" || answer.contains(says), "{method} {key}: {answer}");
        }
    }
}

#[tokio::test]
async fn ranges_work() {
    let server = Server::start().await;
    server.put("digits", "0123456789").await;
    let range =
        |range: &'static str| client().get(server.url("get/digits")).header(header::RANGE, range).send();
    for (asked, given, content) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=8-99", "bytes 8-9/10", "89"),
        ("bytes=-99", "bytes 0-9/10", "0123456789"),
    ] {
        let answer = range(asked).await.unwrap();
        assert_eq!(answer.status(), 206, "{asked}");
        assert_eq!(answer.headers()[header::CONTENT_RANGE], given);
        assert_eq!(answer.content_length(), Some(content.len() as u64));
        assert_eq!(answer.text().await.unwrap(), content);
    }
    for asked in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
        let answer = range(asked).await.unwrap();
        assert_eq!(answer.status(), 416, "{asked}");
        assert_eq!(answer.headers()[header::CONTENT_RANGE], "bytes */10");
        assert_eq!(error_of(answer).await.0, "range_not_satisfiable");
    }
    // Several ranges may be answered with the whole.
    let answer = range("bytes=0-1,3-4").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "0123456789"));
}

#[tokio::test]
async fn a_range_of_another_version_is_the_whole_object() {
    let server = Server::start().await;
    let old = server.put("a", "old").await.headers()[header::ETAG].clone();
    let new = server.put("a", "new content").await.headers()[header::ETAG].clone();
    for (etag, status, content) in [(old, 200, "new content"), (new, 206, "con")] {
        let request = client().get(server.url("get/a")).header(header::RANGE, "bytes=4-6");
        let answer = request.header(header::IF_RANGE, etag).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.text().await.unwrap(), content);
    }
}

#[tokio::test]
async fn head_tells_all_but_the_content() {
    let server = Server::start().await;
    let etag = server.put("a", "0123456789").await.headers()[header::ETAG].clone();
    let answer = client().head(server.url("get/a")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "10");
    assert_eq!(answer.headers()[header::ACCEPT_RANGES], "bytes");
    assert_eq!(answer.headers()[header::ETAG], etag);
    assert_eq!(answer.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_copy_that_is_current_is_304() {
    let server = Server::start().await;
    let etag = server.put("a", "x").await.headers()[header::ETAG].clone();
    let known = |etag: header::HeaderValue| {
        client().get(server.url("get/a")).header(header::IF_NONE_MATCH, etag).send()
    };
    assert_eq!(known(etag.clone()).await.unwrap().status(), 304);
    assert_eq!(
        known(format!("\"other\", W/{}", etag.to_str().unwrap()).parse().unwrap()).await.unwrap().status(),
        304
    );
    assert_eq!(known("\"other\"".parse().unwrap()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_over_the_cap_is_413_and_leaves_what_was_there() {
    let settings = Settings { max_put_bytes: 100, ..Settings::default() };
    let server = Server::with(Store::memory(), &settings).await;
    assert_eq!(server.put("a", "x".repeat(100)).await.status(), 200);
    for body in [reqwest::Body::from("y".repeat(101)), chunked(11), chunked(1_000_000)] {
        let answer = server.put("a", body).await;
        assert_eq!(answer.status(), 413);
        assert_eq!(error_of(answer).await.0, "too_large");
    }
    assert_eq!(server.get("a").await.text().await.unwrap(), "x".repeat(100));
    assert_eq!(server.put("b", chunked(11)).await.status(), 413);
    assert_eq!(server.get("b").await.status(), 404, "nothing half-written");
}

#[tokio::test]
async fn a_listing_is_in_order_and_below_its_prefix() {
    let server = Server::start().await;
    for key in ["b/2", "a/1", "b/1", "b0"] {
        server.put(key, "xyz").await;
    }
    let page = server.list("prefix=b/").await;
    assert_eq!(keys(&page), ["b/1", "b/2"]);
    assert!(!page.truncated && page.continuation.is_none());
    let StoredObject { size, etag, .. } = &page.objects[0];
    assert_eq!((*size, etag.as_bytes()), (3, server.get("b/1").await.headers()[header::ETAG].as_bytes()));
    assert_eq!(keys(&server.list("").await), ["a/1", "b/1", "b/2", "b0"]);
    assert_eq!(keys(&server.list("prefix=c").await), [""; 0]);
}

#[tokio::test]
async fn a_long_listing_says_that_there_is_more() {
    let store = Store::memory();
    for n in 0..=MAX_LISTED {
        let key = Key::parse(format!("many/{n:05}")).unwrap();
        store.put(&key, b"x".to_vec().into(), Condition::Always).await.unwrap();
    }
    let server = Server::with(store, &Settings::default()).await;
    let first = server.list("prefix=many/").await;
    assert_eq!((first.objects.len(), first.truncated), (MAX_LISTED, true));
    let continuation = first.continuation.unwrap();
    let second = server.list(&format!("prefix=many/&continuation={continuation}")).await;
    assert_eq!(keys(&second), ["many/10000"]);
    assert!(!second.truncated && second.continuation.is_none());
}

#[tokio::test]
async fn a_prefix_cannot_lead_out_of_the_bucket() {
    let server = Server::start().await;
    for query in
        ["prefix=../", "prefix=/etc", "prefix=a/../../b", "prefix=a%0A", "continuation=../x", "continuation="]
    {
        let answer = client().get(server.url(&format!("list?{query}"))).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        let message = error_of(answer).await.1;
        assert!(message.starts_with("`prefix`: ") || message.starts_with("`continuation`: "), "{message}");
    }
}

#[tokio::test]
async fn a_misspelt_parameter_of_a_listing_is_named() {
    let server = Server::start().await;
    let answer = client().get(server.url("list?continuaton=a")).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let message = error_of(answer).await.1;
    assert!(message.contains("unknown field `continuaton`"), "{message}");
}

fn keys(page: &StorageListAnswer) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}
