//! The text that is indexed, checked.

use std::collections::BTreeSet;

use lakehouse_contract::{DatasetName, template::Template, vectors::RowId};
use lakehouse_crds::vector_index::{IndexSource, Refresh};

use super::follows;
use crate::{Problem, Reason, dataset::fault_of_column};

/// The text that is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The Dataset, in the same namespace.
    pub dataset: DatasetName,
    /// How a row's id is made.
    pub id: RowId,
    /// A row's text: a template over columns.
    pub text: String,
    /// Columns that are kept with each vector.
    pub metadata: Vec<String>,
    /// Which rows: an SQL predicate.
    pub predicate: Option<String>,
    /// Whether a build follows each new version of the Dataset, and not only a new value of the refresh annotation.
    pub on_change: bool,
}

pub(super) fn check(
    source: &IndexSource,
    refresh: Option<Refresh>,
    problems: &mut Vec<Problem>,
) -> Option<Source> {
    let IndexSource { dataset, id, text, metadata, predicate } = source;
    let before = problems.len();
    let dataset = DatasetName::parse(dataset.clone())
        .map_err(|error| {
            problems.push(Problem::new("spec.source.dataset", Reason::InvalidSource, error.to_string()));
        })
        .ok();
    let id = row_id(id, problems);
    check_text(text, problems);
    check_metadata(metadata, problems);
    if predicate.as_ref().is_some_and(|predicate| predicate.trim().is_empty()) {
        let sentence = "an SQL predicate is not empty; remove it to index all rows";
        problems.push(Problem::new("spec.source.where", Reason::InvalidSource, sentence));
    }
    if problems.len() > before {
        return None;
    }
    Some(Source {
        dataset: dataset?,
        id: id?,
        text: text.clone(),
        metadata: metadata.clone(),
        predicate: predicate.clone(),
        on_change: follows(refresh),
    })
}

/// A column's name, or a text around one in braces.
fn row_id(text: &str, problems: &mut Vec<Problem>) -> Option<RowId> {
    let parts = match text.split_once('{') {
        None => ("", text, ""),
        Some((prefix, rest)) => {
            let (column, suffix) = rest.split_once('}').unwrap_or((rest, "}"));
            (prefix, column, suffix)
        }
    };
    let (prefix, column, suffix) = parts;
    let sentence = if [prefix, column, suffix].iter().any(|part| part.contains(['{', '}'])) {
        "must be a column's name, or a text with exactly one in braces, such as `w-{worker_id}`"
    } else if let Some(fault) = fault_of_column(column) {
        fault
    } else if [prefix, suffix].iter().any(|part| part.chars().any(char::is_control)) {
        "an id cannot hold a control character"
    } else {
        let [prefix, column, suffix] = [prefix, column, suffix].map(str::to_owned);
        return Some(RowId { prefix, column, suffix });
    };
    problems.push(Problem::new("spec.source.id", Reason::InvalidColumns, sentence));
    None
}

fn check_text(text: &str, problems: &mut Vec<Problem>) {
    let mut refuse = |sentence: String| {
        problems.push(Problem::new("spec.source.text", Reason::InvalidColumns, sentence));
    };
    match Template::parse(text) {
        Err(error) => refuse(error.to_string()),
        Ok(template) => {
            if let Some(fault) = template.columns().find_map(fault_of_column) {
                refuse(fault.to_owned());
            }
        }
    }
}

fn check_metadata(columns: &[String], problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (i, column) in columns.iter().enumerate() {
        let sentence = match fault_of_column(column) {
            Some(fault) => fault.to_owned(),
            None if !seen.insert(column.as_str()) => format!("`{column}` stands here twice"),
            None => continue,
        };
        problems.push(Problem::new(format!("spec.source.metadata[{i}]"), Reason::InvalidColumns, sentence));
    }
}
