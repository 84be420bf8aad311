//! Serves one Parquet file as a dataset, for the benchmark: `serve_parquet FILE NAME` prints its address and stays.
//!
//! The file's columns need field ids 1, 2, … in their order.

use std::{fs::File, path::PathBuf};

use arrow::datatypes::{DataType, TimeUnit};
use axum::serve::ListenerExt;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    Column, ColumnType, DataObject, DatasetName,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{SchemaPolicy, WriteMode},
    keys,
};
use lakehouse_query::{Engine, Settings, router};
use lakehouse_store::Store;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(name)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("usage: serve_parquet FILE NAME".into());
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file)?)?;
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows())?;
    let mut schema = Vec::new();
    for (field, field_id) in reader.schema().fields().iter().zip(1..) {
        let column_type = match field.data_type() {
            DataType::Int64 => ColumnType::Int64,
            DataType::Float64 => ColumnType::Float64,
            DataType::Boolean => ColumnType::Boolean,
            DataType::Date32 => ColumnType::Date,
            DataType::Timestamp(TimeUnit::Microsecond, _) => ColumnType::Timestamp,
            DataType::Utf8 => ColumnType::String,
            other => return Err(format!("no dataset has a column of {other}").into()),
        };
        schema.push(Column { name: field.name().clone(), column_type, field_id });
    }
    let store = Store::memory();
    let catalog = Catalog::new(store.clone());
    let schema_fingerprint = schema_fingerprint(&schema);
    let folder = keys::rows(&DatasetName::parse(&*name)?, &schema_fingerprint);
    let blob = store.put_blob(&folder, "parquet", std::fs::read(&file)?.into()).await?;
    let objects = vec![DataObject { key: blob.key, size: blob.size, rows, sha256: blob.sha256 }];
    let (schema_policy, write_mode) = (SchemaPolicy::Reject, WriteMode::default());
    let request = RegisterRequest {
        name,
        schema_fingerprint,
        schema,
        objects,
        origin: None,
        schema_policy,
        write_mode,
    };
    catalog.register(&request).await?;
    let cache = tempfile::tempdir()?;
    let engine = Engine::open(store, catalog, Settings::new(cache.path())).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    // Without this, a streamed answer waits for the client's delayed acknowledgements.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router(engine)).await?;
    Ok(())
}
