//! The controllers of Jobs and Deployments with the kubelet below them, and the garbage collector, for one namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Pod, PodTemplateSpec, Secret, Service},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lakehouse_contract::{
    job::{BuildJob, Built, Done, Purged, Summary},
    provider::Providers,
};
use lakehouse_crds::{Dataset, VectorIndex};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Course, Jobs, Pods};

/// What every played controller works with.
#[derive(Clone)]
struct Stage {
    client: Client,
    namespace: String,
    pods: Pods,
    jobs: Arc<Mutex<Jobs>>,
}

pub(super) fn start(
    client: &Client,
    namespace: &str,
    pods: &Pods,
    jobs: &Arc<Mutex<Jobs>>,
) -> Vec<JoinHandle<()>> {
    let stage = Stage {
        client: client.clone(),
        namespace: namespace.to_owned(),
        pods: pods.clone(),
        jobs: jobs.clone(),
    };
    vec![
        tokio::spawn(stage.clone().run_jobs()),
        tokio::spawn(stage.clone().run_deployments()),
        tokio::spawn(stage.clone().renew_files()),
        tokio::spawn(stage.clone().collect_garbage_of::<Dataset>()),
        tokio::spawn(stage.collect_garbage_of::<VectorIndex>()),
    ]
}

impl Stage {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn run_jobs(self) {
        let mut begun = BTreeSet::new();
        let mut ended = BTreeSet::new();
        let mut events = watcher(self.api::<Job>(), watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let Ok(Event::Apply(job) | Event::InitApply(job)) = event else { continue };
            let uid = job.uid().unwrap();
            if job.metadata.deletion_timestamp.is_some() {
                if ended.insert(uid) {
                    tokio::spawn(self.clone().end_job(job));
                }
            } else if job.spec.as_ref().unwrap().suspend != Some(true) && begun.insert(uid) {
                tokio::spawn(self.clone().run_job(job));
            }
        }
    }

    async fn run_job(self, job: Job) {
        let label = |name: &str| job.labels().get(name).cloned().unwrap_or_default();
        let (resource, component) = (resource_of(&job), label("app.kubernetes.io/component"));
        let (course, time) = {
            let jobs = self.jobs.lock().unwrap();
            (jobs.by_resource.get(&resource).cloned().unwrap_or(Course::Done), jobs.time)
        };
        let owner = job.controller_owner_ref(&()).unwrap();
        let name = format!("{}-{:05x}", job.name_any(), rand::random::<u32>() & 0xf_ffff);
        let template = job.spec.as_ref().unwrap().template.clone();
        if !self.create_pod(&name, &template, owner).await {
            return;
        }
        let started = Timestamp::now();
        if let Course::Stuck(reason, message) = course {
            let waiting = json!({"waiting": {"reason": reason, "message": message}});
            self.set_pod(&name, "Pending", false, waiting).await;
            return;
        }
        self.set_pod(&name, "Running", true, json!({"running": {"startedAt": started}})).await;
        match component.as_str() {
            "ingest" => self.pods.runs(&resource, Some(0)),
            "build" => self.pods.shelves(|shelves| shelves.runs(&resource, Some(0))),
            _ => {}
        }
        if course == Course::Runs {
            return;
        }
        tokio::time::sleep(time).await;
        let work = if component == "build" { Some(self.work_of(&job).await) } else { None };
        let (phase, exit, summary, status) = self.outcome(&course, &component, &resource, work, started);
        self.stop(&resource);
        let terminated = json!({"terminated": {
            "exitCode": exit, "reason": if exit == 0 { "Completed" } else { "Error" },
            "message": summary.to_json(), "startedAt": started, "finishedAt": Timestamp::now(),
        }});
        self.set_pod(&name, phase, false, terminated).await;
        let patch = Patch::Merge(json!({"status": status}));
        // A Job that was deleted meanwhile has no status any more.
        let set = self.api::<Job>().patch_status(&job.name_any(), &PatchParams::default(), &patch).await;
        if let Err(error) = set
            && !matches!(&error, kube::Error::Api(status) if status.is_not_found())
        {
            panic!("the status of a Job was refused: {error}");
        }
    }

    fn outcome(
        &self,
        course: &Course,
        component: &str,
        resource: &str,
        work: Option<BuildJob>,
        started: Timestamp,
    ) -> (&'static str, i32, Summary, Value) {
        let finished = Timestamp::now();
        let condition = |name: &str, reason: &str| {
            json!({"type": name, "status": "True", "reason": reason, "message": reason,
                "lastProbeTime": finished, "lastTransitionTime": finished})
        };
        if let Course::Fails(reason, message) = course {
            let summary = Summary::Failed {
                reason: (*reason).to_owned(),
                message: (*message).to_owned(),
                started,
                finished,
            };
            let conditions =
                [condition("FailureTarget", "PodFailurePolicy"), condition("Failed", "PodFailurePolicy")];
            return (
                "Failed",
                65,
                summary,
                json!({"startTime": started, "failed": 1, "conditions": conditions}),
            );
        }
        let conditions = [
            condition("SuccessCriteriaMet", "CompletionsReached"),
            condition("Complete", "CompletionsReached"),
        ];
        let status = json!({"startTime": started, "completionTime": finished, "succeeded": 1, "conditions": conditions});
        let summary = if component == "purge" {
            self.pods.shelves(|shelves| shelves.remove(resource));
            Summary::Purged(Purged { objects: 1, bytes: 1, started, finished, message: "Gone.".into() })
        } else if let Some(work) = work {
            let version = self.pods.shelves(|shelves| shelves.publish(&work));
            Summary::Built(Built {
                version,
                dataset_version: work.dataset_version,
                inputs: String::new(),
                vectors: 2,
                failed: 0,
                embedded: 2,
                reused: 0,
                model: work.model,
                recall: Some(1.0),
                bytes: 100,
                unchanged: false,
                started,
                finished,
                message: format!("Version {version} was published with 2 vectors."),
            })
        } else {
            let version = self.pods.publish(resource, 2);
            Summary::Done(Done {
                version,
                rows: 2,
                bytes: 100,
                files: 1,
                rejected_rows: 0,
                unchanged: false,
                source_digest: "d".repeat(64),
                format: "CSV".to_owned(),
                started,
                finished,
                message: format!("Version {version} was published."),
            })
        };
        ("Succeeded", 0, summary, status)
    }

    /// What a build Job is asked for.
    async fn work_of(&self, job: &Job) -> BuildJob {
        let map = self.api::<ConfigMap>().get(&job.name_any()).await.unwrap();
        serde_json::from_str(&map.data.unwrap()["build.json"]).unwrap()
    }

    /// The Job of a resource does nothing any more.
    fn stop(&self, resource: &str) {
        self.pods.runs(resource, None);
        self.pods.shelves(|shelves| shelves.runs(resource, None));
    }

    /// A Job that is deleted in the foreground waits for its pods.
    async fn end_job(self, job: Job) {
        self.stop(&resource_of(&job));
        self.delete_pods_of(&job.uid().unwrap()).await;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let _ = self.api::<Job>().patch(&job.name_any(), &PatchParams::default(), &patch).await;
    }

    async fn run_deployments(self) {
        let mut known = BTreeMap::<String, (Value, Vec<String>)>::new();
        let mut events =
            watcher(self.api::<Deployment>(), watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(deployment) | Event::InitApply(deployment)) => {
                    let spec = deployment.spec.clone().unwrap();
                    let wanted = json!([spec.template, spec.replicas]);
                    let name = deployment.name_any();
                    if known.get(&name).is_some_and(|(before, _)| *before == wanted) {
                        continue;
                    }
                    let mut pods = Vec::new();
                    for _ in 0..spec.replicas.unwrap_or(1) {
                        let pod = format!("{name}-{:05x}", rand::random::<u32>() & 0xf_ffff);
                        let owner = deployment.controller_owner_ref(&()).unwrap();
                        if self.create_pod(&pod, &spec.template, owner).await {
                            let running = json!({"running": {"startedAt": Timestamp::now()}});
                            self.set_pod(&pod, "Running", true, running).await;
                            pods.push(pod);
                        }
                    }
                    let count = pods.len();
                    if let Some((_, before)) = known.insert(name.clone(), (wanted, pods)) {
                        self.delete_pods(&before).await;
                    }
                    let status = json!({"status": {
                        "observedGeneration": deployment.metadata.generation, "replicas": count,
                        "readyReplicas": count, "availableReplicas": count, "updatedReplicas": count,
                    }});
                    let patch = Patch::Merge(status);
                    let _ =
                        self.api::<Deployment>().patch_status(&name, &PatchParams::default(), &patch).await;
                }
                Ok(Event::Delete(deployment)) => {
                    if let Some((_, pods)) = known.remove(&deployment.name_any()) {
                        self.delete_pods(&pods).await;
                    }
                }
                _ => {}
            }
        }
    }

    /// The files of chatd's pods, as a kubelet keeps them: read when a pod starts, and again when anything of it has changed.
    async fn renew_files(self) {
        let mut seen = BTreeMap::new();
        let chat = watcher::Config::default().labels("app.kubernetes.io/component=chat");
        let mut events = watcher(self.api::<Pod>(), chat).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
            let state = pod.metadata.annotations.clone();
            if seen.insert(pod.uid(), state.clone()) == Some(state) {
                continue;
            }
            let Ok(Some(list)) = self.api::<ConfigMap>().get_opt("lakehouse-chat").await else { continue };
            let list: Providers = serde_json::from_str(&list.data.unwrap()["providers.yaml"]).unwrap();
            let mut keys = BTreeSet::new();
            for volume in pod.spec.unwrap().volumes.into_iter().flatten() {
                let (Some(provider), Some(source)) = (volume.name.strip_prefix("key-"), volume.secret) else {
                    continue;
                };
                let entry = source.items.unwrap().remove(0).key;
                let secret = self.api::<Secret>().get_opt(&source.secret_name.unwrap()).await.unwrap();
                if secret.and_then(|secret| secret.data).is_some_and(|data| data.contains_key(&entry)) {
                    keys.insert(provider.to_owned());
                }
            }
            self.pods.chats(|chats| chats.renew(list, keys));
        }
    }

    /// Removes what belonged to a resource that is gone.
    async fn collect_garbage_of<K>(self)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let mut events = watcher(self.api::<K>(), watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let Ok(Event::Delete(resource)) = event else { continue };
            let uid = resource.uid().unwrap();
            self.delete_owned::<Job>(&uid, DeleteParams::foreground()).await;
            self.delete_owned::<ConfigMap>(&uid, DeleteParams::default()).await;
            self.delete_owned::<Deployment>(&uid, DeleteParams::background()).await;
            self.delete_owned::<Service>(&uid, DeleteParams::default()).await;
        }
    }

    async fn delete_owned<K>(&self, uid: &str, how: DeleteParams)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        for object in api.list(&ListParams::default()).await.unwrap() {
            let mut owners = object.owner_references().iter();
            if owners.any(|owner| owner.uid == uid && owner.controller == Some(true)) {
                let _ = api.delete(&object.name_any(), &how).await;
            }
        }
    }

    async fn create_pod(&self, name: &str, template: &PodTemplateSpec, owner: OwnerReference) -> bool {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        metadata.name = Some(name.to_owned());
        metadata.owner_references = Some(vec![owner]);
        let mut spec = template.spec.clone().unwrap();
        for container in &mut spec.containers {
            for port in container.ports.iter_mut().flatten() {
                port.container_port = i32::from(self.pods.port);
            }
            container.startup_probe = None;
            container.readiness_probe = None;
            container.liveness_probe = None;
        }
        let pod = Pod { metadata, spec: Some(spec), status: None };
        match self.api::<Pod>().create(&PostParams::default(), &pod).await {
            Ok(_) => true,
            // What owns it may be gone already.
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_not_found() => false,
            Err(error) => panic!("the pod {name} was refused: {error}"),
        }
    }

    async fn set_pod(&self, name: &str, phase: &str, ready: bool, state: Value) {
        let status = json!({"status": {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{
                "type": "Ready",
                "status": if ready { "True" } else { "False" },
                "lastTransitionTime": Timestamp::now(),
            }],
            "containerStatuses": [{
                "name": "main", "image": "lakehouse:test", "imageID": "", "ready": ready,
                "restartCount": 0, "state": state,
            }],
        }});
        let patch = Patch::Merge(status);
        // A pod that was deleted meanwhile has no status any more.
        let _ = self.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await;
    }

    async fn delete_pods_of(&self, owner: &str) {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap();
        let of_it = |pod: &Pod| pod.owner_references().iter().any(|reference| reference.uid == owner);
        let names: Vec<String> = pods.into_iter().filter(of_it).map(|pod| pod.name_any()).collect();
        self.delete_pods(&names).await;
    }

    async fn delete_pods(&self, names: &[String]) {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        for name in names {
            let _ = self.api::<Pod>().delete(name, &at_once).await;
        }
    }
}

/// The short name of the resource that a Job works for.
fn resource_of(job: &Job) -> String {
    let labels = job.labels();
    let label =
        ["lakehouse.dev/dataset", "lakehouse.dev/vector-index"].iter().find_map(|key| labels.get(*key));
    label.cloned().unwrap_or_default()
}
