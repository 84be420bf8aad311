//! Parameters, limits, formats, and what happens to a query that is too long, too large or not wanted any more.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{datatypes::DataType, ipc::reader::StreamReader};
use axum::http::header;
use http_body_util::BodyExt;
use lakehouse_contract::DatasetName;
use lakehouse_query::Settings;
use serde_json::json;
use support::{Lake, request, settings, workers};
use tower::ServiceExt;

/// Works until somebody stops it.
const ENDLESS: &str =
    "SELECT count(*) FROM range(1000000000000) a, range(1000000) b WHERE a.range + b.range = -1";
const ARROW: &str = "application/vnd.apache.arrow.stream";

#[tokio::test]
async fn parameters_are_values_and_never_sql() {
    let lake = Lake::with_workers(settings()).await;
    let cases = [
        (
            json!({"sql": "SELECT ?, ?, ?, ?", "params": [null, true, 1.5, "x"]}),
            json!([[null, true, 1.5, "x"]]),
        ),
        (json!({"sql": "SELECT $2, $1, $2", "params": [1, "x"]}), json!([["x", 1, "x"]])),
        (json!({"sql": "SELECT name FROM workers WHERE id = ?", "params": [2]}), json!([["Grace"]])),
        (json!({"sql": "SELECT name FROM workers LIMIT ?", "params": [1]}), json!([["Ada"]])),
        (
            json!({"sql": "SELECT count(*) FROM workers WHERE name = ?", "params": ["' OR 1=1; DROP VIEW workers --"]}),
            json!([[0]]),
        ),
        (json!({"sql": "SELECT ?::DATE", "params": ["2024-02-29"]}), json!([["2024-02-29"]])),
        (
            json!({"sql": "SELECT ?", "params": [18_446_744_073_709_551_615_u64]}),
            json!([["18446744073709551615"]]),
        ),
    ];
    for (request, expected) in cases {
        let (status, body) = lake.post(request.clone()).await;
        assert_eq!((status.as_u16(), &body["rows"]), (200, &expected), "{request}: {body}");
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named() {
    let lake = Lake::new().await;
    let cases = [
        (json!({"sql": "SELECT ?, ?", "params": [1]}), "2 parameters and `params` has 1 values"),
        (json!({"sql": "SELECT 1", "params": [1]}), "0 parameters and `params` has 1 values"),
        (json!({"sql": "SELECT $1 + $3", "params": [1, 2]}), "none of them is $2"),
        (json!({"sql": "SELECT $name", "params": [1]}), "`$name` has a name"),
        (json!({"sql": "SELECT ?", "params": [[1]]}), "`params[0]` is an array"),
        (json!({"sql": "SELECT ?, ?", "params": [1, {"a": 1}]}), "`params[1]` is an object"),
    ];
    for (request, expected) in cases {
        let (status, body) = lake.post(request.clone()).await;
        assert_eq!(
            (status.as_u16(), &body["error"]["code"]),
            (400, &json!("bad_params")),
            "{request}: {body}"
        );
        assert!(body["error"]["message"].as_str().unwrap().contains(expected), "{body}");
    }
}

#[tokio::test]
async fn bad_sql_is_answered_with_duckdbs_message_and_the_place() {
    let lake = Lake::with_workers(settings()).await;
    let cases = [
        ("SELEC 1", "Parser Error: syntax error at or near \"SELEC\"\n\nLINE 1: SELEC 1\n        ^"),
        ("SELECT nam FROM workers", "Binder Error: Referenced column \"nam\" not found in FROM clause!"),
        ("SELECT 'x'::INTEGER", "Conversion Error: Could not convert string 'x' to INT32"),
        ("SELECT nosuch(1)", "Catalog Error: Scalar Function with name nosuch does not exist!"),
        ("SELECT 9223372036854775807 + 1", "Out of Range Error: Overflow in addition"),
        ("SELECT error('mine')", "Invalid Input Error: mine"),
    ];
    for (sql, expected) in cases {
        let (status, body) = lake.sql(sql).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("sql_error")), "{sql}: {body}");
        assert!(message.starts_with(expected), "{sql}: {message}");
    }
    let (status, body) = lake.post(json!({"sql": "SELECT 1", "parms": []})).await;
    assert!(status == 400 && body["error"]["message"].as_str().unwrap().contains("parms"));
}

#[tokio::test]
async fn columns_keep_the_names_that_the_statement_gives_them() {
    let lake = Lake::with_workers(settings()).await;
    for (sql, names) in [
        ("SELECT 1 AS a, 2 AS a, 3 AS \"A\", 4 AS a_1", vec!["a", "a", "A", "a_1"]),
        ("FROM workers, workers AS other WHERE workers.id = 1", vec!["id", "name", "id", "name"]),
        ("SELECT count(*), id + 1 FROM workers GROUP BY ALL ORDER BY 2", vec!["count_star()", "(id + 1)"]),
        ("VALUES (1, 'x')", vec!["col0", "col1"]),
    ] {
        // The second time, what is remembered of the text is used.
        for _ in 0..2 {
            let (_, body) = lake.sql(sql).await;
            let found = body["columns"].as_array().unwrap().iter().map(|column| &column["name"]);
            assert_eq!(found.collect::<Vec<_>>(), names, "{sql}");
        }
    }
    assert_eq!(lake.rows("SELECT current_query()").await, json!([["SELECT current_query()"]]));
    let pivot = lake.rows("PIVOT workers ON id IN (1, 2) USING count(*) ORDER BY name").await;
    assert_eq!(pivot, json!([["Ada", 1, 0], ["Barbara", 0, 0], ["Grace", 0, 1]]));
}

#[tokio::test]
async fn an_error_while_rows_are_read_shows_its_place_too() {
    let lake = Lake::with_workers(settings()).await;
    let (status, body) = lake.sql("SELECT id,\n  CAST(name AS INTEGER) FROM workers").await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        status == 400 && message.contains("\n\nLINE 2:   CAST(name AS INTEGER) FROM workers\n          ^"),
        "{message}"
    );
}

#[tokio::test]
async fn a_text_that_was_read_before_is_judged_anew() {
    let lake = Lake::with_workers(settings()).await;
    let sql = "SELECT count(*) FROM later";
    assert_eq!(lake.sql(sql).await.0, 400);
    lake.put("later", &workers(&["Ada"])).await;
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.rows(sql).await, json!([[1]]));
    lake.catalog.remove(&DatasetName::parse("later").unwrap()).await.unwrap();
    lake.engine.refresh().await.unwrap();
    assert_eq!(lake.sql(sql).await.0, 400);
}

#[tokio::test]
async fn a_limit_cuts_every_kind_of_statement() {
    let lake = Lake::with_workers(settings()).await;
    let cases = [
        ("FROM workers ORDER BY name", 2, json!([[1, "Ada"], [3, "Barbara"]])),
        ("FROM workers ORDER BY name; -- last", 1, json!([[1, "Ada"]])),
        ("FROM workers ORDER BY id LIMIT 2", 5, json!([[1, "Ada"], [2, "Grace"]])),
        ("FROM workers ORDER BY id LIMIT 2", 1, json!([[1, "Ada"]])),
        ("SELECT 1 UNION ALL SELECT 2", 1, json!([[1]])),
        ("SELECT column_name FROM (DESCRIBE workers)", 1, json!([["id"]])),
        ("SELECT 1 -- no newline", 1, json!([[1]])),
        ("FROM workers", 0, json!([])),
        ("SELECT range FROM range(5000)", 3, json!([[0], [1], [2]])),
    ];
    for (sql, limit, expected) in cases {
        let (status, body) = lake.post(json!({"sql": sql, "limit": limit})).await;
        assert_eq!((status.as_u16(), &body["rows"]), (200, &expected), "{sql}: {body}");
    }
    for limit in [1_u64 << 63, u64::MAX] {
        let (status, body) = lake.post(json!({"sql": "SELECT 1", "limit": limit})).await;
        assert_eq!((status.as_u16(), &body["rows"]), (200, &json!([[1]])), "{body}");
    }
    let (_, body) = lake.post(json!({"sql": "DESCRIBE workers", "limit": 1})).await;
    assert_eq!(body["row_count"], 1);
}

#[tokio::test]
async fn csv_tells_a_null_from_an_empty_text() {
    let lake = Lake::new().await;
    let sql =
        "SELECT NULL AS a, '' AS \"b,c\", 'say \"hi\"' AS d, 1.5 AS e, [1, 2] AS f, 9007199254740993 AS g";
    let (status, headers, body) = lake.post_for(json!({ "sql": sql }), "text/csv").await;
    assert_eq!(status, 200);
    assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/csv"));
    let expected = "a,\"b,c\",d,e,f,g\r\n,\"\",\"say \"\"hi\"\"\",1.5,\"[1,2]\",9007199254740993\r\n";
    assert_eq!(body.unwrap(), expected.as_bytes());
}

#[tokio::test]
async fn arrow_comes_as_an_ipc_stream() {
    let lake = Lake::with_workers(settings()).await;
    let sql = "SELECT id, name, sum(id) OVER () AS total, '13:00:00+02'::TIMETZ AS t FROM workers";
    let (status, headers, body) = lake.post_for(json!({ "sql": sql }), ARROW).await;
    assert_eq!((status.as_u16(), headers[header::CONTENT_TYPE].to_str().unwrap()), (200, ARROW));
    let body = body.unwrap();
    let reader = StreamReader::try_new(&*body, None).unwrap();
    let types: Vec<_> = reader.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Utf8, DataType::Decimal128(38, 0), DataType::Utf8]);
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
}

#[tokio::test]
async fn an_empty_result_is_an_answer_in_every_format() {
    let lake = Lake::with_workers(settings()).await;
    let sql = "SELECT id FROM workers WHERE false";
    let (_, body) = lake.sql(sql).await;
    assert_eq!(body, json!({"columns": [{"name": "id", "type": "BIGINT"}], "rows": [], "row_count": 0}));
    assert_eq!(lake.post_for(json!({ "sql": sql }), "text/csv").await.2.unwrap(), "id\r\n".as_bytes());
    let body = lake.post_for(json!({ "sql": sql }), ARROW).await.2.unwrap();
    assert_eq!(StreamReader::try_new(&*body, None).unwrap().count(), 0);
}

#[tokio::test]
async fn a_billion_rows_are_too_large_for_json_and_stream_as_csv() {
    let lake = Lake::with_workers(Settings { max_result_bytes: 1 << 20, ..settings() }).await;
    let started = Instant::now();
    let (status, body) = lake.sql("SELECT * FROM range(1000000000)").await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (413, &json!("result_too_large")), "{body}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for accept in ["text/csv", ARROW] {
        let body = json!({"sql": "SELECT * FROM range(1000000000)"});
        let response = lake.router().oneshot(request(&body, accept)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = response.into_body();
        let mut bytes = 0;
        while bytes < 16 << 20 {
            bytes += stream.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
    }
    lake.is_well().await;
}

#[tokio::test]
async fn one_huge_value_is_too_large_for_json() {
    let lake = Lake::with_workers(Settings { max_result_bytes: 1 << 20, ..settings() }).await;
    let (status, body) = lake.sql("SELECT repeat('x', 20000000)").await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (413, &json!("result_too_large")), "{body}");
    lake.is_well().await;
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_breaks_it_off() {
    let lake = Lake::new().await;
    let fails_at = |row: u64| {
        format!("SELECT if(range < {row}, range, error('late')::BIGINT) FROM range({})", row + 100_000)
    };
    // More rows than wait to be read.
    let (status, _, body) = lake.post_for(json!({ "sql": fails_at(9_000_000) }), "text/csv").await;
    assert_eq!((status.as_u16(), body), (200, None), "a part must not look like the whole");
    for _ in 0..5 {
        let (status, body) = lake.sql(&fails_at(900_000)).await;
        assert_eq!((status.as_u16(), &body["error"]["message"]), (400, &json!("Invalid Input Error: late")));
    }
}

#[tokio::test]
async fn a_query_that_runs_for_ever_is_stopped_at_its_limit() {
    let lake = Lake::with_workers(Settings { timeout: Duration::from_millis(300), ..settings() }).await;
    let started = Instant::now();
    let (status, body) = lake.sql(ENDLESS).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (504, &json!("timeout")), "{body}");
    assert_eq!(body["error"]["details"]["limit_seconds"], 0.3);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    lake.is_well().await;
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_query() {
    let lake = Lake::with_workers(Settings { max_concurrent: 1, ..settings() }).await;
    let query = tokio::time::timeout(Duration::from_millis(200), lake.sql(ENDLESS)).await;
    assert!(query.is_err(), "it would run for ever");
    let left = Instant::now();
    lake.is_well().await;
    assert!(left.elapsed() < Duration::from_secs(1), "its place was free after {:?}", left.elapsed());
}

#[tokio::test]
async fn a_reader_that_leaves_in_the_middle_of_a_stream_ends_its_query() {
    let lake = Lake::with_workers(Settings { max_concurrent: 1, ..settings() }).await;
    let body = json!({"sql": "SELECT * FROM range(1000000000)"});
    let response = lake.router().oneshot(request(&body, "text/csv")).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    let left = Instant::now();
    lake.is_well().await;
    assert!(left.elapsed() < Duration::from_secs(1), "its place was free after {:?}", left.elapsed());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_loses_its_place_and_its_time_is_not_the_querys() {
    let lake = Lake::with_workers(Settings {
        max_concurrent: 1,
        timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(4),
        ..settings()
    })
    .await;
    let slow = json!({"sql": "SELECT repeat('x', 1000) FROM range(4000)"});
    let mut body = lake.router().oneshot(request(&slow, "text/csv")).await.unwrap().into_body();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    let stalled =
        lake.router().oneshot(request(&json!({"sql": "SELECT * FROM range(1000000000)"}), "text/csv")).await;
    lake.is_well().await;
    let broken = stalled.unwrap().into_body().collect().await;
    assert!(broken.is_err(), "what the reader finds later is no whole answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_queries_than_places_wait_and_more_than_that_are_refused() {
    let lake = Arc::new(
        Lake::with_workers(Settings {
            max_concurrent: 2,
            max_queue: 2,
            timeout: Duration::from_millis(600),
            queue_timeout: Duration::from_secs(10),
            ..settings()
        })
        .await,
    );
    let run = |sql: &'static str| {
        let lake = lake.clone();
        tokio::spawn(async move { lake.post_for(json!({ "sql": sql }), "*/*").await })
    };
    let running = [run(ENDLESS), run(ENDLESS)];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = [run("SELECT 1"), run("SELECT 2")];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, headers, body) = lake.post_for(json!({"sql": "SELECT 3"}), "*/*").await;
    assert_eq!((status.as_u16(), headers[header::RETRY_AFTER].to_str().unwrap()), (503, "1"), "{body:?}");
    for query in running {
        assert_eq!(query.await.unwrap().0, 504);
    }
    for query in waiting {
        assert_eq!(query.await.unwrap().0, 200);
    }
    lake.is_well().await;
}

#[tokio::test]
async fn a_sort_larger_than_memory_spills_and_one_larger_than_the_disk_limit_is_refused() {
    let sql = "SELECT md5(range::VARCHAR) AS h, range FROM range(5000000) ORDER BY h LIMIT 1 OFFSET 4999999";
    let small = Settings { memory_limit: 96 << 20, timeout: Duration::from_mins(2), ..settings() };
    let lake = Lake::with_workers(Settings { temp_limit: 4 << 30, ..small.clone() }).await;
    let (status, body) = lake.sql(sql).await;
    assert_eq!(status, 200, "{body}");
    let lake = Lake::with_workers(Settings { temp_limit: 1 << 20, ..small }).await;
    let (status, body) = lake.sql(sql).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (507, &json!("out_of_memory")), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("96 MiB"), "{body}");
    lake.is_well().await;
}
