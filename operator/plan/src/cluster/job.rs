//! The Jobs of a resource: one that reads a source, one that builds an index, one that removes what they made.
//!
//! A Job is named by what makes it different from every other, so that whoever plans the same Job makes it once.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{ConfigMap, ConfigMapVolumeSource, EnvVar, KeyToPath, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use lakehouse_contract::{
    Role,
    job::{BuildJob, IngestJob},
};

use serde::Serialize;

use super::{
    Child, Kind, Owner, ResourceKind, Settings,
    meta::{self, Component},
    names,
    pod::{self, Blueprint, Life, Surroundings},
    quantity,
    settings::Resources,
    work::Make,
};
use crate::{ReadyDataset, ReadyVectorIndex, dataset::Source};

/// `EX_DATAERR` of sysexits.h: the same again cannot end better.
const HOPELESS: i32 = 65;
const JOB_FOLDER: &str = "/etc/lakehouse/job";
const INGEST_FILE: &str = "ingest.json";
const BUILD_FILE: &str = "build.json";
const SOURCE_FOLDER: &str = "/etc/lakehouse/source";
/// The share of a build's memory, and of its disk, that the engine gets which reads the rows; vectors need the rest.
const READING_SHARE: f64 = 0.25;
const MEBIBYTE: f64 = 1_048_576.0;
/// A purge Job that its resource did not wait for goes by itself after a day.
const FORGOTTEN_AFTER: i32 = 86_400;

/// What tells one Job of a resource from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// What decides its output.
    pub(super) inputs: String,
    /// How many Jobs its resource has had, with this one.
    pub(super) run: u32,
    /// How often the same was tried, with this time.
    pub(super) attempt: u32,
    /// The time of the schedule that asks for it.
    pub(super) slot: Option<Timestamp>,
}

/// The resource that an object is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct For<'a> {
    pub(super) kind: ResourceKind,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

impl For<'_> {
    pub(super) fn short(&self) -> String {
        names::short(self.name)
    }

    /// What tells its objects from those of others.
    pub(super) fn label(&self) -> Option<(String, String)> {
        Some((self.kind.label()?.to_owned(), self.short()))
    }

    pub(super) fn owner(&self) -> Owner {
        Owner { kind: self.kind, name: self.name.to_owned(), uid: self.uid.to_owned() }
    }

    /// The metadata of an object of its own.
    pub(super) fn metadata(&self, name: &str, component: Component, owner: Option<&Owner>) -> ObjectMeta {
        meta::own(self.namespace, name, component, self.label(), owner)
    }

    fn job_name(&self, component: Component, ticket: &Ticket) -> String {
        let Ticket { inputs, run, attempt, slot } = ticket;
        let slot = slot.map(|slot| slot.to_string()).unwrap_or_default();
        let (run, attempt) = (run.to_string(), attempt.to_string());
        let digest = names::digest(&[self.name, self.uid, inputs, &slot, &run, &attempt]);
        format!("{}-{}-{digest}", self.short(), component.as_str())
    }

    /// A Job of its own, of this name.
    fn job(&self, name: &str, component: Component, ticket: &Ticket, pod: &str, spec: JobSpec) -> Child {
        let mut metadata = self.metadata(name, component, Some(&self.owner()));
        metadata.annotations = Some(self.annotations(ticket, pod));
        Child::of(Kind::Job, &Job { metadata, spec: Some(spec), status: None })
    }

    /// The ConfigMap that tells the pod of a Job what to do.
    fn config_map(&self, name: &str, component: Component, file: &str, work: &impl Serialize) -> Child {
        let work =
            serde_json::to_string_pretty(work).expect("plain data with text keys always has a JSON form");
        let config_map = ConfigMap {
            metadata: self.metadata(name, component, Some(&self.owner())),
            immutable: Some(true),
            data: Some([(file.to_owned(), work)].into()),
            ..ConfigMap::default()
        };
        Child::of(Kind::ConfigMap, &config_map)
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

impl Make for Ingests<'_> {
    fn name(&self, ticket: &Ticket) -> String {
        self.of.job_name(Component::Ingest, ticket)
    }

    fn pod_digest(&self) -> String {
        pod_digest(&self.spec(""), Some(self.source_secret.unwrap_or_default()))
    }

    fn config_map(&self, name: &str) -> Child {
        self.of.config_map(name, Component::Ingest, INGEST_FILE, &self.work)
    }

    fn job(&self, ticket: &Ticket) -> Child {
        let name = self.name(ticket);
        self.of.job(&name, Component::Ingest, ticket, &self.pod_digest(), self.spec(&name))
    }
}

impl Ingests<'_> {
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
                &[
                    "job",
                    "ingest",
                    "--job",
                    &format!("{JOB_FOLDER}/{INGEST_FILE}"),
                    "--source",
                    SOURCE_FOLDER,
                ],
                &["--summary", pod::SUMMARY, "--listen", &format!("0.0.0.0:{port}")],
                &["--token-file", pod::TOKENS],
            ]),
            env: Vec::new(),
            resources: settings.ingest_resources().under(&own),
            disk: &settings.ingest.spool_size,
            port: Some(port),
            life: Life::Job,
            volumes: self.volumes(name),
            labels: self.of.label().into_iter().collect(),
        };
        let template = pod::template(blueprint, &self.surroundings, settings);
        JobSpec { active_deadline_seconds: deadline, ..spec(Component::Ingest, retries, template) }
    }

    fn volumes(&self, name: &str) -> Vec<(Volume, String)> {
        let mut volumes = vec![(config_map("job", name, None), JOB_FOLDER.to_owned())];
        match &self.dataset.source {
            Source::Http { headers_secret: Some(secret), .. }
            | Source::S3 { credentials_secret: Some(secret), .. } => {
                volumes.push((pod::secret("source", secret), SOURCE_FOLDER.to_owned()));
            }
            Source::ConfigMap { name, key } => {
                volumes.push((config_map("source", name, Some(key)), SOURCE_FOLDER.to_owned()));
            }
            Source::Http { .. } | Source::S3 { .. } | Source::Upload => {}
        }
        volumes
    }
}

/// The Jobs that build one index, as they would be made now.
pub(super) struct Builds<'a> {
    pub(super) of: For<'a>,
    pub(super) index: &'a ReadyVectorIndex,
    pub(super) work: BuildJob,
    pub(super) surroundings: Surroundings<'a>,
    pub(super) settings: &'a Settings,
}

impl Make for Builds<'_> {
    fn name(&self, ticket: &Ticket) -> String {
        self.of.job_name(Component::Build, ticket)
    }

    fn pod_digest(&self) -> String {
        pod_digest(&self.spec(""), None)
    }

    fn config_map(&self, name: &str) -> Child {
        self.of.config_map(name, Component::Build, BUILD_FILE, &self.work)
    }

    fn job(&self, ticket: &Ticket) -> Child {
        let name = self.name(ticket);
        self.of.job(&name, Component::Build, ticket, &self.pod_digest(), self.spec(&name))
    }
}

impl Builds<'_> {
    fn spec(&self, name: &str) -> JobSpec {
        let Self { index, settings, .. } = self;
        let pod = &index.pod;
        let retries = pod.backoff_limit.unwrap_or(settings.build.backoff_limit);
        let deadline = pod.active_deadline_seconds.or(settings.build.active_deadline_seconds);
        let port = Role::Vectord.port();
        let own = pod.resources.as_ref().map(Resources::from).unwrap_or_default();
        let resources = settings.build_resources().under(&own);
        let mut args = words(&[
            &["job", "build", "--job", &format!("{JOB_FOLDER}/{BUILD_FILE}")],
            &["--summary", pod::SUMMARY, "--listen", &format!("0.0.0.0:{port}")],
            &["--token-file", pod::TOKENS],
        ]);
        let mut volumes = vec![(config_map("job", name, None), JOB_FOLDER.to_owned())];
        pod::add_models(&mut args, &mut volumes, settings);
        let blueprint = Blueprint {
            component: Component::Build,
            args,
            env: reading(&resources, &settings.build.spool_size),
            resources,
            disk: &settings.build.spool_size,
            port: Some(port),
            life: Life::Job,
            volumes,
            labels: self.of.label().into_iter().collect(),
        };
        let template = pod::template(blueprint, &self.surroundings, settings);
        JobSpec { active_deadline_seconds: deadline, ..spec(Component::Build, retries, template) }
    }
}

/// The Jobs that remove one resource's data, as they would be made now.
pub(super) struct Purges<'a> {
    pub(super) of: For<'a>,
    pub(super) surroundings: Surroundings<'a>,
    pub(super) settings: &'a Settings,
}

impl Purges<'_> {
    /// Names what may decide how a Job ends.
    pub(super) fn pod_digest(&self) -> String {
        pod_digest(&self.spec(), None)
    }

    /// The Job. Nobody owns it: a deletion in the foreground removes what a resource owns at once.
    pub(super) fn job(&self, ticket: &Ticket) -> Child {
        let name = self.of.job_name(Component::Purge, ticket);
        let mut metadata = self.of.metadata(&name, Component::Purge, None);
        metadata.annotations = Some(self.of.annotations(ticket, &self.pod_digest()));
        Child::of(Kind::Job, &Job { metadata, spec: Some(self.spec()), status: None })
    }

    fn spec(&self) -> JobSpec {
        let settings = self.settings;
        let what = match self.of.kind {
            ResourceKind::VectorIndex => "--index",
            ResourceKind::Dataset | ResourceKind::ChatProvider => "--dataset",
        };
        let blueprint = Blueprint {
            component: Component::Purge,
            args: words(&[&["job", "purge", what, self.of.name, "--summary", pod::SUMMARY]]),
            env: Vec::new(),
            resources: settings.ingest_resources(),
            disk: &settings.ingest.spool_size,
            port: None,
            life: Life::Job,
            volumes: Vec::new(),
            labels: self.of.label().into_iter().collect(),
        };
        let template = pod::template(blueprint, &self.surroundings, settings);
        JobSpec {
            ttl_seconds_after_finished: Some(FORGOTTEN_AFTER),
            ..spec(Component::Purge, settings.ingest.backoff_limit, template)
        }
    }
}

/// What of its pod a build leaves to the engine that reads its rows.
fn reading(resources: &Resources, disk: &Quantity) -> Vec<EnvVar> {
    let mebibytes = |bytes: f64, share: f64| format!("{}MiB", (bytes * share / MEBIBYTE).floor().max(64.0));
    let memory = resources.limit("memory");
    let disk = quantity::value(disk);
    [
        ("LAKEHOUSE_QUERY_MEMORY", memory.map(|bytes| mebibytes(bytes, READING_SHARE))),
        ("LAKEHOUSE_QUERY_CACHE", disk.map(|bytes| mebibytes(bytes, READING_SHARE))),
        ("LAKEHOUSE_QUERY_SPILL", disk.map(|bytes| mebibytes(bytes, READING_SHARE))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(pod::variable(name, value?)))
    .collect()
}

/// Names everything but the inputs that may decide how a Job ends.
fn pod_digest(spec: &JobSpec, secret: Option<&str>) -> String {
    let spec = serde_json::to_string(spec).expect("a Job has a JSON form");
    match secret {
        Some(secret) => names::digest(&[&spec, secret]),
        None => names::digest(&[&spec]),
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
pub(super) fn config_map(volume: &str, name: &str, key: Option<&str>) -> Volume {
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
