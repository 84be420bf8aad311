//! The operator against a real API server, while the tests play everything else that a cluster has.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod play;

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, ResourceQuota, Secret, Service},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use lakehouse_crds::Dataset;
use play::{Course, Operator, Play, condition, config, eventually, line};
use serde::de::DeserializeOwned;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_becomes_ready_and_then_nothing_is_sent() {
    let play = Play::new("ready").await;
    let operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;

    let dataset = play.dataset("people").await;
    let status = dataset.status.clone().unwrap();
    assert_eq!((status.version, status.rows), (Some(1), Some(2)));
    assert_eq!(status.endpoint.as_deref(), Some("http://lakehouse.ready.svc:3110"));
    assert_eq!(play.events_of("people").await, ["Normal Ingesting", "Normal UpToDate", "Normal Serving"]);
    let jobs = play.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].owner_references()[0].uid, dataset.uid().unwrap());

    let token = play.api::<Secret>().get("lakehouse-token").await.unwrap();
    let token = String::from_utf8(token.data.unwrap()["token"].0.clone()).unwrap();
    assert!(token.len() >= 32, "{token}");
    assert_eq!(play.pods.tokens(), [format!("Bearer {token}")]);

    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, version) = (operator.metrics.requests(), play.dataset("people").await.resource_version());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(operator.metrics.requests(), before, "an operator without news sends nothing");
    assert_eq!(play.dataset("people").await.resource_version(), version);
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operator_changes_nothing() {
    let play = Play::new("restart").await;
    let operator = play.operator().await;
    for name in ["one", "two"] {
        play.apply(name, json!({})).await;
        play.becomes_ready(name).await;
    }
    operator.end().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, events) = (versions(&play).await, play.events_of("one").await);
    let _operator = play.operator().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(versions(&play).await, before);
    assert_eq!(play.events_of("one").await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_or_deleted_by_hand_comes_back() {
    let play = Play::new("drift").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;

    let edit = PatchParams::default();
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    play.api::<Deployment>().patch("lakehouse", &edit, &patch).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"LAKEHOUSE_STORE": "s3://elsewhere"}}));
    play.api::<ConfigMap>().patch("lakehouse-settings", &edit, &patch).await.unwrap();
    // Without this label nobody sees it any more.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}));
    play.api::<Service>().patch("lakehouse", &edit, &patch).await.unwrap();
    play.api::<Service>().delete("lakehouse-query", &DeleteParams::default()).await.unwrap();
    let job = play.api::<Job>().list(&ListParams::default()).await.unwrap().items.remove(0).name_any();
    play.api::<Job>().patch(&job, &edit, &patch).await.unwrap();

    eventually("everything is as it was", async || {
        let deployment = play.api::<Deployment>().get("lakehouse").await.unwrap();
        let settings = play.api::<ConfigMap>().get("lakehouse-settings").await.unwrap();
        let service = play.api::<Service>().get("lakehouse").await.unwrap();
        deployment.spec.unwrap().replicas == Some(1)
            && settings.data.unwrap()["LAKEHOUSE_STORE"] == "s3://lakehouse/drift"
            && service.labels().contains_key("app.kubernetes.io/managed-by")
            && play
                .api::<Job>()
                .get(&job)
                .await
                .unwrap()
                .labels()
                .contains_key("app.kubernetes.io/managed-by")
            && play.api::<Service>().get_opt("lakehouse-query").await.unwrap().is_some()
    })
    .await;
    play.becomes_ready("people").await;
    assert_eq!(play.pods.newest("people"), 1, "nothing was read again for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_quota_forbids_is_told_and_made_once_there_is_room() {
    let play = Play::new("quota").await;
    let _operator = play.operator().await;
    forbid(&play, "count/jobs.batch").await;
    play.apply("people", json!({})).await;
    let message = play.becomes("people", "Ready", "False", "ObjectRefused").await;
    assert!(message.contains("exceeded quota: nothing"), "{message}");
    eventually("an Event tells it", async || {
        play.events_of("people").await.contains(&"Warning ObjectRefused".to_owned())
    })
    .await;
    play.api::<ResourceQuota>().delete("nothing", &DeleteParams::default()).await.unwrap();
    play.becomes_ready("people").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_object_that_is_refused_is_told_by_every_dataset() {
    let play = Play::new("shared-quota").await;
    forbid(&play, "count/deployments.apps").await;
    let _operator = play.operator().await;
    for name in ["one", "two"] {
        play.apply(name, json!({})).await;
    }
    for name in ["one", "two"] {
        let message = play.becomes(name, "Served", "False", "ObjectRefused").await;
        assert!(message.contains("exceeded quota: nothing"), "{message}");
    }
    play.api::<ResourceQuota>().delete("nothing", &DeleteParams::default()).await.unwrap();
    for name in ["one", "two"] {
        play.becomes_ready(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_ingest_says_why_and_an_edit_mends_it() {
    let play = Play::new("failed").await;
    let _operator = play.operator().await;
    play.jobs_of("people", Course::Fails("InvalidData", "line 3: a quote is not closed"));
    play.apply("people", json!({})).await;
    let message = play.becomes("people", "Ready", "False", "InvalidData").await;
    assert!(message.contains("line 3: a quote is not closed"), "{message}");
    let dataset = play.dataset("people").await;
    assert_eq!(condition(&dataset, "Stalled").unwrap().status, "True");
    let warnings = play.events_of("people").await;
    assert_eq!(warnings.iter().filter(|event| *event == "Warning InvalidData").count(), 1, "{warnings:?}");

    play.jobs_of("people", Course::Done);
    play.apply("people", json!({"csv": {"header": false}})).await;
    play.becomes_ready("people").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_start_shows_in_the_conditions() {
    let play = Play::new("stuck").await;
    let _operator = play.operator().await;
    play.jobs_of("people", Course::Stuck("ErrImagePull", "pull access denied for lakehouse"));
    play.apply("people", json!({})).await;
    let message = play.becomes("people", "Ready", "False", "ImagePullFailed").await;
    assert!(message.contains("pull access denied"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_of_an_ingest_reaches_the_status() {
    let play = Play::new("progress").await;
    let _operator = play.operator().await;
    play.jobs_of("people", Course::Runs);
    play.apply("people", json!({})).await;
    let mut rows = Vec::new();
    eventually("the status shows how far it is", async || {
        let progress = play.dataset("people").await.status.and_then(|status| status.progress);
        rows.extend(progress.map(|progress| progress.rows));
        rows.dedup();
        rows.len() >= 3
    })
    .await;
    assert!(rows.is_sorted(), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_over_http_is_seen() {
    let play = Play::new("upload").await;
    let _operator = play.operator().await;
    play.apply("people", json!({"source": {"upload": {}}})).await;
    play.becomes("people", "Ready", "False", "WaitingForUpload").await;
    play.pods.publish("people", 7);
    play.pods.notify();
    play.becomes_ready("people").await;
    assert_eq!(play.dataset("people").await.status.unwrap().rows, Some(7));
    assert_eq!(play.api::<Job>().list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_asked_for_once_the_gateway_knows_how_to_read_it() {
    let play = Play::new("declared").await;
    let operator = play.operator().await;
    play.pods.refuse_declarations(true);
    let columns = json!([{"name": "zip", "type": "string"}]);
    let spec = json!({"source": {"upload": {}}, "columns": columns});
    play.apply("people", spec.clone()).await;
    eventually("the status says what it waits for", async || {
        let dataset = play.dataset("people").await;
        condition(&dataset, "Ready").is_some_and(|ready| ready.message.ends_with("the bucket is away."))
    })
    .await;
    play.becomes("people", "Ready", "False", "Waiting").await;
    assert_eq!(play.pods.declared("people"), None);

    play.pods.refuse_declarations(false);
    play.becomes("people", "Ready", "False", "WaitingForUpload").await;
    assert_eq!(play.pods.declared("people"), Some(json!({ "spec": spec })));
    play.pods.publish("people", 7);
    play.pods.notify();
    play.becomes_ready("people").await;

    // An edit is ready when it is known; of a source that is read by itself, uploads need to know only that.
    play.apply("people", json!({"source": {"upload": {}}, "columns": columns, "keepVersions": 2})).await;
    play.becomes_ready("people").await;
    assert_eq!(play.pods.declared("people").unwrap()["spec"]["keepVersions"], 2);
    play.apply("towns", json!({"keepVersions": 2})).await;
    play.becomes_ready("towns").await;
    let source = json!({"configMap": {"name": "source", "key": "people.csv"}});
    assert_eq!(play.pods.declared("towns"), Some(json!({"spec": {"source": source}})));

    // With the Dataset goes what it says, though its rows stay.
    play.api::<Dataset>().delete("people", &DeleteParams::default()).await.unwrap();
    eventually("it is taken back", async || play.pods.declared("people").is_none()).await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_version_is_served_and_the_newest_again_without_the_pin() {
    let play = Play::new("pin").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;
    play.apply("people", json!({"csv": {"header": false}})).await;
    eventually("version 2 is told", async || version_of(&play, "people").await == Some(2)).await;

    play.apply("people", json!({"csv": {"header": false}, "version": 1})).await;
    eventually("version 1 is told", async || version_of(&play, "people").await == Some(1)).await;
    play.becomes_ready("people").await;
    assert_eq!(play.pods.current("people"), 1);
    play.apply("people", json!({"csv": {"header": false}, "version": 9})).await;
    let message = play.becomes("people", "Ready", "False", "VersionNotKept").await;
    assert!(message.contains("there is no such version"), "{message}");
    play.apply("people", json!({"csv": {"header": false}})).await;
    eventually("version 2 is told again", async || version_of(&play, "people").await == Some(2)).await;
    play.becomes_ready("people").await;
    assert_eq!(play.pods.newest("people"), 2, "nothing was read again for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_whose_rows_go_with_it_waits_for_the_purge() {
    let play = Play::new("purge").await;
    let _operator = play.operator().await;
    play.apply("people", json!({"deletionPolicy": "Delete"})).await;
    play.becomes_ready("people").await;
    assert_eq!(play.dataset("people").await.finalizers(), ["lakehouse.dev/purge"]);
    play.jobs_take(Duration::from_secs(2));
    play.api::<Dataset>().delete("people", &DeleteParams::default()).await.unwrap();
    play.becomes("people", "Ready", "False", "Deleting").await;
    let purges = ListParams::default().labels("app.kubernetes.io/component=purge");
    assert_eq!(play.api::<Job>().list(&purges).await.unwrap().items.len(), 1);
    eventually("it is gone", async || play.api::<Dataset>().get_opt("people").await.unwrap().is_none()).await;
    eventually("what was shared goes with the last one", async || {
        play.api::<Deployment>().list(&ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_is_read_again() {
    let play = Play::new("source").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;
    let patch = Patch::Merge(json!({"data": {"people.csv": "id\n1\n"}}));
    play.api::<ConfigMap>().patch("source", &PatchParams::default(), &patch).await.unwrap();
    eventually("version 2 is told", async || version_of(&play, "people").await == Some(2)).await;
    play.becomes_ready("people").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_not_ready_by_what_was_published_before() {
    let play = Play::new("hidden").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;
    play.pods.hide_manifests(true);
    play.apply("people", json!({"columns": [{"name": "id", "type": "string"}]})).await;
    eventually("it waits for the catalogue", async || {
        let dataset = play.dataset("people").await;
        let ready = condition(&dataset, "Ready").unwrap();
        let is_of_the_edit = ready.observed_generation == dataset.metadata.generation;
        assert!(!is_of_the_edit || ready.status != "True", "{}", line(&dataset));
        is_of_the_edit && ready.message.starts_with("The catalogue cannot be asked what is published: ")
    })
    .await;
    assert_eq!(play.pods.current("people"), 2, "the Job has ended");
    play.pods.hide_manifests(false);
    play.becomes_ready("people").await;
    assert_eq!(version_of(&play, "people").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_emptied_is_filled_again() {
    let play = Play::new("emptied").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;
    play.pods.empty();
    eventually("it is published again", async || play.pods.has("people")).await;
    play.becomes_ready("people").await;
    let jobs = play.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.iter().map(|job| &job.annotations()["lakehouse.dev/attempt"]).max().unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads_and_the_other_goes_on_after_it() {
    let play = Play::new("two").await;
    let namespaces = [play.namespace.clone()];
    let start = || Operator::start(&namespaces, Some("two"));
    let (first, second) = (start().await, start().await);
    eventually("one leads", async || first.leads() != second.leads()).await;
    let (leader, other) = if first.leads() { (first, second) } else { (second, first) };
    play.apply("one", json!({})).await;
    play.becomes_ready("one").await;
    assert!(!other.leads());
    leader.end().await;
    play.apply("two", json!({})).await;
    play.becomes_ready("two").await;
    assert!(other.leads());

    let third = start().await;
    other.kill();
    play.apply("three", json!({})).await;
    play.becomes_ready("three").await;
    assert!(third.leads());
    third.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_datasets_become_ready_while_operators_are_killed_and_no_job_runs_twice() {
    let play = Play::new("fifty").await;
    let mut operator = play.operator().await;
    for n in 0..50 {
        play.apply(&format!("people-{n}"), json!({})).await;
        if n % 13 == 12 {
            operator.kill();
            operator = play.operator().await;
        }
    }
    for n in 0..50 {
        play.becomes_ready(&format!("people-{n}")).await;
    }
    let jobs = play.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 50);
    for n in 0..50 {
        assert_eq!(play.pods.current(&format!("people-{n}")), 1);
    }
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_rights_says_which_it_lacks_and_is_not_ready() {
    let play = Play::new("rights").await;
    let mut config = config().await;
    config.auth_info.impersonate = Some("nobody".to_owned());
    let operator = Operator::start_as(config, std::slice::from_ref(&play.namespace), None).await;
    let ready = format!("{}/readyz", operator.address);
    let mut said = String::new();
    eventually("it says so", async || {
        said = reqwest::get(&ready).await.unwrap().text().await.unwrap();
        said.contains("cannot list resource")
    })
    .await;
    assert!(said.contains("nobody") && said.contains("ServiceAccount"), "{said}");
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_may_not_be_looked_at_holds_up_no_other_one() {
    let play = Play::new("stays").await;
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "operator"}, "rules": everything});
    let role: Role = serde_json::from_value(role).unwrap();
    play.api().create(&PostParams::default(), &role).await.unwrap();
    let binding = json!({
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "operator-of-stays"}],
    });
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    play.api().create(&PostParams::default(), &binding).await.unwrap();

    let mut config = config().await;
    config.auth_info.impersonate = Some("operator-of-stays".to_owned());
    let namespaces = [play.namespace.clone(), "gone".to_owned()];
    let operator = Operator::start_as(config, &namespaces, None).await;
    play.apply("people", json!({})).await;
    play.becomes_ready("people").await;
    let said = reqwest::get(format!("{}/readyz", operator.address)).await.unwrap().text().await.unwrap();
    assert!(said.contains("pods in gone") && !said.contains("pods in stays"), "{said}");
    operator.end().await;
}

/// A quota that leaves no room. No controller counts here, so it is written as one would.
async fn forbid(play: &Play, what: &str) {
    let hard = json!({(what): "0"});
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "nothing"}, "spec": {"hard": hard}})).unwrap();
    let quotas = play.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let patch = Patch::Merge(json!({"status": {"hard": hard, "used": hard}}));
    quotas.patch_status("nothing", &PatchParams::default(), &patch).await.unwrap();
}

/// The states of everything that the operator writes.
async fn versions(play: &Play) -> Vec<(String, Option<String>)> {
    async fn of<K>(play: &Play) -> Vec<(String, Option<String>)>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let listed = play.api::<K>().list(&ListParams::default()).await.unwrap();
        listed.iter().map(|object| (object.name_any(), object.resource_version())).collect()
    }
    let parts = [
        of::<Dataset>(play).await,
        of::<Job>(play).await,
        of::<ConfigMap>(play).await,
        of::<Deployment>(play).await,
        of::<Service>(play).await,
        of::<Secret>(play).await,
    ];
    parts.concat()
}

async fn version_of(play: &Play, name: &str) -> Option<u64> {
    play.dataset(name).await.status?.version
}
