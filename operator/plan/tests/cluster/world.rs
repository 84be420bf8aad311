//! A cluster in miniature: it keeps what a plan asks for, and plays the Job controller, the kubelet and the clock.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition},
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    dataset::schema_fingerprint,
    job::{Done, Summary},
};
use lakehouse_crds::Dataset;
use lakehouse_plan::{
    ReadyDataset, check,
    cluster::{
        Child, Kind, Settings,
        dataset::{Catalogue, Entry, Observed, Plan, plan},
    },
};
use serde_json::{Value, json};

pub(crate) const UID: &str = "11111111-2222-3333-4444-555555555555";

/// One Dataset `sales` in the namespace `team`, and all that the cluster holds of it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) spec: Value,
    pub(crate) refresh: Option<String>,
    pub(crate) settings: Settings,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) entry: Option<String>,
    pub(crate) jobs: Vec<Arc<Job>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) config_maps: Vec<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) manifest: Option<DatasetManifest>,
    pub(crate) undeclared: Option<&'static str>,
    /// The inputs of every Job that ended well, in their order.
    pub(crate) done: Vec<String>,
    /// The times of the schedule for which rows were read.
    pub(crate) done_slots: Vec<String>,
    uids: u32,
}

/// How a container ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Done,
    /// A summary with this reason; the exit status says whether the same again cannot end better.
    Failed(&'static str),
    OutOfMemory,
    Crash,
}

impl World {
    pub(crate) fn new(spec: Value) -> Self {
        Self {
            now: "2026-11-20T12:00:00Z".parse().unwrap(),
            spec,
            refresh: None,
            settings: settings(),
            secrets: [("lakehouse-store".to_owned(), "store/1".to_owned())].into(),
            entry: Some("d1".to_owned()),
            jobs: Vec::new(),
            pods: Vec::new(),
            config_maps: Vec::new(),
            events: Vec::new(),
            manifest: None,
            undeclared: None,
            done: Vec::new(),
            done_slots: Vec::new(),
            uids: 0,
        }
    }

    pub(crate) fn of_config_map() -> Self {
        Self::new(json!({"source": {"configMap": {"name": "prices", "key": "prices.csv"}}}))
    }

    pub(crate) fn dataset(&self) -> ReadyDataset {
        let mut dataset = Dataset::new("sales", serde_json::from_value(self.spec.clone()).unwrap());
        dataset.metadata.namespace = Some("team".to_owned());
        dataset.metadata.uid = Some(UID.to_owned());
        let refresh = self.refresh.clone();
        dataset.metadata.annotations =
            refresh.map(|value| [(lakehouse_crds::REFRESH_ANNOTATION.to_owned(), value)].into());
        check(&dataset).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        let observed = Observed {
            jobs: &self.jobs,
            pods: &self.pods,
            events: &self.events,
            config_maps: &self.config_maps,
            secrets: &self.secrets,
            entry: self.entry.as_deref().map_or(Entry::NoConfigMap, Entry::Digest),
            catalogue: self.manifest.as_ref().map_or(Catalogue::Nothing, Catalogue::Current),
            undeclared: self.undeclared,
            now: self.now,
        };
        plan(&self.dataset(), UID, &observed, &self.settings)
    }

    /// Plans and applies.
    pub(crate) fn visit(&mut self) -> Plan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    /// Takes every step of a plan.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        self.apply_steps(plan, usize::MAX);
    }

    /// Takes the first steps of a plan; whoever took them is killed then.
    pub(crate) fn apply_steps(&mut self, plan: &Plan, steps: usize) {
        let mut left = steps;
        let mut may = || {
            let more = left > 0;
            left = left.saturating_sub(1);
            more
        };
        for object in &plan.delete {
            if !may() {
                return;
            }
            match object.kind {
                Kind::ConfigMap => self.config_maps.retain(|name| *name != object.name),
                Kind::Job => self.change(&object.name, |job, now| {
                    job.metadata.deletion_timestamp.get_or_insert(Time(now));
                }),
                _ => panic!("{object:?} is none of a Dataset's"),
            }
        }
        for child in &plan.children {
            if !may() {
                return;
            }
            self.create(child);
        }
        if let Some((job, suspend)) = &plan.suspend
            && may()
        {
            self.change(job, |job, _| job.spec.as_mut().unwrap().suspend = Some(*suspend));
        }
        if let Some(rollback) = plan.rollback
            && may()
            && let Some(manifest) = &mut self.manifest
        {
            manifest.version = rollback.version;
        }
    }

    fn create(&mut self, child: &Child) {
        assert!(child.is_made_once(), "{} would be applied again and again", child.name());
        let name = child.name();
        match child.kind() {
            Kind::ConfigMap if !self.config_maps.contains(&name) => self.config_maps.push(name),
            Kind::Job if self.job(&name).is_none() => {
                let mut job: Job = child.object().clone().try_parse().unwrap();
                self.uids += 1;
                job.metadata.uid = Some(format!("job-{}", self.uids));
                job.metadata.creation_timestamp = Some(Time(self.now));
                self.jobs.push(Arc::new(job));
            }
            _ => {}
        }
    }

    /// The Job controller, the garbage collector and the kubelet each do one thing.
    pub(crate) fn tick(&mut self, end: End) {
        self.tick_but(end, |_| false);
    }

    /// As [`Self::tick`], but nothing happens to some Jobs.
    pub(crate) fn tick_but(&mut self, end: End, rests: impl Fn(&Job) -> bool) {
        for job in self.jobs.clone() {
            if rests(&job) {
                continue;
            }
            let (name, suspended) = (job.name_any(), job.spec.as_ref().unwrap().suspend == Some(true));
            let live = self.pods_of(&job).into_iter().find(|pod| !has_ended(pod));
            if job.metadata.deletion_timestamp.is_some() {
                // In the foreground: the pods first.
                let uid = job.uid();
                if self.pods.iter().any(|pod| pod.owner_references()[0].uid == uid.clone().unwrap()) {
                    self.pods.retain(|pod| pod.owner_references()[0].uid != uid.clone().unwrap());
                } else {
                    self.jobs.retain(|job| job.name_any() != name);
                }
            } else if is_finished(&job) {
            } else if suspended {
                if let Some(live) = live {
                    self.pods.retain(|pod| pod.name_any() != live.name_any());
                }
            } else if let Some(live) = live {
                match phase(&live) {
                    "Pending" => self.replace(running(&live)),
                    _ => self.end(&job, &live, end),
                }
            } else {
                self.start_pod(&job);
            }
        }
    }

    pub(crate) fn start_pod(&mut self, job: &Job) {
        self.uids += 1;
        let name = format!("{}-{:05}", job.name_any(), self.uids);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "uid": format!("pod-{}", self.uids), "creationTimestamp": self.now.to_string(),
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid()}],
            },
            "spec": job.spec.as_ref().unwrap().template.spec,
            "status": {"phase": "Pending"},
        });
        self.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
    }

    fn end(&mut self, job: &Job, pod: &Pod, end: End) {
        let inputs = job.annotations()["lakehouse.dev/inputs"].clone();
        if matches!(end, End::Done) {
            let version = self.manifest.as_ref().map_or(1, |manifest| manifest.latest_version + 1);
            self.manifest = Some(manifest(version));
            self.done.push(inputs);
            self.done_slots.extend(job.annotations().get("lakehouse.dev/slot").cloned());
        }
        let (pod, hopeless) = ended(pod, end, self.now);
        self.replace(pod);
        let failed = self.pods_of(job).iter().filter(|pod| phase(pod) == "Failed").count();
        let retries = usize::try_from(job.spec.as_ref().unwrap().backoff_limit.unwrap()).unwrap();
        let condition = match end {
            End::Done => Some(("Complete", "CompletionsReached", "")),
            _ if hopeless => Some(("Failed", "PodFailurePolicy", "Container failed")),
            _ if failed > retries => Some(("Failed", "BackoffLimitExceeded", "Job has reached the limit")),
            _ => None,
        };
        if let Some((type_, reason, message)) = condition {
            self.change(&job.name_any(), |job, now| finish(job, now, type_, reason, message));
        }
    }

    /// Ends the latest Job, with one pod.
    pub(crate) fn run_to_its_end(&mut self, end: End) {
        for _ in 0..20 {
            self.tick(end);
        }
    }

    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub(crate) fn job(&self, name: &str) -> Option<Arc<Job>> {
        self.jobs.iter().find(|job| job.name_any() == name).cloned()
    }

    /// The only Job.
    pub(crate) fn only_job(&self) -> Arc<Job> {
        let [job] = self.jobs.as_slice() else { panic!("{} Jobs", self.jobs.len()) };
        job.clone()
    }

    pub(crate) fn pods_of(&self, job: &Job) -> Vec<Arc<Pod>> {
        let uid = job.uid().unwrap();
        self.pods.iter().filter(|pod| pod.owner_references()[0].uid == uid).cloned().collect()
    }

    /// The Jobs whose pods may be at work.
    pub(crate) fn at_work(&self) -> usize {
        self.jobs.iter().filter(|job| self.pods_of(job).iter().any(|pod| !has_ended(pod))).count()
    }

    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Job, Timestamp)) {
        let now = self.now;
        if let Some(job) = self.jobs.iter_mut().find(|job| job.name_any() == name) {
            change(Arc::make_mut(job), now);
        }
    }

    pub(crate) fn replace(&mut self, pod: Pod) {
        let place = self.pods.iter_mut().find(|old| old.name_any() == pod.name_any()).unwrap();
        *place = Arc::new(pod);
    }
}

pub(crate) fn settings() -> Settings {
    Settings::parse(
        "{image: 'lakehouse:0.1.0', store: {url: 's3://lakehouse', endpoint: 'http://minio:9000'}}",
    )
    .unwrap()
}

/// A job's condition.
pub(crate) fn finish(job: &mut Job, now: Timestamp, type_: &str, reason: &str, message: &str) {
    job.status.get_or_insert_default().conditions.get_or_insert_default().push(JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..JobCondition::default()
    });
}

/// The pod with another status.
pub(crate) fn with_status(pod: &Pod, status: Value) -> Pod {
    Pod { status: Some(serde_json::from_value(status).unwrap()), ..pod.clone() }
}

pub(crate) fn running(pod: &Pod) -> Pod {
    let state = json!({"running": {"startedAt": "2026-11-20T12:00:00Z"}});
    with_status(
        pod,
        json!({"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [container(&state)]}),
    )
}

/// A container's status with this state.
pub(crate) fn container(state: &Value) -> Value {
    json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

/// The pod when its container has ended, and whether the same again cannot end better.
fn ended(pod: &Pod, end: End, now: Timestamp) -> (Pod, bool) {
    let (code, reason, message) = match end {
        End::Done => (0, "Completed", done(now).to_json()),
        End::Failed(reason) => {
            let hopeless = matches!(reason, "InvalidData" | "NotSupported" | "SourceDenied");
            let message = format!("the real error of {reason}");
            let summary = Summary::Failed { reason: reason.into(), message, started: now, finished: now };
            (if hopeless { 65 } else { 75 }, "Error", summary.to_json())
        }
        End::OutOfMemory => (137, "OOMKilled", String::new()),
        End::Crash => (101, "Error", "thread main panicked at engine.rs:7\n".to_owned()),
    };
    let terminated = json!({"terminated": {
        "exitCode": code, "reason": reason, "message": message,
        "startedAt": now.to_string(), "finishedAt": now.to_string(),
    }});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    (with_status(pod, json!({"phase": phase, "containerStatuses": [container(&terminated)]})), code == 65)
}

pub(crate) fn done(now: Timestamp) -> Summary {
    Summary::Done(Done {
        version: 1,
        rows: 10,
        bytes: 100,
        files: 1,
        rejected_rows: 0,
        unchanged: false,
        source_digest: "sha256:00".into(),
        format: "CSV".into(),
        started: now,
        finished: now + SignedDuration::from_millis(1500),
        message: "Version 1 was published with 10 rows.".into(),
    })
}

pub(crate) fn manifest(version: u64) -> DatasetManifest {
    let name = DatasetName::parse("sales").unwrap();
    DatasetManifest {
        dataset_id: name.id(),
        name,
        schema_fingerprint: schema_fingerprint(&[]),
        schema: Vec::new(),
        objects: Vec::new(),
        row_count: 10,
        version,
        latest_version: version,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        origin: None,
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().unwrap().phase.as_deref().unwrap()
}

pub(crate) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

pub(crate) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| status.conditions.is_some())
}
