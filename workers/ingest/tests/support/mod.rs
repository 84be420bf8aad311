//! Converts a text in a folder of its own and reads the Parquet back.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{fs, path::PathBuf};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
    util::display::{ArrayFormatter, FormatOptions},
};
use lakehouse_contract::{
    ColumnType,
    ingest::{CsvOptions, DeclaredColumn, OnError},
};
use lakehouse_ingest::{
    Error, Fault, Tracker,
    convert::{Converted, Layout, Request, convert},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

/// How to convert.
pub(crate) struct Case {
    pub(crate) csv: CsvOptions,
    pub(crate) declared: Vec<DeclaredColumn>,
    pub(crate) layout: Layout,
    pub(crate) threads: usize,
}

impl Default for Case {
    fn default() -> Self {
        Self { csv: CsvOptions::default(), declared: Vec::new(), layout: Layout::default(), threads: 2 }
    }
}

impl Case {
    pub(crate) fn declaring(columns: &[(&str, ColumnType)]) -> Self {
        let declared = columns.iter().map(|&(name, column_type)| DeclaredColumn {
            name: name.into(),
            column_type,
            on_error: OnError::Fail,
        });
        Self { declared: declared.collect(), ..Self::default() }
    }

    pub(crate) fn convert(&self, text: impl AsRef<[u8]>) -> Result<Output, Error> {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.csv");
        fs::write(&source, text).unwrap();
        let request = Request {
            source: &source,
            csv: &self.csv,
            declared: &self.declared,
            layout: self.layout,
            threads: self.threads,
        };
        let converted = convert(&request, folder.path(), &Tracker::new("test"), &Ok)?;
        Ok(Output { converted, source, _folder: folder })
    }

    pub(crate) fn fault(&self, text: impl AsRef<[u8]>) -> Fault {
        match self.convert(text) {
            Err(Error::Fault(fault)) => *fault,
            Err(other) => panic!("no fault of the file: {other}"),
            Ok(output) => panic!("no fault: {:?}", output.types()),
        }
    }
}

pub(crate) struct Output {
    pub(crate) converted: Converted,
    pub(crate) source: PathBuf,
    _folder: TempDir,
}

impl Output {
    /// The bytes of all files.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.converted.files.iter().map(|file| fs::read(&file.path).unwrap()).collect()
    }

    pub(crate) fn types(&self) -> Vec<(String, ColumnType)> {
        self.converted.columns.iter().map(|column| (column.name.clone(), column.column_type)).collect()
    }

    /// All rows in one batch.
    pub(crate) fn batch(&self) -> RecordBatch {
        let mut batches = Vec::new();
        let mut schema = None;
        for file in &self.converted.files {
            let file = fs::File::open(&file.path).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            schema = Some(reader.schema().clone());
            batches.extend(reader.build().unwrap().map(Result::unwrap));
        }
        concat_batches(&schema.unwrap(), &batches).unwrap()
    }

    /// A column's values as text, `None` for null.
    pub(crate) fn column(&self, name: &str) -> Vec<Option<String>> {
        let batch = self.batch();
        let array = batch.column_by_name(name).unwrap();
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(array, &options).unwrap();
        (0..array.len()).map(|i| array.is_valid(i).then(|| formatter.value(i).to_string())).collect()
    }
}

/// The type that a column with these values gets.
pub(crate) fn type_of(values: &[&str]) -> ColumnType {
    let rows: Vec<String> = values.iter().map(|value| format!("x,\"{value}\"\n")).collect();
    let text = format!("k,v\n{}", rows.concat());
    Case::default().convert(text).unwrap().types()[1].1
}
