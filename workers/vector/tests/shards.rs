//! An index that is spread over several processes answers as one that is not.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::net::SocketAddr;

use axum::http::StatusCode;
use lakehouse_http::{Service, serve};
use lakehouse_store::Store;
use lakehouse_vector::Settings;
use serde_json::{Value, json};
use support::{Served, index_name, publish, refusal, settings};
use tokio::{net::TcpListener, task::JoinHandle};

const PARTS: u32 = 3;

#[tokio::test]
async fn every_part_gives_the_answer_of_the_whole() {
    let store = Store::memory();
    publish_rows(&store, 300).await;
    let whole = Served::over(&store).await;
    let parts = parts(&store).await;
    for body in [
        json!({"vector": [1, 0.3], "k": 25}),
        json!({"vector": [0.2, 1], "k": 300}),
        json!({"vector": [1, 1], "k": 7, "filter": {"state": "IL"}}),
        json!({"vectors": [[1, 0], [0, 1]], "k": 3}),
    ] {
        let expected = whole.search("workers", body.clone()).await;
        for (served, _) in &parts {
            assert_eq!(served.search("workers", body.clone()).await, expected);
        }
    }
    let ids: Vec<String> = (0..20).map(|row| format!("w-{row}")).chain(["nobody".into()]).collect();
    let expected = whole.good("/vectors/index/workers/get", json!({"ids": ids})).await;
    assert_eq!(expected["missing"], json!(["nobody"]));
    for (served, _) in &parts {
        assert_eq!(served.good("/vectors/index/workers/get", json!({"ids": ids})).await, expected);
        assert_eq!(served.length("workers").await, 300);
        let (status, file) = served.call(axum::http::Method::GET, "/vectors/index/workers/export", "").await;
        assert_eq!((status, &file[..4]), (StatusCode::OK, &b"PAR1"[..]));
    }
}

#[tokio::test]
async fn a_part_that_does_not_answer_is_named_and_nothing_is_left_out_silently() {
    let store = Store::memory();
    publish_rows(&store, 60).await;
    let parts = parts(&store).await;
    parts[1].1.abort();
    let (status, answer) = parts[0].0.post("/vectors/index/workers/search", json!({"vector": [1, 0]})).await;
    assert_eq!((status, &answer["error"]["details"]["part"]), (StatusCode::BAD_GATEWAY, &json!(1)));
    assert!(refusal(&answer).1.starts_with("part 1 of index `workers`"), "{answer}");
}

#[tokio::test]
async fn an_answer_is_of_one_version_while_the_parts_change() {
    let store = Store::memory();
    publish_rows(&store, 30).await;
    let parts = parts(&store).await;
    for (served, _) in &parts {
        assert_eq!(served.search("workers", json!({"vector": [1, 0], "k": 100})).await["version"], 1);
    }
    publish_rows(&store, 50).await;
    parts[0].0.vectord.refresh(&index_name("workers")).await.unwrap();
    for (served, _) in &parts {
        let found = served.search("workers", json!({"vector": [1, 0], "k": 100})).await;
        let count = found["results"].as_array().unwrap().len();
        assert!([(json!(1), 30), (json!(2), 50)].contains(&(found["version"].clone(), count)), "{count}");
    }
    let found = parts[0].0.search("workers", json!({"vector": [1, 0], "k": 100})).await;
    assert_eq!(found["version"], 2);
}

async fn publish_rows(store: &Store, rows: u16) {
    let row = |row: u16| {
        let (sine, cosine) = (f32::from(row) * 0.005).sin_cos();
        (
            format!("w-{row}"),
            vec![cosine, sine],
            json!({"state": if row.is_multiple_of(3) { "IL" } else { "OH" }}),
        )
    };
    let rows: Vec<(String, Vec<f32>, Value)> = (0..rows).map(row).collect();
    let rows: Vec<(&str, Vec<f32>, Value)> =
        rows.iter().map(|(id, vector, kept)| (id.as_str(), vector.clone(), kept.clone())).collect();
    publish(store, "workers", &rows, PARTS).await;
}

/// A process for each part, listening under `127.0.0.<1 + part>` on one port.
async fn parts(store: &Store) -> Vec<(Served, JoinHandle<()>)> {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let first = TcpListener::bind("127.0.0.10:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    for part in 1..PARTS {
        listeners.push(
            TcpListener::bind(SocketAddr::from(([127, 0, 0, 10 + u8::try_from(part).unwrap()], port)))
                .await
                .unwrap(),
        );
    }
    let mut parts = Vec::new();
    for (part, listener) in (0..PARTS).zip(listeners) {
        let peers = Some(format!("http://127.0.0.1{{part}}:{port}"));
        let served = Served::with(store, Settings { shard: Some((part, PARTS)), peers, ..settings() }).await;
        let service = Service::new("vectord", served.routes.clone());
        let task = tokio::spawn(async move {
            serve(listener, service, lakehouse_http::Settings::default(), std::future::pending())
                .await
                .unwrap();
        });
        parts.push((served, task));
    }
    parts
}
