//! The DuckDB instance: opened once with its limits, closed to files and network, then locked.
//!
//! Hands on one connection for each query, inside a read-only transaction, and swaps the views in one transaction: a
//! query sees the catalogue as it was at its start, to its end.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use duckdb::Connection;

use crate::{Settings, view};

/// An open database without tables; its views are the datasets.
pub(crate) struct Database {
    /// Makes views. Nobody else runs anything on it.
    admin: Mutex<Connection>,
    /// Only ever cloned, so that a query's start does not wait for views being made.
    root: Mutex<Connection>,
    /// Held for writing while a swap of the views commits and for reading while a query's transaction starts.
    swap: RwLock<()>,
    /// Names of DuckDB's own views, in lower case. No dataset and no CTE may have one of them.
    reserved: BTreeSet<String>,
}

/// The folders in [`Settings::cache_dir`].
pub(crate) const BLOBS: &str = "blobs";
const SPILL: &str = "spill";

impl Database {
    /// Opens a database and closes its doors. The order of the settings is what makes them hold.
    pub(crate) fn open(settings: &Settings) -> duckdb::Result<Self> {
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
             SET GLOBAL temp_directory = {spill};
             SET GLOBAL max_temp_directory_size = '{temp}B';
             SET GLOBAL allowed_directories = [{blobs}];
             SET GLOBAL enable_external_access = false;
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
        Ok(Self { admin: Mutex::new(admin), root: Mutex::new(root), swap: RwLock::new(()), reserved })
    }

    /// A connection for one query, in a read-only transaction. A transaction fixes what it sees at its first look into
    /// the catalogue: `first` must look there, for a function at least, and may ask what was published then.
    pub(crate) fn session<T>(&self, first: impl FnOnce(&Connection) -> T) -> duckdb::Result<(Connection, T)> {
        let connection = lock(&self.root).try_clone()?;
        let _begun = self.swap.read().unwrap_or_else(PoisonError::into_inner);
        connection.execute_batch("BEGIN TRANSACTION READ ONLY")?;
        let seen = first(&connection);
        Ok((connection, seen))
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

/// Deep enough for any query that a person or a tool writes; the time to plan grows with the cube of the depth.
const MAX_EXPRESSION_DEPTH: u32 = 250;

fn folder(cache_dir: &Path, name: &str) -> String {
    view::path(&cache_dir.join(name))
}

/// A connection stays usable after a panic: DuckDB keeps its state consistent by itself.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
