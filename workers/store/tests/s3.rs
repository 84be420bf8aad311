//! The S3 backend keeps every promise against a real MinIO, and those that a network asks for.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use lakehouse_parts::Minio;
use lakehouse_store::{
    Condition, Error, Payload, Store,
    s3::{S3Credentials, S3Settings},
};
use network::Proxy;
use suite::{has_pieces, key, names, piece, pieces, put, read, text};

mod network;
mod suite;

static MINIO: LazyLock<Minio> = LazyLock::new(Minio::start);

for_each_promise!(async { (Store::s3(settings(&MINIO)).await.unwrap(), ()) });

#[tokio::test]
async fn a_prefix_of_the_bucket_keeps_the_rest_of_it_out_of_sight() {
    let whole = settings(&MINIO);
    let part = S3Settings { prefix: Some(key("team/a")), ..whole.clone() };
    let (whole, part) = (Store::s3(whole).await.unwrap(), Store::s3(part).await.unwrap());
    put(&part, "x", "content").await;
    assert_eq!(names(&whole, "").await, ["team/a/x"], "the probe left nothing behind");
    assert_eq!(names(&part, "").await, ["x"]);
}

#[tokio::test]
async fn more_objects_than_one_answer_lists_are_all_listed() {
    let store = Store::s3(settings(&MINIO)).await.unwrap();
    let all: Vec<String> = (0..1003).map(|number| format!("n/{number:04}")).collect();
    futures::stream::iter(&all).for_each_concurrent(16, async |name| drop(put(&store, name, "").await)).await;
    assert_eq!(names(&store, "n/").await, all);
    let page = store.list("n/", None, 1001).await.unwrap();
    assert_eq!((page.objects.len(), page.more), (1001, true));
}

#[tokio::test]
async fn large_bodies_go_in_parts_and_come_back_whole() {
    let store = Store::s3(settings(&MINIO)).await.unwrap();
    let (count, size) = (250, 100_003);
    store.put(&key("streamed"), pieces(count, size), Condition::Absent).await.unwrap();
    assert!(store.head(&key("streamed")).await.unwrap().etag.0.ends_with("-3\""), "3 parts of 8 MiB");
    assert!(has_pieces(&store, "streamed", count, size).await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), piece(1, 9 << 20)).unwrap();
    let current = store.head(&key("streamed")).await.unwrap().etag;
    let body = Payload::File(file.path().to_owned());
    store.put(&key("streamed"), body, Condition::Matches(current)).await.unwrap();
    let found = store.get(&key("streamed"), None).await.unwrap().bytes(9 << 20).await.unwrap();
    assert!(found == piece(1, 9 << 20));
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_no_parts() {
    let minio = Minio::start();
    let store = Store::s3(settings(&minio)).await.unwrap();
    let endless = futures::stream::iter(0..).map(|index| Ok(piece(index, 1 << 20))).then(async |piece| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        piece
    });
    let name = key("a");
    let put = store.put(&name, Payload::Stream(Box::pin(endless)), Condition::Always);
    let gave_up = tokio::time::timeout(Duration::from_secs(2), put).await;
    assert!(gave_up.is_err());
    for _ in 0..100 {
        if minio.unfinished_uploads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} uploads are unfinished", minio.unfinished_uploads());
}

#[tokio::test]
async fn a_read_goes_on_where_the_connection_broke() {
    let (store, proxy) = through_a_proxy().await;
    let (count, size) = (200, 100_003);
    store.put(&key("a"), pieces(count, size), Condition::Absent).await.unwrap();
    proxy.cut_after(3_000_000, 4);
    assert!(has_pieces(&store, "a", count, size).await);
    assert_eq!(proxy.cuts_left(), 0);
}

#[tokio::test]
async fn a_read_does_not_go_on_in_another_content() {
    let (store, proxy) = through_a_proxy().await;
    store.put(&key("a"), pieces(200, 100_003), Condition::Absent).await.unwrap();
    proxy.cut_after(3_000_000, 1);
    let mut body = store.get(&key("a"), None).await.unwrap().body;
    body.try_next().await.unwrap().unwrap();
    put(&store, "a", "another").await;
    let rest: Result<Vec<_>, _> = body.try_collect().await;
    assert!(matches!(rest, Err(Error::Conflict { .. })), "{:?}", rest.map(|rest| rest.len()));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_no_conflict_with_itself() {
    let (store, proxy) = through_a_proxy().await;
    let bodies =
        [("small", pieces(1, 10), "PUT", "small"), ("large", pieces(100, 100_003), "POST", "uploadId=")];
    for (name, body, method, part) in bodies {
        proxy.lose_answer_to(method, part);
        store.put(&key(name), body, Condition::Absent).await.unwrap();
        assert_eq!(proxy.cuts_left(), 0);
        let seen = store.head(&key(name)).await.unwrap().etag;
        proxy.lose_answer_to("PUT", name);
        store.put(&key(name), text("swapped"), Condition::Matches(seen)).await.unwrap();
        assert_eq!(proxy.cuts_left(), 0);
        assert_eq!(read(&store, name).await.unwrap(), "swapped");
    }
    proxy.lose_answer_to("PUT", "small");
    let lost = store.put(&key("small"), text("x"), Condition::Absent).await;
    assert!(suite::is_conflict(&lost), "another's object is still a conflict: {lost:?}");
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let mut minio = Minio::start();
    let store = Store::s3(settings(&minio)).await.unwrap();
    put(&store, "before", "content").await;
    minio.stop();
    let during = tokio::spawn({
        let store = store.clone();
        async move { store.put(&key("during"), text("content"), Condition::Absent).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let minio = tokio::task::spawn_blocking(move || {
        minio.restart();
        minio
    });
    let _minio = minio.await.unwrap();
    during.await.unwrap().unwrap();
    assert_eq!(names(&store, "").await, ["before", "during"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_when_the_deadline_has_passed() {
    let endpoint = Some("http://127.0.0.1:1".into());
    let settings = S3Settings { endpoint, deadline: Duration::from_secs(2), ..settings(&MINIO) };
    let asked = Instant::now();
    let error = Store::s3(settings).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("S3 at http://127.0.0.1:1") && message.contains("refused"), "{message}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn wrong_keys_are_denied_without_being_shown() {
    for (access_key, secret_key, code) in [
        (Minio::ACCESS_KEY, "wrong-secret-0", "SignatureDoesNotMatch"),
        ("wrong-access-0", Minio::SECRET_KEY, "InvalidAccessKeyId"),
    ] {
        let credentials = Some(credentials(access_key, secret_key));
        let error = Store::s3(S3Settings { credentials, ..settings(&MINIO) }).await.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Denied { .. }), "{message}");
        assert!(message.contains(code) && message.contains(&MINIO.endpoint()), "{message}");
        for secret in [access_key, secret_key, "Signature=", "X-Amz"] {
            assert!(!message.contains(secret) && !format!("{error:?}").contains(secret), "{message}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let settings = S3Settings { bucket: "not-made-yet".into(), ..settings(&MINIO) };
    let error = Store::s3(settings).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Unfit { .. }), "{message}");
    assert!(message.contains("bucket `not-made-yet`: NoSuchBucket"), "{message}");
    assert!(message.ends_with("(make the bucket first, or correct its name)"), "{message}");
}

#[tokio::test]
async fn a_key_that_the_server_cannot_hold_is_refused_and_holds_nothing() {
    let store = Store::s3(settings(&MINIO)).await.unwrap();
    let long = key(&"s".repeat(300));
    let error = store.put(&long, text("x"), Condition::Always).await.unwrap_err();
    assert!(matches!(error, Error::UnfitKey { .. }), "{error:?}");
    assert!(matches!(read(&store, long.as_str()).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.head(&long).await, Err(Error::NotFound { .. })));
    store.delete(&long).await.unwrap();
}

#[tokio::test]
async fn a_single_deletion_whose_answer_is_lost_takes_nothing_that_comes_after_it() {
    let (store, proxy) = through_a_proxy().await;
    put(&store, "a", "old").await;
    proxy.lose_answer_to("DELETE", "/a");
    let error = store.delete_once(&key("a")).await.unwrap_err();
    assert!(error.retry_helps() && proxy.cuts_left() == 0, "{error}");
    assert_eq!(names(&store, "").await, [""; 0], "the server has done it");
    put(&store, "a", "new").await;
    assert_eq!(names(&store, "").await, ["a"]);
    store.delete_once(&key("a")).await.unwrap();
    store.delete_once(&key("a")).await.unwrap();
    assert_eq!(names(&store, "").await, [""; 0]);
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let Some(minio) = Minio::start_with_tls() else {
        eprintln!("skipped: this machine has no openssl");
        return;
    };
    let trusting = S3Settings { ca_file: Some(minio.authority()), ..settings(&minio) };
    let store = Store::s3(trusting).await.unwrap();
    store.put(&key("a"), pieces(100, 100_003), Condition::Absent).await.unwrap();
    assert!(has_pieces(&store, "a", 100, 100_003).await);
    let error = Store::s3(settings(&minio)).await.unwrap_err();
    assert!(matches!(error, Error::Unfit { .. }), "{error:?}");
    assert!(error.to_string().contains("set AWS_CA_BUNDLE"), "{error}");
}

#[tokio::test]
async fn a_file_of_certificates_that_holds_none_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = S3Settings { ca_file: Some(file.path().to_owned()), ..settings(&MINIO) };
    let message = Store::s3(settings).await.unwrap_err().to_string();
    assert!(message.ends_with("cannot be used: there is none in PEM form"), "{message}");
}

/// A new bucket of `minio`.
fn settings(minio: &Minio) -> S3Settings {
    S3Settings {
        endpoint: Some(minio.endpoint()),
        credentials: Some(credentials(Minio::ACCESS_KEY, Minio::SECRET_KEY)),
        path_style: true,
        ..S3Settings::new(minio.bucket())
    }
}

fn credentials(access_key: &str, secret_key: &str) -> S3Credentials {
    let (access_key, secret_key) = (access_key.to_owned(), secret_key.to_owned());
    S3Credentials { access_key, secret_key, session_token: None }
}

async fn through_a_proxy() -> (Store, Proxy) {
    let proxy = Proxy::to(&MINIO.endpoint()).await;
    let settings = S3Settings { endpoint: Some(proxy.endpoint()), ..settings(&MINIO) };
    (Store::s3(settings).await.unwrap(), proxy)
}
