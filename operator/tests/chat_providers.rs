//! ChatProviders with a real API server: their pods, their files and what chatd sees are played.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod play;

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Secret},
    },
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use lakehouse_contract::chat::ProbeStage;
use lakehouse_crds::ChatProvider;
use play::{Play, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_brings_its_pods_becomes_ready_and_then_nothing_is_sent() {
    let play = Play::new("chat-ready").await;
    let operator = play.operator().await;
    ollama(&play, "home", json!({})).await;
    let message = becomes(&play, "home", "Ready", "True", "Serving").await;
    assert_eq!(message, "http://ollama:11434 is asked for `home/…`.");
    for name in ["Reachable", "ModelsDiscovered", "SecretResolved"] {
        assert_eq!(condition(&play, "home", name).await, "True", "{name}");
    }
    let status = provider(&play, "home").await.status.unwrap();
    assert_eq!((status.models, status.model_count), (vec!["tiny-chat".to_owned()], Some(1)));
    assert_eq!((status.endpoint.as_deref(), status.latency_ms), (Some("http://ollama:11434"), Some(3)));
    assert_eq!(deployments(&play).await, ["lakehouse", "lakehouse-chat"]);
    assert_eq!(play.events_of("home").await, ["Normal Serving"]);

    tokio::time::sleep(Duration::from_secs(4)).await;
    let (before, version) = (operator.metrics.requests(), provider(&play, "home").await.resource_version());
    let asked = play.pods.chats(|chats| chats.asked);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(operator.metrics.requests(), before, "an operator without news sends nothing");
    assert_eq!(provider(&play, "home").await.resource_version(), version);
    assert!(play.pods.chats(|chats| chats.asked) >= asked + 2, "chatd is asked all the time");
    operator.end().await;

    // The next one takes nothing back, and the last provider takes all with it.
    let _operator = play.operator().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(provider(&play, "home").await.resource_version(), version);
    play.api::<ChatProvider>().delete("home", &DeleteParams::default()).await.unwrap();
    eventually("its pods are gone", async || deployments(&play).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_edit_reaches_the_pods_by_a_notice_and_starts_none_anew() {
    let play = Play::new("chat-edit").await;
    let _operator = play.operator().await;
    ollama(&play, "home", json!({})).await;
    becomes(&play, "home", "Ready", "True", "Serving").await;
    let (pods, renewals) = (pods(&play).await, play.pods.chats(|chats| chats.renewals));
    ollama(&play, "home", json!({"route": {"prefixes": ["mine/"], "default": true}})).await;
    let message = becomes(&play, "home", "Ready", "True", "Serving").await;
    assert_eq!(message, "http://ollama:11434 is asked for `mine/…`, all names that nobody claims.");
    ollama(&play, "other", json!({})).await;
    becomes(&play, "other", "Ready", "True", "Serving").await;
    assert_eq!(self::pods(&play).await, pods);
    assert!(play.pods.chats(|chats| chats.renewals) > renewals);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_waited_for_rotated_without_a_new_pod_and_told_when_it_is_refused() {
    let play = Play::new("chat-key").await;
    let _operator = play.operator().await;
    let spec = json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "token"}, "route": {"prefixes": ["kimi/"]}});
    apply(&play, "kimi", spec).await;
    let message = becomes(&play, "kimi", "Ready", "False", "SecretMissing").await;
    assert!(message.contains("`kimi`") && message.contains("`token`"), "{message}");
    secret(&play, "kimi", json!({"other": "x"})).await;
    eventually("the entry is missed", async || {
        becomes(&play, "kimi", "SecretResolved", "False", "SecretMissing")
            .await
            .contains("no key has come of its entry")
    })
    .await;
    let pods = pods(&play).await;
    secret(&play, "kimi", json!({"token": "hunter2"})).await;
    becomes(&play, "kimi", "Ready", "True", "Serving").await;
    let first = provider(&play, "kimi").await.status.unwrap().secret_hash.unwrap();
    secret(&play, "kimi", json!({"token": "hunter3"})).await;
    eventually("another hash", async || {
        provider(&play, "kimi").await.status.unwrap().secret_hash.as_deref() != Some(first.as_str())
    })
    .await;
    assert_eq!(self::pods(&play).await, pods, "a key is a file");

    play.pods.chats(|chats| chats.trouble("kimi", Some((ProbeStage::Accept, "401: no such key"))));
    let message = becomes(&play, "kimi", "Ready", "False", "KeyRefused").await;
    assert_eq!(message, "401: no such key.");
    becomes(&play, "kimi", "Stalled", "True", "KeyRefused").await;
    becomes(&play, "kimi", "Reachable", "True", "ProviderAnswers").await;
    play.pods.chats(|chats| chats.trouble("kimi", None));
    becomes(&play, "kimi", "Ready", "True", "Serving").await;
    let events = play.events_of("kimi").await;
    for event in ["Warning SecretMissing", "Normal Serving", "Warning KeyRefused"] {
        assert!(events.contains(&event.to_owned()), "{events:?}");
    }
    let all = serde_json::to_string(&provider(&play, "kimi").await).unwrap();
    let list = play.api::<ConfigMap>().get("lakehouse-chat").await.unwrap();
    assert!(!all.contains("hunter") && !serde_json::to_string(&list).unwrap().contains("hunter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_told_in_its_words_and_its_return_too() {
    let play = Play::new("chat-down").await;
    let _operator = play.operator().await;
    ollama(&play, "home", json!({"fallback": ["other"]})).await;
    let message = becomes(&play, "home", "Ready", "True", "Serving").await;
    assert!(
        message.contains("The ChatProvider `other`, which `spec.fallback` names, is not in"),
        "{message}"
    );
    ollama(&play, "other", json!({})).await;
    eventually("the fallback is there", async || {
        !becomes(&play, "home", "Ready", "True", "Serving").await.contains("However")
    })
    .await;
    play.pods
        .chats(|chats| chats.trouble("home", Some((ProbeStage::Reach, "`home` cannot be reached: refused"))));
    let message = becomes(&play, "home", "Ready", "False", "ProviderUnreachable").await;
    assert_eq!(message, "`home` cannot be reached: refused.");
    becomes(&play, "home", "Reachable", "False", "ProviderUnreachable").await;
    becomes(&play, "other", "Ready", "True", "Serving").await;
    let status = provider(&play, "home").await.status.unwrap();
    assert_eq!(status.models, ["tiny-chat"], "what it had is told until it is known anew");
    play.pods.chats(|chats| chats.trouble("home", None));
    becomes(&play, "home", "Ready", "True", "Serving").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_provider_keeps_a_route_and_the_newer_has_it_when_that_goes() {
    let play = Play::new("chat-conflict").await;
    let _operator = play.operator().await;
    // Later in the alphabet, and older.
    ollama(&play, "zebra", json!({"route": {"prefixes": ["a/"]}})).await;
    becomes(&play, "zebra", "Ready", "True", "Serving").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ollama(&play, "ant", json!({"route": {"prefixes": ["a/"]}})).await;
    let message = becomes(&play, "ant", "Ready", "False", "RouteConflict").await;
    assert!(message.contains("the prefix `a/` belongs to `zebra`"), "{message}");
    becomes(&play, "ant", "Stalled", "True", "RouteConflict").await;
    becomes(&play, "ant", "Reachable", "True", "ProviderAnswers").await;
    becomes(&play, "zebra", "Ready", "True", "Serving").await;
    play.api::<ChatProvider>().delete("zebra", &DeleteParams::default()).await.unwrap();
    becomes(&play, "ant", "Ready", "True", "Serving").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_is_refused_or_rests_keeps_the_others_as_they_are() {
    let play = Play::new("chat-refused").await;
    let _operator = play.operator().await;
    ollama(&play, "home", json!({})).await;
    becomes(&play, "home", "Ready", "True", "Serving").await;
    let spec = json!({"type": "Kimi", "apiKeySecretRef": {"name": "k", "key": "../k"}});
    apply(&play, "wrong", spec).await;
    let message = becomes(&play, "wrong", "Ready", "False", "InvalidSpec").await;
    assert!(message.starts_with("spec.apiKeySecretRef.key: "), "{message}");
    becomes(&play, "wrong", "Stalled", "True", "InvalidSpec").await;
    ollama(&play, "home", json!({"suspend": true})).await;
    becomes(&play, "home", "Ready", "False", "Suspended").await;
    eventually("chatd's list is empty", async || {
        let list = play.api::<ConfigMap>().get("lakehouse-chat").await.unwrap().data.unwrap();
        let list: Value = serde_json::from_str(&list["providers.yaml"]).unwrap();
        list["providers"] == json!([])
    })
    .await;
    ollama(&play, "home", json!({})).await;
    becomes(&play, "home", "Ready", "True", "Serving").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_vectors_alone_is_known_by_those_who_embed() {
    let play = Play::new("chat-voyage").await;
    let _operator = play.operator().await;
    secret(&play, "keys", json!({"voyage": "x"})).await;
    let spec = json!({
        "type": "Voyage", "apiKeySecretRef": {"name": "keys", "key": "voyage"}, "embeddings": {"models": ["large"]},
    });
    apply(&play, "voyage", spec).await;
    let message = becomes(&play, "voyage", "Ready", "True", "Serving").await;
    assert_eq!(message, "`voyage/large` gives vectors of 384 numbers.");
    play.pods.shelves(|shelves| shelves.outage = Some("`voyage` answered 401: no such key"));
    let message = becomes(&play, "voyage", "Ready", "False", "EmbedderFailed").await;
    assert!(message.contains("401: no such key"), "{message}");
}

/// Applies an Ollama that names of this prefix lead to, with these spec fields.
async fn ollama(play: &Play, name: &str, more: Value) {
    let mut spec =
        json!({"type": "Ollama", "url": "http://ollama:11434", "route": {"prefixes": [format!("{name}/")]}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    apply(play, name, spec).await;
}

async fn apply(play: &Play, name: &str, spec: Value) {
    let provider = json!({
        "apiVersion": "lakehouse.dev/v1alpha1", "kind": "ChatProvider", "metadata": {"name": name}, "spec": spec,
    });
    let apply = PatchParams::apply("user").force();
    play.api::<ChatProvider>().patch(name, &apply, &Patch::Apply(&provider)).await.unwrap();
}

/// Applies a Secret with these entries and no others.
async fn secret(play: &Play, name: &str, entries: Value) {
    let text = |value: &Value| ByteString(value.as_str().unwrap().as_bytes().to_vec());
    let data = entries.as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    secret.data = Some(data);
    play.api::<Secret>()
        .patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&secret))
        .await
        .unwrap();
}

async fn provider(play: &Play, name: &str) -> ChatProvider {
    play.api::<ChatProvider>().get(name).await.unwrap()
}

async fn becomes(play: &Play, name: &str, condition: &str, status: &str, reason: &str) -> String {
    play.becomes_of::<ChatProvider>(name, condition, status, reason).await
}

async fn condition(play: &Play, name: &str, condition: &str) -> String {
    let status = provider(play, name).await.status.unwrap();
    status.conditions.into_iter().find(|one| one.type_ == condition).unwrap().status
}

/// Who answers chats: the pods' uids.
async fn pods(play: &Play) -> Vec<Option<String>> {
    let chat = ListParams::default().labels("app.kubernetes.io/component=chat");
    let pods = play.api::<Pod>().list(&chat).await.unwrap();
    pods.iter().map(ResourceExt::uid).collect()
}

async fn deployments(play: &Play) -> Vec<String> {
    let listed = play.api::<Deployment>().list(&ListParams::default()).await.unwrap();
    let mut names: Vec<String> = listed.iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}
