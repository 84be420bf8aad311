//! A dataset as a view: the SQL text that gives its files the manifest's names and types.
//!
//! Columns are found by their field ids, so a column keeps its values when it moves, and one that an older file lacks is
//! null there. Nothing here touches DuckDB.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use lakehouse_contract::{Column, ColumnType, DatasetManifest};

/// `CREATE VIEW` for a dataset whose objects lie in `files`, in their order.
pub(crate) fn create(manifest: &DatasetManifest, files: &[PathBuf]) -> String {
    let name = identifier(manifest.name.as_str());
    format!("CREATE VIEW main.{name} AS {}", select(&manifest.schema, files))
}

/// `DROP VIEW`.
pub(crate) fn drop(name: &str) -> String {
    format!("DROP VIEW main.{}", identifier(name))
}

/// The rows of a dataset.
pub(crate) fn select(schema: &[Column], files: &[PathBuf]) -> String {
    let names = unambiguous(schema);
    if files.is_empty() {
        let nulls: Vec<_> = schema
            .iter()
            .zip(&names)
            .map(|(column, name)| format!("NULL::{} AS {}", sql_type(column.column_type), identifier(name)))
            .collect();
        return format!("SELECT {} WHERE false", nulls.join(", "));
    }
    let files: Vec<_> = files.iter().map(|file| path(file)).collect();
    let columns: Vec<_> = schema
        .iter()
        .zip(&names)
        .map(|(column, name)| {
            let (id, name, kind) = (column.field_id, text(name), sql_type(column.column_type));
            format!("{id}: {{name: {name}, type: '{kind}', default_value: NULL}}")
        })
        .collect();
    format!("SELECT * FROM read_parquet([{}], schema = MAP {{{}}})", files.join(", "), columns.join(", "))
}

/// DuckDB does not tell `id` from `ID`: the later one is `ID_1`, as in DuckDB's own readers.
fn unambiguous(schema: &[Column]) -> Vec<String> {
    let spelled: HashSet<_> = schema.iter().map(|column| column.name.to_lowercase()).collect();
    let mut taken = HashSet::new();
    schema
        .iter()
        .map(|column| {
            let mut name = column.name.clone();
            let mut count = 0;
            // A name that is made up here must not take one that another column has.
            while (count > 0 && spelled.contains(&name.to_lowercase())) || !taken.insert(name.to_lowercase())
            {
                count += 1;
                name = format!("{}_{count}", column.name);
            }
            name
        })
        .collect()
}

fn sql_type(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Int64 => "BIGINT",
        ColumnType::Float64 => "DOUBLE",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Date => "DATE",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::String => "VARCHAR",
    }
}

/// A quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A path as a literal.
pub(crate) fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_cannot_leave_their_quotes() {
        let schema = [column("we'ird \"x\"", 3)];
        let sql = select(&schema, &[PathBuf::from("/it's/a.parquet")]);
        assert_eq!(
            sql,
            "SELECT * FROM read_parquet(['/it''s/a.parquet'], schema = MAP {3: {name: 'we''ird \"x\"', \
             type: 'VARCHAR', default_value: NULL}})"
        );
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn names_that_differ_in_case_only_are_told_apart() {
        let schema = ["id", "ID", "Id", "id_1"].map(|name| column(name, 1));
        assert_eq!(unambiguous(&schema), ["id", "ID_2", "Id_3", "id_1"]);
    }

    #[test]
    fn a_dataset_without_files_has_its_columns_and_no_rows() {
        assert_eq!(select(&[column("a", 1)], &[]), "SELECT NULL::VARCHAR AS \"a\" WHERE false");
    }

    fn column(name: &str, field_id: i32) -> Column {
        Column { name: name.into(), column_type: ColumnType::String, field_id }
    }
}
