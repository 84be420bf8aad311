//! What the pods that ask language models promise: whose they are, what starts them anew, and what reaches them without that.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, PodTemplateSpec},
};
use kube::ResourceExt;
use lakehouse_contract::{chat::ProviderInfo, provider::Providers};
use lakehouse_crds::ChatProvider;
use lakehouse_plan::{
    ReadyProvider, Reason,
    chat_provider::check,
    cluster::{
        Child, Kind, Owner, ResourceKind, Settings,
        namespace::{Notice, Observed, plan, told},
        serving::{ChatObserved, Look, chat_facts, look},
    },
    status::{LookFacts, ServedFacts},
};
use serde_json::{Value, json};

use crate::{restricted::violations, world::settings};

#[test]
fn any_provider_brings_up_the_gateway_and_chatd_and_they_go_with_the_last() {
    let children = children(&[ollama("a"), ollama("b")]);
    let names: Vec<String> =
        all::<Deployment>(&children, Kind::Deployment).iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["lakehouse", "lakehouse-chat"]);
    for child in children.iter().filter(|child| child.name() == "lakehouse-chat") {
        let owners: Vec<&str> =
            child.object().owner_references().iter().map(|owner| owner.name.as_str()).collect();
        assert_eq!(owners, ["a", "b"], "{:?}", child.kind());
    }
    let existing: Vec<_> = children.iter().map(Child::object_name).collect();
    let gone = plan(&Observed { namespace: "team", existing: &existing, ..Observed::default() }, &settings());
    assert!(gone.children.is_empty());
    assert_eq!(gone.delete, existing);

    // A provider that is refused is told to nobody, and is a provider all the same.
    let owners = [owner("a")];
    let refused = Observed { namespace: "team", owners: &owners, ..Observed::default() };
    let children = plan(&refused, &settings()).children;
    assert_eq!(list(&children).providers, []);
}

#[test]
fn chatd_is_restricted_and_told_where_its_list_is() {
    let keyed = provider("k", json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "token"}}));
    let template = template(&children(&[keyed]));
    assert_eq!(violations(&template), [""; 0]);
    let spec = template.spec.unwrap();
    let args = spec.containers[0].args.clone().unwrap().join(" ");
    assert_eq!(
        args,
        "serve --role chatd --listen 0.0.0.0:3220 --token-file /etc/lakehouse/token --drain-notice 5 --providers \
         /etc/lakehouse/providers/providers.yaml --drain-deadline 600"
    );
    assert_eq!(spec.termination_grace_period_seconds, Some(610), "answers may go on for minutes");
    let volumes = serde_json::to_value(spec.volumes).unwrap();
    let volume =
        |name: &str| volumes.as_array().unwrap().iter().find(|volume| volume["name"] == name).cloned();
    assert_eq!(volume("providers").unwrap()["configMap"]["name"], "lakehouse-chat");
    let key = &volume("key-k").unwrap()["secret"];
    assert_eq!((&key["secretName"], &key["optional"]), (&json!("kimi"), &json!(true)));
    assert_eq!(key["items"], json!([{"key": "token", "path": "token"}]), "and nothing else of that Secret");

    let many = Settings::parse(
        "{image: i, store: {url: 's3://bucket'}, chat: {replicas: 2, resources: {limits: {memory: 3Gi}},
            extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]}}",
    );
    let children = plan(&observed(&[owner("a")], &[ollama("a")]), &many.unwrap()).children;
    assert!(
        children.iter().any(|one| one.kind() == Kind::PodDisruptionBudget && one.name() == "lakehouse-chat")
    );
    let spec = self::template(&children).spec.unwrap();
    assert!(spec.topology_spread_constraints.is_some());
    assert_eq!(spec.containers[0].resources.clone().unwrap().limits.unwrap()["memory"].0, "3Gi");
    let env = serde_json::to_value(&spec.containers[0].env).unwrap();
    assert!(env.as_array().unwrap().contains(&json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"})));
}

#[test]
fn the_list_holds_whom_may_be_asked_the_older_one_first() {
    let off = provider("off", json!({"type": "Ollama", "url": "http://h", "suspend": true}));
    let list = list(&children(&[ollama("z"), off, ollama("a")]));
    let names: Vec<&str> = list.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["z", "a"]);
}

#[test]
fn pods_start_anew_for_a_secret_that_is_to_be_mounted_or_no_longer_and_for_nothing_else() {
    let kimi = |more: Value| {
        let mut spec = json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "token"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        provider("kimi", spec)
    };
    let base = [ollama("a"), kimi(json!({}))];
    let voyage = provider("v", json!({"type": "Voyage", "apiKeySecretRef": {"name": "v", "key": "v"}}));
    let with = |providers: &[ReadyProvider]| template(&children(providers));
    let before = with(&base);
    for (edit, what) in [
        (vec![kimi(json!({})), ollama("a")], "another order"),
        (
            vec![kimi(json!({"route": {"prefixes": ["k2/"], "default": true}}))],
            "a route, and a provider less",
        ),
        (
            vec![ollama("a"), kimi(json!({"url": "http://elsewhere", "tiers": {"judge": "m"}}))],
            "an address and a tier",
        ),
        (vec![ollama("a"), kimi(json!({"suspend": true}))], "one that rests"),
        (vec![ollama("a"), kimi(json!({})), voyage], "one for vectors alone"),
        (vec![ollama("a"), ollama("b"), kimi(json!({"fallback": ["b"]}))], "one more without a key"),
    ] {
        assert_eq!(with(&edit), before, "{what}");
    }
    assert_ne!(with(&base[..1]), before, "a key whose provider has gone lies in no pod");
    let other =
        provider("kimi", json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "other"}}));
    assert_ne!(with(&[ollama("a"), other]), before, "another entry");
}

#[test]
fn pods_have_notice_of_a_list_or_a_key_that_has_changed_and_of_nothing_else() {
    let owners = [owner("kimi")];
    let providers =
        [provider("kimi", json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "token"}}))];
    let pods = [pod("new", "chat", None), pod("embeds", "embed", None), pod("gateway", "gateway", None)];
    let notices = |list: &str, key: Option<&str>, pods: &[Arc<Pod>]| {
        let lists = [("lakehouse-chat".to_owned(), list.to_owned())];
        let secrets: Vec<_> = key.map(|state| ("kimi".to_owned(), state.to_owned())).into_iter().collect();
        let observed = Observed { pods, lists: &lists, secrets: &secrets, ..observed(&owners, &providers) };
        plan(&observed, &settings()).notices
    };
    let first = notices("u/1", None, &pods);
    let [Notice { pod: who, state }] = first.as_slice() else { panic!("{first:?}") };
    assert_eq!(who, "new", "nobody embeds here, and the gateway follows no list");
    let told = [pod("new", "chat", Some(state))];
    assert_eq!(notices("u/1", None, &told), [], "it was told");
    assert_eq!(notices("u/2", None, &told).len(), 1, "the list is another one");
    let with_key = notices("u/1", Some("s/1"), &told);
    assert_eq!(with_key.len(), 1, "the key has come");
    let told = [pod("new", "chat", Some(&with_key[0].state))];
    assert_eq!((notices("u/1", Some("s/1"), &told).len(), notices("u/1", Some("s/2"), &told).len()), (0, 1));
    // Nobody is told of a list that has not been seen: his node might read the old one.
    let observed = Observed { pods: &pods, ..observed(&owners, &providers) };
    assert_eq!(plan(&observed, &settings()).notices, []);
}

#[test]
fn a_look_is_the_worst_that_any_ready_pod_had_and_not_one_at_the_spec_before() {
    let asked = ollama("a");
    let good = info(&asked, &json!({"at": "2026-11-20T12:00:00Z", "latency_ms": 3}));
    let failure = json!({"stage": "reach", "message": "refused"});
    let bad = info(&asked, &json!({"at": "2026-11-20T12:00:00Z", "failure": failure}));
    let old = ProviderInfo { digest: "of another spec".to_owned(), ..good.clone() };
    let says =
        |name: &str, info: &ProviderInfo| (pod(name, "chat", None), Look::Says(Box::new(info.clone())));
    let seen = |pods: &[(Arc<Pod>, Look)]| match look(&asked, pods) {
        LookFacts::Told(info, None) => {
            format!("{:?}", info.probe.as_ref().and_then(|probe| probe.failure.clone()).map(|it| it.stage))
        }
        LookFacts::Told(_, Some(why)) | LookFacts::Waiting(why) => why,
        LookFacts::Failed(failure) => format!("{}: {}", failure.reason, failure.message),
        other => format!("{other:?}"),
    };
    assert_eq!(seen(&[]), "NotYet");
    assert_eq!(seen(&[says("x", &good), says("y", &good)]), "None");
    assert_eq!(seen(&[says("x", &good), says("y", &bad)]), "Some(Reach)");
    assert_eq!(
        seen(&[says("x", &bad), says("y", &old)]),
        "The pod `y` is about to hear of the newest settings."
    );
    let absent = (pod("y", "chat", None), Look::Absent);
    assert_eq!(seen(&[says("x", &good), absent]), "The pod `y` is about to hear of it.");
    let silent = (pod("y", "chat", None), Look::Unreachable("timed out".to_owned()));
    assert!(seen(&[says("x", &good), silent]).starts_with("ServingFailed: The pod `y` does not say"));
    let mut leaving = (*pod("y", "chat", None)).clone();
    leaving.status = None;
    assert_eq!(seen(&[says("x", &good), (Arc::new(leaving), Look::Unknown)]), "None", "it takes no requests");
}

#[test]
fn requests_are_answered_where_gateway_and_chatd_are_ready() {
    let (gateway, chat) = ([pod("g", "gateway", None)], [pod("c", "chat", None)]);
    let facts = |gateway: &[Arc<Pod>], chat: &[Arc<Pod>], chats: bool| {
        chat_facts(&ChatObserved { namespace: "team", deployments: &[], gateway, chat, chats })
    };
    let endpoint = "http://lakehouse.team.svc:3110".to_owned();
    assert_eq!(facts(&gateway, &chat, true), ServedFacts::Serving { endpoint: endpoint.clone(), version: 0 });
    assert_eq!(facts(&gateway, &[], false), ServedFacts::Serving { endpoint, version: 0 }, "it only embeds");
    let ServedFacts::Waiting(why) = facts(&gateway, &[], true) else { panic!() };
    assert_eq!(why, "the Deployment `lakehouse-chat` has no pod yet.");
    let mut stuck = (*pod("c", "chat", None)).clone();
    stuck.status = serde_json::from_value(json!({"phase": "Pending", "containerStatuses": [crate::world::container(
        &json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"lakehouse-store\" not found"}})
    )]}))
    .unwrap();
    let ServedFacts::Failed(failure) = facts(&gateway, &[Arc::new(stuck)], true) else { panic!() };
    assert_eq!(failure.reason, Reason::SecretMissing);
}

fn children(providers: &[ReadyProvider]) -> Vec<Child> {
    let names: BTreeSet<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    let owners: Vec<Owner> = names.into_iter().map(owner).collect();
    plan(&observed(&owners, providers), &settings()).children
}

fn observed<'a>(owners: &'a [Owner], providers: &'a [ReadyProvider]) -> Observed<'a> {
    Observed { namespace: "team", owners, providers, has_token_secret: true, ..Observed::default() }
}

fn owner(name: &str) -> Owner {
    Owner { kind: ResourceKind::ChatProvider, name: name.to_owned(), uid: name.to_owned() }
}

fn ollama(name: &str) -> ReadyProvider {
    provider(name, json!({"type": "Ollama", "url": "http://ollama:11434"}))
}

fn provider(name: &str, spec: Value) -> ReadyProvider {
    check(&ChatProvider::new(name, serde_json::from_value(spec).unwrap())).unwrap()
}

/// What a pod says of a provider that it has as it shall be.
fn info(provider: &ReadyProvider, probe: &Value) -> ProviderInfo {
    serde_json::from_value(json!({
        "name": provider.name, "type": "Ollama", "digest": told(provider).digest(), "endpoint": "http://ollama:11434",
        "default": false, "prefixes": ["ollama/"], "suffixes": [], "models": [], "tiers": {}, "weak_models": [],
        "fallback": [], "healthy": true, "in_flight": 0, "probe": probe,
    }))
    .unwrap()
}

/// A ready pod of a component, with the last notice that it had.
fn pod(name: &str, component: &str, notice: Option<&str>) -> Arc<Pod> {
    let annotations = notice.map(|state| json!({"lakehouse.dev/providers": state}));
    let pod = json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn list(children: &[Child]) -> Providers {
    let maps: Vec<ConfigMap> = all(children, Kind::ConfigMap);
    let map = maps.into_iter().find(|map| map.name_any() == "lakehouse-chat").unwrap();
    serde_json::from_str(&map.data.unwrap()["providers.yaml"]).unwrap()
}

fn template(children: &[Child]) -> PodTemplateSpec {
    let deployments: Vec<Deployment> = all(children, Kind::Deployment);
    let chat = deployments.into_iter().find(|deployment| deployment.name_any() == "lakehouse-chat");
    chat.unwrap().spec.unwrap().template
}

fn all<K: serde::de::DeserializeOwned + kube::Resource>(children: &[Child], kind: Kind) -> Vec<K> {
    let of_kind = children.iter().filter(|child| child.kind() == kind);
    of_kind.map(|child| child.object().clone().try_parse().unwrap()).collect()
}
