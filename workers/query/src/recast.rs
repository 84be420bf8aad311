//! Types that Arrow has no exact place for, given as the text that DuckDB writes for them.
//!
//! Through Arrow a TIME WITH TIME ZONE loses its offset and a UHUGEINT its upper half; BIT and BIGNUM come in DuckDB's
//! inner form. A query that has such a column runs inside another one that casts it.

use duckdb::{Connection, types::Value};
use lakehouse_contract::sql::SqlColumn;

use crate::{params, values::Shape, view};

/// DuckDB's names of these types.
const WITHOUT_A_PLACE: [&str; 4] = ["TIME WITH TIME ZONE", "UHUGEINT", "BIGNUM", "BIT"];

/// The columns of a query, some of them cast.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recast {
    columns: Vec<(SqlColumn, Option<String>)>,
}

/// Whether a result has a column that must be cast.
pub(crate) fn is_needed(shape: &Shape) -> bool {
    shape.columns.iter().any(|column| cast(&column.column_type).is_some())
}

/// Whether DuckDB's client failed because of such a column, before it told which one.
pub(crate) fn is_unreadable(error: &duckdb::Error) -> bool {
    matches!(error, duckdb::Error::FromSqlConversionFailure(..))
}

impl Recast {
    /// Asks DuckDB for the columns of a statement.
    pub(crate) fn of(connection: &Connection, sql: &str, values: &[Value]) -> duckdb::Result<Self> {
        let mut describe = connection.prepare(&format!("DESCRIBE {sql}"))?;
        let rows = describe.query_map(params::of(values), |row| {
            let column = SqlColumn { name: row.get(0)?, column_type: row.get(1)? };
            let cast = cast(&column.column_type);
            Ok((column, cast))
        })?;
        Ok(Self { columns: rows.collect::<duckdb::Result<_>>()? })
    }

    /// The query around the query.
    pub(crate) fn around(&self, sql: &str) -> String {
        let inner: Vec<_> = (0..self.columns.len()).map(|index| format!("c{index}")).collect();
        let outer: Vec<_> = self
            .columns
            .iter()
            .zip(&inner)
            .map(|((column, cast), inner)| {
                let name = view::identifier(&column.name);
                match cast {
                    Some(cast) => format!("CAST({inner} AS {cast}) AS {name}"),
                    None => format!("{inner} AS {name}"),
                }
            })
            .collect();
        format!("SELECT {} FROM (\n{sql}\n) AS q({})", outer.join(", "), inner.join(", "))
    }

    /// The columns with the types that the caller's own query gives them.
    pub(crate) fn shape(self) -> Shape {
        Shape { columns: self.columns.into_iter().map(|(column, _)| column).collect() }
    }
}

/// The type with text in the place of every part that Arrow has no place for; `None` when there is no such part.
fn cast(column_type: &str) -> Option<String> {
    let mut cast = String::new();
    let mut rest = column_type;
    'parts: while let Some(first) = rest.chars().next() {
        // Names of members and values of ENUMs stand between quotes; a doubled quote is two texts in a row.
        if let '"' | '\'' = first {
            let end = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
            cast.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        for name in WITHOUT_A_PLACE {
            let follows =
                |end: usize| rest[end..].chars().next().is_none_or(|c| matches!(c, ',' | ')' | '['));
            if rest.starts_with(name) && follows(name.len()) {
                cast.push_str("VARCHAR");
                rest = &rest[name.len()..];
                continue 'parts;
            }
        }
        let end = word.max(first.len_utf8());
        cast.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    (cast != column_type).then_some(cast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parts_without_a_place_become_text() {
        let cases = [
            ("BIGINT", None),
            ("TIMESTAMP WITH TIME ZONE", None),
            ("TIME WITH TIME ZONE", Some("VARCHAR")),
            ("TIME WITH TIME ZONE[]", Some("VARCHAR[]")),
            ("STRUCT(bit BIT, \"a \"\"BIT\" INTEGER)", Some("STRUCT(bit VARCHAR, \"a \"\"BIT\" INTEGER)")),
            ("MAP(UHUGEINT, BIGNUM[3])", Some("MAP(VARCHAR, VARCHAR[3])")),
            ("ENUM('BIT', 'it''s BIT')", None),
        ];
        for (column_type, expected) in cases {
            assert_eq!(cast(column_type).as_deref(), expected, "{column_type}");
        }
    }

    #[test]
    fn names_are_kept_also_when_they_repeat() {
        let column = |column_type: &str| {
            (SqlColumn { name: "a".into(), column_type: column_type.into() }, cast(column_type))
        };
        let recast = Recast { columns: vec![column("BIT"), column("DATE")] };
        assert_eq!(
            recast.around("SELECT x, y"),
            "SELECT CAST(c0 AS VARCHAR) AS \"a\", c1 AS \"a\" FROM (\nSELECT x, y\n) AS q(c0, c1)"
        );
    }
}
