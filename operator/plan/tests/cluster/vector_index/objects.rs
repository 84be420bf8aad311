//! What the objects of an index promise, and those that indexes share.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, PodTemplateSpec, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use lakehouse_contract::provider::Providers;
use lakehouse_crds::{ChatProvider, VectorIndex};
use lakehouse_plan::{
    ReadyProvider, chat_provider,
    cluster::{
        Child, Kind, ObjectName, Owner, ResourceKind, Settings, deletion,
        namespace::{self, Observed},
        serving::{IndexObserved, View, embedder, index_facts},
    },
    status::{EmbedderFacts, ServedFacts},
};
use serde_json::{Value, json};

use super::world::Shelf;
use crate::{
    restricted::violations,
    world::{UID, settings},
};

#[test]
fn every_pod_is_restricted_and_every_object_can_be_told_from_the_users_own() {
    for child in everything() {
        let (object, name) = (child.object(), child.name());
        assert_eq!(object.labels()["app.kubernetes.io/managed-by"], "lakehouse-operator", "{name}");
        assert!(name.len() <= 63 && object.namespace().as_deref() == Some("team"), "{name}");
        if let Some(template) = template(&child) {
            assert_eq!(violations(&template), [""; 0], "{name}");
        }
    }
}

#[test]
fn equal_inputs_give_equal_objects_without_nulls_or_the_operators_version() {
    let [first, second] = [everything(), everything()].map(|children| {
        children.iter().map(|child| serde_json::to_string(child.object()).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(first, second);
    for text in first {
        assert!(!text.contains("\":null") && !text.contains("\":[]"), "{text}");
        assert!(!text.replace("lakehouse:0.1.0", "").contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

#[test]
fn an_index_has_its_own_pods_from_the_beginning() {
    let plan = Shelf::new(json!({"replicas": 2, "resources": {"limits": {"memory": "8Gi"}}})).plan();
    let deployment: Deployment = one(&plan.children, Kind::Deployment);
    assert_eq!(deployment.name_any(), "shelf-vectors");
    let spec = deployment.spec.unwrap();
    let container = &spec.template.spec.as_ref().unwrap().containers[0];
    let args = container.args.clone().unwrap().join(" ");
    assert_eq!(
        args,
        "serve --role vectord --listen 0.0.0.0:3215 --token-file /etc/lakehouse/token --drain-notice 5 --index shelf --embedd \
         http://lakehouse-embed:3216"
    );
    let resources = container.resources.clone().unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "8Gi");
    assert_eq!(spec.replicas, Some(2));
    assert!(plan.children.iter().any(|child| child.kind() == Kind::PodDisruptionBudget));
    assert!(spec.template.spec.unwrap().topology_spread_constraints.is_some());
    for child in plan.children {
        let [owner] = child.object().owner_references() else { panic!("{}", child.name()) };
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("VectorIndex", UID, Some(true))
        );
        assert_eq!(child.object().labels()["lakehouse.dev/vector-index"], "shelf");
    }
}

#[test]
fn each_shard_has_its_pods_and_one_service_leads_to_all() {
    let children = Shelf::new(json!({"shards": 2})).plan().children;
    let deployments: Vec<Deployment> = all(&children, Kind::Deployment);
    let names: Vec<String> = deployments.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["shelf-vectors-0of2", "shelf-vectors-1of2"]);
    let args = |child: usize| {
        let template = deployments[child].spec.as_ref().unwrap().template.clone();
        template.spec.unwrap().containers[0].args.clone().unwrap().join(" ")
    };
    assert!(args(1).ends_with("--shard 1/2 --peer http://shelf-vectors-{shard}of2:3215"), "{}", args(1));
    let services: Vec<Service> = all(&children, Kind::Service);
    let names: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["shelf-vectors", "shelf-vectors-0of2", "shelf-vectors-1of2"]);
    let leads = |service: usize, deployment: usize| {
        let labels = deployments[deployment].spec.as_ref().unwrap().template.metadata.clone().unwrap();
        let labels = labels.labels.unwrap();
        let selector = services[service].spec.clone().unwrap().selector.unwrap();
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    assert_eq!([leads(0, 0), leads(0, 1), leads(1, 0), leads(1, 1)], [true, true, true, false]);
}

#[test]
fn more_shards_are_served_once_they_are_built() {
    let mut shelf = Shelf::new(json!({}));
    shelf.build();
    shelf.spec["shards"] = json!(2);
    let plan = shelf.visit();
    let names = |children: &[Child]| {
        let deployments: Vec<Deployment> = all(children, Kind::Deployment);
        deployments.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(names(&plan.children), ["shelf-vectors", "shelf-vectors-0of2", "shelf-vectors-1of2"]);
    let shards = |children: &[Child]| {
        let service: Vec<Service> = all(children, Kind::Service);
        service[0].spec.clone().unwrap().selector.unwrap()["lakehouse.dev/shards"].clone()
    };
    assert_eq!(shards(&plan.children), "1", "the new pods have nothing to say yet");
    shelf.build();
    // Published, but its pods are not all ready, and those of before are.
    let built = shelf.clone();
    let reader = |name: &str, shard: &str| pod(name, true, &[("lakehouse.dev/shard", shard)]);
    shelf.world.pods.extend([reader("old", "0of1"), reader("a", "0of2")]);
    let plan = shelf.plan();
    assert_eq!((names(&plan.children).len(), shards(&plan.children).as_str()), (3, "1"));
    shelf.world.pods.push(reader("b", "1of2"));
    let plan = shelf.plan();
    assert_eq!((names(&plan.children).len(), shards(&plan.children).as_str()), (2, "2"));
    let shelf = built;
    let plan = shelf.plan();
    assert_eq!(names(&plan.children), ["shelf-vectors-0of2", "shelf-vectors-1of2"]);
    assert!(!shelf.servers.contains(&ObjectName::new(Kind::Deployment, "shelf-vectors")), "nobody needs it");
}

#[test]
fn what_indexes_share_comes_and_goes_with_them() {
    let index = owner(ResourceKind::VectorIndex, "i");
    let dataset = owner(ResourceKind::Dataset, "d");
    let names = |owners: &[Owner], embedding: &[Owner]| {
        let plan = namespace::plan(&observed(owners, embedding, &[]), &settings());
        let deployments: Vec<Deployment> = all(&plan.children, Kind::Deployment);
        deployments.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(names(std::slice::from_ref(&dataset), &[]), ["lakehouse", "lakehouse-query"]);
    assert_eq!(names(std::slice::from_ref(&index), &[]), ["lakehouse", "lakehouse-vectors"]);
    let both = [dataset, index.clone()];
    let all_of_them = ["lakehouse", "lakehouse-query", "lakehouse-vectors", "lakehouse-embed"];
    assert_eq!(names(&both, std::slice::from_ref(&index)), all_of_them);
    let provider = [owner(ResourceKind::ChatProvider, "p")];
    assert_eq!(names(&provider, &provider), ["lakehouse", "lakehouse-embed", "lakehouse-chat"]);

    let plan = namespace::plan(&observed(&both, std::slice::from_ref(&index), &[]), &settings());
    let gateway =
        templates(&plan.children)["lakehouse"].clone().spec.unwrap().containers[0].args.clone().unwrap();
    for upstream in [
        "vectord=http://lakehouse-vectors:3215",
        "embedd=http://lakehouse-embed:3216",
        "chatd=http://lakehouse-chat:3220",
        "http://{index}-vectors:3215",
    ] {
        assert!(gateway.contains(&upstream.to_owned()), "{gateway:?}");
    }
    let owners = |name: &str| {
        let child =
            plan.children.iter().find(|child| child.kind() == Kind::Deployment && child.name() == name);
        let owners = child.unwrap().object().owner_references().iter();
        owners.map(|owner| owner.kind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(owners("lakehouse"), ["Dataset", "VectorIndex"]);
    assert_eq!(owners("lakehouse-query"), ["Dataset"]);
    assert_eq!(owners("lakehouse-vectors"), ["VectorIndex"]);
    assert_eq!(owners("lakehouse-embed"), ["VectorIndex"]);
}

#[test]
fn the_pods_that_serve_all_indexes_are_told_from_those_of_one() {
    let index = [owner(ResourceKind::VectorIndex, "i")];
    let shared = namespace::plan(&observed(&index, &[], &[]), &settings()).children;
    let shared: Vec<Service> = all(&shared, Kind::Service);
    let shared = shared.iter().find(|service| service.name_any() == "lakehouse-vectors").unwrap();
    let selector = shared.spec.clone().unwrap().selector.unwrap();
    for child in Shelf::new(json!({})).plan().children {
        if let Some(template) = template(&child) {
            let labels = template.metadata.unwrap().labels.unwrap();
            assert!(selector.iter().any(|(key, value)| labels.get(key) != Some(value)), "{labels:?}");
        }
    }
}

#[test]
fn who_embeds_is_told_of_the_providers_that_embed_or_are_named() {
    let told = |providers: &[ReadyProvider]| {
        let index = [owner(ResourceKind::VectorIndex, "i")];
        let named = ["voyage".to_owned()];
        let observed = Observed { named: &named, ..observed(&index, &index, providers) };
        namespace::plan(&observed, &settings()).children
    };
    let embeds = json!({"type": "Ollama", "url": "http://o:11434", "embeddings": {"models": ["m"]}});
    let providers = [
        provider("voyage", json!({"type": "Voyage", "apiKeySecretRef": {"name": "keys", "key": "v"}})),
        provider("ollama", embeds),
        provider("chats", json!({"type": "Kimi", "apiKeySecretRef": {"name": "kimi", "key": "k"}})),
    ];
    let children = told(&providers);
    let maps: Vec<ConfigMap> = all(&children, Kind::ConfigMap);
    let map = maps.into_iter().find(|map| map.name_any() == "lakehouse-providers").unwrap();
    let file: Providers = serde_json::from_str(&map.data.unwrap()["providers.yaml"]).unwrap();
    let names: Vec<&str> = file.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["voyage", "ollama"], "the older one first, and none that only chats");
    let key = file.providers[0].key_file.clone().unwrap();
    assert_eq!(key.to_str(), Some("/etc/lakehouse/keys/voyage/v"));

    let pod = templates(&children)["lakehouse-embed"].clone();
    let args = pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap().join(" ");
    assert!(args.ends_with("--providers /etc/lakehouse/providers/providers.yaml"), "{args}");
    let volumes = serde_json::to_value(pod.spec.unwrap().volumes).unwrap();
    let volume = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "key-voyage").unwrap();
    assert_eq!(volume["secret"]["secretName"], "keys");
    assert_eq!(volume["secret"]["optional"], true, "a missing key keeps no other model away");

    let other = templates(&told(&providers[..1]))["lakehouse-embed"].clone();
    assert_eq!(other, templates(&children)["lakehouse-embed"], "the pods follow the file by themselves");
}

#[test]
fn models_on_a_volume_are_read_where_texts_are_embedded() {
    let text =
        "{image: 'lakehouse:0.1.0', store: {url: 's3://bucket'}, embed: {modelsClaim: models, replicas: 2}}";
    let settings = Settings::parse(text).unwrap();
    let index = [owner(ResourceKind::VectorIndex, "i")];
    let mut children = namespace::plan(&observed(&index, &index, &[]), &settings).children;
    let mut shelf = Shelf::new(json!({}));
    shelf.world.settings = settings;
    children.extend(shelf.plan().children);
    for (name, template) in templates(&children) {
        let text = serde_json::to_string(&template).unwrap();
        let has_models =
            text.contains("\"--models\",\"/models\"") && text.contains("\"claimName\":\"models\"");
        assert_eq!(has_models, name == "lakehouse-embed" || name.starts_with("shelf-build-"), "{name}");
    }
}

#[test]
fn a_build_leaves_memory_for_vectors_beside_the_engine_that_reads_rows() {
    let children = Shelf::new(json!({"build": {"resources": {"limits": {"memory": "4Gi"}}}})).plan().children;
    let (_, template) = templates(&children).into_iter().find(|(name, _)| name.contains("-build-")).unwrap();
    let env = template.spec.unwrap().containers[0].env.clone().unwrap();
    let value = |name: &str| env.iter().find(|one| one.name == name).unwrap().value.clone().unwrap();
    assert_eq!(value("LAKEHOUSE_QUERY_MEMORY"), "1024MiB");
    assert_eq!(
        (value("LAKEHOUSE_QUERY_CACHE"), value("LAKEHOUSE_QUERY_SPILL")),
        ("5120MiB".into(), "5120MiB".into())
    );
}

#[test]
fn vectors_are_removed_before_the_index_goes() {
    let spec = json!({"dimension": 3, "deletionPolicy": "Delete"});
    let mut index = VectorIndex::new("shelf", serde_json::from_value(spec).unwrap());
    index.metadata.namespace = Some("team".to_owned());
    index.metadata.uid = Some(UID.to_owned());
    assert_eq!(deletion::finalizer(&index), Some(deletion::Finalizer::Add));
    let mut shelf = Shelf::new(json!({}));
    shelf.visit();
    let planned = |shelf: &Shelf| {
        let observed = deletion::Observed {
            jobs: &shelf.world.jobs,
            pods: &shelf.world.pods,
            events: &[],
            secrets: &shelf.world.secrets,
            namespace_ends: false,
            now: shelf.world.now,
        };
        deletion::plan(&index, &observed, &shelf.world.settings)
    };
    let plan = planned(&shelf);
    assert_eq!(plan.delete, [ObjectName::new(Kind::Job, shelf.world.only_job().name_any())]);
    let told = format!("{:?}", plan.run);
    assert!(told.contains("then the vectors are removed from the bucket."), "{told}");
    shelf.world.jobs.clear();
    let plan = planned(&shelf);
    let (name, template) = templates(&plan.children).into_iter().next().unwrap();
    assert!(name.starts_with("shelf-purge-"), "{name}");
    let args = template.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args, ["job", "purge", "--index", "shelf", "--summary", "/dev/termination-log"]);
}

#[test]
fn an_index_is_served_when_every_pod_of_every_shard_has_the_version() {
    let gateway = [pod("g", true, &[])];
    let shard =
        |name: &str, shard: &str, view: View| (pod(name, true, &[("lakehouse.dev/shard", shard)]), view);
    let served = |readers: &[(Arc<Pod>, View)]| {
        index_facts(&IndexObserved {
            namespace: "team",
            index: "shelf",
            deployments: &[],
            gateway: &gateway,
            readers,
            shards: 2,
            version: Some(3),
        })
    };
    let (a, b) = (shard("a", "0of2", View::Version(3)), shard("b", "1of2", View::Version(3)));
    let endpoint = "http://lakehouse.team.svc:3110/v1/vectors/index/shelf".to_owned();
    assert_eq!(served(&[a.clone(), b]), ServedFacts::Serving { endpoint, version: 3 });
    let ServedFacts::Waiting(why) = served(std::slice::from_ref(&a)) else { panic!() };
    assert_eq!(why, "the Deployment `shelf-vectors-1of2` has no pod yet.");
    let ServedFacts::Serving { version, .. } = served(&[a.clone(), shard("b", "1of2", View::Version(2))])
    else {
        panic!()
    };
    assert_eq!(version, 2, "the oldest counts");
    assert!(matches!(
        served(&[a, shard("b", "1of2", View::Unreachable("x".into()))]),
        ServedFacts::Failed(_)
    ));
}

#[test]
fn who_embeds_is_waited_for_or_says_what_it_suffers_from() {
    assert_eq!(embedder(&[pod("e", true, &[])], &[]), None);
    let Some(EmbedderFacts::Waiting(why)) = embedder(&[], &[]) else { panic!() };
    assert!(why.contains("`lakehouse-embed` has no pod yet"), "{why}");
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "denied"}});
    let mut stuck = (*pod("e", false, &[])).clone();
    stuck.status.as_mut().unwrap().container_statuses =
        Some(vec![serde_json::from_value(crate::world::container(&waiting)).unwrap()]);
    let Some(EmbedderFacts::Failed(failure)) = embedder(&[Arc::new(stuck)], &[]) else { panic!() };
    assert!(failure.message.contains("denied"), "{}", failure.message);
}

/// One of every object that is planned for indexes.
fn everything() -> Vec<Child> {
    let index = [owner(ResourceKind::VectorIndex, "i")];
    let key = json!({"type": "Voyage", "apiKeySecretRef": {"name": "keys", "key": "v"}});
    let providers = [provider("voyage", key)];
    let mut children = namespace::plan(&observed(&index, &index, &providers), &settings()).children;
    for fields in [json!({"replicas": 2}), json!({"shards": 3, "replicas": 2})] {
        children.extend(Shelf::new(fields).plan().children);
    }
    children
}

fn observed<'a>(owners: &'a [Owner], embedding: &'a [Owner], providers: &'a [ReadyProvider]) -> Observed<'a> {
    Observed {
        namespace: "team",
        owners,
        embedding,
        providers,
        store_secret: Some("uid/1"),
        has_token_secret: true,
        ..Observed::default()
    }
}

fn owner(kind: ResourceKind, uid: &str) -> Owner {
    Owner { kind, name: format!("{}-{uid}", kind.as_str().to_lowercase()), uid: uid.to_owned() }
}

fn provider(name: &str, spec: Value) -> ReadyProvider {
    chat_provider::check(&ChatProvider::new(name, serde_json::from_value(spec).unwrap())).unwrap()
}

fn pod(name: &str, ready: bool, labels: &[(&str, &str)]) -> Arc<Pod> {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    let status = if ready { "True" } else { "False" };
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
    }))
    .unwrap();
    pod.metadata.creation_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    Arc::new(pod)
}

fn all<K: serde::de::DeserializeOwned + kube::Resource>(children: &[Child], kind: Kind) -> Vec<K> {
    let of_kind = children.iter().filter(|child| child.kind() == kind);
    of_kind.map(|child| child.object().clone().try_parse().unwrap()).collect()
}

fn one<K: serde::de::DeserializeOwned + kube::Resource>(children: &[Child], kind: Kind) -> K {
    let mut all = all(children, kind);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn template(child: &Child) -> Option<PodTemplateSpec> {
    let object = serde_json::to_value(child.object()).unwrap();
    serde_json::from_value(object["spec"]["template"].clone()).ok()
}

fn templates(children: &[Child]) -> BTreeMap<String, PodTemplateSpec> {
    children.iter().filter_map(|child| Some((child.name(), template(child)?))).collect()
}
