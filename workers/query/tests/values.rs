//! Every type of DuckDB has one JSON form.

mod support;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use support::{Lake, settings};

/// An expression, the name of its type, its JSON form.
#[allow(clippy::too_many_lines, reason = "a table")]
fn forms() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("NULL", "INTEGER", json!(null)),
        ("true", "BOOLEAN", json!(true)),
        ("(-128)::TINYINT", "TINYINT", json!(-128)),
        ("32767::SMALLINT", "SMALLINT", json!(32767)),
        ("(-2147483648)::INTEGER", "INTEGER", json!(-2_147_483_648_i64)),
        ("9007199254740992", "BIGINT", json!(9_007_199_254_740_992_i64)),
        ("9007199254740993", "BIGINT", json!("9007199254740993")),
        ("-9007199254740993", "BIGINT", json!("-9007199254740993")),
        ("9223372036854775807", "BIGINT", json!("9223372036854775807")),
        ("255::UTINYINT", "UTINYINT", json!(255)),
        ("65535::USMALLINT", "USMALLINT", json!(65535)),
        ("4294967295::UINTEGER", "UINTEGER", json!(4_294_967_295_u32)),
        ("18446744073709551615::UBIGINT", "UBIGINT", json!("18446744073709551615")),
        ("7::HUGEINT", "HUGEINT", json!(7)),
        ("sum(7)", "HUGEINT", json!(7)),
        (
            "(-170141183460469231731687303715884105728)::HUGEINT",
            "HUGEINT",
            json!("-170141183460469231731687303715884105728"),
        ),
        (
            "340282366920938463463374607431768211455::UHUGEINT",
            "UHUGEINT",
            json!("340282366920938463463374607431768211455"),
        ),
        (
            "'123456789012345678901234567890123456789012345'::BIGNUM",
            "BIGNUM",
            json!("123456789012345678901234567890123456789012345"),
        ),
        ("1.5::FLOAT", "FLOAT", json!(1.5)),
        ("0.1::FLOAT", "FLOAT", json!(0.1)),
        ("0.1::DOUBLE", "DOUBLE", json!(0.1)),
        ("1e300::DOUBLE", "DOUBLE", json!(1e300)),
        ("'nan'::DOUBLE", "DOUBLE", json!("NaN")),
        ("'inf'::DOUBLE", "DOUBLE", json!("Infinity")),
        ("'-inf'::FLOAT", "FLOAT", json!("-Infinity")),
        ("1.50::DECIMAL(4,2)", "DECIMAL(4,2)", json!(1.50)),
        ("(-0.05)::DECIMAL(4,2)", "DECIMAL(4,2)", json!(-0.05)),
        ("90071992547409.93::DECIMAL(18,2)", "DECIMAL(18,2)", json!("90071992547409.93")),
        (
            "12345678901234567890.123456789012345678::DECIMAL(38,18)",
            "DECIMAL(38,18)",
            json!("12345678901234567890.123456789012345678"),
        ),
        ("'\"é\\\n\u{1}🦆'", "VARCHAR", json!("\"é\\\n\u{1}🦆")),
        ("''", "VARCHAR", json!("")),
        ("chr(0)", "VARCHAR", json!("\0")),
        ("'{\"a\":1}'::JSON", "VARCHAR", json!("{\"a\":1}")),
        ("'\\x00\\xFFa'::BLOB", "BLOB", json!("AP9h")),
        ("'0101'::BIT", "BIT", json!("0101")),
        (
            "'4ee908eb-05e4-5c26-a4ad-4ca54bb01062'::UUID",
            "UUID",
            json!("4ee908eb-05e4-5c26-a4ad-4ca54bb01062"),
        ),
        ("'b'::ENUM('a', 'b')", "ENUM", json!("b")),
        ("DATE '2024-02-29'", "DATE", json!("2024-02-29")),
        ("DATE '0001-01-01 (BC)'", "DATE", json!("0000-01-01")),
        ("DATE '0044-03-15 (BC)'", "DATE", json!("-0043-03-15")),
        ("'infinity'::DATE", "DATE", json!("infinity")),
        ("TIME '13:05:00.5'", "TIME", json!("13:05:00.5")),
        ("TIME '24:00:00'", "TIME", json!("24:00:00")),
        ("'13:05:00.123456789'::TIME_NS", "TIME_NS", json!("13:05:00.123456789")),
        ("'13:05:00+02'::TIMETZ", "TIME WITH TIME ZONE", json!("13:05:00+02")),
        ("TIMESTAMP '2024-02-29 13:05:00.123456'", "TIMESTAMP", json!("2024-02-29T13:05:00.123456Z")),
        ("TIMESTAMP '1969-12-31 23:59:59.9'", "TIMESTAMP", json!("1969-12-31T23:59:59.9Z")),
        ("TIMESTAMPTZ '2024-02-29 13:05:00+02'", "TIMESTAMP WITH TIME ZONE", json!("2024-02-29T11:05:00Z")),
        ("'2024-02-29 13:05:00'::TIMESTAMP_S", "TIMESTAMP_S", json!("2024-02-29T13:05:00Z")),
        ("'2024-02-29 13:05:00.5'::TIMESTAMP_MS", "TIMESTAMP_MS", json!("2024-02-29T13:05:00.5Z")),
        (
            "'2024-02-29 13:05:00.123456789'::TIMESTAMP_NS",
            "TIMESTAMP_NS",
            json!("2024-02-29T13:05:00.123456789Z"),
        ),
        ("'-infinity'::TIMESTAMP", "TIMESTAMP", json!("-infinity")),
        (
            "INTERVAL '1 year 2 months 3 days 4 hours 5 minutes 6.7 seconds'",
            "INTERVAL",
            json!("P1Y2M3DT4H5M6.7S"),
        ),
        ("INTERVAL '0 seconds'", "INTERVAL", json!("PT0S")),
        ("INTERVAL '-1 month'", "INTERVAL", json!("P-1M")),
        ("[1, NULL, 3]", "INTEGER[]", json!([1, null, 3])),
        ("[]::INTEGER[]", "INTEGER[]", json!([])),
        ("[[9007199254740993], []]", "BIGINT[][]", json!([["9007199254740993"], []])),
        ("[1, 2]::INTEGER[2]", "INTEGER[2]", json!([1, 2])),
        (
            "{'a': 1, 'B c': 'x', 'd': NULL}",
            "STRUCT(a INTEGER, \"B c\" VARCHAR, d INTEGER)",
            json!({"a": 1, "B c": "x", "d": null}),
        ),
        ("row(1, 'x')", "STRUCT(INTEGER, VARCHAR)", json!([1, "x"])),
        ("[{'t': TIMESTAMP '2024-01-01'}]", "STRUCT(t TIMESTAMP)[]", json!([{"t": "2024-01-01T00:00:00Z"}])),
        ("MAP {'k': 1, 'l': NULL}", "MAP(VARCHAR, INTEGER)", json!({"k": 1, "l": null})),
        ("MAP {DATE '2024-01-01': [1]}", "MAP(DATE, INTEGER[])", json!({"2024-01-01": [1]})),
        ("MAP {[1, 2]: true}", "MAP(INTEGER[], BOOLEAN)", json!({"[1,2]": true})),
        ("union_value(n := 1)", "UNION(n INTEGER)", json!({"n": 1})),
        ("'x'::UNION(n INTEGER, s VARCHAR)", "UNION(n INTEGER, s VARCHAR)", json!({"s": "x"})),
        ("NULL::UNION(n INTEGER)", "UNION(n INTEGER)", json!(null)),
        (
            "{'t': '13:05:00+02'::TIMETZ, 'b': ['01'::BIT]}",
            "STRUCT(t TIME WITH TIME ZONE, b BIT[])",
            json!({"t": "13:05:00+02", "b": ["01"]}),
        ),
        ("MAP {'k': 5::UHUGEINT}", "MAP(VARCHAR, UHUGEINT)", json!({"k": "5"})),
        ("'POINT(1 2)'::GEOMETRY", "GEOMETRY", json!("AQEAAAAAAAAAAADwPwAAAAAAAABA")),
    ]
}

#[tokio::test]
async fn every_type_has_its_form() {
    let lake = Lake::new().await;
    let mut wrong = Vec::new();
    for (expression, column_type, expected) in forms() {
        let (status, body) = lake.sql(&format!("SELECT {expression} AS c")).await;
        let found = (&body["columns"][0]["type"], &body["rows"][0][0]);
        if status != 200 || found != (&json!(column_type), &expected) {
            wrong.push(format!("{expression}: {body}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_row_of_every_type_at_its_bounds_is_answered() {
    let lake = Lake::new().await;
    let (status, body) = lake.sql("SELECT * FROM test_all_types()").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["row_count"], 3);
    for (format, accept) in [("csv", "text/csv"), ("arrow", "application/vnd.apache.arrow.stream")] {
        let (status, _, body) = lake.post_for(json!({"sql": "SELECT * FROM test_all_types()"}), accept).await;
        assert_eq!((status.as_u16(), body.is_some()), (200, true), "{format}");
    }
}

#[tokio::test]
async fn columns_keep_their_names_and_order_also_when_names_repeat() {
    let lake = Lake::new().await;
    let (_, body) = lake.sql("SELECT 1 AS a, 2 AS a, '01'::BIT AS a, 3 AS \"\u{e9} \"\"b\"").await;
    assert_eq!(
        body["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a", "a", "a", "é \"b"]
    );
    assert_eq!(body["rows"], json!([[1, 2, "01", 3]]));
}

#[test]
fn random_values_come_back_exactly() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lake = runtime.block_on(Lake::with(settings()));
    let strategy =
        (any::<i64>(), any::<f64>(), any::<i128>(), ".*", prop::collection::vec(any::<u8>(), 0..20));
    TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })
        .run(&strategy, |(integer, float, huge, text, bytes)| {
            // DuckDB's literals hold no NUL; a parameter is text in JSON.
            let text = text.replace('\0', "");
            let hex = lakehouse_contract::dataset::hex(&bytes);
            let request = json!({
                "sql": format!("SELECT ?::BIGINT, ?, ?::HUGEINT, ?, unhex('{hex}'), [?]"),
                "params": [integer, float, huge.to_string(), text, text],
            });
            let (status, body) = runtime.block_on(lake.post(request));
            prop_assert_eq!(status.as_u16(), 200, "{}", body);
            let row = &body["rows"][0];
            prop_assert_eq!(&row[0], &exact(integer.into()));
            prop_assert_eq!(row[1].as_f64().unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(&row[2], &exact(huge));
            prop_assert_eq!(&row[3], &json!(text));
            prop_assert_eq!(BASE64_STANDARD.decode(row[4].as_str().unwrap()).unwrap(), bytes);
            prop_assert_eq!(&row[5], &json!([text]));
            Ok(())
        })
        .unwrap();
}

/// A number up to 2^53, text beyond.
fn exact(value: i128) -> Value {
    match i64::try_from(value) {
        Ok(small) if small.unsigned_abs() <= 1 << 53 => json!(small),
        _ => json!(value.to_string()),
    }
}
