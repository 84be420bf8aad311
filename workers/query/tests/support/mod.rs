//! A lake of its own for each test: a store in memory, a catalogue, an engine, and its HTTP routes.
#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test's setup should stop the test")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    Column, ColumnType, DatasetName,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{SchemaPolicy, WriteMode},
    keys,
};
use lakehouse_query::{Engine, Settings, router};
use lakehouse_store::Store;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) struct Lake {
    pub(crate) store: Store,
    pub(crate) catalog: Catalog,
    pub(crate) engine: Engine,
    pub(crate) folder: tempfile::TempDir,
}

/// Limits in which a test's queries are stopped soon.
pub(crate) fn settings() -> Settings {
    Settings {
        memory_limit: 256 << 20,
        temp_limit: 256 << 20,
        threads: 2,
        timeout: Duration::from_secs(20),
        refresh_interval: Duration::from_hours(1),
        ..Settings::new("replaced")
    }
}

impl Lake {
    pub(crate) async fn new() -> Self {
        Self::with(settings()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::over(Store::memory(), settings).await
    }

    /// An engine over a store that others may share.
    pub(crate) async fn over(store: Store, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::new(store.clone());
        let settings = Settings { cache_dir: folder.path().join("query"), ..settings };
        let engine = Engine::open(store.clone(), catalog.clone(), settings).await.unwrap();
        Self { store, catalog, engine, folder }
    }

    /// A lake with `workers`: three rows of an id and a name.
    pub(crate) async fn with_workers(settings: Settings) -> Self {
        let lake = Self::with(settings).await;
        lake.put("workers", &workers(&["Ada", "Grace", "Barbara"])).await;
        lake.engine.refresh().await.unwrap();
        lake
    }

    /// Writes a dataset's content as one Parquet file and registers it.
    pub(crate) async fn put(&self, name: &str, columns: &[(&str, ArrayRef)]) {
        self.register(name, &[columns], SchemaPolicy::Reject).await;
    }

    /// Registers files that may have different columns: the last one has the schema. A column's name decides its field id.
    pub(crate) async fn register(
        &self,
        name: &str,
        files: &[&[(&str, ArrayRef)]],
        schema_policy: SchemaPolicy,
    ) {
        let mut ids = HashMap::new();
        for (column, _) in files.iter().copied().flatten() {
            let next = i32::try_from(ids.len()).unwrap() + 1;
            ids.entry((*column).to_owned()).or_insert(next);
        }
        let schema_of = |columns: &[(&str, ArrayRef)]| -> Vec<Column> {
            let column = |(name, array): &(&str, ArrayRef)| Column {
                name: (*name).into(),
                column_type: column_type(array.data_type()),
                field_id: ids[*name],
            };
            columns.iter().map(column).collect()
        };
        let mut objects = Vec::new();
        for columns in files {
            let rows = columns[0].1.len() as u64;
            let fingerprint = schema_fingerprint(&schema_of(columns));
            let folder = keys::rows(&DatasetName::parse(name).unwrap(), &fingerprint);
            let blob = self.store.put_blob(&folder, "parquet", parquet(columns, &ids)).await.unwrap();
            objects.push(lakehouse_contract::DataObject {
                key: blob.key,
                size: blob.size,
                rows,
                sha256: blob.sha256,
            });
        }
        let schema = schema_of(files.last().unwrap());
        let schema_fingerprint = schema_fingerprint(&schema);
        let request = RegisterRequest {
            name: name.into(),
            schema_fingerprint,
            schema,
            objects,
            origin: None,
            schema_policy,
            write_mode: WriteMode::default(),
        };
        self.catalog.register(&request).await.unwrap();
    }

    pub(crate) fn router(&self) -> Router {
        router(self.engine.clone())
    }

    /// The status and the JSON body of a query.
    pub(crate) async fn sql(&self, sql: &str) -> (StatusCode, Value) {
        self.post(json!({ "sql": sql })).await
    }

    /// The rows of a query that must work.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        let (status, body) = self.sql(sql).await;
        assert_eq!(status, 200, "{sql}: {body}");
        body["rows"].clone()
    }

    pub(crate) async fn post(&self, body: Value) -> (StatusCode, Value) {
        let (status, _, body) = self.post_for(body, "application/json").await;
        (status, serde_json::from_slice(&body.unwrap()).unwrap())
    }

    /// The status, the headers, and the body unless it broke off.
    pub(crate) async fn post_for(&self, body: Value, accept: &str) -> (StatusCode, HeaderMap, Option<Bytes>) {
        let request = request(&body, accept);
        let response = self.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.ok().map(http_body_util::Collected::to_bytes))
    }

    /// Whether the service still answers as it should.
    pub(crate) async fn is_well(&self) {
        assert_eq!(self.rows("SELECT 42, count(*) FROM workers").await, json!([[42, 3]]));
    }
}

pub(crate) fn request(body: &Value, accept: &str) -> Request<Body> {
    Request::post("/sql").header(header::ACCEPT, accept).body(Body::from(body.to_string())).unwrap()
}

pub(crate) fn workers(names: &[&str]) -> [(&'static str, ArrayRef); 2] {
    [("id", ids(names.len())), ("name", texts(names))]
}

pub(crate) fn ids(count: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(1..=i64::try_from(count).unwrap()))
}

pub(crate) fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn parquet(columns: &[(&str, ArrayRef)], ids: &HashMap<String, i32>) -> Bytes {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            let id = ids[*name].to_string();
            Field::new(*name, array.data_type().clone(), true)
                .with_metadata(HashMap::from([("PARQUET:field_id".to_owned(), id)]))
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    out.into()
}

fn column_type(arrow: &DataType) -> ColumnType {
    match arrow {
        DataType::Int64 => ColumnType::Int64,
        DataType::Float64 => ColumnType::Float64,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::Timestamp,
        DataType::Utf8 => ColumnType::String,
        other => panic!("no dataset has a column of {other}"),
    }
}
