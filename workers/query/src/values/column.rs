//! One column of a batch, ready to write any of its values.

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Decimal128Array,
        FixedSizeListArray, ListArray, MapArray, PrimitiveArray, StringArray, StructArray, UnionArray,
    },
    buffer::NullBuffer,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time32MillisecondType, Time32SecondType,
        Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    text,
    time::{self, Unit},
};
use crate::Error;

/// Integers up to here are the same in every JSON reader.
const EXACT: u128 = 1 << 53;

/// A column and how its values are written.
pub(crate) struct Column<'a> {
    nulls: Option<&'a NullBuffer>,
    reader: Reader<'a>,
}

/// Writes a value that is not null, and says whether JSON puts it between quotes.
type Plain<'a> = Box<dyn Fn(usize, &mut Vec<u8>) -> Quotes + 'a>;

enum Reader<'a> {
    /// Values whose text needs no escape.
    Plain(Plain<'a>),
    Text(&'a StringArray),
    /// An ENUM: the index of each row's text, and the texts.
    Enum(Vec<usize>, &'a StringArray),
    List(&'a ListArray, Box<Column<'a>>),
    Array(&'a FixedSizeListArray, Box<Column<'a>>),
    Struct(Vec<(&'a str, Column<'a>)>),
    Map(&'a MapArray, Box<Column<'a>>, Box<Column<'a>>),
    Union(&'a UnionArray, Vec<(i8, &'a str, Column<'a>)>),
    Null,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Yes,
    No,
}

impl<'a> Column<'a> {
    /// Fails for an Arrow type that DuckDB does not make.
    pub(crate) fn new(array: &'a ArrayRef) -> Result<Self, Error> {
        let reader = match array.data_type() {
            DataType::Null => Reader::Null,
            DataType::Utf8 => Reader::Text(array.as_string()),
            DataType::Dictionary(_, values) if **values == DataType::Utf8 => {
                let dictionary = array.as_any_dictionary();
                Reader::Enum(dictionary.normalized_keys(), dictionary.values().as_string())
            }
            DataType::List(_) => {
                let list: &ListArray = array.as_list();
                Reader::List(list, Box::new(Self::new(list.values())?))
            }
            DataType::FixedSizeList(..) => {
                let list = array.as_fixed_size_list();
                Reader::Array(list, Box::new(Self::new(list.values())?))
            }
            DataType::Struct(_) => Reader::Struct(Self::members(array.as_struct())?),
            DataType::Map(..) => {
                let map = array.as_map();
                Reader::Map(map, Box::new(Self::new(map.keys())?), Box::new(Self::new(map.values())?))
            }
            DataType::Union(fields, _) => {
                let union = array.as_union();
                let members = fields
                    .iter()
                    .map(|(id, field)| Ok((id, field.name().as_str(), Self::new(union.child(id))?)));
                Reader::Union(union, members.collect::<Result<_, Error>>()?)
            }
            _ => Reader::Plain(plain(array)?),
        };
        Ok(Self { nulls: array.nulls(), reader })
    }

    /// The columns of a batch, or the members of a struct.
    pub(crate) fn members(row: &'a StructArray) -> Result<Vec<(&'a str, Self)>, Error> {
        let named = row.column_names().into_iter().zip(row.columns());
        named.map(|(name, array)| Ok((name, Self::new(array)?))).collect()
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match &self.reader {
            Reader::Null => true,
            // A union has no nulls of its own: the member that it holds may be null.
            Reader::Union(union, members) => {
                member(union, members, row).is_none_or(|(_, column)| column.is_null(row))
            }
            _ => self.nulls.is_some_and(|nulls| nulls.is_null(row)),
        }
    }

    /// The JSON form.
    pub(crate) fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.reader {
            Reader::Null => out.extend_from_slice(b"null"),
            Reader::Plain(write) => quoted_if_needed(out, |out| write(row, out)),
            Reader::Text(texts) => text::json(texts.value(row), out),
            Reader::Enum(keys, texts) => text::json(texts.value(keys[row]), out),
            Reader::List(list, items) => {
                let ends = list.value_offsets();
                json_array(items, index(ends[row])..index(ends[row + 1]), out);
            }
            Reader::Array(list, items) => {
                let start = index(list.value_offset(row));
                json_array(items, start..start + index(list.value_length()), out);
            }
            Reader::Struct(members) if members.iter().all(|(name, _)| name.is_empty()) => {
                separated(b'[', b']', members, out, |(_, column), out| column.json(row, out));
            }
            Reader::Struct(members) => separated(b'{', b'}', members, out, |(name, column), out| {
                text::json(name, out);
                out.push(b':');
                column.json(row, out);
            }),
            Reader::Map(map, keys, values) => {
                let ends = map.value_offsets();
                separated(b'{', b'}', index(ends[row])..index(ends[row + 1]), out, |entry, out| {
                    let mut key = Vec::new();
                    keys.text(entry, &mut key);
                    text::json(&String::from_utf8_lossy(&key), out);
                    out.push(b':');
                    values.json(entry, out);
                });
            }
            Reader::Union(union, members) => {
                separated(b'{', b'}', member(union, members, row), out, |(name, column), out| {
                    text::json(name, out);
                    out.push(b':');
                    column.json(row, out);
                });
            }
        }
    }

    /// The text form: that of JSON without the quotes around it. Nothing for a null.
    pub(crate) fn text(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        match &self.reader {
            Reader::Plain(write) => {
                write(row, out);
            }
            Reader::Text(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            Reader::Enum(keys, texts) => out.extend_from_slice(texts.value(keys[row]).as_bytes()),
            _ => self.json(row, out),
        }
    }
}

/// The member that a union holds in a row.
fn member<'m, 'a>(
    union: &UnionArray,
    members: &'m [(i8, &'a str, Column<'a>)],
    row: usize,
) -> Option<(&'a str, &'m Column<'a>)> {
    let held = union.type_id(row);
    members.iter().find(|(id, ..)| *id == held).map(|(_, name, column)| (*name, column))
}

fn plain(array: &ArrayRef) -> Result<Plain<'_>, Error> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let flags: &BooleanArray = array.as_boolean();
            Box::new(|row, out| bare(out, if flags.value(row) { b"true" } else { b"false" }))
        }
        DataType::Int8 => integers(array.as_primitive::<Int8Type>()),
        DataType::Int16 => integers(array.as_primitive::<Int16Type>()),
        DataType::Int32 => integers(array.as_primitive::<Int32Type>()),
        DataType::Int64 => integers(array.as_primitive::<Int64Type>()),
        DataType::UInt8 => integers(array.as_primitive::<UInt8Type>()),
        DataType::UInt16 => integers(array.as_primitive::<UInt16Type>()),
        DataType::UInt32 => integers(array.as_primitive::<UInt32Type>()),
        DataType::UInt64 => integers(array.as_primitive::<UInt64Type>()),
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>();
            Box::new(|row, out| float(floats.value(row), f64::from(floats.value(row)), out))
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            Box::new(|row, out| float(floats.value(row), floats.value(row), out))
        }
        DataType::Decimal128(_, scale) => {
            let (decimals, scale): (&Decimal128Array, _) =
                (array.as_primitive::<Decimal128Type>(), index((*scale).into()));
            Box::new(move |row, out| decimal(decimals.value(row), scale, out))
        }
        DataType::Binary => {
            let blobs: &BinaryArray = array.as_binary();
            Box::new(|row, out| {
                let text = BASE64_STANDARD.encode(blobs.value(row));
                out.extend_from_slice(text.as_bytes());
                Quotes::Yes
            })
        }
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            Box::new(|row, out| {
                time::date(days.value(row), out);
                Quotes::Yes
            })
        }
        DataType::Time32(TimeUnit::Second) => times(array.as_primitive::<Time32SecondType>(), 1),
        DataType::Time32(TimeUnit::Millisecond) => times(array.as_primitive::<Time32MillisecondType>(), 1000),
        DataType::Time64(TimeUnit::Microsecond) => {
            times(array.as_primitive::<Time64MicrosecondType>(), 1_000_000)
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            times(array.as_primitive::<Time64NanosecondType>(), 1_000_000_000)
        }
        DataType::Timestamp(TimeUnit::Second, _) => instants(array.as_primitive::<TimestampSecondType>(), 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            instants(array.as_primitive::<TimestampMillisecondType>(), 1000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            instants(array.as_primitive::<TimestampMicrosecondType>(), 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            instants(array.as_primitive::<TimestampNanosecondType>(), 1_000_000_000)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            Box::new(|row, out| {
                let value = intervals.value(row);
                time::interval(value.months, value.days, value.nanoseconds, out);
                Quotes::Yes
            })
        }
        other => {
            return Err(Error::Internal(format!(
                "a result has the Arrow type {other}, which is not known here"
            )));
        }
    })
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &PrimitiveArray<T>) -> Plain<'_> {
    Box::new(|row, out| decimal(array.value(row).into(), 0, out))
}

fn times<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &PrimitiveArray<T>, unit: i64) -> Plain<'_> {
    Box::new(move |row, out| {
        time::time(array.value(row).into(), Unit(unit), out);
        Quotes::Yes
    })
}

fn instants<T: ArrowPrimitiveType<Native = i64>>(array: &PrimitiveArray<T>, unit: i64) -> Plain<'_> {
    Box::new(move |row, out| {
        time::timestamp(array.value(row), Unit(unit), out);
        Quotes::Yes
    })
}

/// `value / 10^scale`, exactly.
fn decimal(value: i128, scale: usize, out: &mut Vec<u8>) -> Quotes {
    let digits = value.unsigned_abs();
    if value < 0 {
        out.push(b'-');
    }
    let one = 10_u128.pow(u32::try_from(scale).unwrap_or(0));
    text::digits(digits / one, out);
    if scale > 0 {
        out.push(b'.');
        text::padded(digits % one, scale, out);
    }
    if digits <= EXACT { Quotes::No } else { Quotes::Yes }
}

/// The shortest text that reads back the same: `shortest` is of the column's own width.
fn float(shortest: impl serde::Serialize, value: f64, out: &mut Vec<u8>) -> Quotes {
    if value.is_finite() {
        serde_json::to_writer(out, &shortest).expect("a Vec takes any number");
        return Quotes::No;
    }
    let name: &[u8] = match value {
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => b"NaN",
    };
    out.extend_from_slice(name);
    Quotes::Yes
}

fn bare(out: &mut Vec<u8>, text: &[u8]) -> Quotes {
    out.extend_from_slice(text);
    Quotes::No
}

/// Puts quotes around what was written when its kind asks for them.
fn quoted_if_needed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Quotes) {
    let start = out.len();
    if write(out) == Quotes::Yes {
        out.insert(start, b'"');
        out.push(b'"');
    }
}

fn json_array(items: &Column<'_>, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
    separated(b'[', b']', range, out, |item, out| items.json(item, out));
}

/// Items between two brackets, with commas between them.
fn separated<T>(
    open: u8,
    close: u8,
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(open);
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(close);
}

/// Arrow's offsets and lengths are never negative.
fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}
