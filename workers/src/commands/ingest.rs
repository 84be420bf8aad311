//! `lakehouse ingest`: a file of this machine becomes a dataset's new version.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use lakehouse_contract::{
    DatasetName,
    ingest::{Format, IngestAnswer, Phase, Progress, delimiter_of_name},
};
use lakehouse_plan::human;
use tokio_util::io::ReaderStream;

use crate::{
    client::{Client, Connection},
    terminal::{
        bar::{Bar, Bars},
        hint,
        table::{self, Column, Place},
    },
};

/// How much is read before it is sent.
const PIECE_BYTES: usize = 256 << 10;
/// How often the bar moves. The service is asked as often once everything is sent.
const TICK: Duration = Duration::from_millis(200);

/// Put a file into a dataset
///
/// The file becomes the dataset's new version at once or not at all: queries see the old rows until the new ones are
/// complete, typed and checked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse ingest sales.csv                  into the dataset `sales`
  lakehouse ingest export-17.csv --name sales")]
pub(crate) struct Ingest {
    #[command(flatten)]
    connection: Connection,

    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The dataset [default: the file's name without its ending]
    #[arg(long, value_name = "DATASET", value_parser = |text: &str| DatasetName::parse(text))]
    name: Option<DatasetName>,
}

impl Ingest {
    /// Sends the file and tells what it became.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { connection, file, name } = self;
        let name = match name {
            Some(name) => name,
            None => DatasetName::of_file(&file)
                .with_context(|| format!("{} gives no name to a dataset; use --name", file.display()))?,
        };
        let client = connection.client()?;
        let answer = super::block_on(send(&client, &file, &name, &Bars::default().add(name.as_str())))?;
        let summary = summary(&answer, connection.server(), Place::stdout());
        super::unless_reader_left(io::stdout().lock().write_all(summary.as_bytes()))
    }
}

async fn send(client: &Client, file: &Path, name: &DatasetName, bar: &Bar) -> anyhow::Result<IngestAnswer> {
    let cannot_read = || format!("cannot read {}", file.display());
    let source = tokio::fs::File::open(file).await.with_context(cannot_read)?;
    let metadata = source.metadata().await.with_context(cannot_read)?;
    if !metadata.is_file() {
        bail!("{} is not a file", file.display());
    }
    let upload = Upload { name, bytes: metadata.len(), sent: Arc::default(), started: Instant::now() };
    let sent = Arc::clone(&upload.sent);
    let pieces = ReaderStream::with_capacity(source, PIECE_BYTES).inspect_ok(move |piece| {
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    });
    let answer = client.ingest(name, media_type(file), upload.bytes, reqwest::Body::wrap_stream(pieces));
    tokio::select! {
        answer = answer => Ok(answer?),
        never = upload.watch(client, bar) => match never {},
    }
}

/// What the file's name tells of its format, for a service that does not see the name.
fn media_type(file: &Path) -> &'static str {
    let name = file.to_string_lossy();
    match Format::of_name(&name) {
        Some(Format::NDJSON) => "application/x-ndjson",
        Some(Format::Parquet) => "application/vnd.apache.parquet",
        Some(Format::CSV) if delimiter_of_name(&name).is_some() => "text/tab-separated-values",
        Some(Format::CSV) | None => "text/csv",
    }
}

/// A file on its way.
struct Upload<'a> {
    name: &'a DatasetName,
    bytes: u64,
    sent: Arc<AtomicU64>,
    started: Instant,
}

impl Upload<'_> {
    /// Moves the bar: first what this side has sent, then what the service tells.
    async fn watch(&self, client: &Client, bar: &Bar) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let sent = self.sent.load(Ordering::Relaxed);
            if sent < self.bytes {
                bar.update(&self.sending(sent));
                continue;
            }
            // A bar that cannot be drawn now is drawn a tick later; the upload itself tells what is wrong.
            let told = client.progress(self.name).await.unwrap_or_default();
            if let Some(progress) = told.iter().find(|progress| runs(progress, self.name)) {
                bar.update(progress);
            }
        }
    }

    fn sending(&self, sent: u64) -> Progress {
        let elapsed = self.started.elapsed();
        let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
        let whole = |number: f64| Duration::try_from_secs_f64(number).map_or(0, |whole| whole.as_secs());
        Progress {
            name: self.name.to_string(),
            phase: Phase::Fetching,
            bytes: sent,
            total_bytes: Some(self.bytes),
            rows: 0,
            rejected_rows: 0,
            elapsed_ms: whole(elapsed.as_secs_f64() * 1000.0),
            bytes_per_second: whole(rate),
            remaining_ms: (sent > 0).then(|| whole((self.bytes - sent) as f64 / rate * 1000.0)),
            message: None,
        }
    }
}

/// Whether this is the running ingest of `name`, not what is told of an earlier one.
fn runs(progress: &Progress, name: &DatasetName) -> bool {
    progress.name == name.as_str() && !matches!(progress.phase, Phase::Done | Phase::Failed)
}

fn summary(answer: &IngestAnswer, server: &str, place: Place) -> String {
    let IngestAnswer { name, version, unchanged, rows, bytes, rejected_rows, columns, duration_ms, .. } =
        answer;
    let header = ["column", "type"].map(|name| Column { name: name.to_owned(), right: false });
    let types: Vec<_> = columns
        .iter()
        .map(|column| vec![Some(column.name.clone()), Some(column.column_type.to_string())])
        .collect();
    let rejected = match rejected_rows {
        0 => String::new(),
        n => format!(", {} rejected", human::rows(*n)),
    };
    let version = match unchanged {
        true => format!("still version {version}, since the file gives the same rows"),
        false => format!("version {version}"),
    };
    format!(
        "Dataset `{name}`, {version}: {}, {} of Parquet{rejected}, in {}\n\n{}\n\
         Try: {} sql{} 'SELECT * FROM {} LIMIT 5'\n",
        human::rows(*rows),
        human::bytes(*bytes),
        human::duration(*duration_ms),
        table::ruled(&header, &types, place),
        hint::program(),
        hint::at_server(server),
        hint::sql_name(name),
    )
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, body::Body, extract::RawQuery, http::StatusCode, routing};
    use futures::StreamExt;
    use lakehouse_contract::{Column as DatasetColumn, ColumnType, ErrorBody};

    use super::*;
    use crate::client::{
        DEFAULT_SERVER,
        tests::{client, serve},
    };

    #[tokio::test]
    async fn the_file_arrives_whole_and_under_its_name() {
        let content: Vec<u8> = (0..=250).cycle().take(3 * PIECE_BYTES + 17).collect();
        let arrived = content.clone();
        let route = routing::post(async move |RawQuery(query): RawQuery, body: axum::body::Bytes| {
            assert_eq!(query.as_deref(), Some("name=sales"));
            assert_eq!(body, arrived);
            Json(answer())
        });
        let routes = Router::new()
            .route("/v1/ingest", route.layer(axum::extract::DefaultBodyLimit::disable()))
            .route("/v1/ingest/progress", routing::get(async || Json(Vec::<Progress>::new())));
        let client = client(&serve(routes).await, None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sales.csv");
        std::fs::write(&file, content).unwrap();
        let name = DatasetName::parse("sales").unwrap();
        let bar = Bars::default().add("sales");
        assert_eq!(send(&client, &file, &name, &bar).await.unwrap(), answer());
        assert!(send(&client, folder.path(), &name, &bar).await.is_err(), "a folder is no file");
    }

    #[tokio::test]
    async fn a_refusal_in_the_middle_of_an_upload_is_told() {
        let refuse = routing::post(async |body: Body| {
            // Our services read on behind their answer, so that the connection is not reset before it is read.
            tokio::spawn(body.into_data_stream().for_each(async |_| ()));
            let sentence = "the body is larger than the 1048576 bytes that are allowed here";
            (StatusCode::PAYLOAD_TOO_LARGE, Json(ErrorBody::new("too_large", sentence)))
        });
        let client = client(&serve(Router::new().route("/v1/ingest", refuse)).await, None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sales.csv");
        std::fs::write(&file, vec![b'x'; 32 << 20]).unwrap();
        let name = DatasetName::parse("sales").unwrap();
        let error = send(&client, &file, &name, &Bars::default().add("sales")).await.unwrap_err();
        assert!(error.to_string().contains("larger than the 1048576 bytes"), "{error:#}");
    }

    #[test]
    fn the_summary_tells_version_rows_and_types() {
        let shown = summary(&answer(), DEFAULT_SERVER, Place::default());
        assert!(
            shown.contains("Dataset `sales`, version 2: 3,376 rows, 100.0 KiB of Parquet, in 85ms"),
            "{shown}"
        );
        assert!(shown.contains(" zip    | string\n"), "{shown}");
        let again = summary(&IngestAnswer { unchanged: true, ..answer() }, DEFAULT_SERVER, Place::default());
        assert!(again.contains("still version 2"), "{again}");
    }

    #[test]
    fn an_earlier_ingests_end_is_not_this_ones() {
        let name = DatasetName::parse("sales").unwrap();
        let upload = Upload { name: &name, bytes: 100, sent: Arc::default(), started: Instant::now() };
        let running = upload.sending(40);
        assert!(runs(&running, &name));
        assert!(!runs(&Progress { phase: Phase::Done, ..running.clone() }, &name));
        assert!(!runs(&Progress { name: "other".into(), ..running }, &name));
    }

    fn answer() -> IngestAnswer {
        let name = DatasetName::parse("sales").unwrap();
        IngestAnswer {
            dataset_id: name.id(),
            name: name.to_string(),
            version: 2,
            existing: true,
            unchanged: false,
            rows: 3376,
            bytes: 100 << 10,
            files: 1,
            rejected_rows: 0,
            schema_fingerprint: String::new(),
            columns: vec![DatasetColumn { name: "zip".into(), column_type: ColumnType::String, field_id: 1 }],
            duration_ms: 85,
        }
    }
}
