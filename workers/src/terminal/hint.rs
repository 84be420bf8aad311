//! Commands to try next, written so that they can be copied into a shell as they are.

use crate::client::DEFAULT_SERVER;

/// This program as it was called: by its path, where the shell would not find it by its name alone.
pub(crate) fn program() -> String {
    let called = std::env::args().next().filter(|called| called.contains('/'));
    called.unwrap_or_else(|| "lakehouse".to_owned())
}

/// What a command needs to reach this server: nothing where it asks there anyway.
pub(crate) fn at_server(url: &str) -> String {
    if url == DEFAULT_SERVER { String::new() } else { format!(" --server {url}") }
}

/// A dataset's name as SQL wants it: in quotes unless it is a plain word without a meaning of its own.
pub(crate) fn sql_name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !RESERVED.contains(&name) { name.to_owned() } else { format!("\"{name}\"") }
}

/// The words that DuckDB reserves: `SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'`.
#[rustfmt::skip]
const RESERVED: [&str; 75] = [
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case",
    "cast", "check", "collate", "column", "constraint", "create", "default", "deferrable", "desc",
    "describe", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "from",
    "group", "having", "in", "initially", "intersect", "into", "lambda", "lateral", "leading", "limit",
    "not", "null", "offset", "on", "only", "or", "order", "pivot", "pivot_longer", "pivot_wider",
    "placing", "primary", "qualify", "references", "returning", "select", "show", "some", "summarize",
    "symmetric", "table", "then", "to", "trailing", "true", "union", "unique", "unpivot", "using",
    "variadic", "when", "where", "window", "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_sql_would_take_them_for_something_else() {
        for (name, written) in [
            ("sales", "sales"),
            ("sales_2024", "sales_2024"),
            ("Sales", "\"Sales\""),
            ("sales-2024", "\"sales-2024\""),
            ("2024", "\"2024\""),
            ("order", "\"order\""),
        ] {
            assert_eq!(sql_name(name), written);
        }
    }

    #[test]
    fn a_server_is_named_only_where_it_is_not_the_usual_one() {
        assert_eq!(at_server("http://127.0.0.1:3110"), "");
        assert_eq!(at_server("http://127.0.0.1:4000"), " --server http://127.0.0.1:4000");
    }
}
