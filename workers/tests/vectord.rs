//! What vectord promises as a process: what it acknowledged is there after any end, and roles find each other over HTTP.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use common::{Lakehouse, client, eventually, lakehouse, run};
use reqwest::blocking::Client;
use serde_json::{Value, json};

const KILLS: u32 = 100;
const WRITERS: u32 = 3;

#[test]
fn a_hundred_kills_under_writes_lose_no_acknowledged_vector() {
    let folder = tempfile::tempdir().unwrap();
    let first = vectord(folder.path(), &[]);
    let create = json!({ "name": "shelf", "dimension": 8, "metric": "euclidean" });
    assert_eq!(first.post("/vectors/index", create.to_string()).0, 201);
    first.kill();

    let acknowledged: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let (next, client) = (Arc::new(AtomicU32::new(0)), client());
    for kill in 0..KILLS {
        let lakehouse = vectord(folder.path(), &[]);
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (client, url, over) = (client.clone(), lakehouse.url.clone(), Arc::clone(&over));
                let (acknowledged, next) = (Arc::clone(&acknowledged), Arc::clone(&next));
                thread::spawn(move || write(&client, &url, &over, &acknowledged, &next))
            })
            .collect();
        let before = acknowledged.lock().unwrap().len();
        eventually("writes are acknowledged", || match acknowledged.lock().unwrap().len() {
            count if count > before => Ok(()),
            count => Err(count.to_string()),
        });
        thread::sleep(Duration::from_millis(u64::from(kill * 7 % 60)));
        lakehouse.kill();
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
    }

    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() >= KILLS as usize, "{} writes say little", acknowledged.len());
    let after = vectord(folder.path(), &[]);
    let ids: Vec<&String> = acknowledged.keys().collect();
    for ids in ids.chunks(500) {
        let (status, answer) = after.post("/vectors/index/shelf/get", json!({ "ids": ids }).to_string());
        assert_eq!((status, &answer["missing"]), (200, &Value::Null), "{answer}");
        for item in answer["items"].as_array().unwrap() {
            let number = acknowledged[item["id"].as_str().unwrap()];
            assert_eq!(
                (&item["vector"], &item["metadata"]["number"]),
                (&json!(vector(number)), &json!(number))
            );
        }
    }
    for (id, number) in acknowledged.iter().step_by(acknowledged.len().div_ceil(50)) {
        let search = json!({ "vector": vector(*number), "k": 1 });
        let (_, answer) = after.post("/vectors/index/shelf/search", search.to_string());
        assert_eq!(
            (&answer["results"][0]["id"], &answer["results"][0]["distance"]),
            (&json!(id), &json!(0.0))
        );
    }
}

#[test]
fn a_vectord_has_its_texts_embedded_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let embedd = serve(folder.path(), "embedd", &[]);
    let vectord = vectord(folder.path(), &["--embedd", &embedd.url]);
    let create = json!({ "name": "words", "dimension": 384, "model": "local/lexical" });
    let (status, answer) = vectord.post("/vectors/index", create.to_string());
    assert_eq!((status, &answer["embedding"]["model"]), (201, &json!("local/lexical")), "{answer}");
    let (_, embedded) = embedd.post("/embed", json!({ "texts": ["forklift driver"] }).to_string());
    let items =
        json!({ "items": [{ "id": "a", "vector": embedded["vectors"][0] }], "model": "local/lexical" });
    let (status, answer) = vectord.post("/vectors/index/words/add", items.to_string());
    assert_eq!(status, 200, "{answer}");
    let (status, found) =
        vectord.post("/vectors/index/words/search", json!({ "text": "forklift" }).to_string());
    assert_eq!((status, &found["results"][0]["id"]), (200, &json!("a")), "{found}");
    embedd.kill();
    let (status, refused) = vectord.post("/vectors/index/words/search", json!({ "text": "new" }).to_string());
    assert_eq!(status, 502, "{refused}");
}

#[test]
fn flags_of_roles_that_do_not_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str]| {
        let store = folder.path().join("bucket");
        let (ended_well, _, stderr) =
            run(lakehouse().args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(store).args(args));
        assert!(!ended_well, "{args:?}");
        stderr
    };
    assert!(refused(&["--role", "queryd", "--index", "a"]).contains("--index"));
    assert!(refused(&["--role", "vectord", "--providers", "none.yaml"]).contains("--providers"));
    assert!(refused(&["--role", "embedd", "--providers", "none.yaml"]).contains("none.yaml"));
    assert!(
        refused(&["--role", "vectord", "--shard", "3/3", "--peer", "http://v-{shard}:1"]).contains("0/3")
    );
    assert!(refused(&["--role", "vectord", "--shard", "0/3"]).contains("--peer"));
}

/// Adds one vector after the other until nobody answers.
fn write(
    client: &Client,
    url: &str,
    over: &AtomicBool,
    acknowledged: &Mutex<BTreeMap<String, u32>>,
    next: &AtomicU32,
) {
    while !over.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let id = format!("v-{number}");
        let item = json!({ "id": id, "vector": vector(number), "metadata": { "number": number } });
        let request = client.post(format!("{url}/vectors/index/shelf/add")).json(&json!({ "items": [item] }));
        match request.send() {
            Ok(answer) if answer.status() == 200 => {
                acknowledged.lock().unwrap().insert(id, number);
            }
            // Whether it was written is open: it need not be there, and may be.
            Ok(_) | Err(_) => {}
        }
    }
}

/// No two numbers have the same.
fn vector(number: u32) -> Vec<f32> {
    (0..8).map(|bit| f32::from(u8::try_from(number >> (bit * 4) & 15).unwrap())).collect()
}

fn vectord(folder: &Path, args: &[&str]) -> Lakehouse {
    serve(folder, "vectord", args)
}

fn serve(folder: &Path, role: &str, args: &[&str]) -> Lakehouse {
    let mut command = lakehouse();
    command.args(["serve", "--role", role, "--listen", "127.0.0.1:0", "--store"]).arg(folder.join("bucket"));
    command.arg("--cache").arg(folder.join(format!("cache-{role}"))).args(args);
    Lakehouse::start(&mut command).ready()
}
