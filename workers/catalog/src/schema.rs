//! What may become of a dataset's schema: how two differ, and which field ids a new one gets.

use std::{collections::HashMap, fmt};

use lakehouse_contract::{Column, ColumnType, ingest::SchemaPolicy};
use serde::Serialize;

/// How an offered schema differs from the registered one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SchemaDiff {
    /// Columns that only the offered schema has.
    pub added: Vec<String>,
    /// Columns that only the registered schema has.
    pub removed: Vec<String>,
    /// Columns whose type is another one.
    pub changed: Vec<Retyped>,
    /// Whether the columns that both have stand in another order.
    pub reordered: bool,
}

/// A column whose type is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retyped {
    /// The column.
    pub name: String,
    /// Its registered type.
    pub from: ColumnType,
    /// Its offered type.
    pub to: ColumnType,
}

impl SchemaDiff {
    /// What differs between two schemas with unique names.
    pub fn between(current: &[Column], offered: &[Column]) -> Self {
        let old: HashMap<&str, ColumnType> = types(current);
        let new: HashMap<&str, ColumnType> = types(offered);
        let only_in = |columns: &[Column], other: &HashMap<&str, ColumnType>| {
            let only = columns.iter().filter(|column| !other.contains_key(column.name.as_str()));
            only.map(|column| column.name.clone()).collect()
        };
        let shared_order = |columns: &[Column], other: &HashMap<&str, ColumnType>| -> Vec<String> {
            let shared = columns.iter().filter(|column| other.contains_key(column.name.as_str()));
            shared.map(|column| column.name.clone()).collect()
        };
        let changed = current.iter().filter_map(|column| {
            let to = *new.get(column.name.as_str())?;
            let from = column.column_type;
            (from != to).then(|| Retyped { name: column.name.clone(), from, to })
        });
        Self {
            added: only_in(offered, &old),
            removed: only_in(current, &new),
            changed: changed.collect(),
            reordered: shared_order(current, &new) != shared_order(offered, &old),
        }
    }

    /// Whether `policy` lets the offered schema take the registered one's place.
    ///
    /// `Evolve` takes added columns and another order: readers find columns by name.
    pub fn allowed_by(&self, policy: SchemaPolicy) -> bool {
        match policy {
            SchemaPolicy::Reject => *self == Self::default(),
            SchemaPolicy::Evolve => self.removed.is_empty() && self.changed.is_empty(),
        }
    }
}

fn types(columns: &[Column]) -> HashMap<&str, ColumnType> {
    columns.iter().map(|column| (column.name.as_str(), column.column_type)).collect()
}

impl fmt::Display for SchemaDiff {
    /// One clause for each kind of difference; at most a handful of names of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let changed = self.changed.iter();
        let retyped = changed.map(|Retyped { name, from, to }| format!("`{name}` from {from} to {to}"));
        let mut clauses = Vec::new();
        for (what, items) in [
            ("added", quoted(&self.added)),
            ("removed", quoted(&self.removed)),
            ("changed", retyped.collect::<Vec<_>>()),
        ] {
            if !items.is_empty() {
                clauses.push(format!("{what} {}", shortened(&items)));
            }
        }
        if self.reordered {
            clauses.push("the columns stand in another order".to_owned());
        }
        f.write_str(&clauses.join("; "))
    }
}

/// The first items, and how many more there are.
fn shortened(items: &[String]) -> String {
    const SHOWN: usize = 5;
    let list = items[..items.len().min(SHOWN)].join(", ");
    if items.len() > SHOWN { format!("{list} and {} more", items.len() - SHOWN) } else { list }
}

/// The offered columns with the field ids that the dataset's columns have for ever.
///
/// `known` are the columns of this dataset so far, the current ones first. A column that was known with this name and
/// type gets its id back; any other gets one that no column ever had. The first schema of a dataset keeps its own ids.
pub(crate) fn with_lasting_ids(offered: &[Column], known: &[Column]) -> Vec<Column> {
    if known.is_empty() {
        return offered.to_vec();
    }
    let mut lasting: HashMap<(&str, ColumnType), i32> = HashMap::new();
    for column in known {
        lasting.entry((&column.name, column.column_type)).or_insert(column.field_id);
    }
    let mut highest = known.iter().map(|column| column.field_id).max().unwrap_or(0);
    let id_of = |column: &Column| {
        lasting.get(&(column.name.as_str(), column.column_type)).copied().unwrap_or_else(|| {
            highest += 1;
            highest
        })
    };
    let ids: Vec<i32> = offered.iter().map(id_of).collect();
    offered.iter().zip(ids).map(|(column, field_id)| Column { field_id, ..column.clone() }).collect()
}

/// Why these columns are no schema, if they are none.
pub(crate) fn fault(columns: &[Column]) -> Option<String> {
    if columns.is_empty() {
        return Some("the schema has no columns".to_owned());
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut ids: HashMap<i32, usize> = HashMap::new();
    for (i, Column { name, column_type: _, field_id }) in columns.iter().enumerate() {
        if name.is_empty() {
            return Some(format!("schema[{i}]: the column's name is empty"));
        }
        if let Some(c) = name.chars().find(|c| matches!(c, '\u{1e}' | '\u{1f}' | '\0')) {
            return Some(format!(
                "schema[{i}]: the column's name holds {c:?}, which a fingerprint cannot tell apart"
            ));
        }
        if let Some(first) = names.insert(name, i) {
            return Some(format!("schema[{i}]: the name `{name}` is also that of schema[{first}]"));
        }
        if *field_id < 0 {
            return Some(format!("schema[{i}]: the field id {field_id} is negative"));
        }
        if let Some(first) = ids.insert(*field_id, i) {
            return Some(format!("schema[{i}]: the field id {field_id} is also that of schema[{first}]"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_every_column_that_differs() {
        let current = [column("id", ColumnType::Int64, 1), column("age", ColumnType::Int64, 2)];
        let offered = [column("age", ColumnType::String, 1), column("city", ColumnType::String, 2)];
        let diff = SchemaDiff::between(&current, &offered);
        assert_eq!(diff.to_string(), "added `city`; removed `id`; changed `age` from int64 to string");
        assert!(!diff.allowed_by(SchemaPolicy::Evolve));
    }

    #[test]
    fn another_order_is_a_difference_that_only_evolve_takes() {
        let current = [column("a", ColumnType::Int64, 1), column("b", ColumnType::Int64, 2)];
        let offered = [current[1].clone(), current[0].clone()];
        let diff = SchemaDiff::between(&current, &offered);
        assert_eq!(diff.to_string(), "the columns stand in another order");
        assert!(!diff.allowed_by(SchemaPolicy::Reject));
        assert!(diff.allowed_by(SchemaPolicy::Evolve));
    }

    #[test]
    fn a_long_difference_is_cut() {
        let offered: Vec<Column> = (0..9).map(|i| column(&format!("c{i}"), ColumnType::Int64, i)).collect();
        let diff = SchemaDiff::between(&offered[..1], &offered);
        assert_eq!(diff.to_string(), "added `c1`, `c2`, `c3`, `c4`, `c5` and 3 more");
    }

    #[test]
    fn a_column_keeps_its_id_and_a_new_one_gets_an_unused_one() {
        let known = [column("a", ColumnType::Int64, 7), column("b", ColumnType::String, 3)];
        let offered = [
            column("new", ColumnType::Int64, 1),
            column("b", ColumnType::String, 2),
            column("a", ColumnType::Int64, 3),
        ];
        let ids: Vec<i32> = with_lasting_ids(&offered, &known).iter().map(|column| column.field_id).collect();
        assert_eq!(ids, [8, 3, 7]);
    }

    #[test]
    fn columns_that_could_be_taken_for_each_other_are_no_schema() {
        for (columns, sentence) in [
            (vec![], "the schema has no columns"),
            (vec![column("", ColumnType::Date, 1)], "schema[0]: the column's name is empty"),
            (
                vec![column("a", ColumnType::Date, 1), column("a", ColumnType::Date, 2)],
                "schema[1]: the name `a` is also that of schema[0]",
            ),
            (
                vec![column("a", ColumnType::Date, 1), column("b", ColumnType::Date, 1)],
                "schema[1]: the field id 1 is also that of schema[0]",
            ),
            (vec![column("a", ColumnType::Date, -1)], "schema[0]: the field id -1 is negative"),
        ] {
            assert_eq!(fault(&columns).as_deref(), Some(sentence));
        }
        assert!(fault(&[column("a\u{1f}b", ColumnType::Date, 1)]).is_some());
    }

    fn column(name: &str, column_type: ColumnType, field_id: i32) -> Column {
        Column { name: name.into(), column_type, field_id }
    }
}
