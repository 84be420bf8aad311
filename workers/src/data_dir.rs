//! The folder in which a process without a cluster keeps what it needs.
//!
//! ```text
//! DIR/bucket/   the store, unless it is in S3: the only part that matters after a restart
//! DIR/cache/    copies of immutable files for queries, and what they spill
//! DIR/spool/    sources, Parquet files and segments on their way; emptied at each start
//! DIR/keys/     keys of ChatProviders, for this user alone
//! DIR/lock      held by the process that uses the folder
//! ```

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The folder, held by this process alone.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is missing, and takes it for this process.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let unusable = || format!("the data folder {} cannot be used", root.display());
        fs::create_dir_all(root).with_context(unusable)?;
        let lock = File::create(root.join("lock")).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another lakehouse uses the data folder {}: end it first, or give this one a folder of its own with --data",
                root.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Where the store lies when it is a folder.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.join("bucket")
    }

    /// For copies of immutable files.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// For the keys of providers.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// For files on their way.
    pub(crate) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }
}

/// The folder for what a pod's process can lose: `given`, or one below the home folder.
pub(crate) fn cache(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(folder) => Ok(folder.to_owned()),
        None => Ok(default_path().context("no home folder is known; name one with --cache")?.join("serve")),
    }
}

/// `$XDG_DATA_HOME/lakehouse`, by default `~/.local/share/lakehouse` (XDG Base Directory Specification).
pub(crate) fn default_path() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("lakehouse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(&folder.path().join("data")).unwrap();
        let refused = DataDir::open(&folder.path().join("data")).unwrap_err().to_string();
        assert!(refused.contains("another lakehouse uses"), "{refused}");
        drop(first);
        DataDir::open(&folder.path().join("data")).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = format!("{:#}", DataDir::open(&file.join("data")).unwrap_err());
        assert!(refused.contains("file/data"), "{refused}");
    }
}
