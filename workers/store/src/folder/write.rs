//! Writing a file so that a crash leaves the old object or the new one, and no other process's write is lost.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::{MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use lakehouse_contract::Key;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::{Inner, current, is_missing, meta, now, open};
use crate::{ByteStream, Condition, Error, Etag, Meta, Payload, Result};

/// How many writers of different keys may commit at once.
const SHARDS: u8 = 64;
/// A commit takes milliseconds; who holds a lock for longer than this was stopped in the middle.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// A folder may be removed by hand between its making and its use; more often than this it is somebody's purpose.
const ATTEMPTS: usize = 3;

/// A body on its way in, invisible until it is committed and removed when it is dropped.
pub(super) struct Writing {
    file: NamedTempFile,
}

impl Writing {
    /// Writes the pieces of `body` as they come.
    pub(super) async fn stream(self, mut body: ByteStream) -> Result<Self> {
        let local = |error| Error::local(self.file.path(), error);
        let mut out = tokio::fs::File::from_std(self.file.as_file().try_clone().map_err(local)?);
        while let Some(piece) = body.try_next().await? {
            out.write_all(&piece).await.map_err(local)?;
        }
        // tokio's file reports a failed write at the next call only.
        out.flush().await.map_err(local)?;
        Ok(self)
    }
}

impl Inner {
    /// The whole of a write whose body is at hand.
    pub(super) fn put(&self, key: &Key, path: &Path, body: Payload, condition: &Condition) -> Result<Etag> {
        let mut writing = self.begin(key, path, condition)?;
        match body {
            Payload::Bytes(bytes) => writing.file.write_all(&bytes),
            Payload::File(source) => {
                let mut source_file = File::open(&source).map_err(|error| Error::local(&source, error))?;
                io::copy(&mut source_file, writing.file.as_file_mut()).map(drop)
            }
            Payload::Stream(_) => unreachable!("streams are written piece by piece"),
        }
        .map_err(|error| Error::local(&self.root, error))?;
        self.commit(key, path, writing, condition)
    }

    /// Checks the condition early, so that a body that cannot be committed is not written, and makes room for the body.
    pub(super) fn begin(&self, key: &Key, path: &Path, condition: &Condition) -> Result<Writing> {
        check(key, path, condition)?;
        let file = self.new_file().map_err(|error| Error::local(&self.root, error))?;
        Ok(Writing { file })
    }

    /// Gives the body its name when `condition` holds.
    pub(super) fn commit(
        &self,
        key: &Key,
        path: &Path,
        writing: Writing,
        condition: &Condition,
    ) -> Result<Etag> {
        let local = |error| Error::local(path, error);
        let mut file = writing.file;
        file.as_file().set_modified(now()).map_err(local)?;
        // The long flush comes before the lock.
        file.as_file().sync_all().map_err(local)?;
        let _lock = self.lock(key)?;
        let before = check(key, path, condition)?;
        let written = later_than(before.as_ref(), file.as_file()).map_err(local)?;
        let folder = path.parent().unwrap_or(&self.root);
        for attempt in 1.. {
            self.make_durable(folder).map_err(local)?;
            match file.persist(path) {
                Ok(_) => break,
                Err(error) if error.error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {
                    self.durable().clear();
                    file = error.file;
                }
                Err(error) => return Err(local(error.error)),
            }
        }
        sync_folder(folder).map_err(local)?;
        Ok(written.etag)
    }

    /// Removes the object, if there is one.
    pub(super) fn delete(&self, key: &Key, path: &Path) -> Result<()> {
        let local = |error| Error::local(path, error);
        let _lock = self.lock(key)?;
        match fs::remove_file(path) {
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.root)).map_err(local),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(local(error)),
        }
    }

    /// A new file that holds a lock on itself, by which [`open::open`] in another process knows that it is in use.
    fn new_file(&self) -> io::Result<NamedTempFile> {
        loop {
            let file =
                tempfile::Builder::new().permissions(permissions()).tempfile_in(open::writing(&self.root))?;
            let locked = file.as_file().try_lock().is_ok();
            // Between its making and its lock the sweep of another process may have taken the file for a left-over.
            if locked && file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    /// Waits until no other writer, of this process or another, commits to `key`.
    fn lock(&self, key: &Key) -> Result<File> {
        let shard = Sha256::digest(key.as_str())[0] % SHARDS;
        let path = open::locks(&self.root).join(format!("{shard:02}"));
        let local = |error| Error::local(&path, error);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(local)?;
        let asked = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(local(error)),
                Err(TryLockError::WouldBlock) if asked.elapsed() > LOCK_PATIENCE => {
                    let message = format!(
                        "another process has held the lock {} for {} seconds; is it stopped?",
                        path.display(),
                        LOCK_PATIENCE.as_secs()
                    );
                    return Err(Error::Unavailable { message });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// Makes `folder` and what is missing above it outlive a crash. Done once for a folder: another process may have made
    /// it and not yet flushed its name.
    fn make_durable(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.durable().contains(folder) {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.root);
        self.make_durable(above)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(above)?,
        }
        self.durable().insert(folder.to_owned());
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<std::path::PathBuf>> {
        // A set of names is whole between any two statements.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies at `path` now, when `condition` holds of it.
fn check(key: &Key, path: &Path, condition: &Condition) -> Result<Option<Meta>> {
    let found = current(path).map_err(|error| Error::local(path, error))?;
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => found.is_none(),
        Condition::Matches(etag) => found.as_ref().is_some_and(|found| found.etag == *etag),
    };
    if holds { Ok(found) } else { Err(Error::Conflict { key: key.clone() }) }
}

/// Moves the time of `file` past that of the object before it, so that the two never share a mark.
fn later_than(before: Option<&Meta>, file: &File) -> io::Result<Meta> {
    let gone = || io::Error::other("it is no longer a file");
    let mut written = meta(&file.metadata()?).ok_or_else(gone)?;
    let Some(before) = before else { return Ok(written) };
    // The second step is for file systems that keep whole seconds only.
    for step in [Duration::from_nanos(1), Duration::from_secs(2)] {
        if written.modified > before.modified {
            break;
        }
        let later = before.modified.checked_add(step).map_err(io::Error::other)?;
        file.set_modified(later.into())?;
        file.sync_all()?;
        written = meta(&file.metadata()?).ok_or_else(gone)?;
    }
    Ok(written)
}

/// Flushes the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What any other program would give its files, so that whoever may open the folder may read the objects.
pub(super) fn permissions() -> Permissions {
    Permissions::from_mode(0o666)
}
