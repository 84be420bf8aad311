//! A list of resources as `kubectl get` prints it.
//!
//! Receives a definition with its printer columns and objects as JSON; hands on a header and rows of text. The rules are
//! those of the API server's table convertor: a value of another type than its column's is left blank, and dates are
//! shown as ages.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::human;

/// A header and rows of the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Upper-case names; the first is `NAME`.
    pub header: Vec<String>,
    /// One a resource, in the order that was handed in.
    pub rows: Vec<Vec<String>>,
}

/// A printer column whose path cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the column `{column}` of `{definition}` has a path that cannot be read")]
pub struct Error {
    definition: String,
    column: String,
    #[source]
    source: serde_json_path::ParseError,
}

/// The definition's columns over these objects; the columns of lower priority only when `wide`.
pub fn table(
    definition: &CustomResourceDefinition,
    objects: &[Value],
    wide: bool,
    now: Timestamp,
) -> Result<Table, Error> {
    let columns = columns(definition, wide)?;
    let header = std::iter::once("NAME".to_owned()).chain(columns.iter().map(|column| column.header.clone()));
    let rows = objects.iter().map(|object| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        std::iter::once(name).chain(columns.iter().map(|column| column.cell(object, now))).collect()
    });
    Ok(Table { header: header.collect(), rows: rows.collect() })
}

struct Column {
    header: String,
    kind: String,
    path: JsonPath,
}

fn columns(definition: &CustomResourceDefinition, wide: bool) -> Result<Vec<Column>, Error> {
    let all =
        definition.spec.versions.first().and_then(|version| version.additional_printer_columns.as_ref());
    all.into_iter()
        .flatten()
        .filter(|column| wide || column.priority.unwrap_or(0) == 0)
        .map(|CustomResourceColumnDefinition { name, json_path, type_, .. }| {
            // The API server's paths are RFC 9535's without the sign for the root.
            let path = JsonPath::parse(&format!("${json_path}")).map_err(|source| Error {
                definition: definition.spec.names.kind.clone(),
                column: name.clone(),
                source,
            })?;
            Ok(Column { header: name.to_uppercase(), kind: type_.clone(), path })
        })
        .collect()
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> String {
        let Some(value) = self.path.query(object).first() else { return String::new() };
        match self.kind.as_str() {
            "date" => match value.as_str().map(str::parse::<Timestamp>) {
                Some(Ok(time)) => human::age(now.duration_since(time)),
                Some(Err(_)) => "<invalid>".to_owned(),
                None => String::new(),
            },
            "integer" => match value {
                Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(whole), _, _) => whole.to_string(),
                    (_, Some(whole), _) => whole.to_string(),
                    (_, _, Some(number)) => format!("{:.0}", number.trunc()),
                    (None, None, None) => String::new(),
                },
                _ => String::new(),
            },
            "number" => {
                if value.is_number() {
                    value.to_string()
                } else {
                    String::new()
                }
            }
            "boolean" => {
                if value.is_boolean() {
                    value.to_string()
                } else {
                    String::new()
                }
            }
            _ => match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
        }
    }
}
