//! Which values make which types.

mod support;

use lakehouse_contract::ColumnType::{self, Boolean, Date, Float64, Int64, String as Text, Timestamp};
use support::{Case, type_of};

#[test]
fn each_grammar_has_its_type() {
    let cases: &[(ColumnType, &[&str])] = &[
        (Int64, &["0", "-1", "9223372036854775807", "-9223372036854775808"]),
        (Float64, &["0.5", "-0.0", "-12.50", "123456789.123456"]),
        (Boolean, &["true", "False", "TRUE"]),
        (Date, &["2024-02-29", "0001-01-01", "9999-12-31"]),
        (Timestamp, &["2024-02-29 23:59:59", "2024-02-29T00:00:00.123456"]),
        (Timestamp, &["2024-02-29 23:59:59Z", "2024-02-29T00:00:00.5+05:30", "2024-01-01 00:00:00-08:00"]),
        (Text, &["hello"]),
    ];
    for (expected, values) in cases {
        assert_eq!(type_of(values), *expected, "{values:?}");
        for value in *values {
            assert_eq!(type_of(&["", value, ""]), *expected, "{value:?} with empty fields");
        }
    }
}

#[test]
fn doubt_means_text() {
    for value in [
        "00501",
        "+1",
        "-0",
        "1e5",
        "1E5",
        "0x10",
        " 1",
        "1 ",
        "1,000",
        "1_000",
        "9223372036854775808",
        "-9223372036854775809",
        "1.",
        ".5",
        "01.5",
        "+1.5",
        "1.5e3",
        "NaN",
        "inf",
        "-",
        "--1",
        "1.2.3",
        "0.1234567890123456789",
        "12345678901234567890.5",
        "0.30000000000000000001",
        "9007199254740993.5",
        "tRUE",
        "yes",
        "T",
        "2023-02-29",
        "2024-13-01",
        "2024-00-01",
        "2024-01-00",
        "2024-1-1",
        "0000-01-01",
        "2024/01/01",
        "2024-01-01 24:00:00",
        "2024-01-01 23:60:00",
        "2024-01-01 23:59:60",
        "2024-01-01 12:00",
        "2024-01-01 12:00:00.",
        "2024-01-01 12:00:00.1234567",
        "2024-01-01t12:00:00",
        "2024-01-01 12:00:00z",
        "2024-01-01 12:00:00+0530",
        "2024-01-01 12:00:00+24:00",
        "0001-01-01 00:00:00+00:01",
        "9999-12-31 23:59:59-00:01",
        "１",
    ] {
        assert_eq!(type_of(&[value]), Text, "{value:?}");
    }
}

#[test]
fn mixed_kinds_mean_text_unless_nothing_is_lost() {
    assert_eq!(type_of(&["1", "2.5"]), Float64);
    assert_eq!(type_of(&["9007199254740992", "2.5"]), Float64);
    assert_eq!(type_of(&["9007199254740993", "2.5"]), Text, "2^53 + 1 is no double");
    assert_eq!(type_of(&["-9007199254740993", "2.5"]), Text);
    assert_eq!(type_of(&["1", "true"]), Text);
    assert_eq!(type_of(&["2024-01-01", "2024-01-01 00:00:00"]), Text);
    assert_eq!(type_of(&["2024-01-01 00:00:00", "2024-01-01 00:00:00Z"]), Text);
    assert_eq!(type_of(&["2024", "2024-01-01"]), Text);
    assert_eq!(type_of(&["", ""]), Text, "a column without values");
}

#[test]
fn long_decimals_are_numbers_only_when_they_show_again() {
    assert_eq!(type_of(&["0.1234567890123456"]), Float64, "the shortest text has these sixteen digits");
    assert_eq!(type_of(&["0.10000000000000001"]), Text, "the shortest text is 0.1");
    assert_eq!(type_of(&["1.50000000000000000000"]), Float64, "zeros at the end add nothing");
    assert_eq!(type_of(&["0.00000000000000000000000000000012"]), Float64);
    assert_eq!(type_of(&[&format!("0.{}1", "0".repeat(400))]), Text, "below the smallest double");
}

#[test]
fn one_late_value_widens_the_whole_column() {
    let rows = 50_000;
    for (late, expected) in [("007", Text), ("1.5", Float64), ("", Int64), ("x", Text)] {
        let early: Vec<String> = (0..rows).map(|i| format!("{i},text\n")).collect();
        let text = format!("n,s\n{}{late},text\n", early.concat());
        let case = Case { layout: small_groups(), ..Case::default() };
        let output = case.convert(&text).unwrap();
        assert_eq!(output.types()[0].1, expected, "{late:?}");
        assert_eq!(output.converted.rows, rows + 1);
        let values = output.column("n");
        let first = if expected == Float64 { "0.0" } else { "0" };
        assert_eq!(values[0].as_deref(), Some(first));
        assert_eq!(values.last().unwrap().as_deref(), Some(late).filter(|late| !late.is_empty()));
    }
}

#[test]
fn a_big_integer_before_a_late_fraction_is_not_forgotten() {
    let mut text = String::from("n\n1\n9007199254740993\n");
    text.push_str(&"5\n".repeat(100_000));
    text.push_str("2.5\n");
    let output = Case { layout: small_groups(), ..Case::default() }.convert(&text).unwrap();
    assert_eq!(output.types()[0].1, Text);
    assert_eq!(output.column("n")[1].as_deref(), Some("9007199254740993"));
}

#[test]
fn empty_is_null_in_typed_columns_and_empty_text_in_text() {
    let output = Case::default().convert("n,s\n1,a\n,\n\"\",\"\"\n").unwrap();
    assert_eq!(output.column("n"), [Some("1".into()), None, None]);
    assert_eq!(output.column("s"), [Some("a".into()), Some(String::new()), Some(String::new())]);
}

#[test]
fn null_values_are_null_in_every_column_unless_they_are_quoted() {
    let mut case = Case::default();
    case.csv.null_values = vec!["NA".into(), "-".into()];
    let output = case.convert("n,s,q\n1,a,NA\nNA,NA,\"NA\"\n-,-,\"-\"\n,,\n").unwrap();
    assert_eq!(output.types()[0].1, Int64);
    assert_eq!(output.column("n"), [Some("1".into()), None, None, None]);
    assert_eq!(output.column("s"), [Some("a".into()), None, None, Some(String::new())]);
    assert_eq!(output.column("q"), [None, Some("NA".into()), Some("-".into()), Some(String::new())]);
}

#[test]
fn values_arrive_as_they_were() {
    let text = "i,f,b,d,t,z,s\n\
        -9223372036854775808,-0.0,true,1969-12-31,1969-12-31 23:59:59.999999,2024-01-01T00:30:00+01:00,\"a \"\"b\"\"\r\nc,\"\n\
        9223372036854775807,0.1,FALSE,2024-02-29,2024-02-29T12:00:00,2024-01-01T00:30:00Z,日本\n";
    let output = Case::default().convert(text).unwrap();
    let columns = ["i", "f", "b", "d", "t", "z", "s"];
    let rows: Vec<Vec<String>> =
        (0..2).map(|row| columns.map(|name| output.column(name)[row].clone().unwrap()).to_vec()).collect();
    assert_eq!(
        rows[0],
        [
            "-9223372036854775808",
            "-0.0",
            "true",
            "1969-12-31",
            "1969-12-31T23:59:59.999999",
            "2023-12-31T23:30:00",
            "a \"b\"\r\nc,"
        ]
    );
    assert_eq!(
        rows[1],
        [
            "9223372036854775807",
            "0.1",
            "false",
            "2024-02-29",
            "2024-02-29T12:00:00",
            "2024-01-01T00:30:00",
            "日本"
        ]
    );
}

#[test]
fn a_declared_type_is_a_promise() {
    let case = Case::declaring(&[("f", Float64), ("s", Text), ("t", Timestamp)]);
    let output = case.convert("f,s,t\n1e3,1,2024-01-01 00:00:00\n2,2,2024-01-01 00:00:00Z\n,,\n").unwrap();
    assert_eq!(
        output.types().iter().map(|(_, column_type)| *column_type).collect::<Vec<_>>(),
        [Float64, Text, Timestamp]
    );
    assert_eq!(output.column("f"), [Some("1000.0".into()), Some("2.0".into()), None]);
    assert_eq!(output.column("s"), [Some("1".into()), Some("2".into()), Some(String::new())]);

    let case = Case::declaring(&[("age", Int64)]);
    let fault = case.fault("name,age\nann,41\n\"two\nlines\",\"007\"\n");
    assert_eq!((fault.line, fault.byte), (Some(4), Some(29)));
    assert_eq!(fault.column.as_deref(), Some("age"));
    assert_eq!(fault.value.as_deref(), Some("007"));
    assert!(
        fault.to_string().starts_with("line 4 (byte 29): column `age`: `007` is not the declared int64: "),
        "{fault}"
    );
    for (declared, value) in [
        (Float64, "1e999"),
        (Float64, ".5"),
        (Date, "2023-02-29"),
        (Boolean, "yes"),
        (Timestamp, "2024-01-01"),
    ] {
        assert_eq!(
            Case::declaring(&[("v", declared)]).fault(format!("v\n{value}\n")).line,
            Some(2),
            "{value}"
        );
    }
}

#[test]
fn the_first_broken_promise_is_the_one_that_is_told() {
    let mut text = String::from("a,b\n");
    text.push_str(&"1,2\n".repeat(50_000));
    text.push_str("1,x\ny,2\n");
    text.push_str(&"z,z\n".repeat(50_000));
    for threads in [1, 3] {
        let case = Case { layout: small_groups(), threads, ..Case::declaring(&[("a", Int64), ("b", Int64)]) };
        let fault = case.fault(&text);
        assert_eq!((fault.line, fault.column.as_deref()), (Some(50_002), Some("b")));
    }
}

fn small_groups() -> lakehouse_ingest::convert::Layout {
    lakehouse_ingest::convert::Layout { group_bytes: 100_000, ..Default::default() }
}
