//! Parquet files on disk, hashed while they are written.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use lakehouse_contract::{Column, ColumnType, dataset::hex};
use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::{SchemaDescriptor, Type},
};
use sha2::{Digest, Sha256};

use crate::{
    Error,
    encode::{EncodedColumn, layout},
};

/// Who wrote the file, in the form that readers parse. It stays the same as long as the same rows give the same bytes.
const CREATED_BY: &str = "lakehouse version 1.0.0";

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// A finished Parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes, lower-case hexadecimal.
    pub sha256: String,
}

/// The Parquet schema of these columns. Every column is optional: a column that has no null today may have one tomorrow.
pub(crate) fn schema(columns: &[Column]) -> Result<SchemaDescriptor, Error> {
    let fields = columns.iter().map(|Column { name, column_type, field_id }| {
        let (physical, logical) = match column_type {
            ColumnType::Int64 => (PhysicalType::INT64, None),
            ColumnType::Float64 => (PhysicalType::DOUBLE, None),
            ColumnType::Boolean => (PhysicalType::BOOLEAN, None),
            ColumnType::Date => (PhysicalType::INT32, Some(LogicalType::Date)),
            ColumnType::Timestamp => {
                let unit = TimeUnit::MICROS;
                (PhysicalType::INT64, Some(LogicalType::Timestamp { is_adjusted_to_u_t_c: false, unit }))
            }
            ColumnType::String => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .with_id(Some(*field_id))
            .build()
            .map(Arc::new)
    });
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    let root = Type::group_type_builder("schema").with_fields(fields).build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

/// Writes row groups into files, a new one whenever the last is large enough.
pub(crate) struct Files<'a> {
    folder: &'a Path,
    schema: &'a SchemaDescriptor,
    /// A file ends with the row group that brings it to this size.
    file_bytes: usize,
    open: Option<Open>,
    done: Vec<ConvertedFile>,
}

struct Open {
    path: PathBuf,
    writer: SerializedFileWriter<Hashing>,
    rows: u64,
}

impl<'a> Files<'a> {
    pub(crate) fn new(folder: &'a Path, schema: &'a SchemaDescriptor, file_bytes: usize) -> Self {
        Self { folder, schema, file_bytes, open: None, done: Vec::new() }
    }

    /// Adds a row group.
    pub(crate) fn write(&mut self, rows: u64, columns: Vec<EncodedColumn>) -> Result<(), Error> {
        if rows == 0 {
            return Ok(());
        }
        let mut open = self.opened()?;
        let mut writer = open.writer.next_row_group()?;
        for column in columns {
            writer.append_column(&column.bytes, column.close).map_err(|error| failed(&open.path, error))?;
        }
        writer.close()?;
        open.rows += rows;
        if open.writer.bytes_written() >= self.file_bytes {
            self.done.push(open.close()?);
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// The files, at least one: no rows are a file without row groups.
    pub(crate) fn finish(mut self) -> Result<Vec<ConvertedFile>, Error> {
        if self.open.is_some() || self.done.is_empty() {
            let open = self.opened()?;
            self.done.push(open.close()?);
        }
        Ok(self.done)
    }

    fn opened(&mut self) -> Result<Open, Error> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let path = self.folder.join(format!("{:05}.parquet", self.done.len()));
        let file = File::create(&path).map_err(|error| Error::spool(&path, error))?;
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(layout::compression())
            .set_offset_index_disabled(true)
            .build();
        let writer = SerializedFileWriter::new(
            Hashing { file: BufWriter::with_capacity(BUFFER, file), hash: Sha256::new() },
            self.schema.root_schema_ptr(),
            Arc::new(properties),
        )?;
        Ok(Open { path, writer, rows: 0 })
    }
}

impl Open {
    fn close(self) -> Result<ConvertedFile, Error> {
        let Self { path, rows, .. } = &self;
        let (path, rows) = (path.clone(), *rows);
        let Hashing { mut file, hash } = self.writer.into_inner().map_err(|error| failed(&path, error))?;
        file.flush().map_err(|error| Error::spool(&path, error))?;
        let size = file.get_ref().metadata().map_err(|error| Error::spool(&path, error))?.len();
        Ok(ConvertedFile { path, rows, size, sha256: hex(&hash.finalize()) })
    }
}

/// Tells a full disk from a mistake in the use of the library.
fn failed(path: &Path, error: parquet::errors::ParquetError) -> Error {
    match error {
        parquet::errors::ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => Error::spool(path, *error),
            Err(cause) => Error::Parquet(parquet::errors::ParquetError::External(cause)),
        },
        other => Error::Parquet(other),
    }
}

/// A file whose content is hashed on its way.
struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
