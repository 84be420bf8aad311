//! What callers may not do, and that the service is unharmed after they tried.

mod support;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Lake, settings};

#[tokio::test]
async fn what_is_not_reading_is_refused() {
    refuses(
        "sql_refused",
        &[
            "COPY workers TO 'stolen.csv'",
            "COPY (SELECT 1) TO '/tmp/x.parquet' (FORMAT parquet)",
            "EXPORT DATABASE '/tmp/x'",
            "IMPORT DATABASE '/tmp/x'",
            "ATTACH '/tmp/x.db'",
            "ATTACH 'https://example.com/x.db' AS x",
            "DETACH memory",
            "USE memory",
            "INSTALL httpfs",
            "FORCE INSTALL httpfs FROM 'http://example.com'",
            "LOAD httpfs",
            "LOAD '/tmp/x.duckdb_extension'",
            "UPDATE EXTENSIONS",
            "PRAGMA database_list",
            "PRAGMA enable_profiling",
            "SET memory_limit = '1TB'",
            "SET GLOBAL enable_external_access = true",
            "RESET memory_limit",
            "SET VARIABLE x = 1",
            "CREATE TABLE x (a INTEGER)",
            "CREATE TEMP TABLE x AS SELECT 1",
            "CREATE OR REPLACE VIEW workers AS SELECT 1",
            "CREATE MACRO f(x) AS x",
            "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
            "CREATE SCHEMA s",
            "CREATE SEQUENCE s",
            "CREATE TYPE t AS ENUM ('a')",
            "INSERT INTO workers VALUES (4, 'Eve')",
            "UPDATE workers SET name = 'Eve'",
            "DELETE FROM workers",
            "TRUNCATE workers",
            "MERGE INTO workers USING workers w ON false WHEN MATCHED THEN DELETE",
            "ALTER VIEW workers RENAME TO w",
            "DROP VIEW workers",
            "COMMENT ON VIEW workers IS 'mine'",
            "CALL range(3)",
            "CHECKPOINT",
            "VACUUM",
            "ANALYZE",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DEALLOCATE p",
            "EXPLAIN ANALYZE SELECT * FROM workers",
            "EXPLAIN /* now */ ANALYSE SELECT * FROM workers",
            "EXPLAIN COPY workers TO 'x.csv'",
            "EXPLAIN CREATE TABLE x AS SELECT 1",
            "SHOW DATABASES",
            "SHOW TABLES FROM memory",
        ],
    )
    .await;
}

#[tokio::test]
async fn no_file_and_nothing_inside_is_read() {
    refuses(
        "sql_refused",
        &[
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM READ_CSV_AUTO('/etc/passwd')",
            "SELECT * FROM system.main.read_csv('/etc/passwd')",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM read_blob('/etc/passwd')",
            "SELECT * FROM read_json('/etc/passwd')",
            "SELECT * FROM read_ndjson_objects('/etc/passwd')",
            "SELECT * FROM read_parquet('https://example.com/x.parquet')",
            "SELECT * FROM parquet_scan('s3://bucket/x.parquet')",
            "SELECT * FROM parquet_metadata('x.parquet')",
            "SELECT * FROM parquet_schema('x.parquet')",
            "SELECT * FROM parquet_kv_metadata('x.parquet')",
            "SELECT * FROM parquet_file_metadata('x.parquet')",
            "SELECT * FROM sniff_csv('/etc/passwd')",
            "SELECT * FROM read_duckdb('/tmp/x.db')",
            "SELECT * FROM glob('/*')",
            "SELECT (SELECT count(*) FROM glob('/*'))",
            "SELECT 1 WHERE EXISTS (FROM glob('/*'))",
            "WITH g AS (FROM glob('/*')) SELECT * FROM g",
            "FROM workers, LATERAL (FROM glob('/*'))",
            "FROM workers JOIN glob('/*') ON true",
            "SELECT 1 UNION ALL SELECT count(*) FROM glob('/*')",
            "SELECT * FROM (PIVOT (FROM glob('/*')) ON file IN ('/etc') USING count(*))",
            "SELECT x FROM (SELECT [y for y in [1] if (SELECT count(*) FROM glob('/*')) > 0] AS x)",
            "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
            "SUMMARIZE SELECT * FROM read_csv('/etc/passwd')",
            "EXPLAIN SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM query('FROM glob(''/*'')')",
            "SELECT * FROM query_table('workers')",
            "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
            "SELECT * FROM duckdb_secrets()",
            "SELECT * FROM duckdb_settings()",
            "SELECT * FROM duckdb_views()",
            "SELECT * FROM duckdb_databases()",
            "SELECT * FROM duckdb_extensions()",
            "SELECT * FROM duckdb_external_file_cache()",
            "SELECT * FROM duckdb_temporary_files()",
            "SELECT * FROM duckdb_logs()",
            "SELECT * FROM pragma_database_list()",
            "SELECT * FROM pragma_storage_info('workers')",
            "SELECT * FROM checkpoint()",
            "SELECT * FROM enable_logging()",
            "SELECT * FROM which_secret('s3://b', 's3')",
            "SELECT * FROM histogram(workers, id)",
            "SELECT getenv('HOME')",
            "SELECT GetEnv('HOME')",
            "SELECT ('HOME').getenv()",
            "SELECT list_transform(['HOME'], x -> getenv(x))",
            "SELECT current_setting('allowed_directories')",
            "SELECT system.main.current_setting('temp_directory')",
            "SELECT count(*) FROM workers GROUP BY current_setting('threads')",
            "SELECT * FROM workers ORDER BY current_setting('threads') LIMIT current_setting('threads')::INT",
            "SELECT json_serialize_plan('SELECT * FROM workers')",
            "SELECT pg_get_viewdef(1)",
            "SELECT write_log('x')",
            "SELECT sleep_ms(100000)",
            "SELECT __internal_decompress_string(1::UTINYINT)",
            "WITH a AS (SELECT * FROM \"x.csv\"), \"x.csv\" AS (SELECT 1) SELECT * FROM a",
            "WITH duckdb_views AS (SELECT 1) SELECT * FROM duckdb_views",
            "WITH a AS (WITH \"/etc/passwd\" AS (SELECT 1) SELECT 1) FROM '/etc/passwd'",
        ],
    )
    .await;
}

#[tokio::test]
async fn names_that_lead_below_the_datasets_are_unknown() {
    refuses(
        "sql_error",
        &[
            "FROM '/etc/passwd'",
            "FROM 'x.csv'",
            "FROM \"https://example.com/x.parquet\"",
            "SELECT * FROM 's3://bucket/*.parquet'",
            "FROM duckdb_views",
            "FROM sqlite_master",
            "FROM system.main.duckdb_views",
            "FROM pg_catalog.pg_views",
            "FROM pg_views",
            "FROM information_schema.views",
            "FROM temp.main.workers",
            "SELECT 1 INTO x",
            "SELECT * FROM workers AT (VERSION => 1)",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_value_that_fits_into_no_memory_is_the_callers_mistake() {
    let lake = Lake::with_workers(settings()).await;
    let sql = format!("SELECT NULL::INT{}", "[1000]".repeat(10));
    let (status, body) = lake.sql(&sql).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (507, &json!("out_of_memory")), "{body}");
    lake.is_well().await;
}

/// Where a comment ends for DuckDB and not for us, or for us and not for DuckDB, nothing may hide.
#[tokio::test]
async fn nothing_hides_behind_explain_and_a_comment() {
    let lake = Lake::with_workers(settings()).await;
    for hidden in [
        "SELECT value FROM duckdb_settings() WHERE value LIKE '%/%'",
        "CREATE TEMP TABLE x AS SELECT 1",
        "COMMIT; DROP VIEW workers; SELECT 1",
    ] {
        let nested = format!("/* /* */ EXPLAIN SELECT 1 -- */ {hidden}");
        let returned = format!("--\r{hidden} /*\nEXPLAIN SELECT 1 -- */");
        for text in [nested, returned] {
            let (status, body) = lake.sql(&text).await;
            assert_eq!(
                (status.as_u16(), &body["columns"][0]["name"]),
                (200, &json!("explain_key")),
                "{text:?}: {body}"
            );
        }
    }
    lake.is_well().await;
}

#[tokio::test]
async fn functions_that_bring_the_process_down_are_refused() {
    let deep = format!("SELECT from_json('1', '{}\"INT\"{}')", "[".repeat(101), "]".repeat(101));
    refuses(
        "sql_refused",
        &[
            // Each follows its text as deep as it goes, and the stack ends before the text does.
            "SELECT json_structure(repeat('[', 1000000) || repeat(']', 1000000))",
            "SELECT json_group_structure(repeat('[', 1000000) || repeat(']', 1000000))",
            "SELECT json_contains(repeat('[', 1000000), '1')",
            "SELECT from_json('[]', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))",
            "SELECT json_transform('[]', CAST(? AS VARCHAR))",
            "SELECT ('[]').json_transform_strict(repeat('[', 100000))",
            &deep,
            // Parses without the limits that a statement has, and cannot be interrupted.
            "SELECT json_serialize_sql('SELECT 1' || repeat(' UNION ALL SELECT 1', 200000))",
            "SELECT json_deserialize_sql('{}')",
            "SELECT (repeat('[', 1000000) || repeat(']', 1000000))::JSON::VARIANT",
            "SELECT TRY_CAST([1]::JSON AS STRUCT(a main.\"Variant\"[]))",
            "SELECT variant_typeof((repeat('[', 1000000) || repeat(']', 1000000))::JSON)",
            "SELECT cast_to_type('[]'::JSON, NULL::INT)",
            "SELECT damerau_levenshtein(repeat('a', 100000), repeat('b', 100000))",
        ],
    )
    .await;
}

#[tokio::test]
async fn one_statement_at_a_time() {
    refuses(
        "sql_refused",
        &[
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP VIEW workers",
            "SELECT 1;;DROP VIEW workers",
            "",
            " ; ",
            "-- nothing",
            "SELECT 1\0",
        ],
    )
    .await;
}

#[tokio::test]
async fn texts_that_no_parser_should_meet_are_answered() {
    let deep = |open: &str, inner: &str, close: &str, n: usize| {
        format!("SELECT {}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let lake = Lake::with_workers(settings()).await;
    let texts = [
        deep("(", "1", ")", 50_000),
        deep("[", "", "]", 20_000),
        deep("NOT ", "true", "", 20_000),
        deep("- ", "1", "", 50_000),
        deep("abs(", "1", ")", 3_000),
        deep("CASE WHEN true THEN ", "1", " END", 3_000),
        deep("{'a': ", "1", "}", 3_000),
        deep("(SELECT ", "1", ")", 3_000),
        deep("1 + ", "1", "", 20_000),
        deep("1", "", "::INT", 20_000),
        format!("SELECT * FROM {}range(1){}", "(SELECT * FROM ".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000)),
        format!("SELECT a{}", ".a".repeat(50_000)),
        format!("SELECT {}", "1,".repeat(100_000)),
        "SELECT '".to_owned(),
        "SELECT \"".to_owned(),
        "SELECT $$".to_owned(),
        "/* SELECT".to_owned(),
        "SELECT 1e999".to_owned(),
        format!("SELECT {}", "9".repeat(100_000)),
        "\u{feff}\u{a0}SELECT \u{202e}".to_owned(),
    ];
    for text in texts {
        let (status, body) = lake.sql(&text).await;
        assert_eq!(
            status,
            StatusCode::BAD_REQUEST,
            "{}…: {body}",
            &text[..text.len().min(40)].escape_debug()
        );
    }
    lake.is_well().await;
}

#[tokio::test]
async fn reading_in_every_way_is_allowed() {
    let lake = Lake::with_workers(settings()).await;
    let cases = [
        ("SELECT name FROM workers ORDER BY id LIMIT 1;", json!([["Ada"]])),
        ("FROM workers SELECT count(*)", json!([[3]])),
        ("FROM main.workers SELECT max(id)", json!([[3]])),
        ("FROM memory.main.Workers SELECT max(id)", json!([[3]])),
        ("VALUES (1, 'a')", json!([[1, "a"]])),
        ("TABLE workers LIMIT 1", json!([[1, "Ada"]])),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT sum(n) FROM r",
            json!([[6]]),
        ),
        ("WITH workers AS (SELECT 7 AS id) SELECT id FROM workers", json!([[7]])),
        ("SELECT x FROM unnest([1, 2]) t(x)", json!([[1], [2]])),
        ("SELECT count(*) FROM generate_series(1, 5)", json!([[5]])),
        ("SELECT value FROM json_each('[1]')", json!([["1"]])),
        ("SELECT from_json('{\"a\": [1]}', '{\"a\": [\"INT\"]}').a[1]", json!([[1]])),
        ("SHOW TABLES", json!([["workers"]])),
        ("SELECT table_name FROM information_schema.tables", json!([["workers"]])),
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'workers'",
            json!([["id"], ["name"]]),
        ),
        ("SELECT column_name FROM (DESCRIBE workers)", json!([["id"], ["name"]])),
        ("(SELECT 1) UNION ALL (SELECT 2)", json!([[1], [2]])),
        (
            "SELECT * FROM (PIVOT workers ON name IN ('Ada') USING count(*) GROUP BY id) WHERE id = 1",
            json!([[1, 1]]),
        ),
        ("-- a comment\nSELECT /* one */ 1 -- more", json!([[1]])),
        ("SELECT '01'::BIT, ';'; -- a cast around this", json!([["01", ";"]])),
        ("SELECT '01'::BIT -- a;b", json!([["01"]])),
        ("SELECT 'COPY x TO y; DROP VIEW workers'", json!([["COPY x TO y; DROP VIEW workers"]])),
    ];
    for (sql, expected) in cases {
        assert_eq!(lake.rows(sql).await, expected, "{sql}");
    }
    for sql in [
        "DESCRIBE workers",
        "SUMMARIZE workers",
        "SHOW workers",
        "SHOW ALL TABLES",
        "EXPLAIN SELECT * FROM workers",
    ] {
        let (status, body) = lake.sql(sql).await;
        assert_eq!(status, 200, "{sql}: {body}");
        assert_tells_no_path(&lake, &body);
    }
}

#[tokio::test]
async fn an_unknown_dataset_is_answered_with_the_nearest_name() {
    let lake = Lake::with_workers(settings()).await;
    let (status, body) = lake.sql("SELECT *\nFROM wrokers").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let expected = "Catalog Error: Table with name wrokers does not exist!\nDid you mean \"workers\"?\n\nLINE 2: FROM wrokers\n             ^";
    assert_eq!(body["error"]["message"], expected);
}

/// Each text is a 400 with this code, tells no path, and leaves the service well.
async fn refuses(code: &str, texts: &[&str]) {
    let lake = Lake::with_workers(settings()).await;
    for text in texts {
        let (status, body) = lake.sql(text).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::BAD_REQUEST, &json!(code)),
            "{text:?}: {body}"
        );
        assert_tells_no_path(&lake, &body);
    }
    lake.is_well().await;
}

fn assert_tells_no_path(lake: &Lake, body: &Value) {
    let folder = lake.folder.path().file_name().expect("a temporary folder has a name").to_string_lossy();
    let text = body.to_string();
    assert!(!text.contains(&*folder), "{text}");
}
