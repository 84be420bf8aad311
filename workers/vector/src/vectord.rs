//! vectord without HTTP: every index of a store, opened when it is first asked for, followed while it is, and let go when it is not.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use lakehouse_contract::IndexName;
use lakehouse_embed::Embedder;
use lakehouse_http::Metrics;
use lakehouse_store::Store;
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    Error, Indexes, Result, Tuning,
    cache::Cache,
    fanout::{InvalidPeer, Peers},
    live::{Context, Live},
    manifest::Kind,
    metrics::Numbers,
};

/// An index that somebody asked for within this time is followed.
const IN_USE: Duration = Duration::from_mins(1);
/// An index that was not followed for this time is looked at before it answers.
const STALE: Duration = Duration::from_secs(5);
/// How long an answer waits for that look; then it goes by what is known.
const LOOK: Duration = Duration::from_secs(2);
/// Rows that nobody added to for this time become a segment, so that a start has little to read.
const QUIET: Duration = Duration::from_mins(1);
/// Indexes that are opened or looked at at the same time.
const PARALLEL: usize = 16;

/// How vectord works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often the store is asked for what is new in an index that is in use.
    pub follow: Duration,
    /// An index that nobody asked for so long is let go.
    pub idle: Duration,
    /// The most indexes that stay open; of more, those that were asked for the longest ago are let go.
    pub max_open: usize,
    /// Which of the shards are held here: `(0, 3)` is the first of three. All when absent.
    pub shard: Option<(u32, u32)>,
    /// Where the other shards are: a URL with `{part}` in it.
    pub peers: Option<String>,
    /// The largest import, in bytes.
    pub max_import_bytes: u64,
    /// When rows become segments.
    pub tuning: Tuning,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            follow: Duration::from_secs(1),
            idle: Duration::from_mins(15),
            max_open: 4096,
            shard: None,
            peers: None,
            max_import_bytes: 1 << 30,
            tuning: Tuning::default(),
        }
    }
}

/// Every index of a store. Cheap to clone; stops following the store when the last clone is gone.
#[derive(Clone)]
pub struct Vectord {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    context: Arc<Context>,
    open: Mutex<HashMap<IndexName, Arc<OnceCell<Arc<Live>>>>>,
    /// Those that are followed and stay, whether anybody asks for them or not.
    kept: Mutex<BTreeSet<IndexName>>,
    pub(crate) embedder: Option<Arc<dyn Embedder>>,
    pub(crate) peers: Option<Peers>,
    pub(crate) numbers: Numbers,
    /// Where bodies wait that are read twice.
    pub(crate) spool: PathBuf,
    pub(crate) settings: Settings,
    /// Those that are being looked after, and places for doing so.
    tended: Mutex<BTreeSet<IndexName>>,
    tending: Arc<Semaphore>,
    /// Searches that run at the same time.
    pub(crate) searching: Arc<Semaphore>,
}

impl Vectord {
    /// Opens vectord over `store`. Copies of segments lie below `cache`, which is this process's own; texts are embedded by `embedder`.
    pub async fn open(
        store: Store,
        cache: &Path,
        embedder: Option<Arc<dyn Embedder>>,
        settings: Settings,
        metrics: &Metrics,
    ) -> Result<Self> {
        let peers = match (&settings.peers, settings.shard) {
            (Some(url), Some((part, parts))) => {
                Some(Peers::new(url, part, parts).map_err(|InvalidPeer(message)| Error::Invalid(message))?)
            }
            _ => None,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let context = Context {
            indexes: Indexes::new(store.clone()),
            cache: Cache::new(cache, store).await?,
            tuning: settings.tuning,
            shard: settings.shard,
            flushing: Semaphore::new(2),
            merging: Semaphore::new(1),
        };
        let inner = Arc::new(Inner {
            context: Arc::new(context),
            open: Mutex::default(),
            kept: Mutex::default(),
            embedder,
            peers,
            numbers: Numbers::register(metrics),
            spool: cache.to_owned(),
            settings,
            tended: Mutex::default(),
            tending: Arc::new(Semaphore::new(PARALLEL)),
            searching: Arc::new(Semaphore::new(cores * 2)),
        });
        tokio::spawn(keep_up(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The indexes in the store.
    pub fn indexes(&self) -> &Indexes {
        &self.inner.context.indexes
    }

    /// Opens an index ahead of the first request, now or as soon as there is one, follows it all the time and never lets it go. Says
    /// whether it is open.
    pub async fn preload(&self, name: &IndexName) -> Result<bool> {
        self.inner.kept().insert(name.clone());
        match self.live(name).await {
            Ok(_) => Ok(true),
            Err(Error::UnknownIndex(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Shows what was published a moment ago, by this process or another. An index that is not open costs nothing.
    pub async fn refresh(&self, name: &IndexName) -> Result<()> {
        let Some(live) = self.inner.find(name) else { return Ok(()) };
        self.inner.follow(&live).await
    }

    /// Puts what is in memory into segments, so that the next start reads no log. Not needed for durability.
    pub async fn flush(&self) -> Result<()> {
        for live in self.inner.all() {
            live.flush().await?;
        }
        Ok(())
    }

    /// An index that is open, or opened now.
    pub(crate) async fn live(&self, name: &IndexName) -> Result<Arc<Live>> {
        let live = self.inner.open(name).await?;
        live.touch();
        if live.unseen() > STALE.max(self.inner.settings.follow * 2) {
            let (inner, seen) = (Arc::clone(&self.inner), Arc::clone(&live));
            let look = tokio::spawn(async move { inner.follow(&seen).await });
            // A store that fails, or a version that takes long to fetch, holds up nobody who reads.
            if let Ok(Ok(Err(Error::UnknownIndex(_)))) = timeout(LOOK, look).await {
                return Box::pin(self.inner.open(name)).await;
            }
        }
        Ok(live)
    }

    /// The index is no more, or has become another one.
    pub(crate) async fn forget(&self, name: &IndexName) -> Result<()> {
        self.inner.open_indexes().remove(name);
        self.inner.numbers.forget(name);
        self.inner.context.cache.forget(name).await
    }
}

impl Inner {
    fn open_indexes(&self) -> std::sync::MutexGuard<'_, HashMap<IndexName, Arc<OnceCell<Arc<Live>>>>> {
        // Each use leaves the map whole, so a panic elsewhere cannot have hurt it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeSet<IndexName>> {
        // Each use leaves the set whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &IndexName) -> Option<Arc<Live>> {
        self.open_indexes().get(name)?.get().cloned()
    }

    fn all(&self) -> Vec<Arc<Live>> {
        self.open_indexes().values().filter_map(|cell| cell.get().cloned()).collect()
    }

    async fn open(&self, name: &IndexName) -> Result<Arc<Live>> {
        if let Some(live) = self.find(name)
            && live.snapshot().closed
        {
            self.let_go(&live);
        }
        let cell = Arc::clone(self.open_indexes().entry(name.clone()).or_default());
        let opened = cell.get_or_try_init(|| Box::pin(Live::open(Arc::clone(&self.context), name))).await;
        if opened.is_err() {
            self.drop_cell(name, &cell);
        }
        opened.cloned()
    }

    fn drop_cell(&self, name: &IndexName, cell: &Arc<OnceCell<Arc<Live>>>) {
        let mut open = self.open_indexes();
        if open.get(name).is_some_and(|known| Arc::ptr_eq(known, cell)) {
            open.remove(name);
        }
    }

    fn let_go(&self, live: &Arc<Live>) {
        let mut open = self.open_indexes();
        if open.get(&live.name).and_then(|cell| cell.get()).is_some_and(|known| Arc::ptr_eq(known, live)) {
            open.remove(&live.name);
            self.numbers.forget(&live.name);
        }
    }

    async fn follow(&self, live: &Arc<Live>) -> Result<()> {
        let followed = live.follow().await;
        if let Err(Error::UnknownIndex(_)) = followed {
            self.let_go(live);
        }
        followed
    }

    /// Begins what is due for each index, and waits for none: an index at which something takes long holds up no other. One that is still
    /// being looked after from an earlier round is passed over.
    fn round(self: &Arc<Self>) {
        let kept: Vec<IndexName> = self.kept().iter().cloned().collect();
        for name in kept.iter().filter(|name| self.find(name).is_none()) {
            let inner = Arc::clone(self);
            self.tend(name, async move |name, _place| match Box::pin(inner.open(&name)).await {
                Ok(_) | Err(Error::UnknownIndex(_)) => {}
                Err(error) => warn!(index.name = %name, "Index `{name}` cannot be opened yet: {error}"),
            });
        }
        let mut by_use = self.all();
        let excess = by_use.len().saturating_sub(self.settings.max_open);
        by_use.sort_by_key(|live| std::cmp::Reverse(live.idle()));
        for (place, live) in by_use.into_iter().enumerate() {
            let is_over = (place < excess || live.idle() > self.settings.idle) && !kept.contains(&live.name);
            let inner = Arc::clone(self);
            self.tend(&live.name.clone(), async move |_, place| {
                inner.look_after(&live, place).await;
                if is_over {
                    inner.retire(&live).await;
                }
            });
        }
    }

    /// Does some work for an index beside that for others, unless some is being done. A few at a time have a place; work that takes long gives
    /// it back early.
    fn tend<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        name: &IndexName,
        work: impl FnOnce(IndexName, OwnedSemaphorePermit) -> F + Send + 'static,
    ) {
        if !self.tended.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            return;
        }
        let tended = Tended { inner: Arc::clone(self), name: name.clone() };
        tokio::spawn(async move {
            if let Ok(place) = Arc::clone(&tended.inner.tending).acquire_owned().await {
                work(tended.name.clone(), place).await;
            }
        });
    }

    async fn look_after(&self, live: &Arc<Live>, place: OwnedSemaphorePermit) {
        let snapshot = live.snapshot();
        self.numbers.holds(&live.name, snapshot.length, snapshot.manifest.bytes());
        let in_use = live.idle() < IN_USE || self.kept().contains(&live.name);
        if in_use
            && live.unseen() >= self.settings.follow
            && let Err(error) = self.follow(live).await
            && !matches!(error, Error::UnknownIndex(_))
        {
            warn!(index.name = %live.name, "Index `{}` is served as it was: {error}", live.name);
        }
        // Those who write segments have places of their own.
        drop(place);
        let waiting = snapshot.manifest.kind == Kind::Pushed && snapshot.next > snapshot.manifest.log_from;
        if waiting && live.quiet() > QUIET && live.quiet() < 2 * QUIET {
            if let Err(error) = live.flush().await {
                warn!(index.name = %live.name, "Rows of index `{}` stay in the log for now: {error}", live.name);
            } else {
                live.tidy().await;
            }
        }
    }

    /// Lets go of an index that nobody asked for.
    async fn retire(&self, live: &Arc<Live>) {
        if let Err(error) = live.flush().await {
            warn!(index.name = %live.name, "Index `{}` is let go before its rows are in a segment: {error}", live.name);
        }
        self.let_go(live);
        info!(index.name = %live.name, "Let go of index `{}`, which nobody asked for", live.name);
    }
}

/// An index that is being looked after, as long as this lives.
struct Tended {
    inner: Arc<Inner>,
    name: IndexName,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.inner.tended.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Follows the store until vectord is dropped.
async fn keep_up(inner: Weak<Inner>) {
    loop {
        let Some(pause) = inner.upgrade().map(|inner| inner.settings.follow) else { return };
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.round();
    }
}
