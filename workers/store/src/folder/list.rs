//! Listing a folder in the order of its keys, a page at a time.
//!
//! A file system gives names in no order. For each folder on the way the smallest names after the place reached are kept,
//! as many as the page may need, and the folder is read again when they are used up. So memory follows the page and not
//! the folder.

use std::{
    collections::BinaryHeap,
    fs, io,
    path::{Path, PathBuf},
};

use lakehouse_contract::Key;

use super::{current, is_missing, names};
use crate::{Error, Listed, Page, Result};

/// At most `limit` objects below `prefix` that come after `after`.
pub(super) fn page(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
    let top = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let Some(folder) = names::folder(root, top) else { return Ok(Page::default()) };
    let mut walk = Walk { prefix, after, wanted: limit.saturating_add(1), found: Vec::new() };
    walk.folder(&folder, top).map_err(|error| Error::local(root, error))?;
    let more = walk.found.len() > limit;
    walk.found.truncate(limit);
    Ok(Page { objects: walk.found, more })
}

struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    wanted: usize,
    found: Vec<Listed>,
}

/// In the order of keys: a folder stands where its keys stand, at its name with a `/`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: String,
    path: PathBuf,
}

impl Entry {
    fn is_folder(&self) -> bool {
        self.key.ends_with('/')
    }
}

impl Walk<'_> {
    /// Adds what lies in `folder`, whose keys start with `start`, until there is enough.
    fn folder(&mut self, folder: &Path, start: &str) -> io::Result<()> {
        let mut reached: Option<String> = None;
        loop {
            let room = (self.wanted - self.found.len()).max(1);
            let entries = self.next_entries(folder, start, reached.as_deref(), room)?;
            let exhausted = entries.len() < room;
            for entry in entries {
                if entry.is_folder() {
                    self.folder(&entry.path, &entry.key)?;
                } else if let Some(meta) = current(&entry.path)?
                    && let Ok(key) = Key::parse(entry.key.clone())
                {
                    self.found.push(Listed { key, meta });
                }
                if self.found.len() >= self.wanted {
                    return Ok(());
                }
                reached = Some(entry.key);
            }
            if exhausted {
                return Ok(());
            }
        }
    }

    /// The `room` smallest entries after `reached` that may hold something asked for.
    fn next_entries(
        &self,
        folder: &Path,
        start: &str,
        reached: Option<&str>,
        room: usize,
    ) -> io::Result<Vec<Entry>> {
        let mut smallest = BinaryHeap::new();
        let read = match fs::read_dir(folder) {
            Ok(read) => read,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for entry in read {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let kind = entry.file_type()?;
            let key = if kind.is_dir() {
                names::folder_segment(name).map(|segment| format!("{start}{segment}/"))
            } else {
                names::object_segment(name).map(|segment| format!("{start}{segment}"))
            };
            let Some(key) = key.filter(|key| reached.is_none_or(|reached| key.as_str() > reached)) else {
                continue;
            };
            if self.may_hold(&key) {
                smallest.push(Entry { key, path: entry.path() });
                if smallest.len() > room {
                    smallest.pop();
                }
            }
        }
        Ok(smallest.into_sorted_vec())
    }

    fn may_hold(&self, key: &str) -> bool {
        let below = key.starts_with(self.prefix) || (key.ends_with('/') && self.prefix.starts_with(key));
        let ahead =
            self.after.is_none_or(|after| key > after || (key.ends_with('/') && after.starts_with(key)));
        below && ahead
    }
}
