//! The models of this process by their names.
//!
//! `lexical` and `lexical-<n>` are always there. Any other name is a folder of sentence-transformer files: one of this machine,
//! else one of the bucket below `_models/`, which is fetched into the cache. A model is loaded when it is first asked for, once:
//! other files under the same name are seen by the next process.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use futures::TryStreamExt;
use lakehouse_contract::{dataset::hex, keys};
use lakehouse_embed::{EmbedError, LocalModel, Locals, Reason};
use lakehouse_store::{Error as StoreError, Listed, Store};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{fs, io::AsyncWriteExt, sync::Mutex, task::spawn_blocking, time::Instant};
use tracing::info;

use crate::{
    Lexical, SentenceTransformer, lexical,
    transformer::{FILES, is_pooling},
};

/// What every model's folder holds.
const MARK: &str = "config.json";
const MAX_NAME: usize = 128;

/// Where models are, and those that are loaded.
#[derive(Debug, Default)]
pub struct Models {
    folder: Option<PathBuf>,
    bucket: Option<Bucket>,
    loaded: RwLock<HashMap<String, Arc<dyn LocalModel>>>,
    /// One is loaded at a time.
    loading: Mutex<()>,
}

#[derive(Debug)]
struct Bucket {
    store: Store,
    cache: PathBuf,
}

impl Models {
    /// `lexical` alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// And the models of a folder of this machine.
    #[must_use]
    pub fn with_folder(self, folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// And those of the bucket, whose files are kept below `cache`.
    #[must_use]
    pub fn with_bucket(self, store: Store, cache: PathBuf) -> Self {
        Self { bucket: Some(Bucket { store, cache }), ..self }
    }

    fn loaded(&self, name: &str) -> Option<Arc<dyn LocalModel>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn keep(&self, name: &str, model: Arc<dyn LocalModel>) -> Arc<dyn LocalModel> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.entry(name.to_owned()).or_insert(model).clone()
    }

    async fn load(&self, name: &str) -> Result<Option<Arc<dyn LocalModel>>, EmbedError> {
        let _turn = self.loading.lock().await;
        if let Some(loaded) = self.loaded(name) {
            return Ok(Some(loaded));
        }
        let Some(folder) = self.find(name).await? else { return Ok(None) };
        let (started, named) = (Instant::now(), name.to_owned());
        let model = spawn_blocking(move || SentenceTransformer::load(&named, &folder))
            .await
            .map_err(|error| unusable(name, &error))?
            .map_err(|error| unusable(name, &error))?;
        let seconds = started.elapsed().as_secs_f64();
        let identity = model.identity();
        info!(
            model = identity.model,
            digest = identity.digest,
            dimension = identity.dimension,
            seconds,
            "Loaded model `{}`",
            identity.model
        );
        Ok(Some(self.keep(name, Arc::new(model))))
    }

    async fn find(&self, name: &str) -> Result<Option<PathBuf>, EmbedError> {
        if let Some(folder) = self.folder.as_ref().map(|folder| folder.join(name))
            && folder.join(MARK).is_file()
        {
            return Ok(Some(folder));
        }
        match &self.bucket {
            Some(bucket) => bucket.fetch(name).await,
            None => Ok(None),
        }
    }
}

#[async_trait]
impl Locals for Models {
    async fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::from([lexical::NAME.to_owned()]);
        if let Some(folder) = &self.folder {
            for entry in folder.read_dir().into_iter().flatten().flatten() {
                if let Ok(name) = entry.file_name().into_string()
                    && entry.path().join(MARK).is_file()
                {
                    names.insert(name);
                }
            }
        }
        if let Some(bucket) = &self.bucket {
            names.extend(bucket.names().await);
        }
        names.into_iter().filter(|name| is_name(name)).collect()
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<dyn LocalModel>>, EmbedError> {
        if let Some(loaded) = self.loaded(name) {
            return Ok(Some(loaded));
        }
        if let Some(lexical) = Lexical::named(name) {
            return Ok(Some(self.keep(name, Arc::new(lexical))));
        }
        if is_name(name) { Box::pin(self.load(name)).await } else { Ok(None) }
    }
}

impl Bucket {
    /// The models below `_models/`. A store that does not answer has none to show; asking for one by name says why.
    async fn names(&self) -> Vec<String> {
        let listed = self.store.list_all(keys::MODELS).await.unwrap_or_default();
        let name = |listed: &Listed| {
            let rest = listed.key.as_str().strip_prefix(keys::MODELS)?;
            Some(rest.strip_suffix(MARK)?.strip_suffix('/')?.to_owned())
        };
        listed.iter().filter_map(name).collect()
    }

    /// The model's files as a folder of this machine; `None` where the bucket has none.
    async fn fetch(&self, name: &str) -> Result<Option<PathBuf>, EmbedError> {
        let wrong = |error: StoreError| {
            let reason = if error.retry_helps() { Reason::Unavailable } else { Reason::Unusable };
            EmbedError::new(reason, format!("model `local/{name}` cannot be read from the bucket: {error}"))
        };
        let prefix = format!("{}{name}/", keys::MODELS);
        let mut files = self.store.list_all(&prefix).await.map_err(wrong)?;
        files.retain(|listed| listed.key.as_str().strip_prefix(&prefix).is_some_and(decides));
        if !files.iter().any(|listed| listed.key.as_str().ends_with(&format!("/{name}/{MARK}"))) {
            return Ok(None);
        }
        // Other files are another folder, and a folder that is there is whole: it was renamed at its end.
        let mut version = Sha256::new();
        for listed in &files {
            version.update(format!("{} {} {}\n", listed.key, listed.meta.size, listed.meta.etag.0));
        }
        let place = self.cache.join("models");
        let folder = place.join(format!("{name}-{}", &hex(&version.finalize())[..16]));
        if folder.is_dir() {
            return Ok(Some(folder));
        }
        let local = |error: std::io::Error| unusable(name, &error);
        fs::create_dir_all(&place).await.map_err(local)?;
        let fetched = TempDir::with_prefix_in(".fetching-", &place).map_err(local)?;
        for listed in &files {
            let file = fetched.path().join(listed.key.as_str().trim_start_matches(&prefix));
            let size = self.copy(listed, &file).await.map_err(|error| match error {
                Failure::Store(error) => wrong(error),
                Failure::Local(error) => local(error),
            })?;
            if size != listed.meta.size {
                let says = format!("`{}` has {size} bytes instead of {}", listed.key, listed.meta.size);
                return Err(EmbedError::new(Reason::Unavailable, format!("model `local/{name}`: {says}")));
            }
        }
        fs::rename(fetched.keep(), &folder).await.map_err(local)?;
        Ok(Some(folder))
    }

    /// Says how many bytes came.
    async fn copy(&self, listed: &Listed, file: &Path) -> Result<u64, Failure> {
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).await?;
        }
        let mut body = self.store.get(&listed.key, None).await?.body;
        let (mut file, mut size) = (fs::File::create(file).await?, 0);
        while let Some(piece) = body.try_next().await? {
            file.write_all(&piece).await?;
            size += piece.len() as u64;
        }
        file.flush().await?;
        Ok(size)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Local(#[from] std::io::Error),
}

/// Whether a file of a model's folder is needed. Others, such as weights in other formats, stay where they are.
fn decides(file: &str) -> bool {
    match file.split_once('/') {
        None => FILES.contains(&file),
        Some((folder, file)) => is_pooling(folder) && file == "config.json",
    }
}

/// A name is one folder and leads nowhere else.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() <= MAX_NAME && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

fn unusable(name: &str, error: &dyn std::fmt::Display) -> EmbedError {
    EmbedError::new(Reason::Unusable, format!("model `local/{name}` cannot be used: {error}"))
}
