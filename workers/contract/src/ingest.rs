//! What an ingest is asked for, what it tells while it runs, and what it answers.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Column, ColumnType, DatasetManifest, DatasetName, dataset::hex};

/// Counts up whenever the same inputs would give other bytes, so that old versions are made anew.
const OUTPUT_VERSION: u32 = 1;

/// Everything but the source that decides what an ingest puts out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestSpec {
    /// The dataset to fill.
    pub name: DatasetName,
    /// How to read the source.
    pub format: Format,
    /// How to read a CSV source.
    #[serde(default)]
    pub csv: CsvOptions,
    /// Declared columns; the rest is inferred.
    #[serde(default)]
    pub columns: Vec<DeclaredColumn>,
    /// How many rows may be turned away.
    #[serde(default)]
    pub rejects: RejectLimits,
    /// What to do when the schema is not the one that is there.
    #[serde(default)]
    pub schema_policy: SchemaPolicy,
    /// Whether the rows replace what is there.
    #[serde(default)]
    pub write_mode: WriteMode,
    /// The order of rows in the Parquet files; empty keeps the source's order.
    #[serde(default)]
    pub sort_by: Vec<String>,
}

impl IngestSpec {
    /// A spec that infers everything.
    pub fn inferred(name: DatasetName, format: Format) -> Self {
        Self {
            name,
            format,
            csv: CsvOptions::default(),
            columns: Vec::new(),
            rejects: RejectLimits::default(),
            schema_policy: SchemaPolicy::default(),
            write_mode: WriteMode::default(),
            sort_by: Vec::new(),
        }
    }

    /// Names the output of this spec over a source with this digest: equal digests, equal Parquet.
    pub fn inputs_digest(&self, source_digest: &str) -> String {
        let text = serde_json::to_string(&(OUTPUT_VERSION, self, source_digest))
            .expect("plain data with text keys always has a JSON form");
        hex(&Sha256::digest(text))
    }
}

/// The formats of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::upper_case_acronyms, reason = "the YAML spells them so")]
pub enum Format {
    /// RFC 4180.
    CSV,
    /// One JSON object a line.
    NDJSON,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The name in YAML, status and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CSV => "CSV",
            Self::NDJSON => "NDJSON",
            Self::Parquet => "Parquet",
        }
    }

    /// The format that a file's or URL's name tells by its ending, whatever its case; `None` when it tells none.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.split(['?', '#']).next().unwrap_or(name).to_ascii_lowercase();
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "csv" | "tsv" => Some(Self::CSV),
            "ndjson" | "jsonl" => Some(Self::NDJSON),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The delimiter that a CSV file's name tells by its ending, whatever its case: a tab for `.tsv`; `None` when it tells none.
pub fn delimiter_of_name(name: &str) -> Option<char> {
    name.to_ascii_lowercase().ends_with(".tsv").then_some('\t')
}

/// How to read CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CsvOptions {
    /// Between fields: one ASCII character, not a quote or a line end.
    pub delimiter: char,
    /// Whether the first record names the columns; otherwise they are `column_1`, `column_2`, ….
    pub header: bool,
    /// Unquoted texts that mean null in any column, beside the empty one in columns that are not strings.
    pub null_values: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: ',', header: true, null_values: Vec::new() }
    }
}

/// A column whose type is promised, not inferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredColumn {
    /// The name in the header.
    pub name: String,
    /// The type of every value.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// What happens to a value that is not of the type.
    #[serde(default)]
    pub on_error: OnError,
}

/// What happens to a value that breaks a declared type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RejectLimits {
    /// Rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// A share of all rows, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<f64>,
}

/// What to do when a source's schema is not the dataset's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SchemaPolicy {
    /// Refuse it before anything live is touched.
    #[default]
    Reject,
    /// Accept added columns; refuse anything else.
    Evolve,
}

/// What new rows do to the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WriteMode {
    /// They take their place.
    #[default]
    Replace,
    /// They follow them.
    Append,
}

/// The answer to `POST /ingest?name=`: what the file became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestAnswer {
    /// The dataset's id.
    pub dataset_id: Uuid,
    /// The dataset's name.
    pub name: String,
    /// The version now served.
    pub version: u64,
    /// Whether the dataset was known before.
    pub existing: bool,
    /// Whether the file gave exactly the objects that were there before.
    pub unchanged: bool,
    /// Rows in this version.
    pub rows: u64,
    /// Bytes of Parquet in this version.
    pub bytes: u64,
    /// Parquet files in this version.
    pub files: usize,
    /// Rows that did not fit the declared types.
    pub rejected_rows: u64,
    /// Names this schema.
    pub schema_fingerprint: String,
    /// Columns in header order.
    pub columns: Vec<Column>,
    /// How long it took.
    pub duration_ms: u64,
}

impl IngestAnswer {
    /// What a registered manifest says of its ingest.
    pub fn of(manifest: &DatasetManifest, existing: bool, unchanged: bool) -> Self {
        let (rejected_rows, duration_ms) =
            manifest.origin.as_ref().map_or((0, 0), |origin| (origin.rejected_rows, origin.duration_ms));
        Self {
            dataset_id: manifest.dataset_id,
            name: manifest.name.to_string(),
            version: manifest.version,
            existing,
            unchanged,
            rows: manifest.row_count,
            bytes: manifest.objects.iter().map(|object| object.size).sum(),
            files: manifest.objects.len(),
            rejected_rows,
            schema_fingerprint: manifest.schema_fingerprint.clone(),
            columns: manifest.schema.clone(),
            duration_ms,
        }
    }
}

/// How far an ingest has come. `GET /ingest/progress` lists the ones that run and the last ended one of each dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The dataset.
    pub name: String,
    /// What is going on.
    pub phase: Phase,
    /// Bytes of the source read so far.
    pub bytes: u64,
    /// Bytes of the source, where it is known.
    pub total_bytes: Option<u64>,
    /// Rows converted so far.
    pub rows: u64,
    /// Rows that did not fit so far.
    pub rejected_rows: u64,
    /// Since the start.
    pub elapsed_ms: u64,
    /// Bytes a second since this reading of the source began: the fetching of it, or the converting.
    pub bytes_per_second: u64,
    /// Estimated time to the end at this rate.
    pub remaining_ms: Option<u64>,
    /// Why it failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The phases of an ingest, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Copies the source to this machine, or looks whether a local one has changed.
    Fetching,
    /// Reads, types and converts rows.
    Converting,
    /// Writes the Parquet files to the store.
    Uploading,
    /// Writes the manifest.
    Publishing,
    /// Ended well.
    Done,
    /// Ended with an error; nothing was published.
    Failed,
}
