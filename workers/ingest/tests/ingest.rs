//! From a file to a version in the catalogue: data first, manifest last, and nothing in between.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lakehouse_catalog::{Catalog, Error as CatalogError};
use lakehouse_contract::{
    Column, ColumnType, DatasetName,
    ingest::{DeclaredColumn, Format, IngestAnswer, IngestSpec, OnError, Phase, SchemaPolicy, WriteMode},
};
use lakehouse_ingest::{Error, Options, SourceInfo, Tracker, ingest};
use lakehouse_store::Store;
use tempfile::TempDir;

#[tokio::test]
async fn a_file_becomes_a_version_whose_objects_lie_under_their_hash() {
    let lake = Lake::new();
    let answer = lake.ingest("id,name\n1,a\n2,b\n", &spec()).await.unwrap();
    assert_eq!((answer.rows, answer.version, answer.existing, answer.files), (2, 1, false, 1));
    let manifest = lake.catalog.get(&name()).await.unwrap().unwrap();
    assert_eq!(manifest.objects[0].rows, 2);
    assert!(manifest.objects[0].key.as_str().ends_with(&format!("{}.parquet", manifest.objects[0].sha256)));
    let origin = manifest.origin.clone().unwrap();
    assert_eq!((origin.source.as_str(), origin.source_bytes), ("sales.csv", 16));
    let column = |name: &str, column_type, field_id| Column { name: name.into(), column_type, field_id };
    assert_eq!(manifest.schema, [column("id", ColumnType::Int64, 1), column("name", ColumnType::String, 2)]);
    assert_eq!(lake.spooled(), 0);
}

#[tokio::test]
async fn the_same_file_again_is_no_new_version() {
    let lake = Lake::new();
    let first = lake.ingest("id\n1\n", &spec()).await.unwrap();
    let again = lake.ingest("id\n1\n", &spec()).await.unwrap();
    assert_eq!((again.version, again.existing, again.unchanged), (first.version, true, true));
    let other = lake.ingest("id\n2\n", &spec()).await.unwrap();
    assert_eq!((other.version, other.existing, other.unchanged), (2, true, false));
}

#[tokio::test]
async fn another_schema_is_refused_before_anything_is_written() {
    let lake = Lake::new();
    lake.ingest("id\n1\n", &spec()).await.unwrap();
    let before = lake.keys().await;
    let refused = lake.ingest("id\nx\n", &spec()).await;
    assert!(matches!(refused, Err(Error::Catalog(CatalogError::SchemaConflict { .. }))), "{refused:?}");
    assert_eq!(lake.keys().await, before);
    // The guess from the first rows agrees with the dataset; a late value does not.
    let text = format!("id\n{}x\n", "1\n".repeat(1 << 20));
    let refused = lake.ingest(&text, &spec()).await;
    assert!(matches!(refused, Err(Error::Catalog(CatalogError::SchemaConflict { .. }))), "{refused:?}");
    assert_eq!(lake.keys().await, before);
}

#[tokio::test]
async fn a_schema_that_only_seems_to_differ_at_first_is_taken() {
    let lake = Lake::new();
    lake.ingest("id\nx\n", &spec()).await.unwrap();
    let text = format!("id\n{}x\n", "1\n".repeat(1 << 20));
    assert_eq!(lake.ingest(&text, &spec()).await.unwrap().version, 2);
}

#[tokio::test]
async fn added_columns_keep_the_old_ones_ids_in_the_files() {
    let lake = Lake::new();
    lake.ingest("b,c\n1,2\n", &spec()).await.unwrap();
    let evolving = IngestSpec { schema_policy: SchemaPolicy::Evolve, ..spec() };
    lake.ingest("a,b,c\n1,2,3\n", &evolving).await.unwrap();
    let manifest = lake.catalog.get(&name()).await.unwrap().unwrap();
    let ids: Vec<i32> = manifest.schema.iter().map(|column| column.field_id).collect();
    assert_eq!(ids, [3, 1, 2]);
    let object = lake.store.get(&manifest.objects[0].key, None).await.unwrap().bytes(1 << 20).await.unwrap();
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(object).unwrap();
    let schema = parquet::file::reader::FileReader::metadata(&reader).file_metadata().schema_descr_ptr();
    let in_file: Vec<i32> =
        schema.columns().iter().map(|column| column.self_type().get_basic_info().id()).collect();
    assert_eq!(in_file, ids);
}

#[tokio::test]
async fn appended_rows_follow_the_ones_that_are_there() {
    let lake = Lake::new();
    lake.ingest("id\n1\n", &spec()).await.unwrap();
    let appending = IngestSpec { write_mode: WriteMode::Append, ..spec() };
    let answer = lake.ingest("id\n2\n3\n", &appending).await.unwrap();
    assert_eq!((answer.rows, answer.files), (3, 2));
}

#[tokio::test]
async fn what_comes_later_is_refused_by_its_name() {
    let lake = Lake::new();
    let declared =
        |on_error| vec![DeclaredColumn { name: "id".into(), column_type: ColumnType::Int64, on_error }];
    for (spec, says) in [
        (IngestSpec { format: Format::NDJSON, ..spec() }, "format: NDJSON is not available yet"),
        (IngestSpec { format: Format::Parquet, ..spec() }, "format: Parquet is not available yet"),
        (IngestSpec { columns: declared(OnError::Null), ..spec() }, "onError: Null is not available yet"),
        (
            IngestSpec { columns: declared(OnError::Quarantine), ..spec() },
            "onError: Quarantine is not available yet",
        ),
        (IngestSpec { sort_by: vec!["id".into()], ..spec() }, "sortBy is not available yet"),
    ] {
        assert_eq!(lake.ingest("id\n1\n", &spec).await.unwrap_err().to_string(), says);
    }
    assert!(lake.keys().await.is_empty());
}

#[tokio::test]
async fn progress_tells_the_phases_and_the_counts() {
    let lake = Lake::new();
    let tracker = Tracker::new("sales");
    lake.tracked("id\n1\n2\n", &spec(), &tracker).await.unwrap();
    let progress = tracker.progress();
    assert_eq!((progress.phase, progress.rows, progress.bytes), (Phase::Done, 2, 7));
    assert_eq!(progress.total_bytes, Some(7));
    let tracker = Tracker::new("sales");
    lake.tracked("id\n1,2\n", &spec(), &tracker).await.unwrap_err();
    let progress = tracker.progress();
    assert_eq!(progress.phase, Phase::Failed);
    assert_eq!(
        progress.message.as_deref(),
        Some("line 2 (byte 3): this record has 2 fields; the first one has 1")
    );
}

#[tokio::test]
async fn a_cancelled_ingest_leaves_nothing() {
    let lake = Lake::new();
    let tracker = Tracker::new("sales");
    tracker.cancel();
    assert!(matches!(lake.tracked("id\n1\n", &spec(), &tracker).await, Err(Error::Cancelled)));
    assert_eq!(lake.spooled(), 0);
    assert!(lake.keys().await.is_empty());
}

#[tokio::test]
async fn a_dropped_ingest_stops_and_leaves_nothing() {
    let lake = Lake::new();
    let text = format!("id,text\n{}", "1,some text\n".repeat(4 << 20));
    let tracker = Tracker::new("sales");
    let spec = spec();
    let running = lake.tracked(&text, &spec, &tracker);
    tokio::time::timeout(Duration::from_millis(30), running).await.unwrap_err();
    assert_eq!(tracker.progress().phase, Phase::Failed);
    let patience = Instant::now() + Duration::from_mins(1);
    while lake.spooled() > 0 {
        assert!(Instant::now() < patience, "the spool is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(lake.keys().await.is_empty());
}

/// The killed process is this test's own program, which runs only the test below, and only when told so.
#[tokio::test]
async fn a_killed_ingest_publishes_nothing_and_the_next_one_finishes() {
    let lake = Lake::new();
    let text = format!("id,text\n{}", "1,some text\n".repeat(4 << 20));
    fs::write(lake.folder.path().join("source.csv"), &text).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_ingest_that_is_killed", "--nocapture"])
        .env("INGEST_TO_KILL", lake.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_mins(1);
    while lake.spooled() == 0 {
        assert!(Instant::now() < patience, "the ingest did not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lake.spooled(), 1, "killed while it converted");
    let answer = lake.ingest(&text, &spec()).await.unwrap();
    assert_eq!((answer.rows, answer.version, answer.existing), (4 << 20, 1, false));
    assert_eq!(lake.spooled(), 0);
}

#[tokio::test]
async fn the_ingest_that_is_killed() {
    let Some(folder) = std::env::var_os("INGEST_TO_KILL") else { return };
    let folder = Path::new(&folder);
    let (store, tracker) = (Store::memory(), Tracker::new("sales"));
    let catalog = Catalog::new(store.clone());
    let options = Options::new(folder.join("spool"));
    ingest(&catalog, &folder.join("source.csv"), &spec(), origin(), &tracker, &options).await.unwrap();
}

/// A store, its catalogue, and a folder for sources and the spool.
struct Lake {
    store: Store,
    catalog: Catalog,
    folder: TempDir,
}

impl Lake {
    fn new() -> Self {
        let store = Store::memory();
        Self { catalog: Catalog::new(store.clone()), store, folder: tempfile::tempdir().unwrap() }
    }

    async fn ingest(&self, text: &str, spec: &IngestSpec) -> Result<IngestAnswer, Error> {
        self.tracked(text, spec, &Tracker::new("sales")).await
    }

    async fn tracked(&self, text: &str, spec: &IngestSpec, tracker: &Tracker) -> Result<IngestAnswer, Error> {
        let source = self.folder.path().join("source.csv");
        fs::write(&source, text).unwrap();
        let options = Options::new(self.folder.path().join("spool"));
        ingest(&self.catalog, &source, spec, origin(), tracker, &options).await
    }

    /// Runs that have a folder in the spool.
    fn spooled(&self) -> usize {
        fs::read_dir(self.folder.path().join("spool"))
            .map_or(0, |entries| entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count())
    }

    async fn keys(&self) -> Vec<String> {
        self.store.list_all("").await.unwrap().into_iter().map(|listed| listed.key.to_string()).collect()
    }
}

fn name() -> DatasetName {
    DatasetName::parse("sales").unwrap()
}

fn spec() -> IngestSpec {
    IngestSpec::inferred(name(), Format::CSV)
}

fn origin() -> SourceInfo {
    SourceInfo { source: "sales.csv".into(), digest: "of the test".into() }
}
