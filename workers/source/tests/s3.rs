//! What a source in a bucket promises, over a real MinIO.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use bytes::Bytes;
use lakehouse_contract::Key;
use lakehouse_parts::Minio;
use lakehouse_source::{Error, Reader, Reading, Source};
use lakehouse_store::{
    Condition, Payload, Store,
    s3::{S3, S3Credentials, S3Settings},
};

#[tokio::test]
async fn an_object_is_copied_once_for_each_content() {
    let minio = Minio::start();
    let settings = settings(&minio, minio.bucket());
    let bucket = Store::new(S3::connect(settings.clone()).await.unwrap());
    let key = Key::parse("in/sales.csv").unwrap();
    put(&bucket, &key, "a\n1\n").await;
    let spool = tempfile::tempdir().unwrap();
    let source = Source::S3 { settings: Box::new(settings), key: key.clone() };

    let first = read(&spool, &source, None).await.unwrap();
    let Reading::Here(first) = first else { panic!("nothing was read before") };
    assert_eq!(std::fs::read(&first.path).unwrap(), b"a\n1\n");
    let again = read(&spool, &source, Some(&first.digest)).await.unwrap();
    assert!(matches!(again, Reading::Unchanged));

    put(&bucket, &key, "a\n2\n").await;
    let changed = read(&spool, &source, Some(&first.digest)).await.unwrap();
    assert!(matches!(changed, Reading::Here(_)));
}

#[tokio::test]
async fn what_is_not_there_is_missing_and_what_may_not_be_read_is_denied() {
    let minio = Minio::start();
    let good = settings(&minio, minio.bucket());
    let key = Key::parse("none.csv").unwrap();
    let spool = tempfile::tempdir().unwrap();

    let source = Source::S3 { settings: Box::new(good.clone()), key: key.clone() };
    let missing = read(&spool, &source, None).await.unwrap_err();
    assert!(matches!(&missing, Error::NotFound(says) if says.contains("none.csv")), "{missing}");

    let mut bad = good;
    bad.credentials.as_mut().unwrap().secret_key = "not-the-secret".to_owned();
    let denied = read(&spool, &Source::S3 { settings: Box::new(bad), key }, None).await.unwrap_err();
    assert!(matches!(denied, Error::Denied(_)), "{denied}");
    assert!(!denied.to_string().contains("not-the-secret"), "{denied}");
}

async fn put(bucket: &Store, key: &Key, content: &'static str) {
    bucket.put(key, Payload::Bytes(Bytes::from_static(content.as_bytes())), Condition::Always).await.unwrap();
}

async fn read(spool: &tempfile::TempDir, source: &Source, seen: Option<&str>) -> Result<Reading, Error> {
    // Only the first test of a process can install it; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Reader::new(spool.path()).unwrap().read(source, seen, &|_, _| {}).await
}

fn settings(minio: &Minio, bucket: String) -> S3Settings {
    let mut settings = S3Settings::new(bucket);
    settings.endpoint = Some(minio.endpoint());
    settings.path_style = true;
    settings.credentials = Some(S3Credentials {
        access_key: Minio::ACCESS_KEY.to_owned(),
        secret_key: Minio::SECRET_KEY.to_owned(),
        session_token: None,
    });
    settings
}
