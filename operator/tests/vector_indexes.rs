//! `VectorIndexes` on a real API server, while the tests play the cluster, the builds, and the pods that answer.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod play;

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use lakehouse_crds::{ChatProvider, VectorIndex, conditions::Condition};
use play::{Course, Play, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_index_becomes_ready_and_then_nothing_is_sent() {
    let play = Play::new("index").await;
    let operator = play.operator().await;
    shelf(&play, json!({})).await;
    let message = becomes(&play, "Ready", "False", "DatasetMissing").await;
    assert!(message.contains("`people`"), "{message}");
    play.apply("people", json!({})).await;
    becomes_ready(&play).await;

    let status = index(&play).await.status.unwrap();
    assert_eq!((status.version, status.dataset_version, status.vectors), (Some(1), Some(1), Some(2)));
    let endpoint = "http://lakehouse.index.svc:3110/v1/vectors/index/shelf";
    assert_eq!(status.endpoint.as_deref(), Some(endpoint));
    let message = status.last_build.unwrap().message;
    assert_eq!(message.as_deref(), Some("Version 1 was published with 2 vectors."));
    becomes_whole(&play).await;
    let events = play.events_of("shelf").await;
    for event in ["Normal Building", "Normal Built", "Normal Serving"] {
        assert!(events.contains(&event.to_owned()), "{events:?}");
    }
    let mut deployments = names::<Deployment>(&play).await;
    deployments.sort();
    let all = ["lakehouse", "lakehouse-embed", "lakehouse-query", "lakehouse-vectors", "shelf-vectors"];
    assert_eq!(deployments, all);

    tokio::time::sleep(Duration::from_secs(4)).await;
    let (before, version) = (operator.metrics.requests(), index(&play).await.resource_version());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(operator.metrics.requests(), before, "an operator without news sends nothing");
    assert_eq!(index(&play).await.resource_version(), version);
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_dataset_makes_an_index_stale_and_a_build_makes_it_fresh_while_it_stays_ready() {
    let play = Play::new("fresh").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    becomes_ready(&play).await;
    play.jobs_take(Duration::from_secs(2));
    play.pods.publish("people", 5);
    play.pods.notify();
    let message = becomes(&play, "Fresh", "False", "DatasetChanged").await;
    assert!(message.contains("version 1") && message.contains("current version is 2"), "{message}");
    let mut ready = Vec::new();
    eventually("it is fresh again", async || {
        let conditions = conditions(&play).await;
        let status = |name: &str| conditions.iter().find(|one| one.type_ == name).unwrap().status.clone();
        ready.push(status("Ready"));
        status("Fresh") == "True"
    })
    .await;
    assert!(ready.iter().all(|status| status == "True"), "{ready:?}");
    assert_eq!(index(&play).await.status.unwrap().version, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_weights_under_the_same_name_build_beside() {
    let play = Play::new("weights").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    becomes_ready(&play).await;
    play.pods.shelves(|shelves| shelves.weights = "sha256:b");
    // Nobody tells of it; a pod of embedd that is new is a reason to ask.
    let pods = ListParams::default().labels("app.kubernetes.io/component=embed");
    let pod = play.api::<k8s_openapi::api::core::v1::Pod>().list(&pods).await.unwrap().items.remove(0);
    let patch = Patch::Merge(json!({"status": {"message": "news"}}));
    let pods = play.api::<k8s_openapi::api::core::v1::Pod>();
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    eventually("version 2 is told", async || index(&play).await.status.unwrap().version == Some(2)).await;
    becomes_ready(&play).await;
    let embedding = index(&play).await.status.unwrap().embedding.unwrap();
    assert_eq!(embedding.digest.as_deref(), Some("sha256:b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_waited_for_with_its_key_and_handed_to_the_pods_that_embed() {
    let play = Play::new("provider").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({"embedding": {"provider": "voyage", "model": "large"}})).await;
    becomes(&play, "EmbedderReady", "False", "ProviderMissing").await;
    let provider = json!({
        "apiVersion": "lakehouse.dev/v1alpha1", "kind": "ChatProvider", "metadata": {"name": "voyage"},
        "spec": {"type": "Voyage", "apiKeySecretRef": {"name": "keys", "key": "voyage"}},
    });
    let apply = PatchParams::apply("user").force();
    play.api::<ChatProvider>().patch("voyage", &apply, &Patch::Apply(&provider)).await.unwrap();
    let message = becomes(&play, "Ready", "False", "SecretMissing").await;
    assert!(message.contains("`keys`") && message.contains("`voyage`"), "{message}");
    let mut secret: Secret = serde_json::from_value(json!({"metadata": {"name": "keys"}})).unwrap();
    secret.string_data = Some([("voyage".to_owned(), "hunter2".to_owned())].into());
    play.api().create(&PostParams::default(), &secret).await.unwrap();
    becomes_ready(&play).await;
    let told = play.api::<ConfigMap>().get("lakehouse-providers").await.unwrap().data.unwrap();
    let told: Value = serde_json::from_str(&told["providers.yaml"]).unwrap();
    assert_eq!(told["providers"][0]["keyFile"], "/etc/lakehouse/keys/voyage/voyage");
    assert!(!told.to_string().contains("hunter2"));

    // It goes, and the index stays served.
    play.api::<ChatProvider>().delete("voyage", &DeleteParams::default()).await.unwrap();
    becomes(&play, "EmbedderReady", "False", "ProviderMissing").await;
    let message = becomes(&play, "Ready", "True", "Serving").await;
    assert!(message.contains("searches with a text fail"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedder_that_is_away_is_waited_for() {
    let play = Play::new("outage").await;
    let _operator = play.operator().await;
    play.pods.shelves(|shelves| shelves.outage = Some("`ollama` answered 503: overloaded"));
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    let message = becomes(&play, "Ready", "False", "EmbedderFailed").await;
    assert!(message.contains("`ollama` answered 503: overloaded"), "{message}");
    play.pods.shelves(|shelves| (shelves.outage, shelves.unknown) = (None, vec!["local/lexical"]));
    becomes(&play, "Stalled", "True", "UnknownModel").await;
    play.pods.shelves(|shelves| shelves.unknown.clear());
    becomes_ready(&play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_clients_fill_is_created_and_told_apart_from_another_one() {
    let play = Play::new("filled").await;
    let _operator = play.operator().await;
    shelf_of(&play, json!({"dimension": 3})).await;
    becomes_ready(&play).await;
    assert_eq!(play.pods.shelves(|shelves| shelves.get("shelf").unwrap().shape.dimension), 3);
    assert_eq!(names::<Job>(&play).await, [""; 0]);
    let mut deployments = names::<Deployment>(&play).await;
    deployments.sort();
    assert_eq!(
        deployments,
        ["lakehouse", "lakehouse-vectors", "shelf-vectors"],
        "nobody embeds and nobody asks SQL"
    );
    shelf_of(&play, json!({"dimension": 4})).await;
    let message = becomes(&play, "Ready", "False", "IndexConflict").await;
    assert!(message.contains("has 3 dimensions"), "{message}");
    shelf_of(&play, json!({"dimension": 3})).await;
    becomes_ready(&play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_version_is_served_and_the_newest_again_without_the_pin() {
    let play = Play::new("index-pin").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    becomes_ready(&play).await;
    shelf(&play, json!({"metric": "Dot"})).await;
    eventually("version 2 is told", async || index(&play).await.status.unwrap().version == Some(2)).await;
    shelf(&play, json!({"metric": "Dot", "version": 1})).await;
    eventually("version 1 is told", async || index(&play).await.status.unwrap().version == Some(1)).await;
    becomes_ready(&play).await;
    shelf(&play, json!({"metric": "Dot", "version": 9})).await;
    let message = becomes(&play, "Ready", "False", "VersionNotKept").await;
    assert!(message.contains("there is no such version"), "{message}");
    shelf(&play, json!({"metric": "Dot"})).await;
    eventually("version 2 is told again", async || index(&play).await.status.unwrap().version == Some(2))
        .await;
    becomes_ready(&play).await;
    assert_eq!(play.pods.shelves(|shelves| shelves.newest("shelf")), 2, "nothing was built again for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_says_why_a_stuck_one_too_and_progress_is_shown() {
    let play = Play::new("builds").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    play.jobs_of("shelf", Course::Fails("InvalidData", "the id `7` stands in two rows"));
    shelf(&play, json!({})).await;
    let message = becomes(&play, "Ready", "False", "InvalidData").await;
    assert!(message.contains("the id `7` stands in two rows"), "{message}");
    play.jobs_of("shelf", Course::Stuck("ErrImagePull", "pull access denied"));
    shelf(&play, json!({"metric": "Dot"})).await;
    becomes(&play, "Built", "False", "ImagePullFailed").await;
    play.jobs_of("shelf", Course::Runs);
    shelf(&play, json!({"metric": "Euclidean"})).await;
    eventually("the status shows how far it is", async || {
        let status = index(&play).await.status.unwrap();
        status.progress.is_some_and(|progress| progress.done > 0 && progress.total == Some(1_000_000))
            && status.pending.is_some_and(|pending| pending < 1_000_000)
    })
    .await;
    play.jobs_of("shelf", Course::Done);
    shelf(&play, json!({})).await;
    becomes_ready(&play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_scale_and_what_is_deleted_by_hand_comes_back() {
    let play = Play::new("readers").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    becomes_ready(&play).await;
    play.api::<Service>().delete("shelf-vectors", &DeleteParams::default()).await.unwrap();
    let edit = Patch::Merge(json!({"spec": {"replicas": 7}}));
    play.api::<Deployment>().patch("shelf-vectors", &PatchParams::default(), &edit).await.unwrap();
    eventually("everything is as it was", async || {
        let deployment = play.api::<Deployment>().get("shelf-vectors").await.unwrap();
        deployment.spec.unwrap().replicas == Some(1)
            && names::<Service>(&play).await.contains(&"shelf-vectors".to_owned())
    })
    .await;
    shelf(&play, json!({"replicas": 2, "shards": 2})).await;
    eventually("two shards are served", async || {
        let names = names::<Deployment>(&play).await;
        let has = |name: &str| names.iter().any(|one| one == name);
        has("shelf-vectors-0of2") && has("shelf-vectors-1of2") && !has("shelf-vectors")
    })
    .await;
    becomes_ready(&play).await;
    shelf(&play, json!({})).await;
    eventually("one shard is served", async || {
        let names = names::<Deployment>(&play).await;
        names.iter().filter(|name| name.starts_with("shelf-")).count() == 1
    })
    .await;
    becomes_ready(&play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_vectors_go_with_it_waits_for_the_purge() {
    let play = Play::new("index-purge").await;
    let _operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({"deletionPolicy": "Delete"})).await;
    becomes_ready(&play).await;
    assert_eq!(index(&play).await.finalizers(), ["lakehouse.dev/purge"]);
    play.jobs_take(Duration::from_secs(2));
    play.api::<VectorIndex>().delete("shelf", &DeleteParams::default()).await.unwrap();
    becomes(&play, "Ready", "False", "Deleting").await;
    eventually("it is gone", async || play.api::<VectorIndex>().get_opt("shelf").await.unwrap().is_none())
        .await;
    assert!(play.pods.shelves(|shelves| shelves.get("shelf").is_err()));
    eventually("its pods and those that indexes share are gone", async || {
        let mut names = names::<Deployment>(&play).await;
        names.sort();
        names == ["lakehouse", "lakehouse-query"]
    })
    .await;
    play.becomes_ready("people").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operator_builds_nothing_again() {
    let play = Play::new("index-restart").await;
    let operator = play.operator().await;
    play.apply("people", json!({})).await;
    shelf(&play, json!({})).await;
    becomes_whole(&play).await;
    operator.end().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, jobs) = (index(&play).await.resource_version(), names::<Job>(&play).await);
    // Even without the record: the index itself tells what it is made of.
    let builds = ListParams::default().labels("app.kubernetes.io/component=build");
    let build = play.api::<Job>().list(&builds).await.unwrap().items.remove(0).name_any();
    play.api::<Job>().delete(&build, &DeleteParams::foreground()).await.unwrap();
    eventually("the Job is gone", async || names::<Job>(&play).await.len() < jobs.len()).await;
    let _operator = play.operator().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(index(&play).await.resource_version(), before);
    assert_eq!(names::<Job>(&play).await.len(), jobs.len() - 1);
}

/// Applies the VectorIndex `shelf` over the Dataset `people` with these spec fields.
async fn shelf(play: &Play, more: Value) {
    let mut spec = json!({
        "source": {"dataset": "people", "id": "id", "text": "{name}"},
        "embedding": {"local": {"model": "lexical"}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    shelf_of(play, spec).await;
}

async fn shelf_of(play: &Play, spec: Value) {
    let index = json!({
        "apiVersion": "lakehouse.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "shelf"}, "spec": spec,
    });
    let apply = PatchParams::apply("user").force();
    play.api::<VectorIndex>().patch("shelf", &apply, &Patch::Apply(&index)).await.unwrap();
}

async fn index(play: &Play) -> VectorIndex {
    play.api::<VectorIndex>().get("shelf").await.unwrap()
}

async fn conditions(play: &Play) -> Vec<Condition> {
    index(play).await.status.map(|status| status.conditions).unwrap_or_default()
}

async fn becomes(play: &Play, condition: &str, status: &str, reason: &str) -> String {
    play.becomes_of::<VectorIndex>("shelf", condition, status, reason).await
}

async fn becomes_ready(play: &Play) {
    becomes(play, "Ready", "True", "Serving").await;
}

/// Every condition of a healthy index holds.
async fn becomes_whole(play: &Play) {
    becomes_ready(play).await;
    eventually("every condition holds", async || {
        let conditions = conditions(play).await;
        let names = ["DatasetReady", "EmbedderReady", "Built", "Served", "Fresh"];
        names.iter().all(|name| conditions.iter().any(|one| one.type_ == *name && one.status == "True"))
    })
    .await;
}

async fn names<K>(play: &Play) -> Vec<String>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let listed = play.api::<K>().list(&ListParams::default()).await.unwrap();
    listed.iter().map(ResourceExt::name_any).collect()
}
