//! Vectors from a Parquet file.

use std::{fs::File, io::Seek};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, SchemaRef},
};
use lakehouse_contract::vectors::{Item, Metadata};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use serde_json::Value;

use super::{ID, METADATA, VECTOR};
use crate::{Error, Result};

/// Rows of a batch: as many as are in memory at once, each with as much metadata as a vector may have.
const BATCH: usize = 128;

/// Reads items batch by batch.
pub(crate) struct Reader {
    batches: ParquetRecordBatchReader,
    /// Fields that become metadata, where no column holds it as JSON.
    fields: Vec<String>,
    row: usize,
}

impl Reader {
    /// Opens a file from its start.
    pub(crate) fn open(file: &File) -> Result<Self> {
        let mut file = file.try_clone().map_err(|error| broken(&error))?;
        file.rewind().map_err(|error| broken(&error))?;
        // Without the writer's own types, texts of a batch have 2 GiB at most, whatever a dictionary makes of a small file.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(|error| broken(&error))?;
        let schema = builder.schema().clone();
        check(&schema)?;
        let fields = if schema.column_with_name(METADATA).is_some() {
            Vec::new()
        } else {
            let names = schema.fields().iter().map(|field| field.name().clone());
            names.filter(|name| name != ID && name != VECTOR).collect()
        };
        let batches = builder.with_batch_size(BATCH).build().map_err(|error| broken(&error))?;
        Ok(Self { batches, fields, row: 0 })
    }

    /// The next items and the row of the first; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<(usize, Vec<Item>)>> {
        let Some(batch) = self.batches.next() else { return Ok(None) };
        let batch = batch.map_err(|error| broken(&error))?;
        let first = self.row;
        self.row += batch.num_rows();
        Ok(Some((first, self.items(first, &batch)?)))
    }

    fn items(&self, first: usize, batch: &RecordBatch) -> Result<Vec<Item>> {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| Error::Invalid(format!("the file has no column `{name}`")))
        };
        let ids = text(column(ID)?)?;
        let vectors = column(VECTOR)?;
        let whole = match batch.column_by_name(METADATA) {
            Some(metadata) => Some(text(metadata)?),
            None => None,
        };
        let fields: Vec<(&str, FieldValues)> = self
            .fields
            .iter()
            .map(|name| Ok((name.as_str(), FieldValues::of(name, column(name)?)?)))
            .collect::<Result<_>>()?;
        let item = |row: usize| {
            let at = |message: String| Error::item(first + row, message);
            if ids.is_null(row) {
                return Err(at("`id` is null".into()));
            }
            let metadata = match &whole {
                Some(whole) if whole.is_null(row) => None,
                Some(whole) => Some(
                    serde_json::from_str(whole.value(row))
                        .map_err(|error| at(format!("`metadata` is no JSON object: {error}")))?,
                ),
                None if fields.is_empty() => None,
                None => {
                    let values = fields
                        .iter()
                        .filter_map(|(name, values)| Some(((*name).to_owned(), values.get(row)?)));
                    Some(values.collect::<Metadata>())
                }
            };
            Ok(Item { id: ids.value(row).to_owned(), vector: vector(vectors, row).map_err(at)?, metadata })
        };
        (0..batch.num_rows()).map(item).collect()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "errors are not")]
fn broken(error: &dyn std::error::Error) -> Error {
    Error::Invalid(format!("the body is not the Parquet file that is expected: {error}"))
}

fn check(schema: &SchemaRef) -> Result<()> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    for needed in [ID, VECTOR] {
        if !names.contains(&needed) {
            return Err(Error::Invalid(format!(
                "the file has no column `{needed}`; it has `{}`",
                names.join("`, `")
            )));
        }
    }
    let numbers =
        |field: &DataType| matches!(field, DataType::Float16 | DataType::Float32 | DataType::Float64);
    let vector = schema.field_with_name(VECTOR).map(|field| field.data_type().clone());
    match vector {
        Ok(DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _))
            if numbers(field.data_type()) =>
        {
            Ok(())
        }
        _ => Err(Error::Invalid("the column `vector` is not a list of floating-point numbers".into())),
    }
}

fn text(column: &ArrayRef) -> Result<StringArray> {
    let text = cast(column, &DataType::Utf8).map_err(|error| broken(&error))?;
    Ok(text.as_string::<i32>().clone())
}

fn vector(column: &ArrayRef, row: usize) -> Result<Vec<f32>, String> {
    if column.is_null(row) {
        return Err("`vector` is null".into());
    }
    let numbers = match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        _ => column.as_fixed_size_list().value(row),
    };
    if numbers.null_count() > 0 {
        return Err("`vector` has a number that is null".into());
    }
    let numbers = cast(&numbers, &DataType::Float32).map_err(|error| format!("`vector`: {error}"))?;
    Ok(numbers.as_primitive::<arrow::datatypes::Float32Type>().values().to_vec())
}

/// A column as values of metadata.
enum FieldValues {
    Text(StringArray),
    Bool(BooleanArray),
    /// Whole numbers, exactly: as text.
    Whole(StringArray),
    Number(arrow::array::Float64Array),
    Single(Float32Array),
}

impl FieldValues {
    fn of(name: &str, column: &ArrayRef) -> Result<Self> {
        let to = |kind: &DataType| cast(column, kind).map_err(|error| broken(&error));
        Ok(match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean().clone()),
            kind if kind.is_integer() => Self::Whole(to(&DataType::Utf8)?.as_string().clone()),
            DataType::Float32 => Self::Single(column.as_primitive().clone()),
            DataType::Float16 | DataType::Float64 => {
                Self::Number(to(&DataType::Float64)?.as_primitive().clone())
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
            | DataType::Map(..) => {
                return Err(Error::Invalid(format!(
                    "the column `{name}` cannot become metadata; put a JSON object into a column `metadata` instead"
                )));
            }
            _ => Self::Text(text(column)?),
        })
    }

    fn get(&self, row: usize) -> Option<Value> {
        match self {
            Self::Text(texts) => (!texts.is_null(row)).then(|| texts.value(row).into()),
            Self::Bool(bools) => (!bools.is_null(row)).then(|| bools.value(row).into()),
            Self::Whole(texts) => {
                if texts.is_null(row) {
                    None
                } else {
                    serde_json::from_str(texts.value(row)).ok()
                }
            }
            // What is no number in JSON is left out.
            Self::Number(numbers) => (!numbers.is_null(row))
                .then(|| Value::from(numbers.value(row)))
                .filter(|value| !value.is_null()),
            Self::Single(numbers) => (!numbers.is_null(row))
                .then(|| Value::from(numbers.value(row)))
                .filter(|value| !value.is_null()),
        }
    }
}
