//! Keys as file names, and back.
//!
//! A bucket may hold both `a` and `a/b`; a file system cannot have `a` as a file and a folder at once. So the names of
//! files and of folders never meet: a file's name ends in `.parquet`, `.json` or `.object`, a folder's name in none of these.
//! Blobs and manifests keep their own names; any other object gets `.object` at its end.

use std::path::{Path, PathBuf};

use lakehouse_contract::Key;

use crate::{Error, Result};

/// Says at the folder's top that it is ours.
pub(super) const MARKER: &str = "lakehouse.json";
/// Holds what is no object.
pub(super) const INTERNAL: &str = ".lakehouse";

/// The endings that objects keep.
const PLAIN: [&str; 2] = [".parquet", ".json"];
/// The ending of every other object's file.
const OBJECT: &str = ".object";
/// The ending of a folder whose own name would be taken for something else.
const FOLDER: &str = ".folder";
/// Folders that are not ours: our own internal one, and the one that file systems put at the top of a disk.
const RESERVED: [&str; 2] = [INTERNAL, "lost+found"];
/// What file systems allow.
const LONGEST_NAME: usize = 255;

/// The file in which `key` lies below `root`.
pub(super) fn path(root: &Path, key: &Key) -> Result<PathBuf> {
    let mut path = root.to_owned();
    let mut segments = key.as_str().split('/').peekable();
    while let Some(segment) = segments.next() {
        let name = if segments.peek().is_some() { folder_name(segment) } else { object_name(segment) };
        if name.len() > LONGEST_NAME {
            let longest = LONGEST_NAME - OBJECT.len();
            let message = format!("a segment has {} bytes; a folder holds at most {longest}", segment.len());
            return Err(Error::UnfitKey { key: key.clone(), message });
        }
        path.push(name);
    }
    Ok(path)
}

/// The folder in which the keys that start with `prefix` lie, `prefix` ending in `/` or empty.
/// `None` when no key can start so.
pub(super) fn folder(root: &Path, prefix: &str) -> Option<PathBuf> {
    let Some(prefix) = prefix.strip_suffix('/') else { return Some(root.to_owned()) };
    let checked = Key::parse(prefix).ok()?;
    let mut path = root.to_owned();
    path.extend(checked.as_str().split('/').map(folder_name));
    Some(path)
}

fn object_name(segment: &str) -> String {
    let plain = PLAIN.iter().any(|ending| segment.ends_with(ending)) && segment != MARKER;
    if plain { segment.to_owned() } else { format!("{segment}{OBJECT}") }
}

fn folder_name(segment: &str) -> String {
    let taken = PLAIN.iter().chain([&OBJECT, &FOLDER]).any(|ending| segment.ends_with(ending));
    if taken || RESERVED.contains(&segment) { format!("{segment}{FOLDER}") } else { segment.to_owned() }
}

/// The segment of the object in a file of this name; `None` for a file that is no object.
pub(super) fn object_segment(name: &str) -> Option<&str> {
    let segment = name.strip_suffix(OBJECT).unwrap_or(name);
    (object_name(segment) == name).then_some(segment)
}

/// The segment for which a folder of this name stands; `None` for a folder that holds no objects.
pub(super) fn folder_segment(name: &str) -> Option<&str> {
    let segment = name.strip_suffix(FOLDER).unwrap_or(name);
    (folder_name(segment) == name).then_some(segment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blobs_and_manifests_keep_their_names() {
        for text in ["datasets/us-airports.v2/ab12/cd.parquet", "_vectors/shelf/manifest.json"] {
            assert_eq!(at(text), Path::new("/bucket").join(text));
        }
    }

    #[test]
    fn other_names_are_kept_apart_from_folders_and_from_our_own() {
        assert_eq!(at("a"), Path::new("/bucket/a.object"));
        assert_eq!(at("a/b"), Path::new("/bucket/a/b.object"));
        assert_eq!(at("a.parquet/b.json"), Path::new("/bucket/a.parquet.folder/b.json"));
        assert_eq!(at("lakehouse.json"), Path::new("/bucket/lakehouse.json.object"));
        assert_eq!(at(".lakehouse/x"), Path::new("/bucket/.lakehouse.folder/x.object"));
        assert_eq!(object_segment(".DS_Store"), None);
        assert_eq!(object_segment(MARKER), None);
        assert_eq!(folder_segment(INTERNAL), None);
    }

    #[test]
    fn a_segment_that_no_file_system_holds_is_refused() {
        let key = Key::parse(format!("a/{}", "s".repeat(249))).unwrap();
        let message = path(Path::new("/bucket"), &key).unwrap_err().to_string();
        assert!(message.ends_with("a segment has 249 bytes; a folder holds at most 248"), "{message}");
        assert!(path(Path::new("/bucket"), &Key::parse("s".repeat(248)).unwrap()).is_ok());
    }

    #[test]
    fn a_prefix_never_leads_out_of_the_folder() {
        for prefix in ["../", "a/../../", "/", "/etc/", "a//"] {
            assert_eq!(folder(Path::new("/bucket"), prefix), None, "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_segment_and_to_no_other_kind(
            segment in r"[a-z.]{0,4}(\.parquet|\.json|\.object|\.folder|lakehouse\.json|\.lakehouse|lost\+found|x){1,3}",
        ) {
            let (object, folder) = (object_name(&segment), folder_name(&segment));
            prop_assert_eq!(object_segment(&object), Some(segment.as_str()));
            prop_assert_eq!(folder_segment(&folder), Some(segment.as_str()));
            prop_assert_eq!(folder_segment(&object), None);
            prop_assert_eq!(object_segment(&folder), None);
        }
    }

    fn at(key: &str) -> PathBuf {
        path(Path::new("/bucket"), &Key::parse(key).unwrap()).unwrap()
    }
}
