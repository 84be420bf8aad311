//! Checks a Dataset once, and carries the proof in a type.
//!
//! Receives a [`Dataset`] as a user wrote it. Hands on a [`ReadyDataset`] that has no question left to ask, or a
//! [`Refusal`] that names everything that is wrong with it. What the schema's own rules say is checked here too: a
//! Dataset may come from a program that never saw an API server.

mod source;

use std::{collections::BTreeSet, num::NonZeroU32};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lakehouse_contract::{
    DatasetName,
    ingest::{CsvOptions, DeclaredColumn, Format, IngestSpec, RejectLimits, delimiter_of_name},
};
use lakehouse_crds::{
    Dataset, DatasetSpec, REFRESH_ANNOTATION,
    common::DeletionPolicy,
    dataset::{self as spec, Csv, Rejects},
};

pub(crate) use source::address;
pub use source::{Objects, Source};

pub use crate::refusal::{Problem, Refusal};
use crate::{DEFAULT_NAMESPACE, Pod, Reason, Schedule, convert};

/// How many versions stay in the store where the spec does not say.
pub const DEFAULT_KEEP_VERSIONS: NonZeroU32 = NonZeroU32::new(3).expect("3 is not 0");

/// A Dataset that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyDataset {
    /// The resource's name, which is the dataset's.
    pub name: DatasetName,
    /// The resource's namespace.
    pub namespace: String,
    /// The generation of the spec; absent where no API server counts.
    pub generation: Option<i64>,
    /// The last value of the refresh annotation: every new one asks for one more run.
    pub refresh: Option<String>,
    /// Where the rows come from.
    pub source: Source,
    /// The declared format, or the one that the source's name tells; absent for an upload that declares none.
    pub format: Option<Format>,
    /// When the source is read again.
    pub schedule: Option<Schedule>,
    /// How many versions stay in the store.
    pub keep_versions: NonZeroU32,
    /// The kept version to serve, where one is pinned.
    pub pin: Option<u64>,
    /// Whether all work stops.
    pub suspend: bool,
    /// What happens to the rows when the resource is deleted.
    pub deletion_policy: DeletionPolicy,
    /// The pod that reads the source.
    pub pod: Pod,
    /// Whether the spec says what stands between fields.
    says_delimiter: bool,
    /// Everything else that decides what an ingest puts out, with CSV as the format where `format` is absent.
    ingest: IngestSpec,
}

impl ReadyDataset {
    /// What an ingest of the file or object of this name is asked for.
    ///
    /// The name tells the format and the delimiter where the spec does not; commas are assumed where neither does.
    pub fn ingest_of(&self, file_name: &str) -> IngestSpec {
        let format = self.format.or_else(|| Format::of_name(file_name)).unwrap_or(self.ingest.format);
        let mut spec = IngestSpec { format, ..self.ingest.clone() };
        if !self.says_delimiter
            && let Some(delimiter) = delimiter_of_name(file_name)
        {
            spec.csv.delimiter = delimiter;
        }
        spec
    }

    /// What an ingest of the spec's own source is asked for.
    pub fn ingest(&self) -> &IngestSpec {
        &self.ingest
    }
}

/// Checks a Dataset. Every problem is found, not only the first.
pub fn check(dataset: &Dataset) -> Result<ReadyDataset, Refusal> {
    let mut problems = Vec::new();
    let DatasetSpec {
        source,
        format,
        csv,
        columns,
        rejects,
        schema_policy,
        write_mode,
        sort_by,
        schedule,
        keep_versions,
        version,
        ingest,
        suspend,
        deletion_policy,
    } = &dataset.spec;

    let name = name(dataset, &mut problems);
    let source = source::check(source, &mut problems);
    let format = format.map(convert::format).or_else(|| source.as_ref()?.told_format());
    check_format(format, csv.as_ref(), source.as_ref(), &mut problems);
    let says_delimiter = csv.as_ref().is_some_and(|csv| csv.delimiter.is_some());
    let csv = check_csv(csv.as_ref(), &mut problems);
    let columns = check_columns(columns, &mut problems);
    let rejects = check_rejects(rejects.as_ref(), &mut problems);
    check_sort_by(sort_by, &mut problems);
    let schedule = check_schedule(schedule.as_deref(), source.as_ref(), *version, &mut problems);
    let keep_versions = check_keep_versions(*keep_versions, DEFAULT_KEEP_VERSIONS, &mut problems);
    let pin = check_pin(*version, &mut problems);

    let (Some(name), Some(source), true) = (name, source, problems.is_empty()) else {
        return Err(Refusal::new(problems));
    };
    Ok(ReadyDataset {
        namespace: namespace(&dataset.metadata),
        generation: dataset.metadata.generation,
        refresh: refresh(&dataset.metadata),
        source,
        format,
        schedule,
        keep_versions,
        pin,
        suspend: suspend.unwrap_or(false),
        deletion_policy: deletion_policy.unwrap_or_default(),
        pod: ingest.as_ref().map(Pod::from).unwrap_or_default(),
        says_delimiter,
        ingest: IngestSpec {
            name: name.clone(),
            format: format.unwrap_or(Format::CSV),
            csv,
            columns,
            rejects,
            schema_policy: schema_policy.map(convert::schema_policy).unwrap_or_default(),
            write_mode: write_mode.map(convert::write_mode).unwrap_or_default(),
            sort_by: sort_by.clone(),
        },
        name,
    })
}

/// The namespace of a resource.
pub(crate) fn namespace(metadata: &ObjectMeta) -> String {
    metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// The last value of a resource's refresh annotation.
pub(crate) fn refresh(metadata: &ObjectMeta) -> Option<String> {
    metadata.annotations.as_ref()?.get(REFRESH_ANNOTATION).cloned()
}

fn name(dataset: &Dataset, problems: &mut Vec<Problem>) -> Option<DatasetName> {
    DatasetName::parse(dataset.metadata.name.clone().unwrap_or_default())
        .map_err(|error| problems.push(Problem::new("metadata.name", Reason::InvalidName, error.to_string())))
        .ok()
}

fn check_format(
    format: Option<Format>,
    csv: Option<&Csv>,
    source: Option<&Source>,
    problems: &mut Vec<Problem>,
) {
    match (format, source) {
        (None, Some(source)) if *source != Source::Upload => problems.push(Problem::new(
            "spec.format",
            Reason::UnknownFormat,
            format!("the name of {source} does not tell the format; set it to CSV, NDJSON or Parquet"),
        )),
        (Some(format @ (Format::NDJSON | Format::Parquet)), _) if csv.is_some() => {
            problems.push(Problem::new(
                "spec.csv",
                Reason::InvalidSpec,
                format!(
                    "`csv` says how to read CSV, but the source is {format}; remove it, or set `format: CSV`"
                ),
            ));
        }
        _ => {}
    }
}

fn check_csv(csv: Option<&Csv>, problems: &mut Vec<Problem>) -> CsvOptions {
    let defaults = CsvOptions::default();
    let Some(Csv { delimiter, header, null_values }) = csv else { return defaults };
    let delimiter = match delimiter.as_deref().map(|text| (text, text.chars().next(), text.chars().count())) {
        None => defaults.delimiter,
        Some((_, Some(c), 1)) if matches!(c, '\t' | ' '..='!' | '#'..='~') => c,
        Some((text, _, _)) => {
            problems.push(Problem::new(
                "spec.csv.delimiter",
                Reason::InvalidSpec,
                format!("{text:?} is not one ASCII character that is no double quote, such as `,`, `;`, `|` or a tab"),
            ));
            defaults.delimiter
        }
    };
    CsvOptions { delimiter, header: header.unwrap_or(defaults.header), null_values: null_values.clone() }
}

fn check_columns(columns: &[spec::DeclaredColumn], problems: &mut Vec<Problem>) -> Vec<DeclaredColumn> {
    let mut seen = BTreeSet::new();
    for (i, column) in columns.iter().enumerate() {
        let field = format!("spec.columns[{i}].name");
        if let Some(sentence) = fault_of_column(&column.name) {
            problems.push(Problem::new(field, Reason::InvalidColumns, sentence));
        } else if !seen.insert(column.name.as_str()) {
            let sentence = format!("the column `{}` is declared twice", column.name);
            problems.push(Problem::new(field, Reason::InvalidColumns, sentence));
        }
    }
    columns
        .iter()
        .map(|column| DeclaredColumn {
            name: column.name.clone(),
            column_type: convert::column_type(column.column_type),
            on_error: column.on_error.map(convert::on_error).unwrap_or_default(),
        })
        .collect()
}

fn check_sort_by(columns: &[String], problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (i, column) in columns.iter().enumerate() {
        let field = format!("spec.sortBy[{i}]");
        if let Some(sentence) = fault_of_column(column) {
            problems.push(Problem::new(field, Reason::InvalidColumns, sentence));
        } else if !seen.insert(column.as_str()) {
            problems.push(Problem::new(
                field,
                Reason::InvalidColumns,
                format!("`{column}` stands here twice"),
            ));
        }
    }
}

/// What makes a text no column's name. Control characters are how a fingerprint tells columns apart.
pub(crate) fn fault_of_column(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("a column's name cannot be empty")
    } else if name.chars().any(char::is_control) {
        Some("a column's name cannot hold a control character")
    } else {
        None
    }
}

fn check_rejects(rejects: Option<&Rejects>, problems: &mut Vec<Problem>) -> RejectLimits {
    let Some(Rejects { max_rows, max_ratio }) = rejects else { return RejectLimits::default() };
    if max_ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
        problems.push(Problem::new(
            "spec.rejects.maxRatio",
            Reason::InvalidSpec,
            "a share of all rows is a number from 0 to 1",
        ));
    }
    RejectLimits { max_rows: *max_rows, max_ratio: *max_ratio }
}

fn check_schedule(
    text: Option<&str>,
    source: Option<&Source>,
    pin: Option<u64>,
    problems: &mut Vec<Problem>,
) -> Option<Schedule> {
    let text = text?;
    let mut refuse = |sentence: String| {
        problems.push(Problem::new("spec.schedule", Reason::InvalidSchedule, sentence));
    };
    if source == Some(&Source::Upload) {
        refuse("an upload has no source to read again; remove `schedule`".to_owned());
    }
    if pin.is_some() {
        refuse("a pinned dataset reads no new data; remove `schedule` or `version`".to_owned());
    }
    Schedule::parse(text).map_err(refuse).ok()
}

/// `spec.keepVersions`, or how many it means when absent.
pub(crate) fn check_keep_versions(
    count: Option<u32>,
    absent: NonZeroU32,
    problems: &mut Vec<Problem>,
) -> NonZeroU32 {
    match count.map(NonZeroU32::new) {
        None => absent,
        Some(Some(count)) => count,
        Some(None) => {
            let sentence = "the served version is one of those that are kept; keep at least 1";
            problems.push(Problem::new("spec.keepVersions", Reason::InvalidSpec, sentence));
            absent
        }
    }
}

/// `spec.version`: the kept version to serve.
pub(crate) fn check_pin(version: Option<u64>, problems: &mut Vec<Problem>) -> Option<u64> {
    if version == Some(0) {
        problems.push(Problem::new("spec.version", Reason::InvalidSpec, "versions count from 1"));
    }
    version
}
