//! The Jobs of a Dataset: one that reads its source, one that removes its rows.
//!
//! A Job is named by what makes it different from every other, so that whoever plans the same Job makes it once.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lakehouse_contract::{DatasetName, Role, job::IngestJob};

use super::{
    Child, Kind, Owner, Settings,
    meta::{self, Component},
    names,
    pod::{self, Blueprint, Life, Surroundings},
    settings::Resources,
};
use crate::{ReadyDataset, dataset::Source};

/// `EX_DATAERR` of sysexits.h: the same again cannot end better.
const HOPELESS: i32 = 65;
const JOB_FOLDER: &str = "/etc/lakehouse/job";
const JOB_FILE: &str = "ingest.json";
const SOURCE_FOLDER: &str = "/etc/lakehouse/source";
/// A purge Job that its Dataset did not wait for goes by itself after a day.
const FORGOTTEN_AFTER: i32 = 86_400;

/// What tells one Job of a Dataset from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// What decides its output.
    pub(super) inputs: String,
    /// How many Jobs its Dataset has had, with this one.
    pub(super) run: u32,
    /// How often the same was tried, with this time.
    pub(super) attempt: u32,
    /// The time of the schedule that asks for it.
    pub(super) slot: Option<Timestamp>,
}

/// The Dataset that a Job works for.
#[derive(Clone, Copy, Debug)]
pub(super) struct For<'a> {
    pub(super) namespace: &'a str,
    pub(super) dataset: &'a DatasetName,
    pub(super) uid: &'a str,
}

impl For<'_> {
    fn short(&self) -> String {
        names::short(self.dataset.as_str())
    }

    fn job_name(&self, component: Component, ticket: &Ticket) -> String {
        let Ticket { inputs, run, attempt, slot } = ticket;
        let slot = slot.map(|slot| slot.to_string()).unwrap_or_default();
        let (run, attempt) = (run.to_string(), attempt.to_string());
        let digest = names::digest(&[self.dataset.as_str(), self.uid, inputs, &slot, &run, &attempt]);
        format!("{}-{}-{digest}", self.short(), component.as_str())
    }

    fn metadata(&self, name: &str, component: Component, owner: Option<&Owner>) -> ObjectMeta {
        meta::own(self.namespace, name, component, &self.short(), owner)
    }

    fn annotations(&self, ticket: &Ticket, pod: &str) -> std::collections::BTreeMap<String, String> {
        let Ticket { inputs, run, attempt, slot } = ticket;
        [
            (meta::UID, Some(self.uid.to_owned())),
            (meta::INPUTS, Some(inputs.clone())),
            (meta::RUN, Some(run.to_string())),
            (meta::ATTEMPT, Some(attempt.to_string())),
            (meta::SLOT, slot.map(|slot| slot.to_string())),
            (meta::POD, Some(pod.to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

/// The Jobs that read one Dataset's source, as they would be made now.
pub(super) struct Ingests<'a> {
    pub(super) of: For<'a>,
    pub(super) dataset: &'a ReadyDataset,
    pub(super) work: IngestJob,
    pub(super) surroundings: Surroundings<'a>,
    /// `uid/resourceVersion` of the Secret that opens the source.
    pub(super) source_secret: Option<&'a str>,
    pub(super) settings: &'a Settings,
}

impl Ingests<'_> {
    /// The Job's name, and its ConfigMap's.
    pub(super) fn name(&self, ticket: &Ticket) -> String {
        self.of.job_name(Component::Ingest, ticket)
    }

    /// Names everything but the inputs that may decide how a Job ends: its pods, its limits, its Secrets.
    pub(super) fn pod_digest(&self) -> String {
        let spec = serde_json::to_string(&self.spec("")).expect("a Job has a JSON form");
        names::digest(&[&spec, self.source_secret.unwrap_or_default()])
    }

    /// The ConfigMap that tells the Job's pod what to do.
    pub(super) fn config_map(&self, name: &str) -> Child {
        let work = serde_json::to_string_pretty(&self.work)
            .expect("plain data with text keys always has a JSON form");
        let config_map = ConfigMap {
            metadata: self.of.metadata(name, Component::Ingest, Some(&self.owner())),
            immutable: Some(true),
            data: Some([(JOB_FILE.to_owned(), work)].into()),
            ..ConfigMap::default()
        };
        Child::of(Kind::ConfigMap, &config_map)
    }

    /// The Job.
    pub(super) fn job(&self, ticket: &Ticket) -> Child {
        let name = self.name(ticket);
        let mut metadata = self.of.metadata(&name, Component::Ingest, Some(&self.owner()));
        metadata.annotations = Some(self.of.annotations(ticket, &self.pod_digest()));
        Child::of(Kind::Job, &Job { metadata, spec: Some(self.spec(&name)), status: None })
    }

    fn owner(&self) -> Owner {
        Owner { name: self.of.dataset.to_string(), uid: self.of.uid.to_owned() }
    }

    fn spec(&self, name: &str) -> JobSpec {
        let Self { dataset, settings, .. } = self;
        let pod = &dataset.pod;
        let retries = pod.backoff_limit.unwrap_or(settings.ingest.backoff_limit);
        let deadline = pod.active_deadline_seconds.or(settings.ingest.active_deadline_seconds);
        let port = Role::Ingestd.port();
        let own = pod.resources.as_ref().map(Resources::from).unwrap_or_default();
        let blueprint = Blueprint {
            component: Component::Ingest,
            args: words(&[
                &["job", "ingest", "--job", &format!("{JOB_FOLDER}/{JOB_FILE}"), "--source", SOURCE_FOLDER],
                &["--summary", pod::SUMMARY, "--listen", &format!("0.0.0.0:{port}")],
                &["--token-file", pod::TOKENS],
            ]),
            env: Vec::new(),
            resources: settings.ingest_resources().under(&own),
            disk: &settings.ingest.spool_size,
            port: Some(port),
            life: Life::Job,
            volumes: self.volumes(name),
            metadata: labelled(&self.of),
        };
        let template = pod::template(blueprint, &self.surroundings, settings);
        JobSpec { active_deadline_seconds: deadline, ..spec(Component::Ingest, retries, template) }
    }

    fn volumes(&self, name: &str) -> Vec<(Volume, &'static str)> {
        let mut volumes = vec![(config_map("job", name, None), JOB_FOLDER)];
        match &self.dataset.source {
            Source::Http { headers_secret: Some(secret), .. }
            | Source::S3 { credentials_secret: Some(secret), .. } => {
                volumes.push((pod::secret("source", secret), SOURCE_FOLDER));
            }
            Source::ConfigMap { name, key } => {
                volumes.push((config_map("source", name, Some(key)), SOURCE_FOLDER));
            }
            Source::Http { .. } | Source::S3 { .. } | Source::Upload => {}
        }
        volumes
    }
}

/// The Jobs that remove one Dataset's rows, as they would be made now.
pub(super) struct Purges<'a> {
    pub(super) of: For<'a>,
    pub(super) surroundings: Surroundings<'a>,
    pub(super) settings: &'a Settings,
}

impl Purges<'_> {
    /// Names what may decide how a Job ends.
    pub(super) fn pod_digest(&self) -> String {
        let spec = serde_json::to_string(&self.spec()).expect("a Job has a JSON form");
        names::digest(&[&spec])
    }

    /// The Job.
    pub(super) fn job(&self, ticket: &Ticket) -> Child {
        let name = self.of.job_name(Component::Purge, ticket);
        let mut metadata = self.of.metadata(&name, Component::Purge, None);
        metadata.annotations = Some(self.of.annotations(ticket, &self.pod_digest()));
        Child::of(Kind::Job, &Job { metadata, spec: Some(self.spec()), status: None })
    }

    fn spec(&self) -> JobSpec {
        let settings = self.settings;
        let blueprint = Blueprint {
            component: Component::Purge,
            args: words(&[&[
                "job",
                "purge",
                "--dataset",
                self.of.dataset.as_str(),
                "--summary",
                pod::SUMMARY,
            ]]),
            env: Vec::new(),
            resources: settings.ingest_resources(),
            disk: &settings.ingest.spool_size,
            port: None,
            life: Life::Job,
            volumes: Vec::new(),
            metadata: labelled(&self.of),
        };
        let template = pod::template(blueprint, &self.surroundings, settings);
        JobSpec {
            ttl_seconds_after_finished: Some(FORGOTTEN_AFTER),
            ..spec(Component::Purge, settings.ingest.backoff_limit, template)
        }
    }
}

fn labelled(of: &For<'_>) -> ObjectMeta {
    ObjectMeta {
        labels: Some([(meta::DATASET_LABEL.to_owned(), of.short())].into()),
        ..ObjectMeta::default()
    }
}

/// A Job of one pod. It gives up at once where its pod says that the same again cannot end better, and counts no pod that had to
/// make room.
fn spec(component: Component, retries: i32, template: PodTemplateSpec) -> JobSpec {
    let rule =
        |action: &str| PodFailurePolicyRule { action: action.to_owned(), ..PodFailurePolicyRule::default() };
    let hopeless = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(component.as_str().to_owned()),
        operator: "In".to_owned(),
        values: vec![HOPELESS],
    };
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
    };
    JobSpec {
        backoff_limit: Some(retries),
        pod_failure_policy: Some(PodFailurePolicy {
            rules: vec![
                PodFailurePolicyRule { on_exit_codes: Some(hopeless), ..rule("FailJob") },
                PodFailurePolicyRule { on_pod_conditions: Some(vec![disrupted]), ..rule("Ignore") },
            ],
        }),
        template,
        ..JobSpec::default()
    }
}

/// A volume with a ConfigMap, or with one of its entries.
fn config_map(volume: &str, name: &str, key: Option<&str>) -> Volume {
    let items = key.map(|key| vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]);
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            items,
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(str::to_owned).collect()
}
