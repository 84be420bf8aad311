//! What a person reads in the conditions when a pod does not do its work: the real words, and what helps.

use lakehouse_crds::DatasetStatus;
use lakehouse_plan::{
    Reason,
    cluster::dataset::{Plan, Run},
    status::{self, Facts, Failure, ServedFacts},
};
use serde_json::{Value, json};

use crate::world::{End, World, container, with_status};

#[test]
fn an_image_that_cannot_be_pulled_is_named_with_the_registrys_words() {
    let words = "rpc error: code = NotFound desc = failed to pull and unpack image \"docker.io/library/lakehouse:0.1.0\": not found";
    for (reason, message) in [
        ("ErrImagePull", words.to_owned()),
        ("ImagePullBackOff", format!("Back-off pulling image \"lakehouse:0.1.0\": ErrImagePull: {words}")),
    ] {
        let told = waiting(reason, &message);
        assert_eq!(told.reason, Reason::ImagePullFailed);
        assert_eq!(
            without_pod(&told),
            format!(
                "Pod `POD` cannot start, because the image `lakehouse:0.1.0` cannot be pulled: {words}. It is `image` of the \
                 operator's settings; a registry that asks for a login needs `imagePullSecrets` beside it."
            )
        );
    }
    let never = waiting(
        "ErrImageNeverPull",
        "Container image \"lakehouse:0.1.0\" is not present with pull policy of Never",
    );
    assert!(never.message.contains("pull policy of Never."), "{}", never.message);
}

#[test]
fn a_secret_that_the_kubelet_misses_is_a_missing_secret() {
    let told = waiting("CreateContainerConfigError", "secret \"lakehouse-store\" not found");
    assert_eq!(
        (told.reason, without_pod(&told)),
        (Reason::SecretMissing, "Pod `POD` cannot start: secret \"lakehouse-store\" not found.".to_owned())
    );
    let other =
        waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root");
    assert_eq!(other.reason, Reason::PodFailed);
    let other = waiting("RunContainerError", "exec: \"/lakehouse\": no such file or directory");
    assert!(other.message.contains("no such file"), "{}", other.message);
}

#[test]
fn a_pod_without_a_node_is_told_in_the_schedulers_words() {
    let words = "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available.";
    let told = of(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words},
    ]}));
    assert_eq!(told.reason, Reason::Unschedulable);
    assert_eq!(
        without_pod(&told),
        format!(
            "Pod `POD` finds no node: {words} Lower `spec.ingest.resources.requests`, or give the cluster more room."
        )
    );
}

#[test]
fn too_little_memory_is_told_with_the_limit_and_the_field_to_raise() {
    let mut world = World::of_config_map();
    world.visit();
    for _ in 0..3 {
        world.tick(End::OutOfMemory);
    }
    let told = failure(&world.plan());
    assert_eq!(told.reason, Reason::OutOfMemory);
    assert_eq!(
        without_pod(&told),
        "Pod `POD` was killed, because it needed more memory than its limit of 1Gi. Raise \
         `spec.ingest.resources.limits.memory`."
    );
}

#[test]
fn a_crash_is_told_with_the_last_words() {
    let mut world = World::of_config_map();
    world.visit();
    for _ in 0..3 {
        world.tick(End::Crash);
    }
    let told = failure(&world.plan());
    assert_eq!(told.reason, Reason::PodFailed);
    assert_eq!(
        without_pod(&told),
        "Pod `POD` ended with exit status 101: thread main panicked at engine.rs:7."
    );
    let silent = ended(&json!({"exitCode": 1, "reason": "Error"}));
    assert!(
        without_pod(&silent).starts_with("Pod `POD` ended with exit status 1 without a word. `kubectl logs")
    );
    let killed = ended(&json!({"exitCode": 137, "reason": "Error"}));
    assert!(killed.message.contains("was killed (exit status 137)"), "{}", killed.message);
    let unable = ended(&json!({"exitCode": 128, "reason": "StartError", "message": "exec format error"}));
    assert!(
        unable.message.ends_with("exit status 128 (StartError): exec format error."),
        "{}",
        unable.message
    );
}

#[test]
fn an_eviction_for_its_disk_names_the_disks_size() {
    let words = "Usage of EmptyDir volume \"data\" exceeds the limit \"20Gi\".";
    let told = of(json!({"phase": "Failed", "reason": "Evicted", "message": words}));
    assert_eq!(
        (told.reason, without_pod(&told)),
        (
            Reason::DiskFailed,
            format!("Pod `POD` was evicted: {words} Raise `ingest.spoolSize` of the operator's settings.")
        )
    );
    let told = of(
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    );
    assert_eq!(told.reason, Reason::PodFailed);
}

#[test]
fn a_pod_that_made_room_was_interrupted() {
    let told = of(json!({"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod",
    }]}));
    assert_eq!(told.reason, Reason::Interrupted);
    assert!(told.message.contains("preempting to accommodate"), "{}", told.message);
    let told = of(json!({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no devices"}));
    assert!(
        without_pod(&told) == "Pod `POD` failed (UnexpectedAdmissionError): no devices.",
        "{}",
        told.message
    );
}

#[test]
fn a_reason_of_a_newer_worker_is_a_failure_all_the_same() {
    let summary = json!({
        "result": "failed", "reason": "FromTheFuture", "message": "it broke",
        "started": "2026-11-20T12:00:00Z", "finished": "2026-11-20T12:00:01Z",
    });
    let told = ended(&json!({"exitCode": 75, "reason": "Error", "message": summary.to_string()}));
    assert_eq!(told, Failure::new(Reason::Failed, "it broke"));
}

#[test]
fn a_failure_reaches_ready_and_what_is_published_stays() {
    let mut world = World::of_config_map();
    world.visit();
    world.run_to_its_end(End::Done);
    world.entry = Some("d2".to_owned());
    world.visit();
    world.run_to_its_end(End::Failed("InvalidData"));
    let status = status_of(&world);
    assert_eq!(
        shown(&status, "Ready"),
        "False InvalidData: the real error of InvalidData. Version 1 stays published."
    );
    assert_eq!(shown(&status, "Ingested"), "False InvalidData: the real error of InvalidData");
    assert!(shown(&status, "SourceReachable").starts_with("True"));
    assert!(shown(&status, "Stalled").starts_with("True InvalidData"));
}

#[test]
fn what_a_new_dataset_waits_for_is_told() {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    let ready = shown(&status_of(&world), "Ready");
    assert!(
        ready.starts_with("False Waiting: The pod `sales-ingest-") && ready.ends_with("is being started."),
        "{ready}"
    );
    assert_eq!(shown(&status_of(&world), "Reconciling").replacen("True", "False", 1), ready);
}

/// What is told of an ingest pod with this status.
fn of(status: Value) -> Failure {
    let mut world = World::of_config_map();
    world.visit();
    world.tick(End::Done);
    let pod = with_status(&world.pods[0], status);
    world.replace(pod);
    failure(&world.plan())
}

fn waiting(reason: &str, message: &str) -> Failure {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    of(json!({"phase": "Pending", "containerStatuses": [container(&state)]}))
}

fn ended(terminated: &Value) -> Failure {
    of(json!({"phase": "Failed", "containerStatuses": [container(&json!({"terminated": terminated}))]}))
}

fn failure(plan: &Plan) -> Failure {
    let Run::Failed(failure) = &plan.run else { panic!("{:?}", plan.run) };
    failure.clone()
}

/// The message with `POD` for the pod's name.
fn without_pod(failure: &Failure) -> String {
    let name = failure.message.split('`').nth(1).unwrap();
    assert!(name.starts_with("sales-ingest-"), "{name}");
    failure.message.replacen(name, "POD", 1)
}

fn status_of(world: &World) -> DatasetStatus {
    let (dataset, plan) = (world.dataset(), world.plan());
    let facts = Facts {
        generation: Some(1),
        spec: Ok(&dataset),
        manifest: world.manifest.as_ref(),
        catalogue: Ok(()),
        source: plan.source.clone(),
        run: plan.run.facts(None),
        served: ServedFacts::NotYet,
        last_ingest: plan.last_ingest.clone(),
    };
    status::dataset(None, &facts, world.now)
}

/// `True Serving: …` of a condition.
fn shown(status: &DatasetStatus, name: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == name).unwrap();
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}
