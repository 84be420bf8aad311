//! The operator's settings: one YAML file that an administrator writes, usually through the chart.

mod resources;

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::api::resource::Quantity};
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
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let settings: Self = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        Ok(settings)
    }
}
