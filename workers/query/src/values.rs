//! Values as callers read them: the names of types, and every type's form in JSON and in CSV.
//!
//! | type | JSON |
//! |---|---|
//! | integers, DECIMAL | a number within ±2^53 (a decimal's digits without its point), text beyond |
//! | FLOAT, DOUBLE | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | BOOLEAN, VARCHAR, ENUM, UUID, JSON | `true`, text |
//! | DATE, TIME, TIMESTAMP | `2024-02-29`, `13:05:00.5`, `2024-02-29T13:05:00.5Z`: a TIMESTAMP is in UTC |
//! | INTERVAL | ISO 8601: `P1Y2M3DT4H5M6.7S` |
//! | BLOB, GEOMETRY (as WKB) | base64 |
//! | LIST, ARRAY | an array |
//! | STRUCT | an object; an array where the members have no names |
//! | MAP | an object with the keys as text |
//! | UNION | an object with the one member |
//! | UHUGEINT, BIGNUM, BIT, TIME WITH TIME ZONE | DuckDB's text |
//!
//! CSV has the same forms without the quotes of JSON: a null is empty, an empty text is `""`, nested values are JSON.

mod column;
mod text;
mod time;

use std::collections::HashSet;

use arrow::datatypes::DataType;
use duckdb::{
    Statement,
    core::{LogicalTypeHandle, LogicalTypeId as Id},
};
use lakehouse_contract::sql::SqlColumn;

pub(crate) use column::Column;

use crate::view;

/// The columns of a result, in order. Names may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<SqlColumn>,
}

impl Shape {
    /// The columns of a statement that runs.
    pub(crate) fn of(statement: &Statement<'_>) -> Self {
        let schema = statement.schema();
        let columns = schema.fields().iter().enumerate().map(|(index, field)| SqlColumn {
            name: field.name().clone(),
            column_type: type_name(&statement.column_logical_type(index), field.data_type()),
        });
        Self { columns: columns.collect() }
    }

    /// Whether a name may have been made up because another column has it too: of two columns `a` that a query around theirs
    /// sees, the second is `a_1`.
    pub(crate) fn has_made_up_names(&self) -> bool {
        let names: HashSet<String> = self.columns.iter().map(|column| column.name.to_lowercase()).collect();
        names.iter().any(|name| {
            let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
            base.len() < name.len() && base.strip_suffix('_').is_some_and(|base| names.contains(base))
        })
    }
}

/// DuckDB's name of a type. Arrow's type tells the length of an ARRAY.
fn type_name(logical: &LogicalTypeHandle, arrow: &DataType) -> String {
    let members = |arrow: &DataType| -> String {
        let types: Vec<DataType> = match arrow {
            DataType::Struct(fields) => fields.iter().map(|field| field.data_type().clone()).collect(),
            DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type().clone()).collect(),
            _ => Vec::new(),
        };
        let named = types.iter().enumerate().map(|(index, arrow)| {
            let name = logical.child_name(index);
            let type_name = type_name(&logical.child(index), arrow);
            match name.as_str() {
                "" => type_name,
                name if is_plain(name) => format!("{name} {type_name}"),
                name => format!("{} {type_name}", view::identifier(name)),
            }
        });
        named.collect::<Vec<_>>().join(", ")
    };
    match (logical.id(), arrow) {
        (Id::List, DataType::List(item)) => format!("{}[]", type_name(&logical.child(0), item.data_type())),
        (Id::Array, DataType::FixedSizeList(item, length)) => {
            format!("{}[{length}]", type_name(&logical.child(0), item.data_type()))
        }
        (Id::Struct, arrow) => format!("STRUCT({})", members(arrow)),
        (Id::Union, arrow) => format!("UNION({})", members(arrow)),
        (Id::Map, DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(pair) => format!(
                "MAP({}, {})",
                type_name(&logical.child(0), pair[0].data_type()),
                type_name(&logical.child(1), pair[1].data_type())
            ),
            _ => "MAP".to_owned(),
        },
        (Id::Decimal, _) => format!("DECIMAL({},{})", logical.decimal_width(), logical.decimal_scale()),
        (id, _) => simple_name(id).to_owned(),
    }
}

fn simple_name(id: Id) -> &'static str {
    match id {
        Id::Boolean => "BOOLEAN",
        Id::Tinyint => "TINYINT",
        Id::Smallint => "SMALLINT",
        Id::Integer => "INTEGER",
        Id::Bigint => "BIGINT",
        Id::Hugeint => "HUGEINT",
        Id::UTinyint => "UTINYINT",
        Id::USmallint => "USMALLINT",
        Id::UInteger => "UINTEGER",
        Id::UBigint => "UBIGINT",
        Id::UHugeint => "UHUGEINT",
        Id::Bignum => "BIGNUM",
        Id::Float => "FLOAT",
        Id::Double => "DOUBLE",
        Id::Varchar => "VARCHAR",
        Id::Blob => "BLOB",
        Id::Bit => "BIT",
        Id::Date => "DATE",
        Id::Time => "TIME",
        Id::TimeNs => "TIME_NS",
        Id::TimeTZ => "TIME WITH TIME ZONE",
        Id::Timestamp => "TIMESTAMP",
        Id::TimestampS => "TIMESTAMP_S",
        Id::TimestampMs => "TIMESTAMP_MS",
        Id::TimestampNs => "TIMESTAMP_NS",
        Id::TimestampTZ => "TIMESTAMP WITH TIME ZONE",
        Id::Interval => "INTERVAL",
        Id::Uuid => "UUID",
        Id::Enum => "ENUM",
        Id::Geometry => "GEOMETRY",
        Id::SqlNull => "NULL",
        _ => "UNKNOWN",
    }
}

/// Whether a name stands in a type without quotes.
fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
