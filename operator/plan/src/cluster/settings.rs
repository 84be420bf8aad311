//! The operator's settings: one YAML file that an administrator writes, usually through the chart.

mod check;
mod resources;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvVar, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::Deserialize;

pub use resources::Resources;

/// What the operator gives to all pods that it makes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The image of all pods: `lakehouse:0.1.0`.
    pub image: String,
    /// When the image is pulled; Kubernetes decides by its tag when absent.
    #[serde(default)]
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets that open the image's registry.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// The bucket.
    pub store: Store,
    /// The Secret whose entries are bearer tokens.
    #[serde(default = "token_secret")]
    pub token_secret: String,
    /// The gateway.
    #[serde(default)]
    pub gateway: Gateway,
    /// The query pods.
    #[serde(default)]
    pub query: Query,
    /// The pods that read sources.
    #[serde(default)]
    pub ingest: Ingest,
    /// The pods that serve vectors.
    #[serde(default)]
    pub vectors: Vectors,
    /// The pods that build indexes.
    #[serde(default)]
    pub build: Build,
    /// The pods that turn text into vectors.
    #[serde(default)]
    pub embed: Embed,
    /// The pods that language models are asked through.
    #[serde(default)]
    pub chat: Chat,
    /// What all pods have in common.
    #[serde(default)]
    pub pods: Pods,
    /// What pods log: a level, or directives such as `info,lakehouse_ingest=debug`.
    #[serde(default = "log_level")]
    pub log_level: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The name in a pod's spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Where all durable state lies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Store {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// Whether each namespace has its own prefix below `url`.
    #[serde(default = "yes")]
    pub prefix_namespace: bool,
    /// The address of an S3 that is not Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether the bucket stands in the path; told by `endpoint` when absent.
    #[serde(default)]
    pub path_style: Option<bool>,
    /// The Secret of each namespace with the bucket's credentials.
    #[serde(default = "store_secret")]
    pub secret: String,
}

/// The gateway and the stateless roles beside it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// Pods.
    pub replicas: u16,
    /// CPU and memory of each, where they differ from the defaults.
    pub resources: Resources,
}

/// The pods that answer SQL.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Query {
    /// Pods.
    pub replicas: u16,
    /// CPU and memory of each, where they differ from the defaults.
    pub resources: Resources,
    /// Disk of each for copies of immutable files.
    pub cache_size: Quantity,
}

/// The pods that read sources.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ingest {
    /// CPU and memory, where they differ from the defaults; a Dataset's own come before these.
    pub resources: Resources,
    /// How often a Job tries again, where a Dataset does not say.
    pub backoff_limit: i32,
    /// How many seconds all tries of a Job may take together, where a Dataset does not say.
    pub active_deadline_seconds: Option<i64>,
    /// Disk for a source on its way.
    pub spool_size: Quantity,
}

/// The pods that serve vectors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Vectors {
    /// Pods of the indexes that no VectorIndex declares; a VectorIndex says how many it has.
    pub replicas: u16,
    /// CPU and memory of each, where they differ from the defaults; a VectorIndex's own come before these.
    pub resources: Resources,
    /// Disk of each for copies of immutable files.
    pub cache_size: Quantity,
}

/// The pods that build indexes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Build {
    /// CPU and memory, where they differ from the defaults; a VectorIndex's own come before these.
    pub resources: Resources,
    /// How often a Job tries again, where a VectorIndex does not say.
    pub backoff_limit: i32,
    /// How many seconds all tries of a Job may take together, where a VectorIndex does not say.
    pub active_deadline_seconds: Option<i64>,
    /// Disk for rows and vectors on their way.
    pub spool_size: Quantity,
}

/// The pods that turn text into vectors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Embed {
    /// Pods.
    pub replicas: u16,
    /// CPU and memory of each, where they differ from the defaults.
    pub resources: Resources,
    /// Disk of each for the models that it fetches from the bucket.
    pub cache_size: Quantity,
    /// A `PersistentVolumeClaim` of each namespace with models, one a folder; without one they come from the bucket.
    pub models_claim: Option<String>,
}

/// The pods that language models are asked through.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Chat {
    /// Pods.
    pub replicas: u16,
    /// CPU and memory of each, where they differ from the defaults.
    pub resources: Resources,
    /// More variables: a proxy on the way to the cloud, OpenTelemetry's for a collector of traces.
    pub extra_env: Vec<EnvVar>,
}

/// What all pods have in common.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pods {
    /// Labels of the nodes that they may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that they tolerate.
    pub tolerations: Vec<Toleration>,
    /// Their priority.
    pub priority_class_name: Option<String>,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
    /// More labels.
    pub labels: BTreeMap<String, String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { replicas: 1, resources: Resources::default() }
    }
}

impl Default for Query {
    fn default() -> Self {
        Self { replicas: 1, resources: Resources::default(), cache_size: Quantity("10Gi".to_owned()) }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            resources: Resources::default(),
            backoff_limit: 2,
            active_deadline_seconds: None,
            spool_size: Quantity("20Gi".to_owned()),
        }
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self { replicas: 1, resources: Resources::default(), cache_size: Quantity("10Gi".to_owned()) }
    }
}

impl Default for Build {
    fn default() -> Self {
        Self {
            resources: Resources::default(),
            backoff_limit: 2,
            active_deadline_seconds: None,
            spool_size: Quantity("20Gi".to_owned()),
        }
    }
}

impl Default for Embed {
    fn default() -> Self {
        Self {
            replicas: 1,
            resources: Resources::default(),
            cache_size: Quantity("5Gi".to_owned()),
            models_claim: None,
        }
    }
}

impl Default for Chat {
    fn default() -> Self {
        Self { replicas: 1, resources: Resources::default(), extra_env: Vec::new() }
    }
}

fn token_secret() -> String {
    "lakehouse-token".to_owned()
}

fn store_secret() -> String {
    "lakehouse-store".to_owned()
}

fn log_level() -> String {
    "info".to_owned()
}

fn yes() -> bool {
    true
}

impl Settings {
    /// Reads and checks the file's text. Every problem is told, each with its field.
    pub fn parse(yaml: &str) -> Result<Self, Invalid> {
        let settings: Self =
            serde_saphyr::from_str(yaml).map_err(|error| Invalid { problems: vec![error.to_string()] })?;
        let problems = check::problems(&settings);
        if problems.is_empty() { Ok(settings) } else { Err(Invalid { problems }) }
    }

    /// Where the data of a namespace lies.
    pub fn store_url(&self, namespace: &str) -> String {
        let url = self.store.url.trim_end_matches('/');
        if self.store.prefix_namespace { format!("{url}/{namespace}") } else { url.to_owned() }
    }

    pub(super) fn gateway_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "50m"), ("memory", "128Mi")], [("cpu", "1"), ("memory", "512Mi")]);
        defaults.under(&self.gateway.resources)
    }

    pub(super) fn query_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "250m"), ("memory", "1Gi")], [("cpu", "2"), ("memory", "2Gi")]);
        defaults.under(&self.query.resources)
    }

    /// Those of all pods that read a source; a Dataset's own come above these.
    pub(super) fn ingest_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "250m"), ("memory", "256Mi")], [("cpu", "2"), ("memory", "1Gi")]);
        defaults.under(&self.ingest.resources)
    }

    /// Those of all pods that serve vectors; a VectorIndex's own come above these.
    pub(super) fn vectors_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "100m"), ("memory", "256Mi")], [("cpu", "2"), ("memory", "2Gi")]);
        defaults.under(&self.vectors.resources)
    }

    /// Those of all pods that build an index; a VectorIndex's own come above these.
    pub(super) fn build_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "500m"), ("memory", "512Mi")], [("cpu", "2"), ("memory", "2Gi")]);
        defaults.under(&self.build.resources)
    }

    pub(super) fn embed_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "100m"), ("memory", "256Mi")], [("cpu", "2"), ("memory", "1Gi")]);
        defaults.under(&self.embed.resources)
    }

    pub(super) fn chat_resources(&self) -> Resources {
        let defaults =
            Resources::new([("cpu", "100m"), ("memory", "128Mi")], [("cpu", "2"), ("memory", "1Gi")]);
        defaults.under(&self.chat.resources)
    }
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings are not sound: {}", problems.join("; "))]
pub struct Invalid {
    /// A sentence each, with the field.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_words_are_enough() {
        let settings = Settings::parse("{image: 'lakehouse:1', store: {url: 's3://lakehouse'}}").unwrap();
        assert_eq!(
            (settings.store.secret.as_str(), settings.token_secret.as_str()),
            ("lakehouse-store", "lakehouse-token")
        );
        assert_eq!(settings.store_url("team-a"), "s3://lakehouse/team-a");
        assert_eq!(
            (settings.gateway.replicas, settings.query.replicas, settings.ingest.backoff_limit),
            (1, 1, 2)
        );
        assert_eq!(settings.query_resources().limit("memory"), Some(2_147_483_648.0));
    }

    #[test]
    fn a_word_without_a_value_is_one_that_was_left_out() {
        let text = "{image: i, imagePullPolicy: null, logLevel: info, tokenSecret: t,
            store: {url: 's3://bucket', endpoint: null, pathStyle: null, region: null},
            gateway: {resources: {}}, ingest: {activeDeadlineSeconds: null}, pods: {priorityClassName: null}}";
        let settings = Settings::parse(text).unwrap();
        assert_eq!((settings.store.endpoint, settings.pods.priority_class_name), (None, None));
        assert_eq!(settings.gateway, Gateway::default());
    }

    #[test]
    fn every_word_is_understood() {
        let settings = Settings::parse(EVERYTHING).unwrap();
        assert_eq!(settings.store_url("team-a"), "s3://lakehouse/deep");
        assert_eq!(settings.ingest.active_deadline_seconds, Some(21_600));
        assert_eq!(settings.gateway_resources().limit("cpu"), Some(4.0));
        assert_eq!((settings.pods.tolerations.len(), settings.chat.extra_env.len()), (1, 2));
    }

    #[test]
    fn every_problem_is_told_with_its_field() {
        let text = "
            image: ''
            imagePullSecrets: [Upper]
            store: {url: /var/lib, endpoint: 'http://user:hunter2@minio'}
            tokenSecret: a..b
            gateway: {replicas: 0, resources: {requests: {cpu: 2}, limits: {cpu: 500m, memory: lots}}}
            query: {cacheSize: -1Gi}
            ingest: {backoffLimit: 101, activeDeadlineSeconds: 0}
            vectors: {replicas: 0, cacheSize: none}
            build: {backoffLimit: -1, spoolSize: 0}
            embed: {replicas: 0, modelsClaim: Big}
            chat: {replicas: 0, resources: {limits: {cpu: none}}, extraEnv: [{name: A}, {name: AWS_REGION}, {value: b}, {name: A}]}
            pods: {labels: {app.kubernetes.io/name: mine}, annotations: {lakehouse.dev/settings: '1'}}
            logLevel: info debug";
        let Invalid { problems } = Settings::parse(text).unwrap_err();
        let fields: Vec<&str> = problems.iter().filter_map(|problem| problem.split(": ").next()).collect();
        let expected = [
            "image",
            "imagePullSecrets[0]",
            "store.url",
            "store.endpoint",
            "tokenSecret",
            "gateway.replicas",
            "gateway.resources.limits.memory",
            "gateway.resources.requests.cpu",
            "query.cacheSize",
            "ingest.backoffLimit",
            "ingest.activeDeadlineSeconds",
            "vectors.replicas",
            "vectors.cacheSize",
            "build.spoolSize",
            "build.backoffLimit",
            "embed.replicas",
            "embed.modelsClaim",
            "chat.replicas",
            "chat.resources.limits.cpu",
            "chat.extraEnv[1].name",
            "chat.extraEnv[2].name",
            "chat.extraEnv[3].name",
            "pods.labels",
            "pods.annotations",
            "logLevel",
        ];
        assert_eq!(fields, expected, "{problems:#?}");
        assert!(!problems.join("").contains("hunter2"));
    }

    #[test]
    fn a_misspelt_word_is_refused() {
        let error =
            Settings::parse("{image: i, store: {url: 's3://bkt'}, gateway: {replica: 2}}").unwrap_err();
        assert!(error.to_string().contains("replica"), "{error}");
    }

    const EVERYTHING: &str = "
        image: registry.example/lakehouse:0.1.0
        imagePullPolicy: IfNotPresent
        imagePullSecrets: [registry]
        store:
          url: s3://lakehouse/deep/
          prefixNamespace: false
          endpoint: http://minio.minio.svc:9000
          region: us-east-1
          pathStyle: true
          secret: lakehouse-store
        tokenSecret: lakehouse-token
        gateway: {replicas: 2, resources: {limits: {cpu: 4}}}
        query: {replicas: 3, resources: {requests: {cpu: 1, memory: 4Gi}}, cacheSize: 50Gi}
        ingest: {resources: {limits: {memory: 4Gi}}, backoffLimit: 0, activeDeadlineSeconds: 21600, spoolSize: 1Ti}
        vectors: {replicas: 2, resources: {limits: {memory: 8Gi}}, cacheSize: 100Gi}
        build: {resources: {limits: {memory: 4Gi}}, backoffLimit: 1, activeDeadlineSeconds: 43200, spoolSize: 50Gi}
        embed: {replicas: 2, resources: {limits: {cpu: 4}}, cacheSize: 1Gi, modelsClaim: models}
        chat:
          replicas: 2
          resources: {limits: {memory: 2Gi}}
          extraEnv:
          - {name: HTTPS_PROXY, value: 'http://proxy:3128'}
          - {name: OTEL_EXPORTER_OTLP_HEADERS, valueFrom: {secretKeyRef: {name: collector, key: headers}}}
        pods:
          nodeSelector: {disk: ssd}
          tolerations: [{key: lakehouse, operator: Exists}]
          priorityClassName: high
          annotations: {team: data}
          labels: {team: data}
        logLevel: info,lakehouse_ingest=debug";
}
