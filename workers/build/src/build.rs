//! One build, from the version of a dataset to the version of an index.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    DatasetManifest, DatasetName, IndexName,
    build::Phase,
    embed::ModelIdentity,
    job::Built,
    keys,
    vectors::{BuildSpec, BuiltFrom, Shape},
};
use lakehouse_embed::{EmbedError, Embedder};
use lakehouse_query::Engine;
use lakehouse_store::{Condition, Payload, Store};
use lakehouse_vector::{Error as VectorError, Finished, IndexWriter, Indexes, Kind, Manifest, NewVersion};

use crate::{
    Error, Tracker,
    embed::Model,
    embeddings::Embeddings,
    fill::{self, Filled, Stop},
    on_thread, recall,
    rejects::Rejects,
    rows::Source,
    spool,
};

/// Folders of runs begin so.
const PREFIX: &str = "build-";
/// Computing these anew costs less than reading what was kept.
const CHEAP: &str = "local/lexical";

/// What builds work with. Cheap to clone.
#[derive(Clone)]
pub struct Builder {
    store: Store,
    catalog: Catalog,
    engine: Engine,
    indexes: Indexes,
    embedder: Arc<dyn Embedder>,
    work: PathBuf,
    options: Options,
}

/// What a build may use.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that make a graph.
    pub threads: usize,
    /// How long an embedding service that turns texts away is asked again.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { threads, patience: Duration::from_mins(10) }
    }
}

impl Builder {
    /// A builder with its files below `work`, which this process owns: what a killed one left there goes.
    pub fn new(
        store: Store,
        catalog: Catalog,
        engine: Engine,
        embedder: Arc<dyn Embedder>,
        work: &Path,
        options: Options,
    ) -> Result<Self, Error> {
        let local = |error| Error::Local { folder: work.to_owned(), error };
        fs::create_dir_all(work).map_err(local)?;
        for entry in fs::read_dir(work).map_err(local)? {
            let entry = entry.map_err(local)?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(local)?;
            }
        }
        let indexes = Indexes::new(store.clone());
        Ok(Self { store, catalog, engine, indexes, embedder, work: work.to_owned(), options })
    }

    /// The indexes that builds publish.
    pub fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// Which model answers to a name now.
    pub async fn identity(&self, model: &str) -> Result<ModelIdentity, EmbedError> {
        self.embedder.identity(model).await
    }

    /// Makes the index that the spec asks for from this version of the dataset and publishes it, unless that has been done.
    ///
    /// `expected` is the model as the caller knows it; with another one nothing is built.
    pub async fn build(
        &self,
        spec: &BuildSpec,
        version: u64,
        expected: &ModelIdentity,
        tracker: &Tracker,
    ) -> Result<Built, Error> {
        let built = Box::pin(self.try_build(spec, version, expected, tracker)).await;
        tracker.end(&built);
        built
    }

    /// Lets go of what no version beyond the newest `keep` needs. What cannot be removed now is removed after the next build.
    pub async fn collect(&self, name: &IndexName, keep: NonZeroU32) {
        if let Err(error) = Box::pin(self.indexes.collect(name, keep)).await {
            tracing::warn!(index.name = %name, %error, "Old versions of index `{name}` stay for now");
        }
    }

    async fn try_build(
        &self,
        spec: &BuildSpec,
        version: u64,
        expected: &ModelIdentity,
        tracker: &Tracker,
    ) -> Result<Built, Error> {
        let (started, clock) = (Timestamp::now(), Instant::now());
        let identity = self.embedder.identity(&spec.model).await?;
        if identity != *expected {
            let (expected, found) = (Box::new(expected.clone()), Box::new(identity));
            return Err(Error::ModelChanged { expected, found });
        }
        let shape = shape(spec, &identity)?;
        let manifest = self.manifest(&spec.dataset, version).await?;
        let inputs = spec.inputs_digest(&manifest.dataset_id.to_string(), version, &identity.digest);
        if self.there(&spec.name, &inputs).await?.is_some() {
            let there = self.indexes.tune(&spec.name, spec.hnsw.ef_search).await?;
            return Ok(unchanged(&there, spec, version, &identity, inputs, started));
        }

        let work = self.folder()?;
        let source = Source::new(spec, &manifest)?;
        tracker.expect(source.check(&self.engine).await?);
        let rejects = Rejects::create(work.path()).map_err(|error| self.local(error))?;
        let (rows, rejects) = source.read(&self.engine, work.path(), rejects, tracker).await?;
        let read = clock.elapsed();

        tracker.enter(Phase::Embedding);
        let writer = IndexWriter::create(work.path(), &shape, spec.shards, self.options.threads);
        let filled = Filled::new(writer, rejects);
        let filled = Box::pin(self.embed(rows, filled, &identity, work.path(), tracker)).await?;
        let Filled { writer, mut rejects, embedded, reused, refused } = filled;
        if let (0, Some(message)) = (writer.rows(), refused) {
            return Err(Error::AllRefused { model: identity.model, message });
        }
        let embedding = clock.elapsed();

        tracker.enter(Phase::Indexing);
        let segments = index(writer, tracker).await?;
        let indexing = clock.elapsed();

        tracker.enter(Phase::Checking);
        let recall = recall::check(&segments, &shape, self.options.threads).await?;
        let checking = clock.elapsed();

        tracker.enter(Phase::Publishing);
        let failed = rejects.count();
        self.put_rejects(&spec.name, &inputs, &mut rejects).await?;
        let from =
            BuiltFrom { dataset: spec.dataset.clone(), version, id: spec.id.clone(), inputs: inputs.clone() };
        let mut parts = Vec::with_capacity(segments.len());
        for segment in &segments {
            parts.push(self.indexes.upload(&spec.name, segment).await?);
        }
        let new = NewVersion {
            shape,
            segments: parts,
            embedding: identity.clone(),
            source: from,
            fields: spec.metadata.clone(),
            failed,
            recall,
            shards: spec.shards,
        };
        let published = Box::pin(self.indexes.publish(&spec.name, new)).await?;
        tracing::info!(
            index.name = %spec.name,
            index.version = published.version,
            vectors = published.length,
            failed,
            embedded,
            reused,
            read_ms = millis(Duration::ZERO, read),
            embed_ms = millis(read, embedding),
            index_ms = millis(embedding, indexing),
            check_ms = millis(indexing, checking),
            publish_ms = millis(checking, clock.elapsed()),
            "Built version {} of index `{}` with {} vectors", published.version, spec.name, published.length
        );
        Ok(Built {
            version: published.version,
            dataset_version: version,
            inputs,
            vectors: published.length,
            failed,
            embedded,
            reused,
            model: identity,
            recall,
            bytes: published.bytes(),
            unchanged: false,
            started,
            finished: Timestamp::now(),
            message: told(&published, version, &rejects),
        })
    }

    /// Gives every row its vector: one that is kept, or a new one of the model.
    async fn embed(
        &self,
        rows: spool::Reader,
        filled: Filled,
        identity: &ModelIdentity,
        work: &Path,
        tracker: &Tracker,
    ) -> Result<Filled, Error> {
        let kept = if identity.model.starts_with(CHEAP) {
            None
        } else {
            Some(Embeddings::open(self.store.clone(), identity, work).await?)
        };
        let model = Model { embedder: &*self.embedder, identity, patience: self.options.patience, tracker };
        Box::pin(fill::fill(rows, filled, model, kept)).await.map_err(|stop| match stop {
            Stop::Local(error) => self.local(error),
            Stop::Failed(error) => error,
        })
    }

    /// The version of the dataset, current or kept.
    async fn manifest(&self, name: &DatasetName, version: u64) -> Result<Arc<DatasetManifest>, Error> {
        let current = self.catalog.get(name).await?.ok_or_else(|| Error::NoDataset(name.clone()))?;
        if current.version == version {
            return Ok(current);
        }
        let history = self.catalog.history(name).await?;
        let kept = history.versions.into_iter().find(|manifest| manifest.version == version);
        kept.map(Arc::new).ok_or_else(|| Error::VersionGone { dataset: name.clone(), version })
    }

    /// The index as it was made of these inputs before, served again where another version is now.
    async fn there(&self, name: &IndexName, inputs: &str) -> Result<Option<Manifest>, Error> {
        let Some(current) = self.indexes.manifest(name).await? else { return Ok(None) };
        if current.kind == Kind::Pushed {
            return Err(VectorError::FilledByClients(name.clone()).into());
        }
        let version = current.version;
        let made = |manifest: &Manifest| manifest.source.as_ref().is_some_and(|from| from.inputs == inputs);
        match self.kept(current).await?.into_iter().find(made) {
            Some(there) if there.version == version => Ok(Some(there)),
            Some(there) => Ok(Some(self.indexes.rollback(name, Some(there.version)).await?)),
            None => Ok(None),
        }
    }

    /// The manifest and those of the kept versions.
    async fn kept(&self, current: Manifest) -> Result<Vec<Manifest>, Error> {
        let mut kept = Vec::new();
        for version in self.indexes.served_versions(&current).await? {
            if version != current.version {
                kept.extend(self.indexes.version(&current.name, version).await?);
            }
        }
        kept.insert(0, current);
        Ok(kept)
    }

    async fn put_rejects(&self, name: &IndexName, inputs: &str, rejects: &mut Rejects) -> Result<(), Error> {
        let Some(path) = rejects.finish().map_err(|error| self.local(error))?.map(Path::to_owned) else {
            return Ok(());
        };
        let key = keys::index_rejects_of(name, inputs);
        self.store.put(&key, Payload::File(path), Condition::Always).await?;
        let count = rejects.count();
        tracing::warn!(index.name = %name, rejects = count, "{count} rows give no vector; `{key}` lists them");
        for reject in rejects.first() {
            tracing::info!(index.name = %name, row = reject.row, id = reject.id, "Row {}: {}", reject.row, reject.why);
        }
        Ok(())
    }

    /// A folder of this run; it goes when this is dropped.
    fn folder(&self) -> Result<tempfile::TempDir, Error> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&self.work);
        // The library's own words name the folder, which has another name at every try.
        made.map_err(|error| self.local(error.kind().into()))
    }

    fn local(&self, error: std::io::Error) -> Error {
        Error::Local { folder: self.work.clone(), error }
    }
}

fn shape(spec: &BuildSpec, identity: &ModelIdentity) -> Result<Shape, Error> {
    if let Some(wanted) = spec.dimension
        && wanted != identity.dimension
    {
        return Err(Error::Dimension { wanted, model: identity.model.clone(), found: identity.dimension });
    }
    Ok(Shape {
        dimension: identity.dimension,
        metric: spec.metric,
        hnsw: spec.hnsw,
        quantization: spec.quantization,
    })
}

/// Makes the graphs, and tells how far that is.
async fn index(writer: IndexWriter, tracker: &Tracker) -> Result<Vec<Finished>, Error> {
    let (tracker, rows) = (tracker.clone(), writer.rows());
    let finished = on_thread(move || Ok(writer.finish(&|done| tracker.indexed(done, rows)))).await;
    finished.map_err(|error| Error::Local { folder: PathBuf::new(), error })?.map_err(Error::Index)
}

/// What is there, told as the result of a run that had nothing to do.
fn unchanged(
    there: &Manifest,
    spec: &BuildSpec,
    dataset_version: u64,
    identity: &ModelIdentity,
    inputs: String,
    started: Timestamp,
) -> Built {
    let Manifest { version, length, failed, recall, .. } = there;
    Built {
        version: *version,
        dataset_version,
        inputs,
        vectors: *length,
        failed: *failed,
        embedded: 0,
        reused: 0,
        model: identity.clone(),
        recall: *recall,
        bytes: there.bytes(),
        unchanged: true,
        started,
        finished: Timestamp::now(),
        message: format!(
            "Version {version} was built from version {dataset_version} of dataset `{}` before.",
            spec.dataset
        ),
    }
}

fn told(published: &Manifest, dataset_version: u64, rejects: &Rejects) -> String {
    let Manifest { version, length, .. } = published;
    let made = format!(
        "Version {version} was built from version {dataset_version} of the dataset with {length} vectors"
    );
    match (rejects.count(), rejects.first().first()) {
        (0, _) | (_, None) => format!("{made}."),
        (count, Some(first)) => {
            format!("{made}; {count} rows give none, the first of them row {}: {}.", first.row, first.why)
        }
    }
}

fn millis(from: Duration, to: Duration) -> u64 {
    u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX)
}
