//! The pods that all components run in: one container of the one image, restricted, with bounded disk.
//!
//! Receives what is particular to a component; hands on a pod template that Kubernetes' Pod Security Standard "restricted" accepts.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapEnvSource, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource,
        EnvVar, HTTPGetAction, LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext,
        PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretEnvSource, SecretVolumeSource,
        SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{
    Settings,
    meta::{self, Component},
    names,
    settings::Resources,
};

/// The user and group of all pods; the image knows no other.
const USER: i64 = 65_532;
/// Where a pod may write.
const DATA: &str = "/var/lib/lakehouse";
const TMP_SIZE: &str = "1Gi";
/// Seconds that a server has from its notice to its end: a query may take a minute, whichever pods it goes through, and the
/// time in which the pod is still asked comes on top.
const SERVER_GRACE: i64 = 75;
/// Seconds in which a Job's pod leaves off.
const JOB_GRACE: i64 = 30;
/// Owner and group may read.
const READABLE: i32 = 0o440;
/// The folder of bearer tokens.
pub(super) const TOKENS: &str = "/etc/lakehouse/token";
/// Where the models of [`add_models`] lie.
const MODELS: &str = "/models";
/// What Kubernetes keeps as a container's last words.
pub(super) const SUMMARY: &str = "/dev/termination-log";

/// What is particular to a component's pods.
pub(super) struct Blueprint<'a> {
    pub(super) component: Component,
    pub(super) args: Vec<String>,
    /// Beside the variables of all pods.
    pub(super) env: Vec<EnvVar>,
    pub(super) resources: Resources,
    /// The size of the disk that it may write.
    pub(super) disk: &'a Quantity,
    /// A server's or a Job's port, if it listens at all.
    pub(super) port: Option<u16>,
    pub(super) life: Life,
    /// Beside the disk and the tokens, where it gets something to read.
    pub(super) volumes: Vec<(Volume, String)>,
    /// Beside the labels of all pods of the component.
    pub(super) labels: Vec<(String, String)>,
}

/// How a pod begins and ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It serves until it is told to end, and has so many seconds for that.
    Server { spread: bool, grace: i64 },
    /// It ends by itself.
    Job,
}

impl Life {
    /// That of one of so many servers whose requests take a minute at most.
    pub(super) fn server(replicas: u16) -> Self {
        Self::Server { spread: replicas > 1, grace: SERVER_GRACE }
    }
}

/// What decides how pods start, besides their own template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) namespace: &'a str,
    /// `uid/resourceVersion` of the store's Secret.
    pub(super) store_secret: Option<&'a str>,
}

/// The variables of all pods, as the ConfigMap `lakehouse-settings` holds them.
pub(super) fn environment(settings: &Settings, namespace: &str) -> BTreeMap<String, String> {
    let store = &settings.store;
    [
        ("LAKEHOUSE_STORE", Some(settings.store_url(namespace))),
        ("AWS_ENDPOINT_URL", store.endpoint.clone()),
        ("AWS_REGION", store.region.clone()),
        ("LAKEHOUSE_S3_PATH_STYLE", store.path_style.map(|style| style.to_string())),
        ("LAKEHOUSE_LOG", Some(settings.log_level.clone())),
        ("LAKEHOUSE_LOG_FORMAT", Some("json".to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// A pod template.
pub(super) fn template(
    blueprint: Blueprint<'_>,
    surroundings: &Surroundings<'_>,
    settings: &Settings,
) -> PodTemplateSpec {
    let Blueprint { component, args, env, resources, disk, port, life, volumes, labels: own } = blueprint;
    let mut selector = meta::selector(component);
    selector.extend(own.iter().cloned());
    let mut labels = settings.pods.labels.clone();
    labels.extend(meta::labels(Some(component)));
    labels.extend(own);
    let mut annotations = settings.pods.annotations.clone();
    annotations.extend(started_with(surroundings, settings));

    let mut all = vec![
        (empty("data", disk.clone()), DATA.to_owned()),
        (empty("tmp", Quantity(TMP_SIZE.to_owned())), "/tmp".to_owned()),
        (secret("token", &settings.token_secret), TOKENS.to_owned()),
    ];
    all.extend(volumes);
    let mounts = all.iter().map(|(volume, path)| VolumeMount {
        name: volume.name.clone(),
        mount_path: path.clone(),
        read_only: volume.empty_dir.is_none().then_some(true),
        ..VolumeMount::default()
    });
    let container = Container {
        name: component.as_str().to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: settings.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        command: Some(vec!["/lakehouse".to_owned()]),
        args: Some(args),
        env_from: Some(env_from(settings)),
        env: Some(variables(env)),
        ports: port.map(|port| {
            vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: port.into(),
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]
        }),
        resources: Some(resources.into_requirements()),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts.collect()),
        ..probes(life)
    };
    let (grace, restart, spread) = match life {
        Life::Server { spread, grace } => (grace, "Always", spread),
        Life::Job => (JOB_GRACE, "Never", false),
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(all.into_iter().map(|(volume, _)| volume).collect()),
            restart_policy: Some(restart.to_owned()),
            termination_grace_period_seconds: Some(grace),
            service_account_name: Some(names::SERVICE_ACCOUNT.to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            topology_spread_constraints: spread.then(|| vec![over_nodes(selector)]),
            image_pull_secrets: some(
                settings
                    .image_pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect(),
            ),
            node_selector: Some(settings.pods.node_selector.clone()).filter(|labels| !labels.is_empty()),
            tolerations: some(settings.pods.tolerations.clone()),
            priority_class_name: settings.pods.priority_class_name.clone(),
            ..PodSpec::default()
        }),
    }
}

/// What a pod reads when it starts. A change of it is a change of the template, and so starts new pods.
fn started_with(surroundings: &Surroundings<'_>, settings: &Settings) -> Vec<(String, String)> {
    let environment = environment(settings, surroundings.namespace);
    let parts: Vec<&str> =
        environment.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
    let secret = surroundings.store_secret.map(|revision| (meta::STORE_SECRET, names::digest(&[revision])));
    [(meta::SETTINGS, names::digest(&parts))]
        .into_iter()
        .chain(secret)
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The Secret comes last: what it says of the bucket is of this namespace alone, and wins.
fn env_from(settings: &Settings) -> Vec<EnvFromSource> {
    vec![
        EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: names::SETTINGS.to_owned(), optional: None }),
            ..EnvFromSource::default()
        },
        EnvFromSource {
            secret_ref: Some(SecretEnvSource { name: settings.store.secret.clone(), optional: None }),
            ..EnvFromSource::default()
        },
    ]
}

fn variables(more: Vec<EnvVar>) -> Vec<EnvVar> {
    ["HOME", "LAKEHOUSE_CACHE"].map(|name| variable(name, DATA.to_owned())).into_iter().chain(more).collect()
}

/// A variable with this value.
pub(super) fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn probes(life: Life) -> Container {
    if life == Life::Job {
        return Container::default();
    }
    let probe = |path: &str, period: i32, failures: i32| {
        Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::String("http".to_owned()),
                scheme: Some("HTTP".to_owned()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(period),
            timeout_seconds: Some(5),
            failure_threshold: Some(failures),
            ..Probe::default()
        })
    };
    Container {
        // Looked at every second, so that a pod is found ready as soon as it is. A server is alive before it can use its
        // bucket and waits for one that is away, so only `/readyz` speaks of it: a restart would bring no bucket back.
        startup_probe: probe("/livez", 1, 60),
        readiness_probe: probe("/readyz", 3, 2),
        liveness_probe: probe("/livez", 10, 6),
        ..Container::default()
    }
}

fn over_nodes(selector: BTreeMap<String, String>) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        // Those that a roll-out is about to remove do not count.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        label_selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    }
}

fn empty(name: &str, size: Quantity) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(size), medium: None }),
        ..Volume::default()
    }
}

/// A volume with the entries of a Secret. Without the Secret, its pod does not start.
pub(super) fn secret(name: &str, secret: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(READABLE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The models that an administrator keeps on a volume of the namespace, where there is one.
pub(super) fn add_models(args: &mut Vec<String>, volumes: &mut Vec<(Volume, String)>, settings: &Settings) {
    let Some(claim) = &settings.embed.models_claim else { return };
    args.extend(["--models".to_owned(), MODELS.to_owned()]);
    let claim = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: Some(true) };
    let volume =
        Volume { name: "models".to_owned(), persistent_volume_claim: Some(claim), ..Volume::default() };
    volumes.push((volume, MODELS.to_owned()));
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
