//! From a dataset's version to rows that an index can take.
//!
//! DuckDB reads them behind the fence that every query has, so a predicate can do no more than a query. Ids are checked to be unique
//! before anything is embedded.

use std::{collections::BTreeSet, path::Path, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use futures::StreamExt;
use jiff::Timestamp;
use lakehouse_contract::{
    ColumnType, DatasetManifest,
    sql::{SqlAnswer, SqlRequest},
    template::Template,
    vectors::{BuildSpec, RowId},
};
use lakehouse_query::{Engine, Error as QueryError, Format};
use serde_json::{Map, Number, Value};
use tokio::sync::mpsc;

use crate::{
    Error, Tracker, on_thread,
    rejects::{Rejects, Why},
    spool,
};

/// Batches of rows that wait to be taken.
const AHEAD: usize = 4;

/// How long DuckDB may work on the rows. A build takes as long as it takes; a Job's own deadline is shorter than this.
const READING: Duration = Duration::from_hours(24);

/// Which rows, and what becomes of their columns. Made only of columns that the version has.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The version as a table of a query.
    table: String,
    predicate: Option<String>,
    id: RowId,
    template: Template,
    /// The template's columns, each once.
    texts: Vec<String>,
    metadata: Vec<(String, ColumnType)>,
}

impl Source {
    /// Checks the spec against a version.
    pub(crate) fn new(spec: &BuildSpec, manifest: &DatasetManifest) -> Result<Self, Error> {
        let template = Template::parse(&spec.text)?;
        let type_of = |place: &'static str, name: &str| {
            let column = manifest.schema.iter().find(|column| column.name == name);
            column.map(|column| column.column_type).ok_or_else(|| Error::UnknownColumn {
                place,
                column: name.to_owned(),
                dataset: manifest.name.clone(),
                version: manifest.version,
                known: manifest.schema.iter().map(|column| column.name.clone()).collect(),
            })
        };
        type_of("spec.source.id", &spec.id.column)?;
        let mut texts: Vec<String> = Vec::new();
        for column in template.columns() {
            type_of("spec.source.text", column)?;
            if !texts.iter().any(|known| known == column) {
                texts.push(column.to_owned());
            }
        }
        let (mut metadata, mut seen) = (Vec::new(), BTreeSet::new());
        for column in &spec.metadata {
            let column_type = type_of("spec.source.metadata", column)?;
            if seen.insert(column) {
                metadata.push((column.clone(), column_type));
            }
        }
        Ok(Self {
            table: quoted(&format!("{}@{}", manifest.name, manifest.version)),
            predicate: spec.predicate.clone(),
            id: spec.id.clone(),
            template,
            texts,
            metadata,
        })
    }

    /// Counts the rows, and makes sure that no two of them have the same id.
    pub(crate) async fn check(&self, engine: &Engine) -> Result<u64, Error> {
        let Self { table, id, .. } = self;
        if let Some(predicate) = &self.predicate {
            // Alone it must be one expression, so that it cannot end the brackets that it stands in.
            let sql = format!("SELECT CAST((\n{predicate}\n) AS BOOLEAN) FROM {table} LIMIT 0");
            self.ask(engine, sql, vec![]).await?;
        }
        let (filter, key) = (self.filter(), format!("CAST({} AS VARCHAR)", quoted(&id.column)));
        let counted = self.ask(engine, format!("SELECT count(*) FROM {table}{filter}"), vec![]).await?;
        let repeated = format!(
            "SELECT key FROM (SELECT {key} AS key FROM {table}{filter}) WHERE key <> '' \
             GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1"
        );
        let repeated = self.ask(engine, repeated, vec![]).await?;
        let Some(key) = repeated.first().and_then(|row| row.first()).and_then(Value::as_str) else {
            return Ok(counted.first().and_then(|row| number(row.first()?)).unwrap_or(0));
        };
        let both = format!(
            "SELECT number FROM (SELECT {} AS key, row_number() OVER () AS number FROM {table}{filter}) \
             WHERE key = ? ORDER BY number LIMIT 2",
            format_args!("CAST({} AS VARCHAR)", quoted(&id.column)),
        );
        let both = self.ask(engine, both, vec![Value::from(key)]).await?;
        let mut rows = both.iter().filter_map(|row| number(row.first()?));
        let (first, second) = (rows.next().unwrap_or(0), rows.next().unwrap_or(0));
        Err(Error::RepeatedId { column: id.column.clone(), id: key.to_owned(), rows: [first, second] })
    }

    /// Reads all rows into a file below `folder`. Those without an id or a text go to the rejects.
    pub(crate) async fn read(
        self,
        engine: &Engine,
        folder: &Path,
        mut rejects: Rejects,
        tracker: &Tracker,
    ) -> Result<(spool::Reader, Rejects), Error> {
        let request = SqlRequest { sql: self.sql(), ..SqlRequest::default() };
        let mut batches = engine.batches(request, READING).await.map_err(|error| self.blame(error))?;
        let (sender, mut ahead) = mpsc::channel::<RecordBatch>(AHEAD);
        let spooled = on_thread({
            let (folder, tracker) = (folder.to_owned(), tracker.clone());
            let mut made = Made { source: self.clone(), number: 0, text: String::new() };
            move || {
                let mut out = spool::Writer::create(&folder)?;
                while let Some(batch) = ahead.blocking_recv() {
                    made.take(&batch, &mut out, &mut rejects, &tracker)?;
                }
                Ok((out.finish()?, rejects))
            }
        });
        let feeding = async {
            while let Some(batch) = batches.next().await.transpose().map_err(|error| self.blame(error))? {
                if sender.send(batch).await.is_err() {
                    break; // the other side has failed, and says why
                }
            }
            drop(sender);
            Ok::<(), Error>(())
        };
        let (fed, spooled) = tokio::join!(feeding, spooled);
        fed?;
        spooled.map_err(|error| Error::Local { folder: folder.to_owned(), error })
    }

    fn filter(&self) -> String {
        // On lines of its own, for it may end in a comment.
        self.predicate.as_ref().map(|predicate| format!(" WHERE (\n{predicate}\n)")).unwrap_or_default()
    }

    /// The id, the texts and the metadata, in this order.
    fn sql(&self) -> String {
        let as_text = |column: &str| format!("CAST({} AS VARCHAR)", quoted(column));
        let mut columns = vec![as_text(&self.id.column)];
        columns.extend(self.texts.iter().map(|column| as_text(column)));
        columns.extend(self.metadata.iter().map(|(column, column_type)| match column_type {
            ColumnType::Int64 | ColumnType::Float64 | ColumnType::Boolean => quoted(column),
            ColumnType::Timestamp => format!("epoch_us({})", quoted(column)),
            ColumnType::Date | ColumnType::String => as_text(column),
        }));
        let named = columns.iter().enumerate().map(|(place, column)| format!("{column} AS c{place}"));
        format!("SELECT {} FROM {}{}", named.collect::<Vec<_>>().join(", "), self.table, self.filter())
    }

    async fn ask(&self, engine: &Engine, sql: String, params: Vec<Value>) -> Result<Vec<Vec<Value>>, Error> {
        let request = SqlRequest { sql, params, limit: None };
        let answer = engine.query(request, Format::Json).await.map_err(|error| self.blame(error))?;
        let bytes = answer.bytes().await.map_err(|error| self.blame(error))?;
        let answer: SqlAnswer = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Query(QueryError::Internal(format!("an answer in JSON: {error}"))))?;
        Ok(answer.rows)
    }

    /// What is not accepted can only be the predicate: everything else is made of columns that are there.
    fn blame(&self, error: QueryError) -> Error {
        match error {
            QueryError::Sql(message) | QueryError::Refused(message) if self.predicate.is_some() => {
                Error::Predicate(message)
            }
            error => Error::Query(error),
        }
    }
}

/// Makes rows of batches.
struct Made {
    source: Source,
    number: u64,
    text: String,
}

impl Made {
    fn take(
        &mut self,
        batch: &RecordBatch,
        out: &mut spool::Writer,
        rejects: &mut Rejects,
        tracker: &Tracker,
    ) -> std::io::Result<()> {
        let Source { texts: text_columns, metadata, template, id: row_id, .. } = &self.source;
        let ids = text_column(batch, 0)?;
        let ids = ids.as_string::<i32>();
        let texts = (1..=text_columns.len())
            .map(|place| text_column(batch, place))
            .collect::<std::io::Result<Vec<_>>>()?;
        let fields = metadata
            .iter()
            .zip(&batch.columns()[1 + text_columns.len()..])
            .map(|((_, column_type), array)| Field::of(*column_type, array))
            .collect::<std::io::Result<Vec<_>>>()?;
        let before = rejects.count();
        for row in 0..batch.num_rows() {
            self.number += 1;
            if ids.is_null(row) || ids.value(row).is_empty() {
                rejects.push(self.number, None, Why::NoId)?;
                continue;
            }
            let id = format!("{}{}{}", row_id.prefix, ids.value(row), row_id.suffix);
            self.text.clear();
            let value = |column: &str| {
                let place = text_columns.iter().position(|known| known == column)?;
                let array = texts[place].as_string::<i32>();
                array.is_valid(row).then(|| array.value(row))
            };
            if !template.render(value, &mut self.text) {
                rejects.push(self.number, Some(&id), Why::NoText)?;
                continue;
            }
            let mut object = Map::new();
            for ((name, _), field) in metadata.iter().zip(&fields) {
                if let Some(value) = field.value(row) {
                    object.insert(name.clone(), value);
                }
            }
            out.push(self.number, &id, &self.text, &Value::Object(object).to_string())?;
        }
        tracker.read(batch.num_rows() as u64);
        tracker.reject(rejects.count() - before);
        Ok(())
    }
}

/// A column that is kept with the vectors.
enum Field {
    Integer(arrow::array::ArrayRef),
    Float(arrow::array::ArrayRef),
    Boolean(arrow::array::ArrayRef),
    /// Microseconds since 1970.
    Time(arrow::array::ArrayRef),
    Text(arrow::array::ArrayRef),
}

impl Field {
    fn of(column_type: ColumnType, array: &dyn Array) -> std::io::Result<Self> {
        let to = |data_type: DataType| cast(array, &data_type).map_err(std::io::Error::other);
        Ok(match column_type {
            ColumnType::Int64 => Self::Integer(to(DataType::Int64)?),
            ColumnType::Float64 => Self::Float(to(DataType::Float64)?),
            ColumnType::Boolean => Self::Boolean(to(DataType::Boolean)?),
            ColumnType::Timestamp => Self::Time(to(DataType::Int64)?),
            ColumnType::Date | ColumnType::String => Self::Text(to(DataType::Utf8)?),
        })
    }

    /// The value of a row; nothing for a null, and for a number that JSON has no form for.
    fn value(&self, row: usize) -> Option<Value> {
        let (Self::Integer(array)
        | Self::Float(array)
        | Self::Boolean(array)
        | Self::Time(array)
        | Self::Text(array)) = self;
        if array.is_null(row) {
            return None;
        }
        match self {
            Self::Integer(array) => Some(array.as_primitive::<Int64Type>().value(row).into()),
            Self::Float(array) => {
                Number::from_f64(array.as_primitive::<Float64Type>().value(row)).map(Value::Number)
            }
            Self::Boolean(array) => Some(array.as_boolean().value(row).into()),
            Self::Time(array) => {
                let micros = array.as_primitive::<Int64Type>().value(row);
                Some(Timestamp::from_microsecond(micros).ok()?.to_string().into())
            }
            Self::Text(array) => Some(array.as_string::<i32>().value(row).into()),
        }
    }
}

fn text_column(batch: &RecordBatch, place: usize) -> std::io::Result<arrow::array::ArrayRef> {
    cast(batch.column(place), &DataType::Utf8).map_err(std::io::Error::other)
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A name as SQL writes it where it may hold anything.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
