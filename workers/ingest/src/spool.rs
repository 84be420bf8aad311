//! The folder for what is not in the store yet.
//!
//! Every run has a folder of its own and holds a lock on a file beside it. The system drops the lock when the process ends, however it
//! ends, so the next run can tell what a killed one left behind and removes it.
//!
//! ```text
//! <spool>/ingest.lock            held for a moment, while runs come and clean
//! <spool>/ingest-<run>.lock      held as long as the run lives
//! <spool>/ingest-<run>/          its files
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::Error;

const DOOR: &str = "ingest.lock";
const PREFIX: &str = "ingest-";

/// The folder of one run; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Spool {
    /// Removes what killed runs left in `parent` and makes a folder for this one.
    pub(crate) fn create(parent: &Path) -> Result<Self, Error> {
        Self::try_create(parent).map_err(|error| Error::Spool { folder: parent.to_owned(), error })
    }

    fn try_create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let door = File::create(parent.join(DOOR))?;
        door.lock()?;
        clean(parent)?;
        let lock = tempfile::Builder::new().prefix(PREFIX).suffix(".lock").tempfile_in(parent);
        // The library's own words name the file, which has another name at every try.
        let lock = lock.map_err(|error| io::Error::from(error.kind()))?;
        let (lock, lock_path) = lock.keep().map_err(|error| error.error)?;
        lock.lock()?;
        let folder = lock_path.with_extension("");
        fs::create_dir(&folder)?;
        Ok(Self { folder, lock_path, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// The folder that holds the runs' folders, told by a path in one of these.
pub(crate) fn folder_of_runs(path: &Path) -> &Path {
    let is_run = |path: &&Path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    };
    path.ancestors().find(is_run).and_then(Path::parent).unwrap_or(path)
}

/// Removes the folders whose runs have ended. Called behind the door, so that no run is half-made.
fn clean(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if !name.starts_with(PREFIX) || !is_lock {
            continue;
        }
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // Its run has just ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {
                let folder = path.with_extension("");
                if folder.is_dir() {
                    fs::remove_dir_all(folder)?;
                }
                fs::remove_file(&path)?;
            }
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::create(parent.path()).unwrap();
        fs::write(spool.folder().join("part.parquet"), "x").unwrap();
        drop(spool);
        assert_eq!(names(parent.path()), [DOOR]);
    }

    #[test]
    fn the_next_run_removes_what_a_killed_one_left_and_spares_one_that_lives() {
        let parent = tempfile::tempdir().unwrap();
        let living = Spool::create(parent.path()).unwrap();
        fs::write(parent.path().join("ingest-dead.lock"), "").unwrap();
        fs::create_dir(parent.path().join("ingest-dead")).unwrap();
        fs::write(parent.path().join("ingest-dead/part.parquet"), "x").unwrap();
        fs::write(parent.path().join("somebody-elses"), "x").unwrap();
        let next = Spool::create(parent.path()).unwrap();
        assert!(!parent.path().join("ingest-dead").exists());
        assert!(!parent.path().join("ingest-dead.lock").exists());
        assert!(living.folder().exists() && next.folder().exists());
        assert!(parent.path().join("somebody-elses").exists());
    }

    #[test]
    fn the_same_failure_of_two_runs_has_the_same_message() {
        let parent = tempfile::tempdir().unwrap();
        let message = || {
            let spool = Spool::create(parent.path()).unwrap();
            Error::spool(&spool.folder().join("00000.parquet"), io::ErrorKind::StorageFull.into()).to_string()
        };
        let first = message();
        assert_eq!(first, message());
        assert!(first.contains(&*parent.path().to_string_lossy()), "{first}");
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
