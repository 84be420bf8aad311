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
        core::v1::{ConfigMap, Pod, PodTemplateSpec},
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
use lakehouse_contract::job::{Done, Purged, Summary};
use lakehouse_crds::Dataset;
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
        tokio::spawn(stage.collect_garbage()),
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
        let (dataset, component) = (label("lakehouse.dev/dataset"), label("app.kubernetes.io/component"));
        let (course, time) = {
            let jobs = self.jobs.lock().unwrap();
            (jobs.by_dataset.get(&dataset).cloned().unwrap_or(Course::Done), jobs.time)
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
        if component == "ingest" {
            self.pods.runs(&dataset, Some(0));
        }
        if course == Course::Runs {
            return;
        }
        tokio::time::sleep(time).await;
        let (phase, exit, summary, status) = self.outcome(&course, &component, &dataset, started);
        self.pods.runs(&dataset, None);
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
        dataset: &str,
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
            Summary::Purged(Purged { objects: 1, bytes: 1, started, finished, message: "Gone.".into() })
        } else {
            let version = self.pods.publish(dataset, 2);
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

    /// A Job that is deleted in the foreground waits for its pods.
    async fn end_job(self, job: Job) {
        self.pods.runs(&job.labels().get("lakehouse.dev/dataset").cloned().unwrap_or_default(), None);
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

    /// Removes what belonged to a Dataset that is gone.
    async fn collect_garbage(self) {
        let mut events = watcher(self.api::<Dataset>(), watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let Ok(Event::Delete(dataset)) = event else { continue };
            let uid = dataset.uid().unwrap();
            self.delete_owned::<Job>(&uid).await;
            self.delete_owned::<ConfigMap>(&uid).await;
        }
    }

    async fn delete_owned<K>(&self, uid: &str)
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
                let _ = api.delete(&object.name_any(), &DeleteParams::foreground()).await;
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
