//! What becomes of a Job that fails, or whose pod cannot start: when it is tried again, and what is told meanwhile.

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use lakehouse_plan::{
    Reason,
    cluster::{Kind, ObjectName, dataset::Run},
    status::{Failure, SourceFacts},
};
use serde_json::json;

use crate::{
    runs::{another_image, failure, later, waits},
    world::{End, World, container, finish, running, with_status},
};

#[test]
fn a_failure_that_may_pass_is_tried_again_after_longer_and_longer_waits() {
    let mut world = World::of_config_map();
    world.visit();
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.run_to_its_end(End::Failed("SourceMissing"));
        let plan = world.visit();
        assert_eq!(failure(&plan), Failure::new(Reason::SourceMissing, "the real error of SourceMissing"));
        assert_eq!(plan.source, SourceFacts::Failed(failure(&plan)));
        let next = plan.next_visit.unwrap();
        waits.push(next.duration_since(world.now).as_secs());
        world.now = next;
        let plan = world.visit();
        assert_eq!(plan.children.len(), 2);
        assert_eq!(failure(&plan).reason, Reason::SourceMissing, "that it is tried again is no news");
        assert_eq!(failure(&world.plan()).reason, Reason::SourceMissing);
    }
    assert_eq!(waits, [5, 10, 20, 40]);
    world.run_to_its_end(End::Done);
    assert_eq!(world.visit().run, Run::Idle);
}

#[test]
fn what_somebody_must_mend_is_looked_at_more_seldom() {
    let mut world = World::of_config_map();
    world.visit();
    world.run_to_its_end(End::Failed("InvalidData"));
    let plan = world.visit();
    assert_eq!((failure(&plan).reason, &plan.source), (Reason::InvalidData, &SourceFacts::Found));
    assert_eq!(plan.next_visit, Some(later(&world, 30)));
    assert_eq!(plan.last_ingest.unwrap().message.as_deref(), Some("the real error of InvalidData"));
    // An edit is followed at once.
    world.entry = Some("d2".to_owned());
    assert_eq!(world.plan().children.len(), 2);
}

#[test]
fn what_only_the_spec_can_mend_waits_for_it_or_for_another_image() {
    let mut world = World::of_config_map();
    world.spec["schedule"] = json!("*/5 * * * *");
    world.visit();
    world.run_to_its_end(End::Failed("NotSupported"));
    world.pass(1_000_000);
    let plan = world.visit();
    assert_eq!((failure(&plan).reason, plan.next_visit), (Reason::NotSupported, None));
    assert!(plan.children.is_empty());
    world.settings = another_image();
    assert_eq!(world.plan().children.len(), 2);
}

#[test]
fn more_memory_is_tried_soon_however_long_the_wait_was() {
    let mut world = World::of_config_map();
    world.visit();
    world.run_to_its_end(End::OutOfMemory);
    let plan = world.visit();
    assert_eq!(failure(&plan).reason, Reason::OutOfMemory);
    assert_eq!(plan.next_visit, Some(later(&world, 30)));
    world.spec["ingest"] = json!({"resources": {"limits": {"memory": "4Gi"}}});
    assert_eq!(world.plan().next_visit, Some(later(&world, 5)));
    world.pass(5);
    let plan = world.visit();
    assert_eq!(plan.children.len(), 2);
}

#[test]
fn pods_that_cannot_start_are_replaced_once_they_would_be_others() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    let pod =
        with_status(&world.pods[0], json!({"phase": "Pending", "containerStatuses": [container(&state)]}));
    world.replace(pod);
    let plan = world.visit();
    assert_eq!(failure(&plan).reason, Reason::ImagePullFailed);
    assert!(plan.delete.is_empty() && plan.children.is_empty(), "the kubelet tries again by itself");
    world.settings = another_image();
    let plan = world.visit();
    assert_eq!(plan.delete[0], ObjectName::new(Kind::Job, world.only_job().name_any()));
    world.tick(End::Done);
    world.tick(End::Done);
    assert_eq!(world.visit().children.len(), 2);
    // A pod that works is left alone.
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    world.tick(End::Done);
    world.settings = another_image();
    assert!(world.visit().delete.is_empty());
}

#[test]
fn a_failed_pod_tells_while_its_job_still_tries() {
    let mut world = World::of_config_map();
    world.visit();
    for _ in 0..3 {
        world.tick(End::Failed("SourceUnreachable"));
    }
    assert_eq!(failure(&world.plan()).reason, Reason::SourceUnreachable);
    world.tick(End::Failed("SourceUnreachable"));
    assert_eq!(failure(&world.plan()).reason, Reason::SourceUnreachable, "the next pod is being started");
    world.tick(End::Done);
    assert_eq!(world.plan().run, Run::Running);
}

#[test]
fn a_wrong_secret_is_tried_anew_when_it_is_another() {
    let spec = json!({"source": {"http": {"url": "https://h/a.csv", "headersSecretRef": {"name": "key"}}}});
    let mut world = World::new(spec);
    world.secrets.insert("key".to_owned(), "key/1".to_owned());
    world.visit();
    world.run_to_its_end(End::Failed("SourceDenied"));
    assert_eq!(world.visit().next_visit, Some(later(&world, 30)));
    world.secrets.insert("key".to_owned(), "key/2".to_owned());
    assert_eq!(world.visit().next_visit, Some(later(&world, 5)));
    world.pass(5);
    assert_eq!(world.visit().children.len(), 2);
}

#[test]
fn a_job_whose_pod_is_refused_tells_the_api_servers_words() {
    let mut world = World::of_config_map();
    world.visit();
    world.pass(1);
    let plan = world.visit();
    assert_eq!((plan.events_of, plan.next_visit), (None, Some(later(&world, 2))), "it may be on its way");
    world.pass(2);
    let events_of = world.visit().events_of.unwrap();
    assert_eq!((events_of.kind, events_of.name), ("Job", world.only_job().name_any()));
    let message = "Error creating: pods \"a-\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1";
    world.events = vec![event("FailedCreate", message)];
    let plan = world.visit();
    assert_eq!(
        failure(&plan),
        Failure::new(Reason::ObjectRefused, format!("The API server refuses the pod: {message}."))
    );
    assert!(plan.next_visit.is_some(), "nobody tells when the quota is raised");
}

#[test]
fn a_volume_that_cannot_be_mounted_is_told_by_the_kubelets_event() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    world.pass(10);
    let events_of = world.visit().events_of.unwrap();
    assert_eq!((events_of.kind, events_of.name), ("Pod", world.pods[0].name_any()));
    let message = "MountVolume.SetUp failed for volume \"source\" : configmap \"prices\" not found";
    world.events = vec![event("Scheduled", "to node"), event("FailedMount", message)];
    let failure = failure(&world.visit());
    assert_eq!(failure.reason, Reason::PodFailed);
    assert!(failure.message.ends_with(&format!("{message}.")), "{}", failure.message);
}

#[test]
fn a_deadline_is_told_with_what_was_wrong_before() {
    let mut world = World::of_config_map();
    world.spec["ingest"] = json!({"activeDeadlineSeconds": 60});
    world.visit();
    for _ in 0..3 {
        world.tick(End::Failed("SourceUnreachable"));
    }
    let job = world.only_job().name_any();
    world.change(&job, |job, now| {
        finish(job, now, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline");
    });
    let failure = failure(&world.visit());
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
    assert!(failure.message.contains("after 60 seconds"), "{}", failure.message);
    assert!(failure.message.contains("Before that: the real error"), "{}", failure.message);
}

#[test]
fn a_pod_that_makes_room_says_so_until_another_takes_its_place() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    let mut pod = running(&world.pods[0]);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    world.replace(pod);
    assert!(waits(&world.plan()).ends_with("is being stopped; another takes its place."));
}

fn event(reason: &str, message: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {}, "involvedObject": {}, "reason": reason, "message": message,
        "lastTimestamp": "2026-11-20T12:00:00Z", "type": "Warning",
    }))
    .unwrap()
}
