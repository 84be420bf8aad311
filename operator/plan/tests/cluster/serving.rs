//! Whether SQL is answered from the published version, by what the pods are and say.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use lakehouse_plan::{
    Reason,
    cluster::serving::{Observed, View, facts},
    status::{Failure, ServedFacts},
};
use serde_json::{Value, json};

use crate::world::{container, manifest};

#[test]
fn every_ready_pod_must_have_the_version() {
    assert_eq!(served(&[ready()], &[(ready(), View::Version(2))]), serving(2));
    let two = [(ready(), View::Version(2)), (ready(), View::Version(1))];
    assert_eq!(served(&[ready()], &two), serving(1), "one answers from the old version still");
    let starting = [(ready(), View::Version(2)), (pod("q", &starting_status()), View::Unknown)];
    assert_eq!(served(&[ready()], &starting), serving(2), "one that is not ready is not asked");
    let new = [(ready(), View::Version(2)), (ready(), View::Absent)];
    assert_eq!(served(&[ready()], &new), ServedFacts::Waiting("the pod `p` is about to read it.".to_owned()));
}

#[test]
fn without_a_ready_pod_it_is_told_what_is_missing() {
    let waits = |gateway: &[Pod], query: &[(Pod, View)]| match served(gateway, query) {
        ServedFacts::Waiting(why) => why,
        other => panic!("{other:?}"),
    };
    let query = [(ready(), View::Version(2))];
    assert_eq!(waits(&[], &query), "the Deployment `lakehouse` has no pod yet.");
    assert_eq!(waits(&[pod("g", &starting_status())], &query), "the pod `g` is not ready yet.");
    assert_eq!(waits(&[ready()], &[]), "the Deployment `lakehouse-query` has no pod yet.");
    let mut leaving = ready();
    leaving.metadata.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH.into());
    assert_eq!(waits(&[leaving], &query), "the Deployment `lakehouse` has no pod yet.");
}

#[test]
fn a_server_that_cannot_start_is_told_with_its_last_words() {
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}});
    let mut status = container(&waiting);
    status["lastState"] = json!({"terminated": {
        "exitCode": 1, "reason": "Error", "message": "lakehouse: the store s3://lakehouse/team: access denied\n",
    }});
    let crashing = pod("g", &json!({"phase": "Running", "containerStatuses": [status.clone()]}));
    let told = "Pod `g` ended with exit status 1: lakehouse: the store s3://lakehouse/team: access denied.";
    let expected = ServedFacts::Failed(Failure::new(Reason::PodFailed, told));
    assert_eq!(served(&[crashing], &[]), expected);
    // The same while it runs once more, before it is ready or has ended again.
    status["state"] = json!({"running": {}});
    let again = pod("g", &json!({"phase": "Running", "containerStatuses": [status]}));
    assert_eq!(served(&[again], &[]), expected);
}

#[test]
fn memory_of_a_query_pod_is_raised_in_the_operators_settings() {
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let killed = pod("q", &json!({"phase": "Running", "containerStatuses": [container(&ended)]}));
    let ServedFacts::Failed(failure) = served(&[ready()], &[(killed, View::Unknown)]) else { panic!() };
    assert_eq!(failure.reason, Reason::OutOfMemory);
    let field = "`query.resources.limits.memory` of the operator's settings";
    assert!(failure.message.contains(field), "{}", failure.message);
}

#[test]
fn a_new_pod_that_cannot_start_is_told_while_the_old_one_serves() {
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    let broken = pod("q", &json!({"phase": "Pending", "containerStatuses": [container(&state)]}));
    let facts = served(&[ready()], &[(ready(), View::Version(2)), (broken, View::Unknown)]);
    let ServedFacts::Limping { version: 2, failure, .. } = facts else { panic!("{facts:?}") };
    assert_eq!(failure.reason, Reason::ImagePullFailed);
    // One that was evicted long ago has a successor, and is no trouble.
    let evicted = pod("q", &json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}));
    assert_eq!(served(&[ready()], &[(ready(), View::Version(2)), (evicted, View::Unknown)]), serving(2));
}

#[test]
fn a_deployment_whose_pods_are_refused_tells_why() {
    let words = "pods \"lakehouse-query-\" is forbidden: exceeded quota: small";
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "lakehouse-query", "labels": {"app.kubernetes.io/component": "query"}},
        "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}]},
    }))
    .unwrap();
    let told = facts(&Observed {
        namespace: "team",
        deployments: &[Arc::new(deployment)],
        gateway: &[Arc::new(ready())],
        query: &[],
        manifest: Some(&manifest(2)),
    });
    let message = format!("The API server refuses the pods of the Deployment `lakehouse-query`: {words}");
    assert_eq!(told, ServedFacts::Failed(Failure::new(Reason::ObjectRefused, message)));
}

#[test]
fn what_a_query_pod_cannot_read_is_told_in_its_words() {
    for (view, words) in [
        (
            View::Damaged("sales.parquet: not found".to_owned()),
            "cannot read version 2: sales.parquet: not found",
        ),
        (View::Unreachable("connection refused".to_owned()), "does not answer: connection refused"),
    ] {
        let ServedFacts::Failed(failure) = served(&[ready()], &[(ready(), view)]) else { panic!() };
        assert_eq!(
            (failure.reason, failure.message),
            (Reason::ServingFailed, format!("The pod `p` {words}"))
        );
    }
}

fn serving(version: u64) -> ServedFacts {
    ServedFacts::Serving { endpoint: "http://lakehouse.team.svc:3110".to_owned(), version }
}

/// What is told when version 2 is published.
fn served(gateway: &[Pod], query: &[(Pod, View)]) -> ServedFacts {
    let gateway: Vec<Arc<Pod>> = gateway.iter().cloned().map(Arc::new).collect();
    let query: Vec<(Arc<Pod>, View)> =
        query.iter().map(|(pod, view)| (Arc::new(pod.clone()), view.clone())).collect();
    facts(&Observed {
        namespace: "team",
        deployments: &[],
        gateway: &gateway,
        query: &query,
        manifest: Some(&manifest(2)),
    })
}

fn ready() -> Pod {
    let status = json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(&json!({"running": {}}))],
    });
    pod("p", &status)
}

fn starting_status() -> Value {
    json!({"phase": "Pending", "containerStatuses": [container(&json!({"waiting": {"reason": "ContainerCreating"}}))]})
}

fn pod(name: &str, status: &Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}, "status": status}),
    )
    .unwrap()
}
