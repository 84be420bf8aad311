//! The same rows give the same bytes, and the same types as a plain look at every value.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lakehouse_contract::ColumnType;
use lakehouse_ingest::convert::Layout;
use proptest::prelude::*;
use support::Case;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn threads_change_nothing_and_blocks_only_the_row_groups(table in table(), group_bytes in 1_usize..300) {
        let text = written(&table);
        let layout = Layout { group_bytes, file_bytes: 3000 };
        let one = Case { layout, threads: 1, ..Case::default() }.convert(&text).unwrap();
        let many = Case { layout, threads: 4, ..Case::default() }.convert(&text).unwrap();
        prop_assert_eq!(one.bytes(), many.bytes());
        let whole = Case::default().convert(&text).unwrap();
        prop_assert_eq!(&one.converted.columns, &whole.converted.columns);
        prop_assert_eq!(one.batch(), whole.batch());
    }

    #[test]
    fn types_and_values_are_those_of_a_plain_full_scan(table in table()) {
        let output = Case { layout: Layout { group_bytes: 64, file_bytes: 1000 }, ..Case::default() }
            .convert(written(&table))
            .unwrap();
        for (column, (name, column_type)) in output.types().into_iter().enumerate() {
            let values: Vec<&str> = table.iter().map(|row| row[column].as_str()).collect();
            prop_assert_eq!(column_type, full_scan(&values), "{:?}", values);
            let shown = output.column(&name);
            if column_type == ColumnType::String {
                let shown: Vec<&str> = shown.iter().map(|value| value.as_deref().unwrap()).collect();
                prop_assert_eq!(&shown, &values);
            } else {
                for (shown, value) in shown.iter().zip(&values) {
                    prop_assert_eq!(shown.is_none(), value.is_empty());
                }
            }
            if column_type == ColumnType::Int64 {
                let shown: Vec<String> = shown.into_iter().map(Option::unwrap_or_default).collect();
                prop_assert_eq!(&shown, &values);
            }
        }
    }
}

#[test]
fn files_end_by_size_and_hold_the_rows_in_order() {
    let text: String = std::iter::once("n,h\n".to_owned())
        .chain((0..50_000).map(|i| format!("{i},{:x}\n", i * 7919)))
        .collect();
    let layout = Layout { group_bytes: 20_000, file_bytes: 30_000 };
    let output = Case { layout, ..Case::default() }.convert(&text).unwrap();
    assert!(output.converted.files.len() > 3);
    assert!(output.converted.files.iter().all(|file| file.size < 60_000));
    let numbers: Vec<String> = output.column("n").into_iter().map(Option::unwrap).collect();
    assert!(numbers.iter().enumerate().all(|(i, number)| *number == i.to_string()));
}

/// Rows of three columns whose values are mostly of one kind, and now and then of another.
fn table() -> impl Strategy<Value = Vec<Vec<String>>> {
    let kind = prop_oneof![
        Just("-?[1-9][0-9]{0,3}"),
        Just("-?[1-9][0-9]{0,2}\\.[0-9]{1,3}"),
        Just("true|false"),
        Just("202[0-4]-0[1-9]-1[0-9]"),
        Just("2024-0[1-9]-11 1[0-9]:00:00"),
        Just("2024-0[1-9]-11 1[0-9]:00:00Z"),
        Just("90071992547409[0-9]{2}"),
        Just("0[0-9]{4}"),
        Just("[a-c,\"\n\ré]{0,9}"),
        Just(""),
    ];
    let column = (kind.clone(), kind, 1_usize..400, proptest::bool::weighted(0.5));
    proptest::collection::vec(column, 3).prop_flat_map(|columns| {
        let rows = columns[0].2;
        let columns: Vec<_> = columns
            .into_iter()
            .map(|(main, other, _, mixed)| {
                let value = prop_oneof![200 => main, 20 => "", u32::from(mixed) => other];
                proptest::collection::vec(value, rows)
            })
            .collect();
        columns.prop_map(move |columns| {
            (0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
        })
    })
}

fn written(table: &[Vec<String>]) -> String {
    let field = |field: &String| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    let mut text = String::from("a,b,c\n");
    for row in table {
        text.push_str(&row.iter().map(field).collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    text
}

/// The rules, said once more and slowly.
fn full_scan(values: &[&str]) -> ColumnType {
    let values: Vec<&str> = values.iter().copied().filter(|value| !value.is_empty()).collect();
    let all = |is: fn(&str) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    let integer = |value: &str| value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    let fraction = |value: &str| {
        value.split_once('.').is_some_and(|(whole, fraction)| {
            let whole = whole.trim_start_matches('-');
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
        })
    };
    let exact = |value: &str| value.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= 1 << 53);
    let day = |value: &str| {
        value.len() == 10 && value.parse::<jiff::civil::Date>().is_ok() && value.as_bytes()[4] == b'-'
    };
    let instant =
        |value: &str| value.len() == 19 && value.as_bytes()[10] == b' ' && value.as_bytes()[4] == b'-';
    let zoned = |value: &str| value.len() == 20 && value.ends_with('Z') && value.as_bytes()[4] == b'-';
    if all(|value| matches!(value, "true" | "false")) {
        ColumnType::Boolean
    } else if !values.is_empty() && values.iter().all(|value| integer(value)) {
        ColumnType::Int64
    } else if !values.is_empty()
        && values.iter().all(|value| fraction(value) || (integer(value) && exact(value)))
    {
        ColumnType::Float64
    } else if !values.is_empty() && values.iter().all(|value| day(value)) {
        ColumnType::Date
    } else if !values.is_empty()
        && (values.iter().all(|value| instant(value)) || values.iter().all(|value| zoned(value)))
    {
        ColumnType::Timestamp
    } else {
        ColumnType::String
    }
}
