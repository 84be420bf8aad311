//! What is written is Parquet that others read: every encoding, every kind of page, and a footer that tells the truth.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::fs::File;

use lakehouse_contract::ColumnType;
use lakehouse_ingest::convert::Layout;
use parquet::{
    basic::{Encoding, LogicalType},
    file::{
        metadata::ParquetMetaData,
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
    },
};
use support::{Case, Output};

/// A name, and the value in each row.
type Column = (&'static str, fn(usize) -> String);

/// Enough rows for several pages in one row group.
const ROWS: usize = 300_000;

#[test]
fn values_survive_dictionaries_that_are_kept_given_up_early_and_given_up_late() {
    let columns: [Column; 8] = [
        ("few", |i| format!("kind {}", i % 7)),
        ("unique", |i| format!("id-{i}")),
        // Repeats at first and never after: pages of numbers are followed by plain ones.
        ("late", |i| if i < 200_000 { format!("old {}", i % 50) } else { format!("new {i}") }),
        ("few_numbers", |i| (i % 100).to_string()),
        ("many_numbers", |i| (i * 7919).to_string()),
        ("late_numbers", |i| format!("{}.5", if i < 150_000 { i % 9 } else { i })),
        ("runs", |i| (i / 1000).to_string()),
        ("sparse", |i| if i % 1000 == 999 { i.to_string() } else { String::new() }),
    ];
    let output = converted(&columns);
    for (name, value) in columns {
        let read = output.column(name);
        assert_eq!(read.len(), ROWS);
        for (i, read) in read.into_iter().enumerate() {
            let expected = Some(value(i)).filter(|value| !value.is_empty());
            assert_eq!(read, expected, "{name}, row {i}");
        }
    }
    let metadata = metadata(&output);
    assert_eq!(metadata.num_row_groups(), 1);
    let has =
        |column: usize, encoding| metadata.row_group(0).column(column).encodings().any(|e| e == encoding);
    let dictionaries: Vec<bool> = (0..8).map(|column| has(column, Encoding::RLE_DICTIONARY)).collect();
    assert_eq!(dictionaries, [true, false, true, true, false, true, true, true]);
}

#[test]
fn nulls_survive_wherever_they_stand() {
    let columns: [Column; 6] = [
        ("first", |i| if i < 140_000 { String::new() } else { i.to_string() }),
        ("last", |i| if i < 140_000 { i.to_string() } else { String::new() }),
        ("some", |i| if i % 3 == 0 { String::new() } else { "true".to_owned() }),
        ("days", |i| if i % 5 == 0 { "2024-02-29".to_owned() } else { String::new() }),
        ("none", |_| "1".to_owned()),
        ("texts", |i| if i % 2 == 0 { "NA".to_owned() } else { format!("text {i}") }),
    ];
    let mut case = Case { layout: one_group(), ..Case::default() };
    case.csv.null_values = vec!["NA".into()];
    let output = case.convert(csv(&columns)).unwrap();
    for (name, value) in columns {
        for (i, read) in output.column(name).into_iter().enumerate() {
            assert_eq!(
                read,
                Some(value(i)).filter(|value| !matches!(value.as_str(), "" | "NA")),
                "{name}, row {i}"
            );
        }
    }
    let metadata = metadata(&output);
    let nulls: Vec<Option<u64>> = metadata
        .row_group(0)
        .columns()
        .iter()
        .map(|column| column.statistics().unwrap().null_count_opt())
        .collect();
    assert_eq!(nulls, [140_000, 160_000, 100_000, 240_000, 0, 150_000].map(Some));
}

#[test]
fn the_footer_tells_types_ids_ranges_and_a_writer_that_never_changes() {
    let text = "i,f,b,d,t,s,e\n5,0.0,true,2024-01-02,2024-01-02 00:00:00,b,\n-5,-0.5,true,2024-01-01,,a,\n";
    let metadata = metadata(&Case::default().convert(text).unwrap());
    assert_eq!(metadata.file_metadata().created_by(), Some("lakehouse version 1.0.0"));
    let schema = metadata.file_metadata().schema_descr();
    let ids: Vec<i32> =
        schema.columns().iter().map(|column| column.self_type().get_basic_info().id()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7]);
    assert!(matches!(
        schema.column(4).logical_type_ref(),
        Some(LogicalType::Timestamp { is_adjusted_to_u_t_c: false, .. })
    ));
    let statistics: Vec<&Statistics> =
        metadata.row_group(0).columns().iter().map(|column| column.statistics().unwrap()).collect();
    let Statistics::Int64(integers) = statistics[0] else { panic!("{:?}", statistics[0]) };
    assert_eq!((integers.min_opt(), integers.max_opt()), (Some(&-5), Some(&5)));
    let Statistics::Double(fractions) = statistics[1] else { panic!("{:?}", statistics[1]) };
    assert_eq!((fractions.min_opt(), fractions.max_opt()), (Some(&-0.5), Some(&0.0)));
    let Statistics::Boolean(booleans) = statistics[2] else { panic!("{:?}", statistics[2]) };
    assert_eq!((booleans.min_opt(), booleans.max_opt()), (Some(&true), Some(&true)));
    let Statistics::ByteArray(texts) = statistics[5] else { panic!("{:?}", statistics[5]) };
    assert_eq!((texts.min_opt().unwrap().data(), texts.max_opt().unwrap().data()), (&b"a"[..], &b"b"[..]));
}

#[test]
fn wide_tables_and_tables_of_one_column_are_read() {
    let names: Vec<String> = (0..3000).map(|i| format!("c{i}")).collect();
    let row: Vec<String> = (0..3000).map(|i| i.to_string()).collect();
    let output = Case::default().convert(format!("{}\n{}\n", names.join(","), row.join(","))).unwrap();
    assert_eq!(output.types().len(), 3000);
    let output = Case::default().convert("n\n1\n\n3\n").unwrap();
    assert_eq!(output.types()[0].1, ColumnType::Int64);
    assert_eq!(output.column("n"), [Some("1".into()), None, Some("3".into())]);
}

fn converted(columns: &[Column]) -> Output {
    Case { layout: one_group(), ..Case::default() }.convert(csv(columns)).unwrap()
}

fn csv(columns: &[Column]) -> String {
    let mut text = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    for i in 0..ROWS {
        text.push('\n');
        text.push_str(&columns.iter().map(|(_, value)| value(i)).collect::<Vec<_>>().join(","));
    }
    text
}

fn one_group() -> Layout {
    Layout { group_bytes: 256 << 20, file_bytes: 1 << 30 }
}

fn metadata(output: &Output) -> ParquetMetaData {
    let file = File::open(&output.converted.files[0].path).unwrap();
    SerializedFileReader::new(file).unwrap().metadata().clone()
}
