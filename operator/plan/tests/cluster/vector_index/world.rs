//! One VectorIndex `shelf` in the namespace `team` over the Dataset `workers`, in the cluster in miniature.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::ResourceExt;
use lakehouse_contract::{
    embed::ModelIdentity,
    job::BuildJob,
    vectors::{BuiltFrom, IndexInfo, Shape},
};
use lakehouse_crds::{REFRESH_ANNOTATION, VectorIndex};
use lakehouse_plan::{
    ReadyVectorIndex, Reason,
    cluster::{
        Child, Kind, ObjectName, dataset,
        vector_index::{Observed, Plan, Stored, plan},
    },
    status::{DatasetFacts, EmbedderFacts, Failure},
    vector_index::check,
};
use serde_json::{Value, json};

use crate::world::{End, UID, World};

#[derive(Clone)]
pub(crate) struct Shelf {
    /// Its Jobs, their pods and the clock.
    pub(crate) world: World,
    pub(crate) spec: Value,
    pub(crate) refresh: Option<String>,
    /// The Dataset's version; absent without a Dataset.
    pub(crate) dataset: Option<u64>,
    /// The model's weights; absent while nobody answers.
    pub(crate) weights: Option<String>,
    /// Whether the pods of the index are ready.
    pub(crate) is_asked: bool,
    pub(crate) stored: Option<IndexInfo>,
    kept: Vec<IndexInfo>,
    pub(crate) servers: Vec<ObjectName>,
    /// What each Job was asked for.
    works: BTreeMap<String, BuildJob>,
}

impl Shelf {
    pub(crate) fn new(fields: Value) -> Self {
        let mut spec = json!({
            "source": {"dataset": "workers", "id": "w-{id}", "text": "{a}"},
            "embedding": {"local": {"model": "lexical"}},
        });
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        spec.as_object_mut().unwrap().extend(fields);
        Self::of(spec)
    }

    /// One that clients fill.
    pub(crate) fn filled() -> Self {
        Self::of(json!({"dimension": 384}))
    }

    fn of(spec: Value) -> Self {
        Self {
            world: World::new(json!({"source": {"upload": {}}})),
            spec,
            refresh: None,
            dataset: Some(1),
            weights: Some("a".to_owned()),
            is_asked: true,
            stored: None,
            kept: Vec::new(),
            servers: Vec::new(),
            works: BTreeMap::new(),
        }
    }

    pub(crate) fn ready(&self) -> ReadyVectorIndex {
        let mut index = VectorIndex::new("shelf", serde_json::from_value(self.spec.clone()).unwrap());
        index.metadata.namespace = Some("team".to_owned());
        let refresh = self.refresh.clone();
        index.metadata.annotations = refresh.map(|value| [(REFRESH_ANNOTATION.to_owned(), value)].into());
        check(&index).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        let missing = || Failure::new(Reason::DatasetMissing, "there is none");
        let dataset = self.dataset.map_or_else(
            || DatasetFacts::Failed(missing()),
            |version| DatasetFacts::Found { version, trouble: None },
        );
        let silent = || Failure::new(Reason::EmbedderFailed, "it is away");
        let embedder = self.model().map_or_else(|| EmbedderFacts::Failed(silent()), EmbedderFacts::Answers);
        let observed = Observed {
            jobs: &self.world.jobs,
            pods: &self.world.pods,
            events: &self.world.events,
            config_maps: &self.world.config_maps,
            existing: &self.servers,
            secrets: &self.world.secrets,
            stored: match &self.stored {
                _ if !self.is_asked => Stored::Unknown,
                Some(index) => Stored::Index(index),
                None => Stored::Nothing,
            },
            dataset: &dataset,
            embedder: &embedder,
            now: self.world.now,
        };
        plan(&self.ready(), UID, &observed, &self.world.settings)
    }

    pub(crate) fn model(&self) -> Option<ModelIdentity> {
        let (model, digest) = ("local/lexical".to_owned(), self.weights.clone()?);
        Some(ModelIdentity { model, digest, dimension: 384, normalised: true })
    }

    pub(crate) fn visit(&mut self) -> Plan {
        let plan = self.plan();
        self.apply_steps(&plan, usize::MAX);
        plan
    }

    /// Takes the first steps of a plan; whoever took them is killed then.
    pub(crate) fn apply_steps(&mut self, plan: &Plan, steps: usize) {
        let is_of_job = |kind: Kind| matches!(kind, Kind::Job | Kind::ConfigMap);
        let (jobs, servers): (Vec<Child>, Vec<Child>) =
            plan.children.iter().cloned().partition(|child| is_of_job(child.kind()));
        for child in jobs.iter().filter(|child| child.kind() == Kind::ConfigMap) {
            let map: ConfigMap = child.object().clone().try_parse().unwrap();
            let work = serde_json::from_str(&map.data.unwrap()["build.json"]).unwrap();
            // The first one counts: it cannot be changed.
            self.works.entry(child.name()).or_insert(work);
        }
        let (gone, left): (Vec<ObjectName>, Vec<ObjectName>) =
            plan.delete.iter().cloned().partition(|object| is_of_job(object.kind));
        self.servers.retain(|object| !left.contains(object));
        for name in servers.iter().map(Child::object_name) {
            if !self.servers.contains(&name) {
                self.servers.push(name);
            }
        }
        let of_jobs = dataset::Plan {
            delete: gone,
            children: jobs,
            suspend: plan.suspend.clone(),
            ..dataset::Plan::default()
        };
        self.world.apply_steps(&of_jobs, steps);
        if steps == usize::MAX
            && let Some(rollback) = plan.rollback
            && let Some(kept) = self.kept.iter().find(|kept| kept.version == rollback.version)
        {
            let latest_version = self.kept.last().unwrap().version;
            self.stored = Some(IndexInfo { latest_version, ..kept.clone() });
        }
    }

    /// Everybody else does one thing; a build that ends well has published.
    pub(crate) fn tick(&mut self, end: End) {
        self.tick_but(end, |_| false);
    }

    pub(crate) fn tick_but(&mut self, end: End, rests: impl Fn(&Job) -> bool) {
        let before = self.world.done.len();
        self.world.tick_but(end, rests);
        let done: Vec<String> = self.world.done.iter().skip(before).cloned().collect();
        for inputs in done {
            let job = self.world.jobs.iter().find(|job| {
                job.annotations()["lakehouse.dev/inputs"] == inputs && crate::world::is_finished(job)
            });
            let work = self.works[&job.unwrap().name_any()].clone();
            self.publish(&work);
        }
    }

    /// What the Job does in the bucket.
    fn publish(&mut self, work: &BuildJob) {
        let BuildJob { spec, dataset_version, model, .. } = work;
        let inputs = spec.inputs_digest(&spec.dataset.id().to_string(), *dataset_version, &model.digest);
        let is_there = |there: &&IndexInfo| there.source.as_ref().unwrap().inputs == inputs;
        if self.stored.as_ref().is_some_and(|there| is_there(&there)) {
            return;
        }
        if let Some(kept) = self.kept.iter().find(is_there) {
            // What was built before is served again.
            let latest_version = self.kept.last().unwrap().version;
            self.stored = Some(IndexInfo { latest_version, ..kept.clone() });
            return;
        }
        let version = self.kept.last().map_or(1, |latest| latest.version + 1);
        let info = IndexInfo {
            name: spec.name.clone(),
            shape: Shape {
                dimension: 384,
                metric: spec.metric,
                hnsw: spec.hnsw,
                quantization: spec.quantization,
            },
            length: 10,
            version,
            latest_version: version,
            versions: vec![version],
            embedding: Some(model.clone()),
            source: Some(BuiltFrom {
                dataset: spec.dataset.clone(),
                version: *dataset_version,
                id: spec.id.clone(),
                inputs,
            }),
            failed: 0,
            recall: None,
            bytes: 1,
            shards: spec.shards,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            damaged: Vec::new(),
        };
        self.kept.push(info.clone());
        self.stored = Some(info);
    }

    /// Somebody empties the bucket.
    pub(crate) fn empty(&mut self) {
        self.stored = None;
        self.kept.clear();
    }

    /// Whether the index is what the spec asks for, of the Dataset's version.
    pub(crate) fn is_as_asked(&self) -> bool {
        let model = self.model();
        self.stored.as_ref().is_some_and(|there| {
            there.source.as_ref().is_some_and(|from| Some(from.version) == self.dataset)
                && self.ready().is_made_as_asked(there, model.as_ref())
        })
    }

    /// Visits and lets builds end well until nothing is left to do.
    pub(crate) fn build(&mut self) {
        for _ in 0..10 {
            self.visit();
            self.tick(End::Done);
        }
    }

    /// Builds that ended well.
    pub(crate) fn built(&self) -> usize {
        self.world.done.len()
    }

    /// The names of the planned Jobs.
    pub(crate) fn planned_jobs(&self) -> Vec<String> {
        jobs(&self.plan())
    }
}

/// The names of a plan's Jobs.
pub(crate) fn jobs(plan: &Plan) -> Vec<String> {
    plan.children.iter().filter(|child| child.kind() == Kind::Job).map(Child::name).collect()
}
