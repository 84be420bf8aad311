//! Vectors as Parquet: an index is no jail.
//!
//! ```text
//! id         text
//! vector     list of float (32 bits)
//! metadata   text: a JSON object
//! ```
//! An import takes the same, and other tools' files: numbers of 64 bits, lists of fixed size, ids that are integers; without a column
//! `metadata`, every other column of texts, numbers or booleans becomes a field.

mod read;

use std::{io::Write, sync::Arc};

use arrow::{
    array::{ArrayRef, Float32Builder, ListBuilder, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use lakehouse_contract::vectors::Item;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use crate::{manifest::Manifest, service::bytes_of};

pub(crate) use read::Reader;

const ID: &str = "id";
const VECTOR: &str = "vector";
const METADATA: &str = "metadata";
/// Bytes of a batch, roughly.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of a row group, as it lies in memory until it is written.
const GROUP_BYTES: usize = 64 << 20;

fn schema() -> SchemaRef {
    let number = Arc::new(Field::new_list_field(DataType::Float32, false));
    Arc::new(Schema::new(vec![
        Field::new(ID, DataType::Utf8, false),
        Field::new(VECTOR, DataType::List(number), false),
        Field::new(METADATA, DataType::Utf8, false),
    ]))
}

/// Writes all items. The file also says what index it is of.
pub(crate) fn write(
    manifest: &Manifest,
    items: impl Iterator<Item = Item>,
    out: impl Write + Send,
) -> Result<(), ParquetError> {
    let described = [
        ("lakehouse.index", serde_json::to_string(&manifest.name)),
        ("lakehouse.shape", serde_json::to_string(&manifest.shape)),
        ("lakehouse.embedding", serde_json::to_string(&manifest.embedding)),
        ("lakehouse.source", serde_json::to_string(&manifest.source)),
        ("lakehouse.version", serde_json::to_string(&manifest.version)),
    ];
    let described =
        described.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key.to_owned(), value.ok()?)));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(rows_of(manifest, 1 << 24)))
        .set_key_value_metadata(Some(described.collect()))
        .build();
    let mut writer = ArrowWriter::try_new(out, schema(), Some(properties))?;
    let mut items = items.peekable();
    while items.peek().is_some() {
        let mut left = BATCH_BYTES;
        let fitting = std::iter::from_fn(|| {
            let item = if left > 0 { items.next() } else { None };
            left = left.saturating_sub(item.as_ref().map_or(0, bytes_of));
            item
        });
        writer.write(&batch(fitting)?)?;
        if writer.in_progress_size() > GROUP_BYTES {
            writer.flush()?;
        }
    }
    writer.close()?;
    Ok(())
}

/// The rows that have so many numbers.
fn rows_of(manifest: &Manifest, numbers: usize) -> usize {
    (numbers / manifest.shape.dimension as usize).max(1)
}

fn batch(items: impl Iterator<Item = Item>) -> Result<RecordBatch, ParquetError> {
    let number = Arc::new(Field::new_list_field(DataType::Float32, false));
    let (mut ids, mut metadata) = (StringBuilder::new(), StringBuilder::new());
    let mut vectors = ListBuilder::new(Float32Builder::new()).with_field(number);
    for item in items {
        ids.append_value(&item.id);
        vectors.values().append_slice(&item.vector);
        vectors.append(true);
        let kept = item.metadata.unwrap_or_default();
        metadata.append_value(serde_json::Value::Object(kept).to_string());
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(ids.finish()), Arc::new(vectors.finish()), Arc::new(metadata.finish())];
    RecordBatch::try_new(schema(), columns).map_err(|error| ParquetError::ArrowError(error.to_string()))
}
