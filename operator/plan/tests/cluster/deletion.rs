//! The end of a Dataset: its rows go first where it says so, and nothing can hold it for ever.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lakehouse_crds::Dataset;
use lakehouse_plan::{
    Reason,
    cluster::{
        Kind, ObjectName,
        dataset::Run,
        deletion::{Finalizer, Observed, Plan, finalizer, plan},
        names::FINALIZER,
    },
    status::{self, Failure, RunFacts},
};
use serde_json::json;

use crate::world::{End, UID, World};

#[test]
fn a_finalizer_is_there_as_long_as_the_policy_is_delete() {
    let mut dataset = dataset("Delete");
    assert_eq!(finalizer(&dataset), Some(Finalizer::Add));
    dataset.metadata.finalizers = Some(vec!["another".to_owned(), FINALIZER.to_owned()]);
    assert_eq!(finalizer(&dataset), None);
    dataset.spec.deletion_policy = None;
    assert_eq!(finalizer(&dataset), Some(Finalizer::Remove));
    assert_eq!(finalizer(&self::dataset("Retain")), None);
    for mut dataset in [dataset, self::dataset("Delete")] {
        dataset.metadata.deletion_timestamp = Some(Time(World::of_config_map().now));
        assert_eq!(finalizer(&dataset), None, "the API server takes none any more; its end removes ours");
    }
}

#[test]
fn rows_are_removed_before_the_dataset_goes() {
    let mut world = World::of_config_map();
    let plan = visit(&mut world);
    assert_eq!((plan.run, plan.release), (Run::Running, false));
    let job = world.only_job();
    assert!(job.name_any().starts_with("sales-purge-"), "{}", job.name_any());
    assert!(job.owner_references().is_empty(), "a deletion in the foreground must not take it");
    let args = job.spec.clone().unwrap().template.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args, ["job", "purge", "--dataset", "sales", "--summary", "/dev/termination-log"]);
    for _ in 0..2 {
        world.tick(End::Done);
        assert!(!visit(&mut world).release);
    }
    world.tick(End::Done);
    let plan = visit(&mut world);
    assert!(plan.release);
    assert_eq!(
        plan.delete_after,
        [ObjectName::new(Kind::Job, job.name_any())],
        "nobody else would remove it"
    );
}

#[test]
fn rows_that_were_removed_are_not_removed_again() {
    let mut world = World::of_config_map();
    visit(&mut world);
    world.run_to_its_end(End::Done);
    let plan = visit(&mut world);
    assert!(plan.release && plan.delete.is_empty(), "the Job stays until the Dataset has gone");
    // The finalizer could not be removed at once, and meanwhile somebody removes the Job.
    let job = world.only_job().name_any();
    world.change(&job, |job, now| job.metadata.deletion_timestamp = Some(Time(now)));
    let plan = visit(&mut world);
    assert_eq!((plan.release, plan.children.len(), plan.delete_after.len()), (true, 0, 0));
}

#[test]
fn an_ingest_that_runs_is_stopped_first() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    let ingest = world.only_job().name_any();
    let plan = visit(&mut world);
    assert_eq!(plan.delete, [ObjectName::new(Kind::Job, &ingest)]);
    assert!(plan.children.is_empty());
    assert!(matches!(&plan.run, Run::Waiting(sentence) if sentence.contains(&ingest)));
    assert!(visit(&mut world).children.is_empty(), "its pod may still publish");
    world.tick(End::Done);
    world.tick(End::Done);
    assert_eq!(visit(&mut world).children.len(), 1);
}

#[test]
fn a_purge_that_fails_is_tried_again_and_says_how_to_do_without() {
    let mut world = World::of_config_map();
    visit(&mut world);
    world.run_to_its_end(End::Failed("StoreFailed"));
    let plan = visit(&mut world);
    let Run::Failed(failure) = &plan.run else { panic!("{:?}", plan.run) };
    assert_eq!(failure.reason, Reason::StoreFailed);
    assert!(failure.message.starts_with("the real error of StoreFailed"), "{}", failure.message);
    assert!(
        failure.message.contains("`spec.deletionPolicy: Retain` lets the Dataset go"),
        "{}",
        failure.message
    );
    world.now = plan.next_visit.unwrap();
    assert_eq!(visit(&mut world).children.len(), 1);
    world.run_to_its_end(End::Done);
    assert!(visit(&mut world).release);
}

#[test]
fn a_purge_without_credentials_waits_for_them() {
    let mut world = World::of_config_map();
    let secrets = std::mem::take(&mut world.secrets);
    let plan = visit(&mut world);
    let Run::Failed(failure) = &plan.run else { panic!("{:?}", plan.run) };
    assert_eq!(failure.reason, Reason::SecretMissing);
    assert!(plan.children.is_empty());
    world.secrets = secrets;
    assert_eq!(visit(&mut world).children.len(), 1);
}

#[test]
fn nothing_holds_a_dataset_whose_rows_stay_or_cannot_be_removed() {
    let mut world = World::of_config_map();
    assert!(planned(&world, &dataset("Retain"), false).release);
    assert!(planned(&world, &dataset("Delete"), true).release, "no pod can start in a namespace that ends");
    let mut nameless = dataset("Delete");
    nameless.metadata.name = Some("-no-dataset".to_owned());
    assert!(planned(&world, &nameless, false).release);
    // Who changes his mind while it is removed keeps what is left.
    visit(&mut world);
    let plan = planned(&world, &dataset("Retain"), false);
    assert_eq!((plan.release, plan.delete.len()), (true, 1));
}

#[test]
fn a_purge_never_meets_a_dataset_that_stays() {
    let mut world = World::of_config_map();
    visit(&mut world);
    world.tick(End::Done);
    let purge = world.only_job().name_any();
    let plan = world.visit();
    assert_eq!(plan.delete, [ObjectName::new(Kind::Job, &purge)]);
    assert!(plan.children.is_empty(), "its pod may still remove what is read");
    world.tick(End::Done);
    world.tick(End::Done);
    assert_eq!(world.visit().children.len(), 2);
}

#[test]
fn an_end_is_told_and_what_was_known_stays() {
    let now = World::of_config_map().now;
    let before = status::deleting(None, Some(1), &RunFacts::Idle, now);
    let before = lakehouse_crds::DatasetStatus { rows: Some(7), ..before };
    let failure = Failure::new(Reason::StoreFailed, "the bucket is away");
    let told = status::deleting(Some(&before), Some(2), &RunFacts::Failed(failure), now);
    let shown = |name: &str| {
        let condition = told.conditions.iter().find(|condition| condition.type_ == name).unwrap();
        format!("{} {}: {}", condition.status, condition.reason, condition.message)
    };
    assert_eq!(shown("Ready"), "False StoreFailed: the bucket is away");
    assert_eq!(shown("Reconciling"), "True StoreFailed: the bucket is away. It is tried again.");
    assert_eq!((told.rows, told.observed_generation), (Some(7), Some(2)));
    let ready = before.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.message, "The rows are being removed from the bucket.");
}

fn visit(world: &mut World) -> Plan {
    let plan = planned(world, &dataset("Delete"), false);
    world.apply(&lakehouse_plan::cluster::dataset::Plan {
        delete: plan.delete.clone(),
        children: plan.children.clone(),
        ..Default::default()
    });
    plan
}

fn planned(world: &World, dataset: &Dataset, namespace_ends: bool) -> Plan {
    let World { jobs, pods, events, secrets, now, settings, .. } = world;
    plan(dataset, &Observed { jobs, pods, events, secrets, namespace_ends, now: *now }, settings)
}

fn dataset(policy: &str) -> Dataset {
    let spec = json!({"source": {"upload": {}}, "deletionPolicy": policy});
    let mut dataset = Dataset::new("sales", serde_json::from_value(spec).unwrap());
    dataset.metadata.namespace = Some("team".to_owned());
    dataset.metadata.uid = Some(UID.to_owned());
    dataset
}
