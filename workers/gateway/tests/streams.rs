//! Bodies pass through unbuffered both ways, and a client that leaves takes its call with it. Both for a service behind a URL
//! and for one in this process.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    routing::{get, post},
};
use common::{Server, client, gateway, gateway_to, patiently};
use futures::{StreamExt, stream};
use lakehouse_gateway::{Owner, Upstream};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, mpsc},
};

/// What the service tells the test.
#[derive(Clone, Default)]
struct Told {
    started: Arc<Notify>,
    left: Arc<Notify>,
}

/// Tells when it is dropped: the service's handler, or its answer's body, was cancelled.
struct Guard(Arc<Notify>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn an_answer_arrives_piece_by_piece() {
    let (pieces, router) = trickling();
    for gateway in both(router).await {
        let answer = client().get(gateway.1.url("/v1/sql/trickle")).send();
        let mut answer = patiently(answer).await.unwrap().bytes_stream();
        for piece in ["one", "two"] {
            pieces.send(piece).await.unwrap();
            assert_eq!(patiently(answer.next()).await.unwrap().unwrap(), piece);
        }
        pieces.send("").await.unwrap();
        assert!(patiently(answer.next()).await.is_none());
    }
}

#[tokio::test]
async fn an_upload_arrives_piece_by_piece() {
    let (seen, mut arrived) = mpsc::channel::<Bytes>(8);
    let upload = |State(seen): State<mpsc::Sender<Bytes>>, body: Body| async move {
        let mut pieces = body.into_data_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            seen.send(piece).await.unwrap();
        }
    };
    let router = Router::new().route("/sql/upload", post(upload)).with_state(seen);
    for gateway in both(router).await {
        let (sender, pieces) = mpsc::channel::<&'static str>(1);
        let body = reqwest::Body::wrap_stream(stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), pieces))
        }));
        let answer = tokio::spawn(client().post(gateway.1.url("/v1/sql/upload")).body(body).send());
        for piece in ["one", "two"] {
            sender.send(piece).await.unwrap();
            assert_eq!(patiently(arrived.recv()).await.unwrap(), piece);
        }
        drop(sender);
        assert_eq!(patiently(answer).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_cancels_the_call() {
    let told = Told::default();
    let wait = |State(told): State<Told>| async move {
        let _guard = Guard(told.left.clone());
        told.started.notify_one();
        tokio::time::sleep(Duration::from_mins(1)).await;
    };
    let router = Router::new().route("/sql/wait", get(wait)).with_state(told.clone());
    for gateway in both(router).await {
        let connection = ask(&gateway.1, "/v1/sql/wait").await;
        patiently(told.started.notified()).await;
        drop(connection);
        patiently(told.left.notified()).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_the_answer_cancels_the_call() {
    let told = Told::default();
    let endless = |State(told): State<Told>| async move {
        told.started.notify_one();
        let guard = Guard(told.left.clone());
        Body::from_stream(stream::unfold(guard, |guard| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>("tick\n"), guard))
        }))
    };
    let router = Router::new().route("/sql/endless", get(endless)).with_state(told.clone());
    for gateway in both(router).await {
        let connection = ask(&gateway.1, "/v1/sql/endless").await;
        patiently(told.started.notified()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(connection);
        patiently(told.left.notified()).await;
    }
}

/// The service behind a URL, and in the gateway's own process. The first server must live as long as its gateway.
async fn both(router: Router) -> [(Option<Server>, Server); 2] {
    let service = Server::start(router.clone()).await;
    let remote = gateway_to(&service.url("")).await;
    let local = gateway([(Owner::Sql, Upstream::local(router))].into()).await;
    [(Some(service), remote), (None, local)]
}

/// `/sql/trickle` answers with what the test sends; an empty piece ends the answer.
fn trickling() -> (mpsc::Sender<&'static str>, Router) {
    let (sender, pieces) = mpsc::channel(1);
    let pieces = Arc::new(tokio::sync::Mutex::new(pieces));
    let trickle = || async move {
        Body::from_stream(stream::unfold(pieces, |pieces| async {
            let piece: &'static str = pieces.lock().await.recv().await?;
            (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), pieces))
        }))
    };
    (sender, Router::new().route("/sql/trickle", get(trickle)))
}

async fn ask(server: &Server, path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    connection
}
