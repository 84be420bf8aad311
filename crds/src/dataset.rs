//! `Dataset`: a source of rows that becomes typed Parquet and answers SQL.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{DeletionPolicy, KeyRef, Resources, SecretRef},
    rules::HTTP_URL,
};

/// A source of rows that becomes typed Parquet and answers SQL under the resource's name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lakehouse.dev",
    version = "v1alpha1",
    kind = "Dataset",
    plural = "datasets",
    singular = "dataset",
    shortname = "lhd",
    category = "lakehouse",
    namespaced,
    status = "DatasetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A source of rows that becomes typed Parquet and answers SQL under the resource's name.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.version"),
    printcolumn(name = "Refreshed", type_ = "date", json_path = ".status.lastIngest.finished"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.location", priority = 1),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files", priority = 1),
    printcolumn(name = "Rejected", type_ = "integer", json_path = ".status.rejectedRows", priority = 1),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextRun", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "!has(self.csv) || !has(self.format) || self.format == 'CSV'",
        "`csv` says how to read CSV; remove it, or set `format: CSV`"
    ),
    validation = (
        "!has(self.schedule) || !has(self.source.upload)",
        "an upload has no source to read again; remove `schedule`"
    ),
    validation = (
        "!has(self.schedule) || !has(self.version)",
        "a pinned dataset reads no new data; remove `schedule` or `version`"
    )
)]
pub struct DatasetSpec {
    /// Where the rows come from: exactly one of its fields.
    pub source: Source,
    /// The source's format; told by its name's ending when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Format")]
    pub format: Option<Format>,
    /// How to read CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Csv")]
    pub csv: Option<Csv>,
    /// Columns whose types are promised; the other columns' types are inferred from every value of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub columns: Vec<DeclaredColumn>,
    /// How many rows may be turned away before the ingest fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rejects")]
    pub rejects: Option<Rejects>,
    /// What to do when the source's schema has changed. `Reject` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SchemaPolicy")]
    pub schema_policy: Option<SchemaPolicy>,
    /// Whether new rows take the place of the old ones or follow them. `Replace` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WriteMode")]
    pub write_mode: Option<WriteMode>,
    /// Columns by which the rows are ordered in the Parquet files, so that queries can skip parts of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub sort_by: Vec<String>,
    /// When to read the source again: five cron fields in UTC, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = (
        r"self.matches('^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[^\\s@]+(\\s+[^\\s]+){4})$')",
        "must be five cron fields such as `0 * * * *` (every hour), or one of @hourly, @daily, @weekly, @monthly, @yearly"
    ))]
    pub schedule: Option<String>,
    /// How many versions stay in the store, with the served one among them. 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep_versions: Option<u32>,
    /// Serves this kept version and reads no new data as long as it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u64>,
    /// The pod that reads the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IngestPod")]
    pub ingest: Option<IngestPod>,
    /// Stops all work; what is published stays served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What happens to the rows when the resource is deleted. `Retain` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeletionPolicy")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Where the rows come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.http), has(self.s3), has(self.configMap), has(self.upload)].filter(x, x).size() == 1",
    "exactly one of `http`, `s3`, `configMap` and `upload` must be set"
))]
pub struct Source {
    /// A file behind a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// One or more objects in a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Source>,
    /// A text in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyRef>,
    /// A file that a client sends with `POST /v1/ingest?name=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadSource>,
}

/// A file behind a URL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// The file's address.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = HTTP_URL)]
    pub url: String,
    /// The SHA-256 that the file must have, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = ("self.matches('^[0-9a-fA-F]{64}$')", "must be a SHA-256: 64 hexadecimal digits"))]
    pub sha256: Option<String>,
    /// A Secret whose entries are sent as request headers, such as `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<SecretRef>,
}

/// One or more objects in a bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.key), has(self.prefix), has(self.glob)].filter(x, x).size() == 1",
    "exactly one of `key`, `prefix` and `glob` must be set"
))]
pub struct S3Source {
    /// The bucket.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// One object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key: Option<String>,
    /// All objects whose keys start so, in the order of their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prefix: Option<String>,
    /// All objects whose keys match: `*` within a path segment, `**` across segments, `?` for one character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub glob: Option<String>,
    /// The address of an S3 that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = HTTP_URL)]
    pub endpoint: Option<String>,
    /// The bucket's region. `us-east-1` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// A Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; anonymous when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

/// A file that a client sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct UploadSource {}

/// The formats of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms, reason = "the YAML spells them so")]
pub enum Format {
    /// RFC 4180.
    CSV,
    /// One JSON object a line.
    NDJSON,
    /// Apache Parquet.
    Parquet,
}

/// How to read CSV.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Csv {
    /// The character between fields. A comma when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = (
        r"self.matches('^[\\t -!#-~]$')",
        "must be one ASCII character that is no double quote, such as `,`, `;`, `|` or a tab (\"\\t\" in double quotes)"
    ))]
    pub delimiter: Option<String>,
    /// Whether the first record names the columns. True when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Texts that mean null, such as `NA`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub null_values: Vec<String>,
}

/// A column whose type is promised, not inferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredColumn {
    /// The name in the source's header.
    #[schemars(length(min = 1, max = 1024))]
    pub name: String,
    /// The type of every value.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// What happens to a value that is not of the type. `Fail` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnError")]
    pub on_error: Option<OnError>,
}

/// The types a column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 double.
    Float64,
    /// `true` or `false`.
    Boolean,
    /// A day.
    Date,
    /// Microseconds in UTC.
    Timestamp,
    /// UTF-8.
    String,
}

/// What happens to a value that breaks a declared type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnError {
    /// The ingest fails and names the line, the column and the value.
    #[default]
    Fail,
    /// The value becomes null and is written to the reject file.
    Null,
    /// The row is left out and written to the reject file.
    Quarantine,
}

/// How many rows may be turned away before the ingest fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejects {
    /// At most this many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// At most this share of all rows, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_ratio: Option<f64>,
}

/// What to do when the source's schema is not the dataset's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchemaPolicy {
    /// Refuse the data; what is served stays.
    #[default]
    Reject,
    /// Accept added columns; refuse anything else.
    Evolve,
}

/// What new rows do to the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WriteMode {
    /// They take their place.
    #[default]
    Replace,
    /// They follow them.
    Append,
}

/// The pod that reads the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestPod {
    /// Its CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resources")]
    pub resources: Option<Resources>,
    /// How often it is tried again before the ingest counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: Option<i32>,
    /// How many seconds all tries may take together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
}

/// What is known of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `SourceReachable`, `Ingested`, `Published`, `Served`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The id that this name has on every machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_id: Option<String>,
    /// The version that is current in the catalogue; `Served` says whether all query pods answer from it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 over the columns' names and types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_fingerprint: Option<String>,
    /// The columns in the source's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub columns: Vec<StatusColumn>,
    /// Rows of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Bytes of Parquet of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// `bytes` for people, such as `12.3 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Parquet files of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Rows that did not fit the declared types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_rows: Option<u64>,
    /// The source's format, declared or recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Format")]
    pub format: Option<Format>,
    /// The source that the version was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<StatusSource>,
    /// How far the running ingest has come; absent when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<IngestProgress>,
    /// The last ingest that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ingest: Option<LastIngest>,
    /// When the source is read next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    /// Where it answers SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A column as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct StatusColumn {
    /// The name in the source's header.
    pub name: String,
    /// The type of every value.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

/// The source that a version was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct StatusSource {
    /// Its place, without credentials.
    pub location: String,
    /// Its `ETag` or SHA-256 as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// How far an ingest has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestProgress {
    /// Bytes of the source read so far.
    pub bytes: u64,
    /// Bytes of the source, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Rows converted so far.
    pub rows: u64,
}

/// An ingest that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LastIngest {
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How long it took, such as `1.2s` or `3m10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The Job that ran it; absent where there is no cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How it ended, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
