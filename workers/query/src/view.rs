//! A dataset as a view: the SQL text that gives its files the manifest's names and types.
//!
//! Where files have different schemas, columns are found by their field ids, so a column keeps its values when it moves,
//! and one that an older file lacks is null there. Nothing here touches DuckDB.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use lakehouse_contract::{Column, ColumnType, DatasetManifest, keys};

/// `CREATE VIEW` with the rows that [`select`] gives.
pub(crate) fn create(name: &str, select: &str) -> String {
    format!("CREATE VIEW main.{} AS {select}", identifier(name))
}

/// `CREATE TEMP VIEW`: one that its connection alone sees.
pub(crate) fn create_temporary(name: &str, select: &str) -> String {
    format!("CREATE TEMP VIEW {} AS {select}", identifier(name))
}

/// `DROP VIEW`.
pub(crate) fn drop(name: &str) -> String {
    format!("DROP VIEW main.{}", identifier(name))
}

/// The rows of a dataset whose objects lie in `files`, in their order.
pub(crate) fn select(manifest: &DatasetManifest, files: &[PathBuf]) -> String {
    let schema = &manifest.schema;
    let names = unambiguous(schema);
    if files.is_empty() {
        let nulls = schema
            .iter()
            .zip(&names)
            .map(|(column, name)| format!("NULL::{} AS {}", sql_type(column.column_type), identifier(name)));
        return format!("SELECT {} WHERE false", list(nulls));
    }
    let files = list(files.iter().map(|file| path(file)));
    if has_one_schema(manifest) {
        let names = list(names.iter().map(|name| identifier(name)));
        return format!("SELECT * FROM read_parquet([{files}]) AS rows({names})");
    }
    let columns = schema.iter().zip(&names).map(|(column, name)| {
        let (id, name, kind) = (column.field_id, text(name), sql_type(column.column_type));
        format!("{id}: {{name: {name}, type: '{kind}', default_value: NULL}}")
    });
    format!("SELECT * FROM read_parquet([{files}], schema = MAP {{{}}})", list(columns))
}

/// Whether every file has the columns of the manifest: a file's folder is the fingerprint of its schema. Then nothing needs
/// to be mapped, and DuckDB filters such files up to twice as fast.
fn has_one_schema(manifest: &DatasetManifest) -> bool {
    let folder = format!("{}/", keys::rows(&manifest.name, &manifest.schema_fingerprint));
    manifest.objects.iter().all(|object| object.key.as_str().starts_with(&folder))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
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
    use lakehouse_contract::{DataObject, DatasetName, Key};

    use super::*;

    #[test]
    fn names_and_paths_cannot_leave_their_quotes() {
        let of = |folder: &str| {
            select(&manifest(&[column("we'ird \"x\"", 3)], folder), &[PathBuf::from("/it's/a.parquet")])
        };
        assert_eq!(
            of("now"),
            "SELECT * FROM read_parquet(['/it''s/a.parquet']) AS rows(\"we'ird \"\"x\"\"\")"
        );
        assert_eq!(
            of("before"),
            "SELECT * FROM read_parquet(['/it''s/a.parquet'], schema = MAP {3: {name: 'we''ird \"x\"', \
             type: 'VARCHAR', default_value: NULL}})"
        );
    }

    #[test]
    fn names_that_differ_in_case_only_are_told_apart() {
        let schema = ["id", "ID", "Id", "id_1"].map(|name| column(name, 1));
        assert_eq!(unambiguous(&schema), ["id", "ID_2", "Id_3", "id_1"]);
    }

    #[test]
    fn a_dataset_without_files_has_its_columns_and_no_rows() {
        assert_eq!(
            select(&manifest(&[column("a", 1)], "now"), &[]),
            "SELECT NULL::VARCHAR AS \"a\" WHERE false"
        );
    }

    /// A manifest of the fingerprint `now` with one object that was written below `folder`.
    fn manifest(schema: &[Column], folder: &str) -> DatasetManifest {
        let name = DatasetName::parse("a").unwrap();
        let key = Key::parse(format!("datasets/a/{folder}/b.parquet")).unwrap();
        DatasetManifest {
            dataset_id: name.id(),
            name,
            schema_fingerprint: "now".into(),
            schema: schema.to_vec(),
            objects: vec![DataObject { key, size: 1, rows: 1, sha256: "b".into() }],
            row_count: 1,
            version: 1,
            latest_version: 1,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            origin: None,
        }
    }

    fn column(name: &str, field_id: i32) -> Column {
        Column { name: name.into(), column_type: ColumnType::String, field_id }
    }
}
