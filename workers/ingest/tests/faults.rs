//! What is wrong with a file is said with its place and with what would help.

mod support;

use lakehouse_contract::ColumnType::{Int64, String as Text};
use lakehouse_ingest::Error;
use support::Case;

#[test]
fn a_ragged_row_is_named_with_its_line_and_counts() {
    let fault = Case::default().fault("a,b,c\n1,\"two\nlines\",3\n4,5\n");
    assert_eq!(fault.to_string(), "line 4 (byte 22): this record has 2 fields; the first one has 3");
    let fault = Case::default().fault("a,b\r\n1,2,3\r\n");
    assert_eq!(fault.to_string(), "line 2 (byte 5): this record has 3 fields; the first one has 2");
}

#[test]
fn a_header_must_name_every_column_once() {
    assert_eq!(
        Case::default().fault("id,name,id\n1,2,3\n").to_string(),
        "line 1 (byte 8): columns 1 and 3 are both named `id` in the header"
    );
    assert_eq!(
        Case::default().fault("id,,x\n1,2,3\n").to_string(),
        "line 1 (byte 3): column 2 has no name in the header"
    );
    assert_eq!(
        Case::default().fault("id,a\u{1f}b\n1,2\n").to_string(),
        "line 1 (byte 3): the name of column 2 holds a control character: `a\\u{1f}b`"
    );
}

#[test]
fn a_quote_that_is_never_closed_is_named_where_it_opened() {
    let fault = Case::default().fault("a,b\n1,2\n3,\"four\n5,6\n");
    assert_eq!(fault.to_string(), "line 3 (byte 10): the quote that opens here is never closed");
}

#[test]
fn text_after_a_closing_quote_is_shown() {
    let fault = Case::default().fault("a,b\n1,\"two\" too\n");
    assert!(
        fault.to_string().starts_with("line 2 (byte 11): after a closing quote there is ` too`"),
        "{fault}"
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_named() {
    let fault = Case::default().fault(b"a,b\n1,caf\xe9\n");
    assert_eq!(fault.to_string(), "line 2 (byte 9): byte 0xE9 is not UTF-8 here; save the file as UTF-8");
    let fault = Case::default().fault(b"a,caf\xe9\n1,2\n");
    assert!(fault.to_string().contains("line 1 (byte 5): byte 0xE9 is not UTF-8"), "{fault}");
}

#[test]
fn a_file_without_rows_says_so() {
    assert_eq!(Case::default().fault("").to_string(), "the file is empty");
    assert_eq!(Case::default().fault("\u{feff}").to_string(), "the file is empty");
    assert_eq!(Case::default().fault("\n\r\n").to_string(), "the file has nothing but empty lines");
    assert!(Case::default().fault("a,b\n").to_string().starts_with("the file has a header and no rows"));
    assert!(
        Case::declaring(&[("a", Int64)])
            .fault("a,b\n")
            .to_string()
            .contains("declare the type of every column")
    );
}

#[test]
fn a_header_without_rows_is_a_table_when_every_type_is_declared() {
    let output = Case::declaring(&[("a", Int64), ("b", Text)]).convert("a,b\n").unwrap();
    assert_eq!(output.converted.rows, 0);
    assert_eq!(output.batch().num_columns(), 2);
}

#[test]
fn other_formats_are_named() {
    for (bytes, name) in [
        (&b"PAR1\x15\x04"[..], "Parquet"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04\x14\0", "zip archive or an Excel workbook"),
        (b"\xff\xfea\0,\0", "UTF-16"),
        (b"a,b\n1,\0\n", "binary file"),
    ] {
        let fault = Case::default().fault(bytes);
        assert!(fault.to_string().starts_with("this is no CSV: it looks like "), "{fault}");
        assert!(fault.to_string().contains(name), "{fault}");
    }
}

#[test]
fn a_declared_column_must_be_in_the_file_once() {
    let error = Case::declaring(&[("agee", Int64)]).convert("age,name\n1,2\n").err().unwrap();
    assert_eq!(error.to_string(), "columns[0]: the file has no column `agee`; it has `age`, `name`");
    let error = Case::declaring(&[("a", Int64), ("a", Text)]).convert("a\n1\n").err().unwrap();
    assert_eq!(error.to_string(), "columns[1]: `a` is declared twice");
}

#[test]
fn a_delimiter_that_cannot_be_one_is_refused() {
    for delimiter in ['"', '\n', 'é'] {
        let mut case = Case::default();
        case.csv.delimiter = delimiter;
        assert!(matches!(case.convert("a\n1\n"), Err(Error::Spec(_))), "{delimiter:?}");
    }
}

#[test]
fn a_record_past_the_cap_is_named_by_its_line() {
    let mut text = b"a,b\n1,2\n3,".to_vec();
    text.resize(text.len() + (64 << 20), b'x');
    text.extend_from_slice(b"\n5,6\n");
    let fault = Case::default().fault(&text);
    assert_eq!(
        fault.to_string(),
        "line 3 (byte 8): the record that starts here is longer than the 64 MiB that are allowed"
    );
    let mut text = b"a,b\n1,2\n3,\"".to_vec();
    text.resize(text.len() + (81 << 20), b'\n');
    let fault = Case::default().fault(&text);
    assert!(
        fault
            .to_string()
            .starts_with("line 3 (byte 10): the quote that opens here is not closed within 64 MiB"),
        "{fault}"
    );
}

#[test]
fn line_ends_of_every_kind_and_a_byte_order_mark_are_read() {
    for text in ["a,b\n1,2\n", "a,b\r\n1,2\r\n", "a,b\r1,2\r", "\u{feff}a,b\n1,2", "\na,b\n\n1,2\n\n"] {
        let output = Case::default().convert(text).unwrap();
        assert_eq!((output.column("a"), output.converted.rows), (vec![Some("1".to_owned())], 1), "{text:?}");
    }
}

#[test]
fn a_file_without_a_header_gets_numbered_columns() {
    let mut case = Case::default();
    case.csv.header = false;
    case.csv.delimiter = '\t';
    let output = case.convert("1\tx\n2\ty\n").unwrap();
    assert_eq!(output.column("column_1"), [Some("1".into()), Some("2".into())]);
    assert_eq!(output.types()[1].0, "column_2");
}
