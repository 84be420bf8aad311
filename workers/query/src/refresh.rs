//! Makes the views follow the catalogue.
//!
//! One damaged manifest, one lost file or one view that DuckDB refuses takes only its own dataset away. A store that is out
//! of reach for a while takes nothing away: the views stay as they are.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::{DatasetManifest, catalog::Damaged};
use tracing::{info, warn};

use crate::{
    Error,
    cache::Pin,
    database::Database,
    engine::Inner,
    generation::{Entry, Generation},
    view,
};

/// How many blobs of one dataset are fetched at once.
const PARALLEL: usize = 4;

impl Inner {
    /// Reads the catalogue and swaps the views to what it says. A database that has failed is replaced first.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let _one_at_a_time = self.refreshing.lock().await;
        let doomed = self.doomed.swap(false, Ordering::Relaxed);
        let current = if doomed {
            Arc::new(Generation::empty(self.open_database()?))
        } else {
            self.generation.load_full()
        };
        self.versions.forget();
        let followed = if self.settings.views {
            self.follow_catalog(&current).await
        } else {
            self.generation.store(current);
            Ok(())
        };
        if doomed && followed.is_err() {
            self.doomed.store(true, Ordering::Relaxed);
        }
        followed
    }

    async fn follow_catalog(&self, current: &Generation) -> Result<(), Error> {
        let listing = self
            .catalog
            .list()
            .await
            .map_err(|error| Error::Internal(format!("the catalogue cannot be read: {error}")))?;
        let mut next = Next { current, entries: BTreeMap::new(), added: Vec::new(), pins: Vec::new() };
        for Damaged { name, message } in listing.damaged {
            next.entries.insert(name.to_lowercase(), Entry::Broken { name, message });
        }
        // Of two names that differ in case only, the one that was first has the view.
        let mut datasets = listing.datasets;
        datasets.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        for manifest in datasets {
            self.add(&mut next, manifest).await;
        }
        self.publish(next).await
    }

    /// Decides what becomes of one dataset, and prepares its view when it needs a new one.
    async fn add(&self, next: &mut Next<'_>, manifest: Arc<DatasetManifest>) {
        let name = manifest.name.as_str();
        let key = name.to_lowercase();
        if let Some(Entry::View(other)) = next.entries.get(&key) {
            let message = format!(
                "its name differs from that of `{}` in case only, and SQL cannot tell them apart",
                other.name
            );
            warn!(dataset.name = %name, "The dataset `{name}` has no view: {message}");
            // The name belongs to the other one; there is no second place to report this one in.
            next.entries
                .insert(format!("{key} (as {name})"), Entry::Broken { name: name.to_owned(), message });
            return;
        }
        if next.current.is_reserved(&key) {
            let message = "its name is one of DuckDB's own views".to_owned();
            next.entries.insert(key, Entry::Broken { name: name.to_owned(), message });
            return;
        }
        let previous = next.current.manifest(&key);
        if previous.is_some_and(|previous| same_view(previous, &manifest)) {
            next.entries.insert(key, Entry::View(manifest));
            return;
        }
        let entry = match self.prepare(&next.current.database, &manifest).await {
            Ok((create, pins)) => {
                info!(dataset.name = %name, version = manifest.version, "Queries see version {} of `{name}`", manifest.version);
                next.added.push(create);
                next.pins.extend(pins);
                Entry::View(manifest)
            }
            // An outage is not the dataset's fault: what was readable stays so.
            Err(Failure { retry_helps: true, message }) if previous.is_some() => {
                warn!(dataset.name = %name, "Version {} of `{name}` must wait: {message}", manifest.version);
                Entry::View(previous.cloned().unwrap_or(manifest))
            }
            Err(Failure { message, .. }) => {
                warn!(dataset.name = %name, "The dataset `{name}` cannot be queried: {message}");
                Entry::Broken { name: name.to_owned(), message }
            }
        };
        next.entries.insert(key, entry);
    }

    /// Brings a dataset's files here and tries its view.
    async fn prepare(
        &self,
        database: &Arc<Database>,
        manifest: &DatasetManifest,
    ) -> Result<(String, Vec<Pin>), Failure> {
        let pins: Vec<Pin> = stream::iter(manifest.objects.clone())
            .map(|object| async move { self.cache.pin(&object).await })
            .buffered(PARALLEL)
            .try_collect()
            .await
            .map_err(|error| Failure { retry_helps: error.retry_helps(), message: error.to_string() })?;
        let files: Vec<PathBuf> = manifest.objects.iter().map(|object| self.cache.path(object)).collect();
        let select = view::select(manifest, &files);
        let create = view::create(manifest.name.as_str(), &select);
        let database = database.clone();
        let tried = tokio::task::spawn_blocking(move || database.try_select(&select)).await;
        let message = match tried {
            Ok(Ok(())) => return Ok((create, pins)),
            Ok(Err(error)) => self.scrub.text(&error.to_string()),
            Err(error) => error.to_string(),
        };
        Err(Failure { retry_helps: false, message })
    }

    /// Swaps the views in one transaction, removals before additions.
    async fn publish(&self, next: Next<'_>) -> Result<(), Error> {
        let Next { current, entries, added, pins } = next;
        let kept = |key: &String, old: &Arc<DatasetManifest>| matches!(entries.get(key), Some(Entry::View(new)) if same_view(old, new));
        let removed: Vec<String> = current
            .entries
            .iter()
            .filter_map(|(key, entry)| match entry {
                Entry::View(manifest) if !kept(key, manifest) => Some(manifest.name.to_string()),
                _ => None,
            })
            .collect();
        let generation = Arc::new(Generation { database: current.database.clone(), entries });
        let place = self.generation.clone();
        let swapped = tokio::task::spawn_blocking(move || {
            let database = generation.database.clone();
            database.swap_views(&removed, &added, || place.store(generation))
        })
        .await;
        drop(pins);
        match swapped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::Internal(format!("the views cannot be swapped: {error}"))),
            Err(error) => Err(Error::Internal(error.to_string())),
        }
    }
}

/// The next generation while it is made.
struct Next<'a> {
    current: &'a Generation,
    entries: BTreeMap<String, Entry>,
    /// `CREATE VIEW` statements.
    added: Vec<String>,
    /// Keep the files of `added` until the views are made.
    pins: Vec<Pin>,
}

struct Failure {
    /// Whether the same may work later without anybody changing anything.
    retry_helps: bool,
    message: String,
}

/// Whether two manifests of a name have the same view.
fn same_view(one: &DatasetManifest, other: &DatasetManifest) -> bool {
    one.name == other.name && one.schema == other.schema && one.objects == other.objects
}
