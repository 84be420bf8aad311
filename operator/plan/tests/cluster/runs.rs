//! Which Job runs, when the next one does, and what is told meanwhile.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use lakehouse_plan::{
    Reason,
    cluster::{
        Kind, ObjectName, Settings,
        dataset::{Plan, Rollback, Run},
    },
    status::{Failure, SourceFacts},
};
use serde_json::json;

use crate::world::{End, World, manifest};

#[test]
fn a_new_dataset_gets_a_job_and_its_config_map() {
    let mut world = World::of_config_map();
    let plan = world.visit();
    let kinds: Vec<Kind> = plan.children.iter().map(lakehouse_plan::cluster::Child::kind).collect();
    assert_eq!(kinds, [Kind::ConfigMap, Kind::Job], "a pod reads its ConfigMap when it starts");
    assert_eq!(plan.children[0].name(), plan.children[1].name());
    assert!(plan.children[0].name().starts_with("sales-ingest-"), "{}", plan.children[0].name());
    assert!(matches!(&plan.run, Run::Waiting(sentence) if sentence.contains("is being made")));
    assert_eq!(plan.source, SourceFacts::Unknown);
    // Before the Job is seen, the same Job is planned.
    world.jobs.clear();
    assert_eq!(world.plan().children, plan.children);
}

#[test]
fn a_job_is_followed_from_its_pod_to_its_end() {
    let mut world = World::of_config_map();
    world.visit();
    assert_eq!(
        waits(&world.plan()),
        format!("The pod of the Job `{}` is being made.", world.only_job().name_any())
    );
    world.tick(End::Done);
    assert!(waits(&world.plan()).ends_with("is being started."));
    world.tick(End::Done);
    let plan = world.visit();
    assert_eq!((plan.run, plan.progress_of.as_deref()), (Run::Running, Some("10.0.0.7")));
    world.tick(End::Done);
    let plan = world.visit();
    assert_eq!((&plan.run, &plan.source, plan.next_visit), (&Run::Idle, &SourceFacts::Found, None));
    let last = plan.last_ingest.unwrap();
    assert_eq!(last.message.as_deref(), Some("Version 1 was published with 10 rows."));
    assert_eq!(last.duration.as_deref(), Some("1.5s"));
    assert_eq!(last.job, Some(world.only_job().name_any()));
    assert!(plan.children.is_empty() && plan.delete.is_empty());
}

#[test]
fn what_was_told_of_an_ingest_is_not_forgotten_with_its_pod() {
    let mut world = ready();
    world.pods.clear();
    let plan = world.plan();
    assert_eq!((plan.run, plan.last_ingest, plan.source), (Run::Idle, None, SourceFacts::Found));
}

#[test]
fn other_inputs_stop_a_job_and_wait_until_its_pod_is_gone() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    world.tick(End::Done);
    let old = world.only_job().name_any();
    world.entry = Some("d2".to_owned());
    let plan = world.visit();
    assert_eq!(plan.delete[0], ObjectName::new(Kind::Job, &old));
    assert!(plan.children.is_empty());
    assert_eq!(waits(&plan), format!("The Job `{old}`, which nobody asks for any more, is being stopped."));
    assert!(world.visit().children.is_empty(), "its pod still works");
    world.tick(End::Done);
    world.tick(End::Done);
    let plan = world.visit();
    assert_ne!(plan.children[1].name(), old);
}

#[test]
fn every_word_that_decides_the_rows_makes_another_job_and_no_other_word_does() {
    let base = ready();
    let name = |change: &dyn Fn(&mut World)| {
        let mut world = base.clone();
        change(&mut world);
        world.plan().children.get(1).map(lakehouse_plan::cluster::Child::name)
    };
    for change in [
        (&|world: &mut World| world.refresh = Some("1".into())) as &dyn Fn(&mut World),
        &|world| world.entry = Some("d2".into()),
        &|world| world.spec["columns"] = json!([{"name": "a", "type": "string"}]),
        &|world| world.spec["source"] = json!({"http": {"url": "http://h/prices.csv"}}),
    ] {
        assert!(name(change).is_some());
    }
    for change in [
        (&|_: &mut World| {}) as &dyn Fn(&mut World),
        &|world| world.spec["keepVersions"] = json!(9),
        &|world| world.spec["ingest"] = json!({"resources": {"limits": {"memory": "9Gi"}}}),
        &|world| world.spec["deletionPolicy"] = json!("Delete"),
        &|world| world.spec["schedule"] = json!("@yearly"),
        &|world| world.settings = another_image(),
        &|world| world.secrets = [("lakehouse-store".to_owned(), "rotated/7".to_owned())].into(),
        &|world| world.secrets.clear(),
        &|world| world.pass(1_000_000),
    ] {
        assert_eq!(name(change), None);
    }
}

#[test]
fn going_back_to_earlier_inputs_reads_them_anew() {
    let mut world = ready();
    let first = world.only_job().name_any();
    world.entry = Some("d2".to_owned());
    world.visit();
    world.run_to_its_end(End::Done);
    world.visit();
    world.entry = Some("d1".to_owned());
    let plan = world.visit();
    assert_ne!(plan.children[1].name(), first);
    world.run_to_its_end(End::Done);
    assert_eq!(world.visit().run, Run::Idle);
    assert_eq!(world.done.len(), 3);
}

#[test]
fn a_schedule_fires_once_for_each_time_and_missed_times_count_as_one() {
    let mut world = ready();
    world.spec["schedule"] = json!("*/10 * * * *");
    assert_eq!(world.plan().next_visit, Some(time("2026-11-20T12:10:00Z")));
    world.now = time("2026-11-20T12:10:00Z");
    let plan = world.visit();
    assert_eq!(slot(&plan), "2026-11-20T12:10:00Z");
    assert_eq!(plan.source, SourceFacts::Found);
    world.run_to_its_end(End::Done);
    assert!(world.visit().children.is_empty());
    // Nobody was there for three hours.
    world.now = time("2026-11-20T15:15:00Z");
    assert_eq!(slot(&world.visit()), "2026-11-20T12:20:00Z");
    world.run_to_its_end(End::Done);
    let plan = world.visit();
    assert_eq!((plan.children.len(), plan.next_visit), (0, Some(time("2026-11-20T15:20:00Z"))));
}

#[test]
fn a_clock_that_is_behind_fires_no_time_twice() {
    let mut world = ready();
    world.spec["schedule"] = json!("*/10 * * * *");
    world.now = time("2026-11-20T12:10:00Z");
    let plan = world.plan();
    world.now = time("2026-11-20T12:09:57Z"); // the API server's
    world.apply(&plan);
    world.run_to_its_end(End::Done);
    world.now = time("2026-11-20T12:10:05Z");
    let plan = world.visit();
    assert_eq!((plan.children.len(), plan.next_visit), (0, Some(time("2026-11-20T12:20:00Z"))));
}

#[test]
fn a_suspended_dataset_stops_without_forgetting() {
    let mut world = World::of_config_map();
    world.spec["suspend"] = json!(true);
    assert!(world.visit().children.is_empty());
    world.spec["suspend"] = json!(false);
    world.visit();
    let job = world.only_job().name_any();
    world.spec["suspend"] = json!(true);
    assert_eq!(world.visit().suspend, Some((job.clone(), true)));
    assert_eq!(world.visit().suspend, None);
    world.tick(End::Done);
    assert!(world.pods.is_empty());
    world.spec["suspend"] = json!(false);
    assert_eq!(world.visit().suspend, Some((job, false)));
    world.run_to_its_end(End::Done);
    assert_eq!((world.visit().run, world.jobs.len()), (Run::Idle, 1));
}

#[test]
fn a_pin_stops_reading_and_serves_the_named_version() {
    let mut world = ready();
    world.manifest = Some(manifest(3));
    world.entry = Some("d2".to_owned());
    world.visit();
    world.spec["version"] = json!(2);
    let plan = world.visit();
    assert_eq!(plan.rollback, Some(Rollback { version: 2, pinned: true }));
    assert_eq!(plan.delete[0].kind, Kind::Job);
    world.tick(End::Done);
    let plan = world.visit();
    assert_eq!((plan.rollback, plan.children.len(), &plan.run), (None, 0, &Run::Idle));
    world.spec.as_object_mut().unwrap().remove("version");
    let plan = world.visit();
    assert_eq!(plan.rollback, Some(Rollback { version: 3, pinned: false }));
    assert_eq!(plan.children.len(), 2, "the source had changed meanwhile");
}

#[test]
fn a_pin_before_the_first_version_says_what_to_do() {
    let mut world = World::of_config_map();
    world.spec["version"] = json!(2);
    let failure = failure(&world.visit());
    assert_eq!(failure.reason, Reason::NotPublished);
    assert!(failure.message.contains("remove it"), "{}", failure.message);
}

#[test]
fn an_upload_runs_no_job() {
    let mut world = World::new(json!({"source": {"upload": {}}}));
    let plan = world.visit();
    assert_eq!((plan.run, plan.source), (Run::Idle, SourceFacts::WaitingForUpload));
    assert!(plan.children.is_empty());
    world.manifest = Some(manifest(1));
    assert_eq!(world.plan().source, SourceFacts::Found);
}

#[test]
fn no_upload_is_asked_for_before_the_gateway_knows_how_to_read_it() {
    let mut world = World::new(json!({"source": {"upload": {}}}));
    world.undeclared = Some("no gateway pod is ready");
    let plan = world.plan();
    assert_eq!(plan.source, SourceFacts::Unknown);
    let Run::Waiting(sentence) = plan.run else { panic!("{:?}", plan.run) };
    assert!(sentence.ends_with(": no gateway pod is ready."), "{sentence}");
    world.manifest = Some(manifest(1));
    let plan = world.plan();
    assert!(matches!(plan.run, Run::Waiting(_)), "an edit is not known either");
    assert_eq!(plan.source, SourceFacts::Found);
    // Who reads the source itself tells nobody how.
    let mut world = World::of_config_map();
    let told = world.plan();
    world.undeclared = Some("no gateway pod is ready");
    assert_eq!(world.plan(), told);
}

#[test]
fn no_job_is_made_before_the_secrets_that_it_needs() {
    let spec = json!({"source": {"http": {"url": "https://h/a.csv", "headersSecretRef": {"name": "key"}}}});
    let mut world = World::new(spec);
    let store = world.secrets.clone();
    world.secrets.clear();
    let plan = world.visit();
    assert_eq!(
        failure(&plan),
        Failure::new(
            Reason::SecretMissing,
            "The Secret `lakehouse-store` with the bucket's credentials is not in the namespace `team`. Create it with the \
             entries `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."
        )
    );
    assert!(plan.children.is_empty());
    world.secrets = store;
    let plan = world.visit();
    assert_eq!(
        failure(&plan).message,
        "The Secret `key`, which `spec.source.http.headersSecretRef` names, is not in the namespace `team`. Create it."
    );
    assert_eq!(plan.source, SourceFacts::Failed(failure(&plan)));
    world.secrets.insert("key".to_owned(), "key/1".to_owned());
    assert_eq!(world.visit().children.len(), 2);
    // Taken away before the pod has started.
    world.secrets.remove("key");
    assert_eq!(failure(&world.visit()).reason, Reason::SecretMissing);
}

#[test]
fn a_missing_config_map_is_told_and_what_is_there_stays() {
    let mut world = ready();
    world.entry = None;
    let plan = world.visit();
    assert_eq!(
        failure(&plan),
        Failure::new(
            Reason::SourceMissing,
            "The ConfigMap `prices`, which `spec.source.configMap` names, is not in the namespace `team`."
        )
    );
    assert!(plan.delete.is_empty());
    world.entry = Some("d1".to_owned());
    let plan = world.visit();
    assert_eq!((plan.run, plan.children.len()), (Run::Idle, 0));
}

#[test]
fn a_source_that_is_not_built_yet_is_told_without_a_job() {
    let world = World::new(json!({"source": {"s3": {"bucket": "data", "prefix": "a/"}}, "format": "CSV"}));
    let plan = world.plan();
    assert_eq!(failure(&plan).reason, Reason::NotSupported);
    assert!(plan.children.is_empty());
}

#[test]
fn the_last_job_and_the_last_good_one_stay() {
    let mut world = ready();
    let good = world.only_job().name_any();
    for digest in ["d2", "d3", "d4"] {
        world.entry = Some(digest.to_owned());
        world.visit();
        world.run_to_its_end(End::Failed("InvalidData"));
        world.visit();
        world.run_to_its_end(End::Done);
    }
    world.visit();
    assert_eq!(world.jobs.len(), 2);
    assert!(world.job(&good).is_some());
    assert_eq!(world.config_maps.len(), 2, "a ConfigMap goes with its Job");
}

#[test]
fn a_config_map_that_somebody_deleted_is_made_again_for_a_job_that_needs_it() {
    let mut world = World::of_config_map();
    let made = world.visit().children;
    world.config_maps.clear();
    let plan = world.visit();
    assert_eq!(plan.children, made[..1]);
    world.run_to_its_end(End::Done);
    world.config_maps.clear();
    assert!(world.visit().children.is_empty());
}

#[test]
fn a_bucket_that_was_emptied_is_filled_again() {
    let mut world = ready();
    let first = world.only_job().name_any();
    world.manifest = None;
    let plan = world.visit();
    assert_eq!(
        waits(&plan),
        format!("The bucket holds nothing of what the Job `{first}` published; the source is read again.")
    );
    assert_eq!((plan.children.len(), plan.next_visit), (0, Some(later(&world, 5))));
    world.pass(5);
    let plan = world.visit();
    assert_ne!(plan.children[1].name(), first);
    world.run_to_its_end(End::Done);
    assert_eq!(world.visit().run, Run::Idle);
    // Lost once more, it waits for longer.
    world.manifest = None;
    assert_eq!(world.visit().next_visit, Some(later(&world, 10)));
    assert_eq!(world.done.len(), 2);
}

#[test]
fn jobs_of_an_earlier_dataset_of_the_name_are_not_this_ones() {
    let mut world = ready();
    let job = world.only_job().name_any();
    world.change(&job, of_an_earlier_dataset);
    assert_eq!(world.plan().children.len(), 2);
}

#[test]
fn a_job_of_an_earlier_dataset_of_the_name_is_stopped_before_one_of_this_begins() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    world.tick(End::Done);
    let old = world.only_job().name_any();
    world.change(&old, of_an_earlier_dataset);
    let plan = world.visit();
    assert_eq!((&plan.delete[0], plan.children.len()), (&ObjectName::new(Kind::Job, &old), 0));
    assert_eq!(waits(&plan), format!("The Job `{old}`, which nobody asks for any more, is being stopped."));
    let plan = world.visit();
    assert!(plan.delete.is_empty() && plan.children.is_empty(), "its pod may still publish");
    world.tick(End::Done);
    world.tick(End::Done);
    assert_eq!(world.visit().children.len(), 2);
}

fn of_an_earlier_dataset(job: &mut Job, _: Timestamp) {
    job.annotations_mut().insert("lakehouse.dev/uid".to_owned(), "another".to_owned());
    "another".clone_into(&mut job.owner_references_mut()[0].uid);
}

/// A world whose Dataset is read.
fn ready() -> World {
    let mut world = World::of_config_map();
    world.visit();
    world.run_to_its_end(End::Done);
    assert_eq!(world.visit().run, Run::Idle);
    world
}

pub(crate) fn another_image() -> Settings {
    Settings { image: "lakehouse:0.2.0".to_owned(), ..crate::world::settings() }
}

pub(crate) fn waits(plan: &Plan) -> String {
    let Run::Waiting(sentence) = &plan.run else { panic!("{:?}", plan.run) };
    sentence.clone()
}

pub(crate) fn failure(plan: &Plan) -> Failure {
    let Run::Failed(failure) = &plan.run else { panic!("{:?}", plan.run) };
    failure.clone()
}

fn slot(plan: &Plan) -> String {
    plan.children[1].object().metadata.annotations.as_ref().unwrap()["lakehouse.dev/slot"].clone()
}

pub(crate) fn later(world: &World, seconds: i64) -> Timestamp {
    world.now + jiff::SignedDuration::from_secs(seconds)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}
