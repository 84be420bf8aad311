//! Manifests as one-row Parquet, with real nested columns that any Parquet reader shows.
//!
//! Reading is strict: a file that is not whole, or whose parts contradict each other, is damaged and says how.
//! The file's key-value metadata carries the format's version and the hash of what the row says, so that a flipped
//! bit in a value is found too.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{Field, Fields, Schema},
};
use bytes::Bytes;
use jiff::Timestamp;
use lakehouse_contract::{
    Column, ColumnType, DataObject, DatasetManifest, DatasetName, Key, Origin, dataset::hex,
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
};
use sha2::{Digest, Sha256};

use crate::sound;

/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FORMAT_KEY: &str = "lakehouse.manifest.format";
const DIGEST_KEY: &str = "lakehouse.manifest.sha256";

/// Why bytes are no manifest: a sentence without a subject's name, fit for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

impl<E: std::error::Error> From<E> for Damage {
    fn from(error: E) -> Self {
        Self(format!("it is not readable as Parquet: {error}"))
    }
}

/// A manifest's file.
pub(crate) fn encode(manifest: &DatasetManifest) -> Bytes {
    let metadata = [(FORMAT_KEY, FORMAT.to_string()), (DIGEST_KEY, digest(manifest))];
    let metadata = metadata.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
    // Statistics and dictionaries serve scans of many rows; here they would be most of the file.
    let properties = WriterProperties::builder()
        .set_created_by("lakehouse".to_owned())
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata))
        .build();
    let row = row(manifest);
    let write = || {
        // The Parquet types say all; a copy of the Arrow schema beside them could only contradict them.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), row.schema(), options)?;
        writer.write(&row)?;
        writer.into_inner()
    };
    write().expect("one row of supported types always goes into memory").into()
}

/// What the row says, in one hash.
fn digest(manifest: &DatasetManifest) -> String {
    let text = serde_json::to_vec(manifest).expect("plain data with text keys always has a JSON form");
    hex(&Sha256::digest(text))
}

/// Reads the manifest of the dataset `name`.
pub(crate) fn decode(name: &DatasetName, file: Bytes) -> Result<DatasetManifest, Damage> {
    // The Parquet reader panics on some broken files, and one bad file must not take the service down.
    let row = catch_unwind(AssertUnwindSafe(|| read_row(file)))
        .map_err(|_| Damage("it is not readable as Parquet: the reader gave up".to_owned()))??;
    let manifest = manifest_of(&row.values)?;
    match sound::fault(name, &manifest) {
        Some(message) => Err(Damage(message)),
        None if digest(&manifest) != row.digest => {
            Err(Damage("its values are not those that were written: their hash is another one".to_owned()))
        }
        None => Ok(manifest),
    }
}

/// The file's only row and the hash that was written beside it.
struct Row {
    values: StructArray,
    digest: String,
}

fn read_row(file: Bytes) -> Result<Row, Damage> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    let metadata = reader.metadata().file_metadata();
    let value = |key: &str| {
        let mut pairs = metadata.key_value_metadata().into_iter().flatten();
        pairs.find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
    };
    let Some(format) = value(FORMAT_KEY) else {
        return Err(Damage(format!("it is no manifest: its metadata lacks `{FORMAT_KEY}`")));
    };
    match format.parse::<u32>() {
        Ok(FORMAT) => {}
        Ok(newer) if newer > FORMAT => {
            let message =
                format!("its format is {newer}, and this version reads up to {FORMAT}; upgrade to read it");
            return Err(Damage(message));
        }
        _ => return Err(Damage(format!("its format is `{format}`, which never was one"))),
    }
    let Some(digest) = value(DIGEST_KEY) else {
        return Err(Damage(format!("its metadata lacks `{DIGEST_KEY}`")));
    };
    let rows = metadata.num_rows();
    if rows != 1 {
        return Err(Damage(format!("it has {rows} rows; a manifest has one")));
    }
    let mut batches = reader.with_batch_size(1).build()?;
    let batch = batches.next().ok_or_else(|| Damage("its row is missing".to_owned()))??;
    if batch.num_rows() != 1 {
        return Err(Damage(format!("its row group has {} rows; a manifest has one", batch.num_rows())));
    }
    Ok(Row { values: batch.into(), digest })
}

/// The manifest as a batch of one row.
fn row(manifest: &DatasetManifest) -> RecordBatch {
    let DatasetManifest {
        dataset_id,
        name,
        schema_fingerprint,
        schema,
        objects,
        row_count,
        version,
        latest_version,
        created_at,
        updated_at,
        origin,
    } = manifest;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("dataset_id", text([dataset_id.to_string()])),
        ("name", text([name.to_string()])),
        ("schema_fingerprint", text([schema_fingerprint.clone()])),
        ("schema", list(schema_rows(schema))),
        ("objects", list(object_rows(objects))),
        ("row_count", number([*row_count])),
        ("version", number([*version])),
        ("latest_version", number([*latest_version])),
        ("created_at", time(*created_at)),
        ("updated_at", time(*updated_at)),
        ("origin", Arc::new(origin_row(origin.as_ref()))),
    ];
    let fields = columns.iter().map(|(name, array)| {
        let optional = *name == "origin";
        Field::new(*name, array.data_type().clone(), optional)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(schema, arrays).expect("the schema was made from these arrays, each of one row")
}

fn schema_rows(schema: &[Column]) -> StructArray {
    structs(vec![
        ("name", text(schema.iter().map(|column| column.name.clone()))),
        ("type", text(schema.iter().map(|column| column.column_type.to_string()))),
        ("field_id", Arc::new(Int32Array::from_iter_values(schema.iter().map(|column| column.field_id)))),
    ])
}

fn object_rows(objects: &[DataObject]) -> StructArray {
    structs(vec![
        ("key", text(objects.iter().map(|object| object.key.to_string()))),
        ("size", number(objects.iter().map(|object| object.size))),
        ("rows", number(objects.iter().map(|object| object.rows))),
        ("sha256", text(objects.iter().map(|object| object.sha256.clone()))),
    ])
}

fn origin_row(origin: Option<&Origin>) -> StructArray {
    let Origin { inputs, source, source_digest, format, source_bytes, rejected_rows, duration_ms } =
        origin.cloned().unwrap_or_default();
    let (fields, arrays, _) = structs(vec![
        ("inputs", text([inputs])),
        ("source", text([source])),
        ("source_digest", text([source_digest])),
        ("format", text([format])),
        ("source_bytes", number([source_bytes])),
        ("rejected_rows", number([rejected_rows])),
        ("duration_ms", number([duration_ms])),
    ])
    .into_parts();
    StructArray::new(fields, arrays, Some(NullBuffer::from(vec![origin.is_some()])))
}

fn structs(columns: Vec<(&str, ArrayRef)>) -> StructArray {
    let with_field = |(name, array): (&str, ArrayRef)| {
        (Arc::new(Field::new(name, array.data_type().clone(), false)), array)
    };
    StructArray::from(columns.into_iter().map(with_field).collect::<Vec<_>>())
}

/// One list that holds all rows of `items`; its element is named as the Parquet specification asks.
fn list(items: StructArray) -> ArrayRef {
    let element = Arc::new(Field::new("element", items.data_type().clone(), false));
    let offsets = OffsetBuffer::from_lengths([items.len()]);
    Arc::new(ListArray::new(element, offsets, Arc::new(items), None))
}

fn text(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn number(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn time(at: Timestamp) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(at.as_microsecond(), 1).with_timezone("UTC"))
}

fn manifest_of(row: &StructArray) -> Result<DatasetManifest, Damage> {
    Ok(DatasetManifest {
        dataset_id: parsed("dataset_id", &text_at(row, "dataset_id", 0)?)?,
        name: DatasetName::parse(text_at(row, "name", 0)?).map_err(|error| Damage(error.to_string()))?,
        schema_fingerprint: text_at(row, "schema_fingerprint", 0)?,
        schema: schema_of(&list_of(row, "schema")?)?,
        objects: objects_of(&list_of(row, "objects")?)?,
        row_count: number_at(row, "row_count", 0)?,
        version: number_at(row, "version", 0)?,
        latest_version: number_at(row, "latest_version", 0)?,
        created_at: time_of(row, "created_at")?,
        updated_at: time_of(row, "updated_at")?,
        origin: origin_of(row)?,
    })
}

fn schema_of(rows: &StructArray) -> Result<Vec<Column>, Damage> {
    let column = |i| {
        let type_name = text_at(rows, "type", i)?;
        let column_type = ColumnType::ALL.into_iter().find(|known| known.as_str() == type_name);
        Ok(Column {
            name: text_at(rows, "name", i)?,
            column_type: column_type
                .ok_or_else(|| Damage(format!("schema[{i}]: `{type_name}` is no column type")))?,
            field_id: field::<Int32Array>(rows, "field_id", i)?.value(i),
        })
    };
    (0..rows.len()).map(column).collect()
}

fn objects_of(rows: &StructArray) -> Result<Vec<DataObject>, Damage> {
    let object = |i| {
        Ok(DataObject {
            key: Key::parse(text_at(rows, "key", i)?)
                .map_err(|error| Damage(format!("objects[{i}]: {error}")))?,
            size: number_at(rows, "size", i)?,
            rows: number_at(rows, "rows", i)?,
            sha256: text_at(rows, "sha256", i)?,
        })
    };
    (0..rows.len()).map(object).collect()
}

fn origin_of(row: &StructArray) -> Result<Option<Origin>, Damage> {
    let origin: &StructArray = named(row, "origin")?;
    if origin.is_null(0) {
        return Ok(None);
    }
    Ok(Some(Origin {
        inputs: text_at(origin, "inputs", 0)?,
        source: text_at(origin, "source", 0)?,
        source_digest: text_at(origin, "source_digest", 0)?,
        format: text_at(origin, "format", 0)?,
        source_bytes: number_at(origin, "source_bytes", 0)?,
        rejected_rows: number_at(origin, "rejected_rows", 0)?,
        duration_ms: number_at(origin, "duration_ms", 0)?,
    }))
}

/// The column `name` of `rows`.
fn named<'a, A: Array + 'static>(rows: &'a StructArray, name: &str) -> Result<&'a A, Damage> {
    let column = rows.column_by_name(name).ok_or_else(|| Damage(format!("it lacks the column `{name}`")))?;
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| Damage(format!("its column `{name}` has the type {}", column.data_type())))
}

/// The column `name` of `rows`, whose value `i` is not null.
fn field<'a, A: Array + 'static>(rows: &'a StructArray, name: &str, i: usize) -> Result<&'a A, Damage> {
    let column: &A = named(rows, name)?;
    if column.is_null(i) { Err(Damage(format!("its column `{name}` is null"))) } else { Ok(column) }
}

fn text_at(rows: &StructArray, name: &str, i: usize) -> Result<String, Damage> {
    Ok(field::<StringArray>(rows, name, i)?.value(i).to_owned())
}

fn number_at(rows: &StructArray, name: &str, i: usize) -> Result<u64, Damage> {
    Ok(field::<UInt64Array>(rows, name, i)?.value(i))
}

fn time_of(row: &StructArray, name: &str) -> Result<Timestamp, Damage> {
    let microseconds = field::<TimestampMicrosecondArray>(row, name, 0)?.value(0);
    Timestamp::from_microsecond(microseconds).map_err(|error| Damage(format!("its column `{name}`: {error}")))
}

/// The rows of the list in the column `name`.
fn list_of(row: &StructArray, name: &str) -> Result<StructArray, Damage> {
    let values = field::<ListArray>(row, name, 0)?.value(0);
    let rows = values.as_struct_opt();
    rows.cloned().ok_or_else(|| Damage(format!("its column `{name}` lists {}", values.data_type())))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, Damage> {
    text.parse().map_err(|error| Damage(format!("its column `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use lakehouse_contract::dataset::schema_fingerprint;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_what_is_read(manifest in manifests()) {
            prop_assert_eq!(decode(&manifest.name, encode(&manifest)), Ok(manifest));
        }

        #[test]
        fn equal_manifests_are_equal_files(manifest in manifests()) {
            prop_assert_eq!(encode(&manifest), encode(&manifest.clone()));
        }

        #[test]
        fn arbitrary_bytes_are_damaged(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&name(), bytes.into()).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_never_reads_as_another_manifest() {
        let good = sample();
        let file = encode(&good);
        for at in 0..file.len() {
            let mut bytes = file.to_vec();
            bytes[at] ^= 1 << (at % 8);
            if let Ok(read) = decode(&good.name, bytes.into()) {
                // Padding and the like carry nothing that a manifest says.
                assert_eq!(read, good, "byte {at}");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_is_damaged() {
        let file = encode(&sample());
        for len in 0..file.len() {
            assert!(decode(&name(), file.slice(..len)).is_err(), "{len} of {} bytes", file.len());
        }
    }

    #[test]
    fn parts_that_contradict_each_other_are_named() {
        let good = sample();
        let id = DatasetName::parse("other").unwrap().id();
        let retyped = Column { column_type: ColumnType::Date, ..good.schema[0].clone() };
        let elsewhere =
            DataObject { key: Key::parse("datasets/b/x.parquet").unwrap(), ..good.objects[0].clone() };
        for (manifest, sentence) in [
            (DatasetManifest { dataset_id: id, ..good.clone() }, "dataset_id"),
            (DatasetManifest { schema: vec![], ..good.clone() }, "no columns"),
            (DatasetManifest { schema: vec![retyped], ..good.clone() }, "schema_fingerprint"),
            (
                DatasetManifest {
                    schema: [good.schema.clone(), good.schema.clone()].concat(),
                    ..good.clone()
                },
                "schema[2]",
            ),
            (DatasetManifest { row_count: 4, ..good.clone() }, "row_count is 4"),
            (DatasetManifest { objects: vec![elsewhere], ..good.clone() }, "objects[0]"),
            (DatasetManifest { version: 9, ..good.clone() }, "version 9"),
            (DatasetManifest { version: 0, ..good.clone() }, "version 0"),
            (DatasetManifest { latest_version: u64::MAX, ..good.clone() }, "no version after"),
            (DatasetManifest { updated_at: Timestamp::UNIX_EPOCH, ..good.clone() }, "before it was created"),
        ] {
            let Damage(message) = decode(&good.name, encode(&manifest)).unwrap_err();
            assert!(message.contains(sentence), "{message:?} does not say {sentence:?}");
        }
        let Damage(message) = decode(&DatasetName::parse("other").unwrap(), encode(&good)).unwrap_err();
        assert_eq!(message, "it is the manifest of `a`");
    }

    #[test]
    fn a_file_that_is_no_manifest_is_told_from_one_of_a_newer_version() {
        let written = |metadata: Vec<(&str, &str)>, rows: usize| {
            let row = row(&sample());
            let metadata =
                metadata.into_iter().map(|(k, v)| KeyValue::new(k.to_owned(), v.to_owned())).collect();
            let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
            let mut writer = ArrowWriter::try_new(Vec::new(), row.schema(), Some(properties)).unwrap();
            (0..rows).for_each(|_| writer.write(&row).unwrap());
            decode(&name(), writer.into_inner().unwrap().into()).unwrap_err().0
        };
        assert!(written(vec![], 1).contains("it is no manifest"));
        assert!(written(vec![(FORMAT_KEY, "2")], 1).contains("upgrade"));
        assert!(written(vec![(FORMAT_KEY, "0")], 1).contains("never was one"));
        assert!(written(vec![(FORMAT_KEY, "x")], 1).contains("never was one"));
        assert!(written(vec![(FORMAT_KEY, "1")], 1).contains(DIGEST_KEY));
        let whole = vec![(FORMAT_KEY, "1"), (DIGEST_KEY, "x")];
        assert!(written(whole.clone(), 0).contains("0 rows"));
        assert!(written(whole.clone(), 2).contains("2 rows"));
        assert!(written(whole, 1).contains("hash"));
    }

    #[test]
    fn a_column_that_is_missing_null_or_of_another_type_is_named() {
        let of = |columns: Vec<(&str, ArrayRef)>| {
            let fields =
                columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
            let fields: Fields = fields.collect();
            let arrays = columns.into_iter().map(|(_, array)| array).collect();
            manifest_of(&StructArray::new(fields, arrays, None)).unwrap_err().0
        };
        let id = ("dataset_id", text([name().id().to_string()]));
        assert_eq!(of(vec![("name", text(["a".to_owned()]))]), "it lacks the column `dataset_id`");
        assert_eq!(of(vec![("dataset_id", number([1]))]), "its column `dataset_id` has the type UInt64");
        let null: ArrayRef = Arc::new(StringArray::new_null(1));
        assert_eq!(of(vec![id, ("name", null)]), "its column `name` is null");
    }

    /// Written by the first version of this code. Whoever changes what a manifest says must still read it.
    #[test]
    fn the_first_format_stays_readable() {
        let file = include_bytes!("../tests/data/manifest-format-1.parquet");
        assert_eq!(decode(&name(), Bytes::from_static(file)), Ok(sample()));
    }

    fn name() -> DatasetName {
        DatasetName::parse("a").unwrap()
    }

    fn sample() -> DatasetManifest {
        let schema = vec![
            Column { name: "id".into(), column_type: ColumnType::String, field_id: 1 },
            Column { name: "größe, \"m\"".into(), column_type: ColumnType::Float64, field_id: 4 },
        ];
        let sha256 = hex(&Sha256::digest("rows"));
        let key = Key::parse(format!("datasets/a/x/{sha256}.parquet")).unwrap();
        DatasetManifest {
            dataset_id: name().id(),
            name: name(),
            schema_fingerprint: schema_fingerprint(&schema),
            schema,
            objects: vec![DataObject { key, size: 77, rows: 3, sha256 }],
            row_count: 3,
            version: 2,
            latest_version: 5,
            created_at: "2026-11-20T10:00:00.000001Z".parse().unwrap(),
            updated_at: "2026-11-20T11:00:00Z".parse().unwrap(),
            origin: Some(Origin { inputs: "i".into(), source: "a.csv".into(), ..Origin::default() }),
        }
    }

    prop_compose! {
        fn manifests()(
            name in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}",
            columns in vec(("[^\0\u{1e}\u{1f}]{1,12}", 0..ColumnType::ALL.len()), 1..8),
            objects in vec((any::<[u8; 4]>(), any::<u64>(), 0..1_u64 << 40), 0..6),
            latest in 1..u64::MAX,
            back in any::<u64>(),
            created in 0..4_000_000_000_000_000_i64,
            later in 0..1_000_000_000_i64,
            origin in option::of((".*", ".*", any::<[u64; 3]>())),
        ) -> DatasetManifest {
            let name = DatasetName::parse(name).unwrap();
            let column = |(i, (text, kind)): (usize, (String, usize))| Column {
                name: format!("{text}{i}"),
                column_type: ColumnType::ALL[kind],
                field_id: i32::try_from(i).unwrap(),
            };
            let schema: Vec<Column> = columns.into_iter().enumerate().map(column).collect();
            let object = |(content, size, rows): ([u8; 4], u64, u64)| {
                let sha256 = hex(&Sha256::digest(content));
                let key = Key::parse(format!("datasets/{name}/f/{sha256}.parquet")).unwrap();
                DataObject { key, size, rows, sha256 }
            };
            let objects: Vec<DataObject> = objects.into_iter().map(object).collect();
            DatasetManifest {
                dataset_id: name.id(),
                schema_fingerprint: schema_fingerprint(&schema),
                schema,
                row_count: objects.iter().map(|object| object.rows).sum(),
                objects,
                version: (back % latest).max(1),
                latest_version: latest,
                created_at: Timestamp::from_microsecond(created).unwrap(),
                updated_at: Timestamp::from_microsecond(created + later).unwrap(),
                origin: origin.map(|(inputs, source, [source_bytes, rejected_rows, duration_ms])| Origin {
                    inputs, source, source_bytes, rejected_rows, duration_ms, ..Origin::default()
                }),
                name,
            }
        }
    }
}
