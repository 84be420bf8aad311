//! What a build promises, over a real catalogue, query engine and store, with an embedder that counts.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::Duration;

use lakehouse_build::{Error, Tracker};
use lakehouse_contract::{IndexName, build::Phase, embed::ModelIdentity, keys, vectors::RowId};
use lakehouse_embed::{EmbedError, Reason};
use lakehouse_store::Condition;
use support::{Lab, WORKERS, identity, spec};

#[tokio::test]
async fn a_version_becomes_an_index_of_its_rows() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    let tracker = Tracker::new(spec().name);
    let built = lab.builder().build(&spec(), 1, &identity(), &tracker).await.unwrap();
    assert_eq!((built.version, built.dataset_version, built.vectors, built.failed), (1, 1, 3, 0));
    assert_eq!((built.embedded, built.reused, built.recall), (3, 0, Some(1.0)));
    assert_eq!(built.message, "Version 1 was built from version 1 of the dataset with 3 vectors.");
    let rows = lab.rows(&spec().name).await;
    let states: Vec<_> = rows.iter().map(|(id, metadata)| (id.as_str(), metadata.to_string())).collect();
    let kept = |state: &str, years: &str| {
        format!(r#"{{"hired":"2024-01-0{years}T08:00:00Z","state":"{state}","years":{years}}}"#)
    };
    assert_eq!(states, [("w-1", kept("IL", "1")), ("w-2", kept("OH", "2")), ("w-3", kept("IL", "3"))]);
    assert_eq!(lab.embedder.texts(), ["nurse in IL: {ICU}", "nurse in OH: {ICU}", "welder in IL: {ICU}"]);
    let from = lab.builder().indexes().manifest(&spec().name).await.unwrap().unwrap().source.unwrap();
    assert_eq!((from.dataset.as_str(), from.version, from.inputs), ("workers", 1, built.inputs));
    let progress = tracker.progress();
    assert_eq!((progress.phase, progress.rows, progress.done, progress.total), (Phase::Done, 3, 3, Some(3)));
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_embeds_nothing() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    lab.build(&spec(), 1).await.unwrap();
    let again = lab.build(&spec(), 1).await.unwrap();
    assert!(again.unchanged && again.version == 1 && again.vectors == 3, "{again:?}");
    let mut wider = spec();
    wider.hnsw.ef_search = 200;
    let again = lab.build(&wider, 1).await.unwrap();
    assert!(again.unchanged && again.version == 1, "how far a search looks is no reason to build");
    let there = lab.builder().indexes().manifest(&spec().name).await.unwrap().unwrap();
    assert_eq!(there.shape.hnsw.ef_search, 200);
    assert_eq!(lab.embedder.texts().len(), 3);
}

#[tokio::test]
async fn another_version_embeds_only_what_is_new_in_it() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    lab.build(&spec(), 1).await.unwrap();
    lab.ingest("workers", &format!("{WORKERS}4,cook,OH,4,2024-01-04T08:00:00Z\n")).await;
    let built = lab.build(&spec(), 2).await.unwrap();
    assert_eq!((built.version, built.vectors, built.embedded, built.reused), (2, 4, 1, 3));
    let back = lab.build(&spec(), 1).await.unwrap();
    assert_eq!((back.version, back.unchanged), (1, true), "what is kept is served again, not built again");
}

#[tokio::test]
async fn a_build_that_gives_up_keeps_what_it_embedded() {
    let lab = Lab::new().await;
    lab.ingest("workers", &many(1000)).await;
    lab.embedder.fail_after(300, EmbedError::new(Reason::Unavailable, "`fake` answers 503"));
    let error = lab.build(&spec(), 1).await.unwrap_err();
    assert!(matches!(error, Error::Embed(_)) && error.to_string() == "`fake` answers 503", "{error}");
    let done = lab.embedder.texts().len();
    assert!((256..1000).contains(&done), "{done}");
    lab.embedder.recover();
    let built = lab.build(&spec(), 1).await.unwrap();
    assert_eq!((built.vectors, built.embedded + built.reused), (1000, 1000));
    assert_eq!(lab.embedder.texts().len(), 1000, "nothing was embedded twice");
}

#[tokio::test]
async fn a_build_that_is_killed_embeds_nothing_twice() {
    let lab = Lab::new().await;
    lab.ingest("workers", &many(1000)).await;
    for seen in [100, 400, 700] {
        lab.embedder.hang_after(seen);
        let (spec, model, tracker) = (spec(), identity(), Tracker::new(spec().name));
        let builder = lab.builder();
        let build = builder.build(&spec, 1, &model, &tracker);
        let hangs = async {
            while !lab.embedder.hangs() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        tokio::select! {
            ended = build => panic!("{ended:?}"),
            () = hangs => {}
        }
    }
    lab.embedder.recover();
    let built = lab.build(&spec(), 1).await.unwrap();
    assert_eq!((built.version, built.vectors), (1, 1000), "nothing was published before");
    let mut texts = lab.embedder.texts();
    assert_eq!(texts.len(), 1000);
    texts.dedup();
    assert_eq!(texts.len(), 1000);
    assert_eq!(lab.left_behind(), 0, "a new builder removes what a killed one left");
}

#[tokio::test]
async fn rows_without_a_vector_are_counted_and_listed() {
    let lab = Lab::new().await;
    let rows = "1,nurse,IL,1,\n,nurse,OH,2,\n3,,,3,\n4,toolong,IL,4,\n";
    lab.ingest("workers", &format!("{}{rows}", header())).await;
    let built = lab.build(&spec(), 1).await.unwrap();
    assert_eq!((built.vectors, built.failed), (1, 3));
    assert!(
        built.message.ends_with("3 rows give none, the first of them row 2: its id is empty."),
        "{}",
        built.message
    );
    let list = lab.text(&keys::index_rejects_of(&spec().name, &built.inputs)).await;
    let lines = [
        r#"{"row":2,"reason":"noId"}"#,
        r#"{"row":3,"id":"w-3","reason":"noText"}"#,
        r#"{"row":4,"id":"w-4","reason":"refused","message":"the text is too long"}"#,
    ];
    assert_eq!(list.lines().collect::<Vec<_>>(), lines);
}

#[tokio::test]
async fn what_a_spec_asks_in_vain_is_named() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    let refused = async |change: fn(&mut lakehouse_contract::vectors::BuildSpec)| {
        let mut spec = spec();
        change(&mut spec);
        lab.build(&spec, 1).await.unwrap_err().to_string()
    };
    let column = refused(|spec| spec.text = "{rol}".into()).await;
    assert_eq!(
        column,
        "spec.source.text names the column `rol`, which version 1 of dataset `workers` does not have; it has `id`, `role`, \
         `state`, `years`, `hired`"
    );
    let id = |column: &str| RowId { prefix: String::new(), column: column.into(), suffix: String::new() };
    assert!(
        refused(|spec| spec.id.column = "key".into())
            .await
            .starts_with("spec.source.id names the column `key`")
    );
    assert!(refused(|spec| spec.metadata.push("no".into())).await.contains("spec.source.metadata"));
    assert!(refused(|spec| spec.text = "{".into()).await.contains("never closed"));
    assert!(
        refused(|spec| spec.dimension = Some(7)).await.contains("`fake/tiny` makes vectors of 4 numbers")
    );
    assert!(
        refused(|spec| spec.dataset = lakehouse_contract::DatasetName::parse("no").unwrap())
            .await
            .contains("`no`")
    );
    for predicate in
        ["nope = 1", "state =", "1=1) UNION ALL SELECT 'x', 'y' FROM workers WHERE (1=1", "count(*) > 1"]
    {
        let mut spec = spec();
        spec.predicate = Some(predicate.into());
        let error = lab.build(&spec, 1).await;
        assert!(matches!(error, Err(Error::Predicate(_))), "{predicate}: {error:?}");
    }
    let mut repeated = spec();
    repeated.id = id("state");
    let error = lab.build(&repeated, 1).await.unwrap_err();
    assert!(
        error.to_string().contains("the rows 1 and 3 have the same id `IL` in the column `state`"),
        "{error}"
    );
    let gone = lab.build(&spec(), 9).await.unwrap_err();
    assert!(matches!(gone, Error::VersionGone { version: 9, .. }), "{gone}");
    assert!(lab.embedder.texts().is_empty(), "all of it before the first text");
}

#[tokio::test]
async fn a_predicate_chooses_rows_and_may_end_in_a_comment() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    let mut spec = spec();
    spec.predicate = Some("state = 'IL' -- only here".into());
    assert_eq!(lab.build(&spec, 1).await.unwrap().vectors, 2);
}

#[tokio::test]
async fn another_model_than_the_planned_one_builds_nothing() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    let planned = ModelIdentity { digest: "sha256:old".into(), ..identity() };
    let tracker = Tracker::new(spec().name);
    let error = lab.builder().build(&spec(), 1, &planned, &tracker).await.unwrap_err();
    assert!(matches!(error, Error::ModelChanged { .. }), "{error}");
    assert_eq!(tracker.progress().phase, Phase::Failed);
    assert!(lab.builder().indexes().manifest(&spec().name).await.unwrap().is_none());
}

#[tokio::test]
async fn an_index_that_clients_fill_is_left_alone() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    lab.builder().indexes().create(&spec().name, &support::shape(), None).await.unwrap();
    let error = lab.build(&spec(), 1).await.unwrap_err();
    assert!(error.to_string().contains("filled by clients"), "{error}");
    assert!(lab.embedder.texts().is_empty());
}

#[tokio::test]
async fn an_index_without_rows_is_an_index() {
    let lab = Lab::new().await;
    lab.ingest("workers", WORKERS).await;
    let mut spec = spec();
    spec.predicate = Some("state = 'TX'".into());
    let built = lab.build(&spec, 1).await.unwrap();
    assert_eq!((built.vectors, built.recall, built.failed), (0, None, 0));
}

#[tokio::test]
async fn a_list_of_rejects_stays_as_long_as_what_is_about_to_name_it_may_take() {
    let lab = Lab::new().await;
    let name = IndexName::parse("shelf").unwrap();
    for version in 1..=3 {
        lab.ingest("workers", &format!("{}{version},nurse,IL,1,\n,nurse,OH,2,\n", header())).await;
        lab.build(&spec(), version).await.unwrap();
    }
    // A build that runs has written its own and publishes in a moment.
    let running = keys::index_rejects_of(&name, "abcd");
    lab.store.put(&running, b"{}".to_vec().into(), Condition::Always).await.unwrap();
    let lists = async || lab.store.list_all(&keys::index_rejects(&name)).await.unwrap().len();
    let builder = lab.builder();
    builder.collect(&name, std::num::NonZeroU32::MIN).await;
    assert_eq!(lists().await, 4);
    let hasty = builder.indexes().clone().with_grace(std::time::Duration::ZERO);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    hasty.collect(&name, std::num::NonZeroU32::MIN).await.unwrap();
    assert_eq!(lists().await, 1, "that of the version that is kept");
}

fn header() -> &'static str {
    WORKERS.split_inclusive('\n').next().unwrap()
}

fn many(rows: u32) -> String {
    let rows: Vec<String> = (1..=rows).map(|row| format!("{row},role {row},IL,1,\n")).collect();
    format!("{}{}", header(), rows.concat())
}
