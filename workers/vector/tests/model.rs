//! Any run of operations gives what a simple map gives: with restarts, segments made at any moment, and several processes at once.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::BTreeMap;

use lakehouse_store::Store;
use proptest::{collection::vec, prelude::*, test_runner::Config};
use serde_json::{Value, json};
use support::{Served, settings};

/// What can be done to an index. Ids and values are few, so that operations meet.
#[derive(Clone, Debug)]
enum Step {
    Add(Vec<(u8, u8, Option<u8>)>),
    Delete(Vec<u8>),
    /// Copies from the other index what is missing, and takes it from there where it says so.
    Merge(bool),
    AddToOther(u8, u8),
    Restart,
    Flush,
    /// The process that is asked from now on.
    Switch,
}

fn step() -> impl Strategy<Value = Step> {
    let item = (0..24_u8, 0..8_u8, prop::option::of(0..4_u8));
    prop_oneof![
        6 => vec(item, 1..12).prop_map(Step::Add),
        3 => vec(0..24_u8, 1..6).prop_map(Step::Delete),
        1 => any::<bool>().prop_map(Step::Merge),
        2 => (0..24_u8, 0..8_u8).prop_map(|(id, value)| Step::AddToOther(id, value)),
        1 => Just(Step::Restart),
        2 => Just(Step::Flush),
        2 => Just(Step::Switch),
    ]
}

/// An id's vector, as a number, and its metadata.
type Model = BTreeMap<u8, (u8, Option<u8>)>;

fn id(id: u8) -> String {
    format!("id-{id}")
}

fn vector(value: u8) -> Value {
    json!([1, value])
}

fn item(id_: u8, value: u8, kind: Option<u8>) -> Value {
    let mut item = json!({"id": id(id_), "vector": vector(value)});
    match kind {
        Some(0) => item["metadata"] = json!({}),
        Some(kind) => item["metadata"] = json!({"kind": kind}),
        None => {}
    }
    item
}

fn upsert(model: &mut Model, id: u8, value: u8, kind: Option<u8>) {
    let kept = model.get(&id).and_then(|(_, kind)| *kind);
    let kind = match kind {
        None => kept,
        Some(0) => None,
        kind => kind,
    };
    model.insert(id, (value, kind));
}

async fn agree(served: &Served, model: &Model) {
    let ids: Vec<String> = (0..24).map(id).collect();
    let got = served.good("/vectors/index/main/get", json!({"ids": ids})).await;
    let expected: Vec<Value> = model
        .iter()
        .map(|(id_, (value, kind))| {
            let metadata = kind.map_or(json!({}), |kind| json!({"kind": kind}));
            json!({"id": id(*id_), "vector": [1.0, f32::from(*value)], "metadata": metadata})
        })
        .collect();
    assert_eq!(got["items"], json!(expected));
    assert_eq!(served.length("main").await, model.len() as u64);
    // Every stored vector is found, and nothing else.
    let found = served.search("main", json!({"vector": [1, 0], "k": 100})).await;
    assert_eq!(found["results"].as_array().unwrap().len(), model.len());
    if model.values().any(|(_, kind)| kind.is_some()) {
        let filter = json!({"kind": {"$gte": 2}});
        let found = served.search("main", json!({"vector": [1, 0], "k": 100, "filter": filter})).await;
        let matches = model.values().filter(|(_, kind)| kind.is_some_and(|kind| kind >= 2)).count();
        assert_eq!(
            (&found["matches"], found["results"].as_array().unwrap().len()),
            (&json!(matches), matches)
        );
    }
}

async fn walk(steps: Vec<Step>) {
    let store = Store::memory();
    let mut processes = vec![Served::over(&store).await, Served::over(&store).await];
    processes[0].create("main", 2).await;
    processes[0].create("other", 2).await;
    let (mut main, mut other) = (Model::new(), Model::new());
    for step in steps {
        match step {
            Step::Add(items) => {
                let sent: Vec<Value> =
                    items.iter().map(|(id, value, kind)| item(*id, *value, *kind)).collect();
                processes[0].add("main", json!(sent)).await;
                for (id, value, kind) in items {
                    upsert(&mut main, id, value, kind);
                }
            }
            Step::Delete(ids) => {
                let sent: Vec<String> = ids.iter().copied().map(id).collect();
                let answer = processes[0].good("/vectors/index/main/delete", json!({"ids": sent})).await;
                let before = main.len();
                main.retain(|id, _| !ids.contains(id));
                assert_eq!(answer, json!({"deleted": before - main.len(), "length": main.len()}));
            }
            Step::AddToOther(id, value) => {
                processes[0].add("other", json!([item(id, value, Some(3))])).await;
                upsert(&mut other, id, value, Some(3));
            }
            Step::Merge(clear) => {
                for process in &processes {
                    process.vectord.refresh(&support::index_name("other")).await.unwrap();
                }
                let body = json!({"dest": "main", "clear_source": clear});
                let answer = processes[0].good("/vectors/index/other/merge", body).await;
                let before = main.len();
                for (id, kept) in &other {
                    main.entry(*id).or_insert(*kept);
                }
                assert_eq!(answer["merged"], json!(main.len() - before));
                assert_eq!(answer["skipped_already_present"], json!(other.len() - (main.len() - before)));
                if clear {
                    other.clear();
                }
                assert_eq!(answer["length_source"], json!(other.len()));
            }
            Step::Restart => processes[0] = Served::over(&store).await,
            Step::Flush => processes[0].vectord.flush().await.unwrap(),
            Step::Switch => {
                processes.swap(0, 1);
                for name in ["main", "other"] {
                    processes[0].vectord.refresh(&support::index_name(name)).await.unwrap();
                }
            }
        }
        agree(&processes[0], &main).await;
    }
    let restarted = Served::with(&store, settings()).await;
    agree(&restarted, &main).await;
}

proptest! {
    #![proptest_config(Config { cases: 40, ..Config::default() })]
    #[test]
    fn an_index_is_a_map_that_can_be_searched(steps in vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(walk(steps));
    }
}
