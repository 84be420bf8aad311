//! The DuckDB instance: opened once with its limits, closed to files and network, then locked.
//!
//! Hands on a session for each query, which is a connection inside a read-only transaction, and swaps the views in one
//! transaction: a query sees the catalogue as it was at its start, to its end.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use duckdb::Connection;

use crate::{Settings, memory::Share, view};

/// An open database without tables; its views are the datasets.
pub(crate) struct Database {
    /// Makes views. Nobody else runs anything on it.
    admin: Mutex<Connection>,
    /// Only ever cloned, so that a query's start does not wait for views being made.
    root: Mutex<Connection>,
    /// Connections of queries that ended well. The first statements of a new one take as long as many a whole query.
    idle: Mutex<Vec<Connection>>,
    /// Bytes of a query's rows that may wait to be read.
    ahead: u64,
    /// Held for writing while a swap of the views commits and for reading while a query's transaction starts.
    swap: RwLock<()>,
    /// Stays while DuckDB works.
    _share: Share,
    /// Names of DuckDB's own views, in lower case. No dataset and no CTE may have one of them.
    reserved: BTreeSet<String>,
}

/// DuckDB does not count the rows that wait to be read. This many queries could let as many wait as the memory limit says.
const STREAMS: u64 = 32;

/// The folders in [`Settings::cache_dir`].
pub(crate) const BLOBS: &str = "blobs";
const SPILL: &str = "spill";

impl Database {
    /// Opens a database and closes its doors. The order of the settings is what makes them hold.
    pub(crate) fn open(settings: &Settings) -> duckdb::Result<Self> {
        let share = Share::of(settings.memory_limit);
        let admin = Connection::open_in_memory()?;
        admin.execute_batch(&format!(
            "SET GLOBAL TimeZone = 'UTC';
             SET GLOBAL autoinstall_known_extensions = false;
             SET GLOBAL autoload_known_extensions = false;
             SET GLOBAL allow_community_extensions = false;
             SET GLOBAL allow_persistent_secrets = false;
             SET GLOBAL max_expression_depth = {MAX_EXPRESSION_DEPTH};
             SET GLOBAL threads = {threads};
             SET GLOBAL memory_limit = '{memory}B';
             SET GLOBAL parquet_metadata_cache = true;
             SET GLOBAL immediate_transaction_mode = true;
             SET GLOBAL temp_directory = {spill};
             SET GLOBAL max_temp_directory_size = '{temp}B';
             SET GLOBAL allowed_directories = [{blobs}];
             SET GLOBAL enable_external_access = false;
             SET GLOBAL allowed_configs = ['streaming_buffer_size'];
             SET GLOBAL lock_configuration = true;",
            threads = settings.threads.max(1),
            memory = settings.memory_limit,
            temp = settings.temp_limit,
            spill = folder(&settings.cache_dir, SPILL),
            blobs = folder(&settings.cache_dir, BLOBS),
        ))?;
        let root = admin.try_clone()?;
        let reserved = admin
            .prepare("SELECT lower(view_name) FROM duckdb_views() WHERE internal AND schema_name <> 'information_schema'")?
            .query_map([], |row| row.get(0))?
            .collect::<duckdb::Result<_>>()?;
        Ok(Self {
            admin: Mutex::new(admin),
            root: Mutex::new(root),
            idle: Mutex::default(),
            ahead: settings.memory_limit / STREAMS,
            swap: RwLock::new(()),
            _share: share,
            reserved,
        })
    }

    /// Opens a session. `published` runs when it is settled what the session sees, before that can change again.
    pub(crate) fn session<T>(
        self: &Arc<Self>,
        published: impl FnOnce() -> T,
    ) -> duckdb::Result<(Session, T)> {
        let idle = lock(&self.idle).pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let mut begin = connection.prepare_cached("BEGIN TRANSACTION READ ONLY")?;
        let unswapped = self.swap.read().unwrap_or_else(PoisonError::into_inner);
        // In DuckDB's immediate mode this settles what the transaction sees, and not its first look into the catalogue.
        begin.execute([])?;
        let published = published();
        drop((unswapped, begin));
        Ok((Session { database: self.clone(), connection }, published))
    }

    /// Rows come in their order. While one thread gives those whose turn it is, the others can only work ahead as far as
    /// there is room for theirs: with the megabyte that DuckDB has by itself, they hardly ever work.
    fn connect(&self) -> duckdb::Result<Connection> {
        let connection = lock(&self.root).try_clone()?;
        connection.execute_batch(&format!("SET streaming_buffer_size = '{}B'", self.ahead))?;
        Ok(connection)
    }

    /// Whether DuckDB can bind a view's query: its files are there and fit the schema.
    pub(crate) fn try_select(&self, select: &str) -> duckdb::Result<()> {
        lock(&self.admin).prepare(select).map(drop)
    }

    /// Removes and adds views in one step; `publish` runs while no query can start between them.
    pub(crate) fn swap_views(
        &self,
        removed: &[String],
        added: &[String],
        publish: impl FnOnce(),
    ) -> duckdb::Result<()> {
        let admin = lock(&self.admin);
        let mut statements = vec!["BEGIN TRANSACTION".to_owned()];
        statements.extend(removed.iter().map(|name| view::drop(name)));
        statements.extend_from_slice(added);
        let prepared = statements.iter().try_for_each(|statement| admin.execute_batch(statement));
        let _alone = self.swap.write().unwrap_or_else(PoisonError::into_inner);
        match prepared.and_then(|()| admin.execute_batch("COMMIT")) {
            Ok(()) => {
                publish();
                Ok(())
            }
            Err(error) => {
                // A failed COMMIT has ended the transaction already; the first error is the one to tell.
                let _ = admin.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    pub(crate) fn is_reserved(&self, lower_case_name: &str) -> bool {
        self.reserved.contains(lower_case_name)
    }
}

/// A connection for one query, in a read-only transaction. Closed when it is dropped.
pub(crate) struct Session {
    database: Arc<Database>,
    connection: Connection,
}

impl Session {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Keeps the connection for another query. Of a query that ended well nothing is left in it: the fence lets no
    /// statement through that sets, prepares or creates anything.
    pub(crate) fn keep(self) {
        let Self { database, connection } = self;
        let ended = connection.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
        if ended.is_ok() {
            lock(&database.idle).push(connection);
        }
    }
}

/// Deep enough for any query that a person or a tool writes; the time to plan grows with the cube of the depth.
const MAX_EXPRESSION_DEPTH: u32 = 250;

fn folder(cache_dir: &Path, name: &str) -> String {
    view::path(&cache_dir.join(name))
}

/// A connection stays usable after a panic: DuckDB keeps its state consistent by itself.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_was_kept_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::open(&Settings::new(folder.path())).unwrap());
        let mark =
            |session: &Session| session.connection().execute_batch("SET streaming_buffer_size = '1KB'");
        let is_marked = || {
            let (session, ()) = database.session(|| ()).unwrap();
            let setting = "SELECT current_setting('streaming_buffer_size')";
            let found: String = session.connection().query_row(setting, [], |row| row.get(0)).unwrap();
            (session, found == "1000 bytes")
        };
        let (session, ()) = database.session(|| ()).unwrap();
        mark(&session).unwrap();
        drop(session);
        let (session, marked) = is_marked();
        assert!(!marked, "this one is new");
        mark(&session).unwrap();
        session.keep();
        let (session, marked) = is_marked();
        assert!(marked);
        assert!(
            session.connection().execute_batch("CREATE VIEW mine AS SELECT 1").is_err(),
            "it is read-only again"
        );
    }
}
