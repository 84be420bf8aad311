//! What the operator asks of an API server, request by request, where a real one would have to be in trouble, or be raced.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use http::{Request, Response, StatusCode};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{Client, Resource, client::Body};
use lakehouse_crds::{
    Dataset, DatasetStatus,
    conditions::{Condition, READY},
};
use lakehouse_operator::{
    apply::{Applier, Error, Memory},
    report::{self, Reporter},
    world::{
        World,
        seen::{Outline, Whole},
    },
};
use lakehouse_plan::cluster::{
    Child, Kind, ObjectName, Owner, ResourceKind, Settings,
    deletion::Finalizer,
    namespace::{Notice, Observed, plan},
};
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};

#[tokio::test]
async fn what_looks_as_it_did_is_not_applied_again() {
    let (applier, world, mut server) = start();
    let service = child(Kind::Service, "lakehouse");
    let answered = with(service.object(), json!({"metadata": {"uid": "u", "resourceVersion": "5"}}));
    let told = tokio::spawn(async move {
        server.answer("PATCH", "/api/v1/namespaces/shop/services/lakehouse", &answered).await;
        let edited = with(&answered, json!({"metadata": {"resourceVersion": "8"}}));
        server.answer("PATCH", "/api/v1/namespaces/shop/services/lakehouse", &edited).await;
        server.quiet().await;
    });
    let apply = async || applier.children("shop", std::slice::from_ref(&service)).await.unwrap();
    let sees = |change: Value| {
        let object = with(service.object(), json!({"metadata": {"uid": "u", "resourceVersion": "5"}}));
        let object: Service = serde_json::from_value(with(&object, change)).unwrap();
        world.services.put("shop".into(), "lakehouse".into(), Outline::of(&object));
    };
    apply().await;
    apply().await; // its event is on the way
    sees(json!({}));
    apply().await;
    sees(json!({"metadata": {"resourceVersion": "6"}, "status": {"loadBalancer": {}}}));
    apply().await;
    sees(json!({"metadata": {"resourceVersion": "7"}, "spec": {"ports": []}}));
    apply().await; // somebody took its ports
    apply().await; // what was seen is older than what was applied
    drop(applier);
    told.await.unwrap();
}

#[tokio::test]
async fn a_deployment_that_cannot_be_changed_is_made_anew() {
    let (applier, world, mut server) = start();
    let deployment = child(Kind::Deployment, "lakehouse");
    let there = with(deployment.object(), json!({"metadata": {"uid": "u", "resourceVersion": "5"}}));
    let object: Deployment = serde_json::from_value(there.clone()).unwrap();
    world.deployments.put("shop".into(), "lakehouse".into(), Whole::deployment(object));
    let told = tokio::spawn(async move {
        let path = "/apis/apps/v1/namespaces/shop/deployments/lakehouse";
        let message = "Deployment.apps \"lakehouse\" is invalid: spec.selector: field is immutable";
        server.refuse("PATCH", path, 422, "Invalid", message).await;
        let asked = server.answer("DELETE", path, &there).await;
        assert_eq!(asked["preconditions"]["uid"], "u", "only the one that was looked at");
        server.answer("PATCH", path, &there).await;
        server.quiet().await;
    });
    applier.children("shop", &[deployment]).await.unwrap();
    drop(applier);
    told.await.unwrap();
}

#[tokio::test]
async fn a_refusal_ends_the_applying_in_the_api_servers_words() {
    let (applier, _, mut server) = start();
    let children = children();
    let first = children[0].object_name();
    let told = tokio::spawn(async move {
        let path = "/api/v1/namespaces/shop/configmaps/lakehouse-settings";
        server.refuse("PATCH", path, 403, "Forbidden", "exceeded quota: tiny").await;
        server.quiet().await;
    });
    assert_eq!(first, ObjectName::new(Kind::ConfigMap, "lakehouse-settings"));
    let failure = applier.children("shop", &children).await.unwrap_err().failure().unwrap();
    assert_eq!(
        failure.message,
        "The API server refuses ConfigMap `lakehouse-settings`: exceeded quota: tiny"
    );
    drop(applier);
    told.await.unwrap();
}

#[tokio::test]
async fn an_api_server_in_trouble_is_no_refusal() {
    let (applier, _, mut server) = start();
    let told = tokio::spawn(async move {
        let path = "/api/v1/namespaces/shop/configmaps/lakehouse-settings";
        server.refuse("PATCH", path, 500, "InternalError", "etcdserver: leader changed").await;
    });
    let error = applier.children("shop", &children()).await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }) && error.failure().is_none(), "{error}");
    told.await.unwrap();
}

#[tokio::test]
async fn a_lost_race_for_the_finalizer_changes_nothing() {
    let (applier, _, mut server) = start();
    let told = tokio::spawn(async move {
        let path = "/apis/lakehouse.dev/v1alpha1/namespaces/shop/datasets/people";
        let asked = server.refuse("PATCH", path, 409, "Conflict", "the object has been modified").await;
        assert_eq!(asked["metadata"]["resourceVersion"], "5");
        assert_eq!(asked["metadata"]["finalizers"], json!(["theirs", "lakehouse.dev/purge"]));
        let asked = server.answer("PATCH", path, &json!(dataset())).await;
        assert_eq!(asked["metadata"]["finalizers"], json!(["theirs"]));
    });
    let mut dataset = dataset();
    dataset.metadata.finalizers = Some(vec!["theirs".to_owned()]);
    assert!(!applier.finalizer(&dataset, Finalizer::Add).await.unwrap());
    assert!(applier.finalizer(&dataset, Finalizer::Remove).await.unwrap());
    told.await.unwrap();
}

#[tokio::test]
async fn what_is_gone_already_is_as_good_as_deleted() {
    let (applier, world, mut server) = start();
    let service = child(Kind::Service, "lakehouse");
    let object: Service =
        serde_json::from_value(with(service.object(), json!({"metadata": {"uid": "u"}}))).unwrap();
    world.services.put("shop".into(), "lakehouse".into(), Outline::of(&object));
    let told = tokio::spawn(async move {
        let path = "/api/v1/namespaces/shop/services/lakehouse";
        server.refuse("DELETE", path, 404, "NotFound", "not found").await;
        server.quiet().await;
    });
    let unknown = ObjectName::new(Kind::Service, "never-seen");
    applier.delete("shop", &[service.object_name(), unknown]).await.unwrap();
    drop(applier);
    told.await.unwrap();
}

#[tokio::test]
async fn a_notice_is_an_annotation_and_a_pod_that_is_gone_needs_none() {
    let (applier, _, mut server) = start();
    let told = tokio::spawn(async move {
        let path = "/api/v1/namespaces/shop/pods/chat-0";
        let pod = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "chat-0"}});
        let asked = server.answer("PATCH", path, &pod).await;
        assert_eq!(asked, json!({"metadata": {"annotations": {"lakehouse.dev/providers": "abc"}}}));
        server.refuse("PATCH", path, 404, "NotFound", "not found").await;
        server.quiet().await;
    });
    let notice = Notice { pod: "chat-0".to_owned(), state: "abc".to_owned() };
    for _ in 0..2 {
        applier.notify("shop", &notice).await.unwrap();
    }
    drop(applier);
    told.await.unwrap();
}

#[tokio::test]
async fn a_status_is_written_once_and_its_turn_told_once() {
    let (client, mut server) = client();
    let reporter = Reporter::<Dataset>::new(client, "pod-0".to_owned());
    let mut seen = dataset();
    let told = tokio::spawn(async move {
        let path = "/apis/lakehouse.dev/v1alpha1/namespaces/shop/datasets/people/status";
        let mut written = dataset();
        written.metadata.resource_version = Some("6".to_owned());
        let asked = server.answer("PATCH", path, &json!(written)).await;
        assert_eq!(asked["metadata"], json!({"name": "people", "uid": "u"}));
        // That an Event is lost fails nothing.
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        let event = server.refuse("POST", path, 403, "Forbidden", "no").await;
        assert_eq!((&event["reason"], &event["type"]), (&json!("Serving"), &json!("Normal")));
        assert_eq!(event["regarding"]["uid"], "u");
        server.quiet().await;
    });
    let last = reporter.last(&seen);
    assert_eq!(last, None);
    reporter.report(&seen, last.as_ref(), ready()).await.unwrap();
    // The watch has not brought it yet: what was written counts.
    let last = reporter.last(&seen);
    assert_eq!(last, Some(ready()));
    reporter.report(&seen, last.as_ref(), ready()).await.unwrap();
    // It has.
    seen.metadata.resource_version = Some("6".to_owned());
    seen.status = Some(ready());
    let last = reporter.last(&seen);
    reporter.report(&seen, last.as_ref(), ready()).await.unwrap();
    drop(reporter);
    told.await.unwrap();
}

#[tokio::test]
async fn the_status_of_a_dataset_that_was_made_anew_meanwhile_is_left_alone() {
    let (client, mut server) = client();
    let reporter = Reporter::<Dataset>::new(client, "pod-0".to_owned());
    let told = tokio::spawn(async move {
        let path = "/apis/lakehouse.dev/v1alpha1/namespaces/shop/datasets/people/status";
        server.refuse("PATCH", path, 409, "Conflict", "Precondition failed: UID in precondition: u").await;
        server.quiet().await;
    });
    let answer = reporter.report(&dataset(), None, ready()).await;
    assert!(matches!(answer, Err(report::Error::Gone)));
    drop(reporter);
    told.await.unwrap();
}

/// The other end of a client: says what is asked, and answers.
struct Server(Handle<Request<Body>, Response<Body>>);

impl Server {
    /// Expects this request, answers it, and gives its body.
    async fn answer(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.respond(method, path, StatusCode::OK, body).await
    }

    async fn refuse(&mut self, method: &str, path: &str, code: u16, reason: &str, message: &str) -> Value {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message});
        self.respond(method, path, StatusCode::from_u16(code).unwrap(), &status).await
    }

    async fn respond(&mut self, method: &str, path: &str, code: StatusCode, body: &Value) -> Value {
        let (request, answer) = self.0.next_request().await.expect("a request");
        assert_eq!((request.method().as_str(), request.uri().path()), (method, path));
        let asked = request.into_body().collect_bytes().await.unwrap();
        let body = Body::from(serde_json::to_vec(body).unwrap());
        answer.send_response(Response::builder().status(code).body(body).unwrap());
        serde_json::from_slice(&asked).unwrap_or_default()
    }

    /// Nothing is asked for a while.
    async fn quiet(&mut self) {
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), self.0.next_request()).await;
        if let Ok(Some((request, _))) = asked {
            panic!("{} {} was not expected", request.method(), request.uri());
        }
    }
}

fn client() -> (Client, Server) {
    let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
    (Client::new(service, "default"), Server(handle))
}

fn start() -> (Applier, World, Server) {
    let (client, server) = client();
    let world = World::default();
    (Applier::new(client, world.clone(), Memory::default()), world, server)
}

/// What the real plan shares among the Datasets of a namespace.
fn children() -> Vec<Child> {
    let settings = Settings::parse("image: lakehouse:test\nstore: {url: s3://lakehouse}\n").unwrap();
    let owners = [Owner { kind: ResourceKind::Dataset, name: "people".to_owned(), uid: "u".to_owned() }];
    let observed =
        Observed { namespace: "shop", owners: &owners, has_token_secret: true, ..Observed::default() };
    plan(&observed, &settings).children
}

fn child(kind: Kind, name: &str) -> Child {
    let wanted = ObjectName::new(kind, name);
    children().into_iter().find(|child| child.object_name() == wanted).unwrap()
}

fn dataset() -> Dataset {
    serde_json::from_value(json!({
        "apiVersion": Dataset::api_version(&()),
        "kind": Dataset::kind(&()),
        "metadata": {"name": "people", "namespace": "shop", "uid": "u", "resourceVersion": "5"},
        "spec": {"source": {"upload": {}}},
    }))
    .unwrap()
}

fn ready() -> DatasetStatus {
    let condition: Condition = serde_json::from_value(json!({
        "type": READY, "status": "True", "reason": "Serving", "message": "Version 1 answers SQL.",
        "lastTransitionTime": "2026-11-20T12:00:00Z",
    }))
    .unwrap();
    DatasetStatus { conditions: vec![condition], version: Some(1), ..DatasetStatus::default() }
}

/// An object with some members changed, as a merge patch changes them.
fn with(object: &impl serde::Serialize, change: Value) -> Value {
    fn merge(into: &mut Value, change: Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                for (key, value) in change {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, change) => *into = change,
        }
    }
    let mut object = serde_json::to_value(object).unwrap();
    merge(&mut object, change);
    object
}
