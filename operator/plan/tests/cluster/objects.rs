//! What every planned object promises.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, PodTemplateSpec, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt;
use lakehouse_contract::job::{IngestJob, JobSource};
use lakehouse_crds::Dataset;
use lakehouse_plan::cluster::{
    Child, Kind, ObjectName, Owner, ResourceKind, Settings, deletion, names,
    namespace::{Observed, Plan, plan, token_secret},
};
use serde_json::{Value, json};

use crate::{
    restricted::violations,
    world::{UID, World, settings},
};

#[test]
fn every_pod_is_restricted() {
    for (name, template) in templates(&everything()) {
        assert_eq!(violations(&template), [""; 0], "{name}");
    }
}

#[test]
fn every_object_can_be_told_from_the_users_own() {
    for child in everything() {
        let (labels, name) = (child.object().labels().clone(), child.name());
        assert_eq!(labels["app.kubernetes.io/name"], "lakehouse", "{name}");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "lakehouse-operator", "{name}");
        assert_eq!(child.object().namespace().as_deref(), Some("team"), "{name}");
        assert!(name.len() <= 63, "{name}");
    }
}

#[test]
fn no_object_tells_the_operators_version() {
    for child in everything() {
        // The image is the user's setting.
        let text = serde_json::to_string(child.object()).unwrap().replace("lakehouse:0.1.0", "");
        assert!(!text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        assert!(!text.contains("app.kubernetes.io/version"), "{text}");
    }
}

#[test]
fn equal_inputs_give_equal_objects_byte_for_byte() {
    let [first, second] = [everything(), everything()].map(|objects| {
        objects.iter().map(|child| serde_json::to_string(child.object()).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(first, second);
    let mut turned = [owner("b"), owner("a")];
    let there = shared(&turned);
    turned.reverse();
    assert_eq!(shared(&turned), there, "in whatever order the Datasets are seen");
}

#[test]
fn no_object_holds_what_the_api_server_drops_or_adds() {
    fn walk(path: &str, value: &Value) {
        match value {
            Value::Null => panic!("{path} is null"),
            Value::Array(list) => {
                assert!(!list.is_empty(), "{path} is empty");
                for item in list {
                    walk(&format!("{path}[]"), item);
                }
            }
            Value::Object(fields) => {
                for (name, item) in fields {
                    walk(&format!("{path}.{name}"), item);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    for child in everything() {
        let object = serde_json::to_value(child.object()).unwrap();
        walk(&child.name(), &object);
        assert!(object["status"].is_null() && object["metadata"]["creationTimestamp"].is_null());
    }
}

#[test]
fn shared_objects_are_owned_by_every_dataset_and_go_with_the_last() {
    for child in shared(&[owner("a"), owner("b")]).children {
        let owners = child.object().owner_references().to_vec();
        assert_eq!(owners.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(owners.iter().all(|owner| owner.controller.is_none()));
        assert!(owners.iter().all(|owner| owner.block_owner_deletion == Some(false)));
        assert!(
            owners
                .iter()
                .all(|owner| owner.api_version == "lakehouse.dev/v1alpha1" && owner.kind == "Dataset")
        );
    }
    let none = plan(&Observed { owners: &[], existing: &all_shared(), ..observed(&[]) }, &settings());
    assert!(none.children.is_empty() && !none.make_token);
    assert_eq!(none.delete, all_shared());
}

#[test]
fn a_purge_needs_the_settings_and_nothing_that_serves() {
    let purging = plan(&Observed { purging: true, existing: &all_shared(), ..observed(&[]) }, &settings());
    let names: Vec<String> = purging.children.iter().map(Child::name).collect();
    assert_eq!(names, ["lakehouse-settings", "lakehouse"]);
    assert!(purging.delete.contains(&ObjectName::new(Kind::Deployment, names::QUERY)));
    assert!(purging.children.iter().all(|child| child.object().owner_references().is_empty()));
}

#[test]
fn a_budget_and_a_spread_come_and_go_with_the_second_pod() {
    let one = shared(&[owner("a")]);
    assert!(one.children.iter().all(|child| child.kind() != Kind::PodDisruptionBudget));
    let two = Settings::parse(
        "{image: i, store: {url: 's3://bucket'}, gateway: {replicas: 2}, query: {replicas: 3}}",
    )
    .unwrap();
    let two = plan(&observed(&[owner("a")]), &two);
    let budgets: Vec<PodDisruptionBudget> = all(&two.children, Kind::PodDisruptionBudget);
    assert_eq!(
        budgets.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["lakehouse", "lakehouse-query"]
    );
    for (name, template) in templates(&two.children) {
        assert!(template.spec.unwrap().topology_spread_constraints.is_some(), "{name}");
    }
    let budget = ObjectName::new(Kind::PodDisruptionBudget, names::QUERY);
    let back =
        plan(&Observed { existing: std::slice::from_ref(&budget), ..observed(&[owner("a")]) }, &settings());
    assert_eq!(back.delete, [budget]);
}

#[test]
fn a_changed_setting_or_a_rotated_secret_starts_new_pods_and_nothing_else_does() {
    let pods = |observed: &Observed<'_>, settings: &Settings| templates(&plan(observed, settings).children);
    let owners = [owner("a")];
    let base = pods(&observed(&owners), &settings());
    let two = [owner("a"), owner("b")];
    assert_eq!(pods(&observed(&two), &settings()), base, "another Dataset");
    assert_eq!(pods(&Observed { has_token_secret: false, ..observed(&owners) }, &settings()), base);
    let rotated = pods(&Observed { store_secret: Some("uid/2"), ..observed(&owners) }, &settings());
    let logging = pods(&observed(&owners), &Settings { log_level: "debug".to_owned(), ..settings() });
    for (name, template) in &base {
        assert_ne!(&rotated[name], template);
        assert_ne!(&logging[name], template);
    }
}

#[test]
fn the_secret_has_the_last_word_on_the_bucket() {
    let settings_map: ConfigMap = one(&shared(&[owner("a")]).children, Kind::ConfigMap);
    let data = settings_map.data.unwrap();
    assert_eq!(data["LAKEHOUSE_STORE"], "s3://lakehouse/team");
    assert_eq!(data["AWS_ENDPOINT_URL"], "http://minio:9000");
    for (name, template) in templates(&everything()) {
        let container = serde_json::to_value(&template.spec.unwrap().containers[0]).unwrap();
        assert_eq!(
            container["envFrom"],
            json!([{"configMapRef": {"name": "lakehouse-settings"}}, {"secretRef": {"name": "lakehouse-store"}}]),
            "{name}"
        );
    }
}

#[test]
fn servers_drain_and_are_never_all_gone() {
    for deployment in all::<Deployment>(&shared(&[owner("a")]).children, Kind::Deployment) {
        let name = deployment.name_any();
        let spec = serde_json::to_value(deployment.spec.unwrap()).unwrap();
        assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        let args: Vec<&str> =
            container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(args.join(" ").contains("--drain-notice 5"), "{args:?}");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        assert_eq!(
            container["startupProbe"]["httpGet"]["path"], "/livez",
            "a bucket that is away restarts nothing"
        );
        let (deadline, grace) = if name == "lakehouse" { ("--drain-deadline 600", 610) } else { ("", 75) };
        assert!(args.join(" ").contains(deadline), "answers of language models go through it: {args:?}");
        assert_eq!(pod["terminationGracePeriodSeconds"], grace, "{name}");
        let labels = spec["template"]["metadata"]["labels"].as_object().unwrap();
        for (key, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels.get(key), Some(value), "{name}");
        }
    }
}

#[test]
fn services_lead_to_the_pods_of_their_name() {
    let children = shared(&[owner("a")]).children;
    let services: Vec<Service> = all(&children, Kind::Service);
    let found: Vec<(String, i32, Option<String>)> = services
        .into_iter()
        .map(|service| {
            let name = service.name_any();
            let spec = service.spec.unwrap();
            (name, spec.ports.unwrap()[0].port, spec.cluster_ip)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("lakehouse".to_owned(), 3110, None),
            ("lakehouse-query".to_owned(), 3214, None),
            ("lakehouse-query-pods".to_owned(), 3214, Some("None".to_owned())),
        ]
    );
    let gateway = templates(&children)["lakehouse"].clone().spec.unwrap().containers[0].args.clone().unwrap();
    assert!(gateway.contains(&"queryd=http://lakehouse-query:3214".to_owned()), "{gateway:?}");
    assert!(gateway.contains(&"http://lakehouse-query-pods:3214".to_owned()), "{gateway:?}");
}

#[test]
fn duckdb_gets_its_share_of_the_limits() {
    let settings = Settings::parse(
        "{image: i, store: {url: 's3://bucket'}, query: {resources: {limits: {memory: 10Gi, cpu: 2500m}}}}",
    )
    .unwrap();
    let template = templates(&plan(&observed(&[owner("a")]), &settings).children)["lakehouse-query"].clone();
    let env = template.spec.unwrap().containers[0].env.clone().unwrap();
    let value =
        |name: &str| env.iter().find(|variable| variable.name == name).unwrap().value.clone().unwrap();
    assert_eq!(
        (value("LAKEHOUSE_QUERY_MEMORY"), value("LAKEHOUSE_QUERY_THREADS")),
        ("5632MiB".into(), "3".into())
    );
    assert_eq!(
        (value("LAKEHOUSE_QUERY_CACHE"), value("LAKEHOUSE_QUERY_SPILL")),
        ("5632MiB".into(), "3584MiB".into()),
        "together less than the 10Gi of disk, or the kubelet evicts the pod"
    );
    assert_eq!(value("LAKEHOUSE_QUERY_REFRESH"), "15");
}

#[test]
fn a_hungry_query_ends_before_the_kernel_ends_its_pod() {
    for (limit, mebibytes) in [("1Gi", 1024), ("2Gi", 2048), ("10Gi", 10_240)] {
        let yaml = format!(
            "{{image: i, store: {{url: 's3://bucket'}}, query: {{resources: {{limits: {{memory: {limit}}}}}}}}}"
        );
        let settings = Settings::parse(&yaml).unwrap();
        let template =
            templates(&plan(&observed(&[owner("a")]), &settings).children)["lakehouse-query"].clone();
        let env = template.spec.unwrap().containers[0].env.clone().unwrap();
        let memory = env.iter().find(|variable| variable.name == "LAKEHOUSE_QUERY_MEMORY").unwrap();
        let memory: u32 = memory.value.as_deref().unwrap().trim_end_matches("MiB").parse().unwrap();
        // Where queryd itself ends a query whose memory DuckDB does not count.
        assert!(memory * 3 / 2 + 256 < mebibytes, "{limit}: {memory} MiB");
    }
}

#[test]
fn a_job_tries_as_often_and_as_long_as_its_dataset_says() {
    let mut world = World::of_config_map();
    world.spec["ingest"] = json!({
        "backoffLimit": 7, "activeDeadlineSeconds": 60, "resources": {"limits": {"memory": "4Gi"}},
    });
    let job: Job = one(&world.plan().children, Kind::Job);
    let spec = job.spec.unwrap();
    assert_eq!((spec.backoff_limit, spec.active_deadline_seconds), (Some(7), Some(60)));
    let resources = spec.template.spec.unwrap().containers[0].resources.clone().unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "4Gi");
    assert_eq!(resources.requests.unwrap()["memory"].0, "256Mi");
}

#[test]
fn a_job_gives_up_at_once_where_its_pod_says_so_and_counts_no_pod_that_made_room() {
    let job: Job = one(&World::of_config_map().plan().children, Kind::Job);
    let spec = serde_json::to_value(job.spec.unwrap()).unwrap();
    let container = &spec["template"]["spec"]["containers"][0]["name"];
    let rules = &spec["podFailurePolicy"]["rules"];
    assert_eq!(rules[0]["action"], "FailJob");
    assert_eq!(
        rules[0]["onExitCodes"],
        json!({"containerName": container, "operator": "In", "values": [65]})
    );
    assert_eq!(
        rules[1],
        json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})
    );
    // Kubernetes accepts such rules only of pods that are never restarted.
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
    assert!(spec["ttlSecondsAfterFinished"].is_null(), "a finished Job is the record of its work");
}

#[test]
fn a_jobs_file_says_everything_but_secrets() {
    let spec = json!({
        "source": {"s3": {"bucket": "data", "key": "a/b.csv", "endpoint": "http://s3:9000/", "credentialsSecretRef": {"name": "key"}}},
        "keepVersions": 5,
    });
    let mut world = World::new(spec);
    world.secrets.insert("key".to_owned(), "key/1".to_owned());
    let children = world.plan().children;
    let map: ConfigMap = one(&children, Kind::ConfigMap);
    assert_eq!(map.immutable, Some(true));
    let job: IngestJob = serde_json::from_str(&map.data.unwrap()["ingest.json"]).unwrap();
    assert_eq!(
        job.source,
        JobSource::S3 {
            bucket: "data".into(),
            key: "a/b.csv".into(),
            endpoint: Some("http://s3:9000".into()),
            region: None,
        }
    );
    assert_eq!((job.keep_versions.get(), job.spec.name.as_str()), (5, "sales"));
    let mounted = mounted(&children);
    assert_eq!(mounted["/etc/lakehouse/source"], json!({"secretName": "key", "defaultMode": 0o440}));
    assert_eq!(mounted["/etc/lakehouse/token"]["secretName"], "lakehouse-token");
    let children = World::of_config_map().plan().children;
    let map: ConfigMap = one(&children, Kind::ConfigMap);
    let job: IngestJob = serde_json::from_str(&map.data.unwrap()["ingest.json"]).unwrap();
    let source =
        JobSource::ConfigMap { name: "prices".into(), key: "prices.csv".into(), sha256: Some("d1".into()) };
    assert_eq!(job.source, source, "a node may mount an older one for a moment");
    let of_map = self::mounted(&children);
    assert_eq!(
        of_map["/etc/lakehouse/source"],
        json!({"name": "prices", "items": [{"key": "prices.csv", "path": "prices.csv"}]})
    );
}

#[test]
fn a_datasets_own_objects_are_its_own() {
    for child in World::of_config_map().plan().children {
        let [owner] = child.object().owner_references() else { panic!("{}", child.name()) };
        assert_eq!((owner.uid.as_str(), owner.controller), (UID, Some(true)));
        assert_eq!(child.object().labels()["lakehouse.dev/dataset"], "sales");
        assert!(child.is_made_once());
    }
}

#[test]
fn a_token_is_made_once_and_belongs_to_nobody() {
    assert!(plan(&Observed { has_token_secret: false, ..observed(&[owner("a")]) }, &settings()).make_token);
    assert!(!shared(&[owner("a")]).make_token);
    let child = token_secret("team", &settings(), "abc");
    assert!(child.is_made_once() && child.object().owner_references().is_empty());
    let secret: Secret = child.object().clone().try_parse().unwrap();
    assert_eq!(secret.data.unwrap()["token"].0, b"abc");
    let there = [child.object_name()];
    assert!(plan(&Observed { existing: &there, ..observed(&[]) }, &settings()).delete.is_empty());
}

#[test]
fn the_users_labels_and_annotations_reach_every_pod_and_no_selector() {
    let text = "{image: i, store: {url: 's3://bucket'}, imagePullSecrets: [r], pods: {labels: {team: data}, \
         annotations: {note: x}, nodeSelector: {disk: ssd}, priorityClassName: high}}";
    let settings = Settings::parse(text).unwrap();
    let children = plan(&observed(&[owner("a")]), &settings).children;
    for (name, template) in templates(&children) {
        let metadata = template.metadata.unwrap();
        assert_eq!(
            (&metadata.labels.unwrap()["team"][..], &metadata.annotations.unwrap()["note"][..]),
            ("data", "x"),
            "{name}"
        );
        let spec = template.spec.unwrap();
        assert_eq!(spec.node_selector.unwrap()["disk"], "ssd");
        assert_eq!(spec.priority_class_name.as_deref(), Some("high"));
        assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "r");
    }
    for deployment in all::<Deployment>(&children, Kind::Deployment) {
        assert!(!deployment.spec.unwrap().selector.match_labels.unwrap().contains_key("team"));
    }
}

/// One of every object that is ever planned.
fn everything() -> Vec<Child> {
    let many = Settings::parse(
        "{image: 'lakehouse:0.1.0', store: {url: 's3://lakehouse', endpoint: 'http://minio:9000'}, \
        gateway: {replicas: 2}, query: {replicas: 2}}",
    )
    .unwrap();
    let mut children = plan(&observed(&[owner("a")]), &many).children;
    let spec = json!({"source": {"http": {"url": "https://h/a.csv", "headersSecretRef": {"name": "key"}}}});
    let mut of_http = World::new(spec);
    of_http.secrets.insert("key".to_owned(), "key/1".to_owned());
    for world in [World::of_config_map(), of_http] {
        children.extend(world.plan().children);
    }
    children.extend(purge().children);
    let kinds: BTreeSet<Kind> = children.iter().map(Child::kind).collect();
    assert_eq!(kinds.len(), 6, "all but the Secret: {kinds:?}");
    children
}

fn purge() -> deletion::Plan {
    let spec = json!({"source": {"upload": {}}, "deletionPolicy": "Delete"});
    let mut dataset = Dataset::new("sales", serde_json::from_value(spec).unwrap());
    dataset.metadata.namespace = Some("team".to_owned());
    dataset.metadata.uid = Some(UID.to_owned());
    let secrets: BTreeMap<String, String> = [("lakehouse-store".to_owned(), "uid/1".to_owned())].into();
    let observed = deletion::Observed {
        jobs: &[],
        pods: &[],
        events: &[],
        secrets: &secrets,
        namespace_ends: false,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    deletion::plan(&dataset, &observed, &settings())
}

fn shared(owners: &[Owner]) -> Plan {
    plan(&observed(owners), &settings())
}

fn all_shared() -> Vec<ObjectName> {
    shared(&[owner("a")]).children.iter().map(Child::object_name).collect()
}

fn observed(owners: &[Owner]) -> Observed<'_> {
    Observed {
        namespace: "team",
        owners,
        store_secret: Some("uid/1"),
        has_token_secret: true,
        ..Observed::default()
    }
}

fn owner(uid: &str) -> Owner {
    Owner { kind: ResourceKind::Dataset, name: format!("dataset-{uid}"), uid: uid.to_owned() }
}

fn all<K: serde::de::DeserializeOwned + kube::Resource>(children: &[Child], kind: Kind) -> Vec<K> {
    children
        .iter()
        .filter(|child| child.kind() == kind)
        .map(|child| child.object().clone().try_parse().unwrap())
        .collect()
}

fn one<K: serde::de::DeserializeOwned + kube::Resource>(children: &[Child], kind: Kind) -> K {
    let mut all = all(children, kind);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The pod template of every Deployment and Job, by the object's name.
fn templates(children: &[Child]) -> BTreeMap<String, PodTemplateSpec> {
    let deployments = all::<Deployment>(children, Kind::Deployment).into_iter();
    let jobs = all::<Job>(children, Kind::Job).into_iter();
    deployments
        .map(|it| (it.name_any(), it.spec.unwrap().template))
        .chain(jobs.map(|it| (it.name_any(), it.spec.unwrap().template)))
        .collect()
}

/// What a Job's pod finds under each path: the source of the volume.
fn mounted(children: &[Child]) -> BTreeMap<String, Value> {
    let job: Job = one(children, Kind::Job);
    let spec = job.spec.unwrap().template.spec.unwrap();
    let volumes = spec.volumes.unwrap();
    let mounts = spec.containers[0].volume_mounts.clone().unwrap();
    mounts
        .into_iter()
        .map(|mount| {
            let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            let mut volume = serde_json::to_value(volume).unwrap();
            volume.as_object_mut().unwrap().remove("name");
            let source = volume.as_object().unwrap().values().next().unwrap().clone();
            (mount.mount_path, source)
        })
        .collect()
}
