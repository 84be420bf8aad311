//! Which functions a caller may use.

/// Table functions that read nothing but their arguments. `test_all_types` shows a row of every type.
pub(super) const TABLE_FUNCTIONS: [&str; 7] =
    ["range", "generate_series", "unnest", "repeat", "json_each", "json_tree", "test_all_types"];

/// The views of `information_schema` that name datasets and columns, and no file.
pub(super) const INFORMATION_SCHEMA: [&str; 3] = ["tables", "columns", "schemata"];

/// Functions whose second argument says what JSON is to become.
pub(super) const STRUCTURED: [&str; 4] =
    ["from_json", "from_json_strict", "json_transform", "json_transform_strict"];

/// Scalar functions that tell of settings, files or plans, that write, that only wait, or that harm the process.
const DENIED: [&str; 27] = [
    // Settings, variables and the environment.
    "current_setting",
    "getenv",
    "getvariable",
    "pg_conf_load_time",
    // The text of views and the plan of a query hold the names of files.
    "pg_get_viewdef",
    "pg_get_expr",
    "pg_get_constraintdef",
    "json_serialize_plan",
    "json_execute_serialized_sql",
    "query",
    "query_table",
    // These write.
    "write_log",
    "nextval",
    "currval",
    "setseed",
    // These hold a place and do nothing with it.
    "sleep_ms",
    "pg_sleep",
    // Reads a log of the process.
    "parse_duckdb_log_message",
    // Follow JSON as deep as it goes: the stack ends first, and the process with it.
    "json_structure",
    "json_group_structure",
    "json_contains",
    // Parse and print without the limits that a statement has.
    "json_serialize_sql",
    "json_deserialize_sql",
    // Keep a table of both texts' lengths that no limit counts: 80 GB for two texts of 100,000 characters.
    "damerau_levenshtein",
    // Lead to the type VARIANT without its name.
    "make_type",
    "cast_to_type",
    "replace_type",
];

/// Whether a scalar function, by its lower-case name, is kept from callers. DuckDB's optimizer calls its `__internal_`
/// functions with arguments that it has checked; a caller's would not be. The `variant_` functions make VARIANTs.
pub(super) fn is_denied(function: &str) -> bool {
    DENIED.contains(&function) || function.starts_with("__internal") || function.starts_with("variant_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of names that could tell of the machine, write, or run SQL.
    const SUSPICIOUS: [&str; 17] = [
        "setting", "env", "variable", "secret", "conf", "file", "read_", "write", "log", "sql", "plan",
        "query", "sleep", "pragma", "def", "internal", "expr",
    ];

    /// Looked at, and harmless: arithmetic, texts of the caller's own, answers that are always the same.
    const HARMLESS: [&str; 9] = [
        "array_to_string_comma_default",
        "current_catalog",
        "current_query",
        "current_query_id",
        "log",
        "log10",
        "log2",
        "parse_filename",
        "pg_ts_config_is_visible",
    ];

    /// A new DuckDB may bring new functions; this asks for a look at them.
    #[test]
    fn every_function_with_a_suspicious_name_is_judged() {
        let connection = duckdb::Connection::open_in_memory().unwrap();
        let names = "SELECT DISTINCT lower(function_name) FROM duckdb_functions()
                     WHERE function_type IN ('scalar', 'macro', 'aggregate')";
        let mut statement = connection.prepare(names).unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let open: Vec<_> = names
            .filter(|name| SUSPICIOUS.iter().any(|part| name.contains(part)))
            .filter(|name| !is_denied(name) && !HARMLESS.contains(&name.as_str()))
            .collect();
        assert!(open.is_empty(), "deny these or say why not: {open:?}");
    }
}
