//! Metadata of a segment by columns: small in the file, read where it lies, one exact bitmap for a condition.
//!
//! ```text
//! columns   all bytes of all columns
//! coldir    JSON: for each field, where in there its parts lie
//! ```
//! A column has a dictionary of its distinct values, sorted by kind and then by value, and a code for each row: the place in the
//! dictionary plus one, in as few bytes as fit, 0 for a row without the field. A field that few rows have lists its rows instead. A range
//! of values is a range of codes. Where there are few values, each has a bitmap of its rows; so has each text that stands in lists.

mod build;
mod read;

pub(crate) use build::Builder;
pub(crate) use read::Columns;

use lakehouse_ann::sections::Name;
use serde::{Deserialize, Serialize};

const BYTES: Name = *b"columns\0";
const DIRECTORY: Name = *b"coldir\0\0";

/// Columns with at most so many values keep a bitmap for each.
const MAX_BITMAPS: usize = 4096;
/// A field that fewer than one in so many rows have lists its rows.
const SPARSE: usize = 8;

/// A part of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    at: u64,
    len: u64,
}

/// Byte strings one behind the other, and where each ends (u64).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Strings {
    count: u32,
    ends: Span,
    bytes: Span,
}

/// Where a column's parts lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Directory {
    field: String,
    /// Booleans, numbers, texts and lists, in this order, each sorted.
    values: Strings,
    /// How many values of each [`crate::value::Kind`] there are.
    kinds: [u32; 4],
    /// Bytes of a code: 1, 2 or 4.
    width: u8,
    codes: Span,
    /// u32: the rows that have codes; absent when all rows have one.
    rows: Option<Span>,
    /// A bitmap for each value, where there are few.
    bitmaps: Option<Strings>,
    /// The texts that stand in lists, sorted.
    elements: Strings,
    /// A bitmap for each of them.
    element_rows: Strings,
}

#[cfg(test)]
mod tests {
    use lakehouse_ann::sections::{File, Writer};
    use lakehouse_contract::vectors::Metadata;
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    use super::*;
    use crate::filter::{Filter, Scalar, Test};

    proptest! {
        #[test]
        fn columns_give_what_was_put_in_and_select_what_passes(rows in vec(row(), 0..60), tests in vec(condition(), 1..12)) {
            let (_folder, file, columns) = written(&rows);
            for (number, row) in (0..).zip(&rows) {
                prop_assert_eq!(&columns.metadata(&file, number), row);
            }
            for filter in tests {
                let Ok(Filter::Field(field, test)) = Filter::parse(&filter) else { continue };
                let selected: Vec<u32> = columns.select(&file, &field, &test).into_iter().collect();
                let plain = Filter::Field(field, test);
                let passing: Vec<u32> =
                    (0..).zip(&rows).filter(|(_, row)| plain.passes(row)).map(|(number, _)| number).collect();
                prop_assert_eq!(selected, passing, "{}", filter);
            }
        }
    }

    #[test]
    fn many_values_and_few_rows_are_found_too() {
        // More values than have bitmaps, and a field that few rows have.
        let rows: Vec<Metadata> = (0..9000_u32)
            .map(|row| {
                let mut kept = json!({"unique": row});
                if row % 100 == 0 {
                    kept["rare"] = json!(format!("r{}", row / 100));
                }
                kept.as_object().unwrap().clone()
            })
            .collect();
        let (_folder, file, columns) = written(&rows);
        let number = |number: u32| Scalar::Number(crate::value::Number::of(&number.into()));
        let between =
            Test::Between(std::ops::Bound::Included(number(250)), std::ops::Bound::Excluded(number(260)));
        assert!(columns.select(&file, "unique", &between).into_iter().eq(250..260));
        let one = Test::In(vec![Scalar::Text("r7".into())]);
        assert!(columns.select(&file, "rare", &one).into_iter().eq([700]));
        assert_eq!(columns.select(&file, "rare", &Test::Exists(false)).len(), 9000 - 90);
        assert_eq!(columns.metadata(&file, 700), rows[700]);
        assert_eq!(columns.metadata(&file, 701), rows[701]);
    }

    fn written(rows: &[Metadata]) -> (tempfile::TempDir, File, Columns) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("columns");
        let mut builder = Builder::default();
        for row in rows {
            builder.push(row);
        }
        let mut out = Writer::create(&path).unwrap();
        builder.write(&mut out).unwrap();
        out.finish().unwrap();
        let file = File::open(&path).unwrap();
        let columns = Columns::open(&file, u32::try_from(rows.len()).unwrap()).unwrap();
        (folder, file, columns)
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-3..4_i64).prop_map(Value::from),
            (-3..4_i64).prop_map(|number| json!(number as f64 / 2.0)),
            Just(json!(9_007_199_254_740_993_i64)),
            Just(json!(9_007_199_254_740_992_i64)),
            "[a-c]{0,2}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
    }

    fn row() -> impl Strategy<Value = Metadata> {
        let value = prop_oneof![3 => scalar(), 1 => vec("[a-c]{0,2}", 0..3).prop_map(Value::from)];
        prop::collection::btree_map("[xyz]", value, 0..3).prop_map(|row| row.into_iter().collect())
    }

    fn condition() -> impl Strategy<Value = Value> {
        let operator = prop::sample::select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
        prop_oneof![
            ("[xyz]", operator, scalar())
                .prop_map(|(field, operator, value)| json!({field: {operator: value}})),
            ("[xyz]", vec(scalar(), 0..3)).prop_map(|(field, values)| json!({field: {"$in": values}})),
            ("[xyz]", vec(scalar(), 0..3)).prop_map(|(field, values)| json!({field: {"$nin": values}})),
            ("[xyz]", any::<bool>()).prop_map(|(field, wanted)| json!({field: {"$exists": wanted}})),
        ]
    }
}
