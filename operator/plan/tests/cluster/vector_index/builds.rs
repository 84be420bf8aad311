//! Which build runs, and when none is needed.

use kube::ResourceExt;
use lakehouse_contract::{
    job::{BuildJob, Built, Summary},
    vectors::CreateRequest,
};
use lakehouse_plan::{
    Reason,
    cluster::{Kind, ObjectName, Rollback, Run, vector_index::Plan},
};
use serde_json::json;

use super::world::{Shelf, jobs};
use crate::world::{End, container, with_status};

#[test]
fn a_new_index_is_built_from_the_version_and_the_model_of_the_moment() {
    let mut shelf = Shelf::new(json!({"keepVersions": 5}));
    shelf.dataset = Some(7);
    let plan = shelf.visit();
    let [name] = jobs(&plan).try_into().unwrap();
    assert!(name.starts_with("shelf-build-"), "{name}");
    assert_eq!(waits(&plan), format!("The Job `{name}` is being made."));
    let map = plan.children.iter().find(|child| child.kind() == Kind::ConfigMap).unwrap();
    let work: BuildJob = serde_json::from_value(
        serde_json::from_str(map.object().data["data"]["build.json"].as_str().unwrap()).unwrap(),
    )
    .unwrap();
    assert_eq!((work.dataset_version, work.keep_versions.get(), work.embedd), (7, 5, None));
    assert_eq!((work.spec.id.prefix.as_str(), work.model.digest.as_str()), ("w-", "a"));
    shelf.build();
    assert!(shelf.is_as_asked());
    assert_eq!((shelf.plan().run, shelf.planned_jobs().len()), (Run::Idle, 0));
}

#[test]
fn a_model_of_a_provider_is_asked_over_the_service() {
    let shelf = Shelf::new(json!({"embedding": {"provider": "ollama", "model": "nomic"}}));
    let plan = shelf.plan();
    let map = plan.children.iter().find(|child| child.kind() == Kind::ConfigMap).unwrap();
    let text = map.object().data["data"]["build.json"].as_str().unwrap();
    let work: BuildJob = serde_json::from_str(text).unwrap();
    assert_eq!(work.embedd.as_deref(), Some("http://lakehouse-embed:3216"));
}

#[test]
fn a_newer_dataset_another_model_and_an_edit_build_anew_and_nothing_else_does() {
    let mut base = Shelf::new(json!({}));
    base.build();
    let makes = |change: &dyn Fn(&mut Shelf)| {
        let mut shelf = base.clone();
        change(&mut shelf);
        shelf.planned_jobs().len()
    };
    for change in [
        (&|shelf: &mut Shelf| shelf.dataset = Some(2)) as &dyn Fn(&mut Shelf),
        &|shelf| shelf.weights = Some("b".into()),
        &|shelf| shelf.spec["source"]["text"] = json!("{a} {b}"),
        &|shelf| shelf.spec["metric"] = json!("Dot"),
        &|shelf| shelf.spec["shards"] = json!(2),
        &|shelf| shelf.spec["hnsw"] = json!({"efSearch": 100}),
    ] {
        assert_eq!(makes(change), 1);
    }
    for change in [
        (&|_: &mut Shelf| {}) as &dyn Fn(&mut Shelf),
        &|shelf| shelf.spec["replicas"] = json!(3),
        &|shelf| shelf.spec["build"] = json!({"backoffLimit": 9}),
        &|shelf| shelf.spec["keepVersions"] = json!(9),
        &|shelf| shelf.world.secrets = [("lakehouse-store".to_owned(), "rotated/7".to_owned())].into(),
        &|shelf| shelf.dataset = None,
        &|shelf| shelf.weights = None,
        &|shelf| shelf.is_asked = false,
        &|shelf| shelf.world.pass(1_000_000),
        // Somebody tidies up: the index itself tells what it is.
        &|shelf| (shelf.world.jobs, shelf.world.pods, shelf.world.config_maps) = Default::default(),
    ] {
        assert_eq!(makes(change), 0);
    }
}

#[test]
fn going_back_to_what_is_there_stops_the_build_and_needs_none() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    shelf.weights = Some("b".into());
    shelf.visit();
    shelf.tick(End::Done);
    shelf.weights = Some("a".into());
    let plan = shelf.visit();
    assert_eq!((plan.run, jobs(&shelf.plan()).len()), (Run::Idle, 0));
    let kinds: Vec<Kind> = plan.delete.iter().map(|object| object.kind).collect();
    assert_eq!(kinds, [Kind::Job, Kind::ConfigMap]);
}

#[test]
fn a_version_that_was_built_before_is_served_again_and_stays() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    shelf.weights = Some("b".into());
    shelf.build();
    shelf.weights = Some("a".into());
    shelf.build();
    let there = shelf.stored.as_ref().unwrap();
    assert_eq!((there.version, there.latest_version), (1, 2));
    let plan = shelf.plan();
    assert_eq!((&plan.run, plan.rollback, jobs(&plan).len()), (&Run::Idle, None, 0));
}

#[test]
fn what_a_build_needs_and_is_away_is_told_and_what_runs_goes_on() {
    let mut shelf = Shelf::new(json!({}));
    shelf.dataset = None;
    assert_eq!(failure(&shelf.plan()), Reason::DatasetMissing);
    (shelf.dataset, shelf.weights) = (Some(1), None);
    assert_eq!(failure(&shelf.plan()), Reason::EmbedderFailed);
    shelf.weights = Some("a".into());
    shelf.spec["dimension"] = json!(768);
    assert_eq!(failure(&shelf.plan()), Reason::DimensionMismatch);
    shelf.spec.as_object_mut().unwrap().remove("dimension");
    shelf.world.secrets.clear();
    assert_eq!(failure(&shelf.plan()), Reason::SecretMissing);
    shelf.world.secrets = [("lakehouse-store".to_owned(), "store/1".to_owned())].into();
    shelf.visit();
    shelf.tick(End::Done);
    shelf.tick(End::Done);
    shelf.weights = None;
    let plan = shelf.visit();
    assert_eq!(
        (&plan.run, plan.progress_of.as_deref(), plan.delete.len()),
        (&Run::Running, Some("10.0.0.7"), 0)
    );
}

#[test]
fn a_failed_build_is_tried_again_after_longer_and_longer_waits() {
    let mut shelf = Shelf::new(json!({}));
    let mut waits = Vec::new();
    for _ in 0..3 {
        shelf.visit();
        for _ in 0..20 {
            shelf.tick(End::Failed("EmbedderFailed"));
        }
        let plan = shelf.visit();
        assert_eq!(failure(&plan), Reason::EmbedderFailed);
        let next = plan.next_visit.unwrap();
        waits.push(next.duration_since(shelf.world.now).as_secs());
        shelf.world.now = next;
    }
    assert_eq!(waits, [5, 10, 20]);
    shelf.build();
    assert!(shelf.is_as_asked());
}

#[test]
fn a_build_that_is_done_is_waited_for_until_the_pods_have_read_it() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    let old = shelf.stored.clone();
    shelf.dataset = Some(2);
    shelf.build();
    let new = std::mem::replace(&mut shelf.stored, old);
    let plan = shelf.plan();
    assert!(waits(&plan).ends_with("published is about to be read."), "{:?}", plan.run);
    assert!(plan.next_visit.is_some() && jobs(&plan).is_empty());
    shelf.stored = new;
    assert_eq!(shelf.plan().run, Run::Idle);
    // Somebody put something else in its place: it is built again.
    shelf.stored.as_mut().unwrap().source.as_mut().unwrap().inputs = "other".into();
    shelf.world.pass(120);
    assert_eq!(shelf.planned_jobs().len(), 1);
}

#[test]
fn a_bucket_that_was_emptied_is_filled_again() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    shelf.empty();
    let plan = shelf.visit();
    assert!(waits(&plan).ends_with("the index is built again."), "{:?}", plan.run);
    shelf.world.now = plan.next_visit.unwrap();
    shelf.build();
    assert!(shelf.is_as_asked());
}

#[test]
fn an_index_that_follows_by_hand_is_built_when_it_is_asked_for() {
    let mut shelf = Shelf::new(json!({"refresh": "Manual"}));
    shelf.build();
    assert_eq!(shelf.built(), 1, "the first one needs no asking");
    shelf.dataset = Some(2);
    assert!(shelf.planned_jobs().is_empty());
    shelf.refresh = Some("now".into());
    shelf.build();
    assert!(shelf.is_as_asked() && shelf.built() == 2);
    shelf.dataset = Some(3);
    assert!(shelf.planned_jobs().is_empty());
    shelf.weights = Some("b".into());
    shelf.build();
    assert!(shelf.is_as_asked(), "searches with another model would be refused");
}

#[test]
fn a_pin_stops_builds_and_serves_the_named_version_and_its_end_the_newest() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    shelf.dataset = Some(2);
    shelf.build();
    shelf.spec["version"] = json!(1);
    let plan = shelf.visit();
    assert_eq!(plan.rollback, Some(Rollback { version: 1, pinned: true }));
    shelf.dataset = Some(3);
    assert!(shelf.planned_jobs().is_empty());
    assert_eq!(shelf.plan().rollback, None);
    shelf.spec.as_object_mut().unwrap().remove("version");
    assert_eq!(shelf.planned_jobs().len(), 1, "the Dataset has moved on");
    shelf.dataset = Some(2);
    let plan = shelf.visit();
    assert_eq!((plan.rollback, jobs(&plan).len()), (Some(Rollback { version: 2, pinned: false }), 0));
    shelf.build();
    assert!(shelf.is_as_asked());
    shelf.empty();
    shelf.spec["version"] = json!(1);
    assert_eq!(failure(&shelf.plan()), Reason::NotBuilt);
}

#[test]
fn an_index_that_clients_fill_is_created_once() {
    let mut shelf = Shelf::filled();
    let CreateRequest { name, dimension, .. } = shelf.plan().create.unwrap();
    assert_eq!((name.as_str(), dimension), ("shelf", 384));
    assert!(shelf.planned_jobs().is_empty());
    shelf.is_asked = false;
    assert_eq!(shelf.plan().create, None, "nobody knows yet whether it is there");
    let mut built = Shelf::new(json!({}));
    built.build();
    (shelf.is_asked, shelf.stored) = (true, built.stored);
    assert_eq!(failure(&shelf.plan()), Reason::IndexConflict);
    shelf.stored.as_mut().unwrap().source = None;
    let plan = shelf.plan();
    assert_eq!((plan.create, plan.run), (None, Run::Idle));
}

#[test]
fn the_last_words_of_a_build_are_told() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    let now = shelf.world.now;
    let built = Summary::Built(Built {
        version: 1,
        dataset_version: 1,
        inputs: "i".into(),
        vectors: 10,
        failed: 0,
        embedded: 10,
        reused: 0,
        model: shelf.model().unwrap(),
        recall: None,
        bytes: 1,
        unchanged: false,
        started: now,
        finished: now + jiff::SignedDuration::from_millis(1500),
        message: "Version 1 was published with 10 vectors.".into(),
    });
    let terminated = json!({"terminated": {"exitCode": 0, "message": built.to_json()}});
    let status = json!({"phase": "Succeeded", "containerStatuses": [container(&terminated)]});
    let pod = with_status(&shelf.world.pods[0].clone(), status);
    shelf.world.replace(pod);
    let last = shelf.plan().last_build.unwrap();
    assert_eq!(last.message.as_deref(), Some("Version 1 was published with 10 vectors."));
    assert_eq!((last.duration.as_deref(), last.job), (Some("1.5s"), Some(shelf.world.only_job().name_any())));
}

#[test]
fn suspended_work_is_held_and_goes_on() {
    let mut shelf = Shelf::new(json!({}));
    shelf.visit();
    shelf.tick(End::Done);
    shelf.spec["suspend"] = json!(true);
    let job = shelf.world.only_job().name_any();
    assert_eq!(shelf.visit().suspend, Some((job.clone(), true)));
    shelf.spec["suspend"] = json!(false);
    assert_eq!(shelf.visit().suspend, Some((job, false)));
    shelf.build();
    assert!(shelf.is_as_asked());
}

#[test]
fn a_purge_never_meets_an_index_that_stays() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    let mut purge = (*shelf.world.only_job()).clone();
    let name = "shelf-purge-1".to_owned();
    purge.metadata.name = Some(name.clone());
    purge.metadata.labels.as_mut().unwrap().insert("app.kubernetes.io/component".into(), "purge".into());
    shelf.world.jobs.push(std::sync::Arc::new(purge));
    assert!(shelf.plan().delete.contains(&ObjectName::new(Kind::Job, name)));
}

fn waits(plan: &Plan) -> String {
    match &plan.run {
        Run::Waiting(sentence) => sentence.clone(),
        other => panic!("{other:?}"),
    }
}

fn failure(plan: &Plan) -> Reason {
    match &plan.run {
        Run::Failed(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}
