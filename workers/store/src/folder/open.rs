//! Opening a folder: whose it is, whether this version can read it, and what crashed writers left in it.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    names::{INTERNAL, MARKER},
    write::sync_folder,
};
use crate::{Error, Result};

/// The layout that this version writes, and the newest that it reads.
const LAYOUT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Marker {
    layout: u32,
}

/// Makes `path` ours or finds that it is; its absolute path.
pub(super) fn open(path: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| explain(path, error);
    make(path).map_err(failed)?;
    let root = path.canonicalize().map_err(failed)?;
    if !root.is_dir() {
        return Err(Error::Unfit {
            message: format!("{} is a file; a store needs a folder", path.display()),
        });
    }
    if !is_ours(&root)?
        && let Some(name) = foreign(&root).map_err(failed)?
        // The first look may have passed just before another process made the folder ours.
        && !is_ours(&root)?
    {
        let message = format!(
            "{} is not a Lakehouse folder (it holds `{name}` and no {MARKER}): give an empty or a new folder",
            path.display()
        );
        return Err(Error::Unfit { message });
    }
    for part in [locks(&root), writing(&root)] {
        make(&part).map_err(failed)?;
    }
    if !is_ours(&root)? {
        claim(&root).map_err(failed)?;
    }
    sweep(&writing(&root)).map_err(failed)?;
    Ok(root)
}

/// Where writers lock.
pub(super) fn locks(root: &Path) -> PathBuf {
    root.join(INTERNAL).join("locks")
}

/// Where bodies are written before they get their names.
pub(super) fn writing(root: &Path) -> PathBuf {
    root.join(INTERNAL).join("writing")
}

fn is_ours(root: &Path) -> Result<bool> {
    let path = root.join(MARKER);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(explain(&path, error)),
    };
    let marker: Marker = serde_json::from_slice(&text).map_err(|error| Error::Unfit {
        message: format!("{} does not say which layout the folder has: {error}", path.display()),
    })?;
    if marker.layout > LAYOUT {
        let message = format!(
            "the folder {} was written by a newer version of Lakehouse (layout {}; this one reads up to {LAYOUT}): \
             use that version, or another folder",
            root.display(),
            marker.layout
        );
        return Err(Error::Unfit { message });
    }
    Ok(true)
}

/// The name of something in the folder that we did not put there.
fn foreign(root: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        // A disk's own folder at its top is no sign of another use, and ours may be left from a start that was killed.
        if name != INTERNAL && name != "lost+found" {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn claim(root: &Path) -> io::Result<()> {
    let mut file =
        tempfile::Builder::new().permissions(super::write::permissions()).tempfile_in(writing(root))?;
    serde_json::to_writer(&mut file, &Marker { layout: LAYOUT })?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(root.join(MARKER)).map_err(|error| error.error)?;
    sync_folder(root)
}

/// Makes `path` and what is missing above it, so that all of it outlives a crash.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    make(above)?;
    match DirBuilder::new().create(path) {
        Ok(()) => sync_folder(above),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the bodies of writers that are gone. One that is still at work holds a lock on its file.
fn sweep(writing: &Path) -> io::Result<()> {
    for entry in fs::read_dir(writing)? {
        let path = entry?.path();
        let Ok(file) = fs::File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            tracing::info!(path = %path.display(), "Removing what a writer left when it was killed");
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A sentence for who named the folder.
fn explain(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Error::Denied { message: format!("{shown} cannot be written by this user: {error}") }
        }
        ErrorKind::ReadOnlyFilesystem => {
            Error::Denied { message: format!("{shown} lies on a file system that is read-only") }
        }
        ErrorKind::NotADirectory | ErrorKind::NotFound => Error::Unfit {
            message: format!("{shown} cannot be a folder here: {error}; give a folder that can be made"),
        },
        _ => Error::local(path, error),
    }
}
