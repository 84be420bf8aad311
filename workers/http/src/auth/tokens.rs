//! Bearer tokens: several are valid at once, and a file of them is followed, so that one is rotated without an outage.
//!
//! Only digests are kept, and names that may be seen. A presented token is hashed and compared with every digest in constant time, so
//! neither its content nor its length nor its place in the list shows in how long that takes.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tracing::{info, warn};

use super::Error;

/// How often the file is read again. Modification times are not asked: a mounted Secret changes by a swap of links, and two
/// changes may fall into one tick of the clock.
const POLL: Duration = Duration::from_millis(500);

type Hash = [u8; 32];

/// A token that is valid.
#[derive(Clone, PartialEq, Eq)]
struct Token {
    hash: Hash,
    name: Arc<str>,
}

/// The tokens that are valid now.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Valid>);

struct Valid {
    /// From the environment.
    fixed: Vec<Token>,
    /// Where the others come from.
    file: Option<PathBuf>,
    /// From the file, when it was last good.
    current: ArcSwap<Vec<Token>>,
}

/// A text that is no list of tokens.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Nothing in it.
    #[error("it is set, but holds no token")]
    Empty,
    /// A token with a character that cannot be sent in a header.
    #[error(
        "token number {0} holds a character that a token cannot have (letters, digits and `-._~+/=` are fine)"
    )]
    Character(usize),
}

/// A file of tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("`{}` cannot be read: {cause}", .file.display())]
    Io {
        /// The file, or the folder.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// What it holds is no list of tokens.
    #[error("`{}`: {cause}", .file.display())]
    Content {
        /// The file, or the folder.
        file: PathBuf,
        /// What is wrong with it.
        cause: Invalid,
    },
}

impl Tokens {
    pub(super) fn open(text: Option<&str>, file: Option<PathBuf>) -> Result<Self, Error> {
        let fixed = text.map(|text| parse(text, None)).transpose().map_err(Error::Token)?.unwrap_or_default();
        let current = file.as_deref().map(read).transpose().map_err(Error::TokenFile)?.unwrap_or_default();
        Ok(Self(Arc::new(Valid { fixed, file, current: ArcSwap::from_pointee(current) })))
    }

    /// The name of a token that is valid now.
    pub(super) fn accept(&self, token: &[u8]) -> Option<Arc<str>> {
        let presented = hash(token);
        let current = self.0.current.load();
        let known = || self.0.fixed.iter().chain(current.iter());
        // Its place, counted from one.
        let found = (1..).zip(known()).fold(0_u32, |found, (place, token)| {
            u32::conditional_select(&found, &place, token.hash.ct_eq(&presented))
        });
        let at = usize::try_from(found).ok()?.checked_sub(1)?;
        known().nth(at).map(|token| token.name.clone())
    }

    /// Follows the file for ever. A file that cannot be used is said once, and the last good tokens stay valid.
    pub(super) async fn follow(&self) {
        let Some(file) = self.0.file.clone() else {
            return std::future::pending().await;
        };
        let mut complaint = None;
        loop {
            tokio::time::sleep(POLL).await;
            let path = file.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || read(&path)).await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            match content {
                Ok(tokens) => {
                    complaint = None;
                    self.replace(tokens, &file);
                }
                Err(error) => {
                    let sentence = error.to_string();
                    if complaint.as_ref() != Some(&sentence) {
                        warn!(%error, "The file of tokens cannot be used; the last good tokens stay valid");
                        complaint = Some(sentence);
                    }
                }
            }
        }
    }

    fn replace(&self, tokens: Vec<Token>, file: &Path) {
        if **self.0.current.load() != tokens {
            info!(file = %file.display(), tokens = tokens.len(), "The tokens changed");
            self.0.current.store(Arc::new(tokens));
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("file", &self.0.file).finish_non_exhaustive()
    }
}

/// The tokens of a file, or of all files of a folder.
fn read(path: &Path) -> Result<Vec<Token>, FileError> {
    let content = |cause| FileError::Content { file: path.to_owned(), cause };
    let texts = texts(path).map_err(|cause| FileError::Io { file: path.to_owned(), cause })?;
    let mut tokens = Vec::new();
    for (name, text) in &texts {
        match parse(text, name.as_deref()) {
            Ok(more) => tokens.extend(more),
            // Another file may have one.
            Err(Invalid::Empty) => {}
            Err(cause) => return Err(content(cause)),
        }
    }
    if tokens.is_empty() { Err(content(Invalid::Empty)) } else { Ok(tokens) }
}

/// What a file holds, or each file of a folder with its name. Hidden entries are left out: a mounted Secret keeps its versions there.
fn texts(path: &Path) -> io::Result<Vec<(Option<String>, String)>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![(None, fs::read_to_string(path)?)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && fs::metadata(entry.path())?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let named = |file: &PathBuf| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok((name, fs::read_to_string(file)?))
    };
    files.iter().map(named).collect()
}

/// The first token of `text`, or else of the file as it is now.
pub(super) fn first(fixed: Option<&str>, file: Option<&Path>) -> Option<String> {
    let first_of = |text: &str| words(text).next().map(str::to_owned);
    fixed.and_then(first_of).or_else(|| texts(file?).ok()?.iter().find_map(|(_, text)| first_of(text)))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|token| !token.is_empty())
}

fn parse(text: &str, name: Option<&str>) -> Result<Vec<Token>, Invalid> {
    let token = |(at, token): (usize, &str)| {
        if !is_sendable(token) {
            return Err(Invalid::Character(at + 1));
        }
        let hash = hash(token.as_bytes());
        // Too little of it to find a token that was made by chance, enough to tell two apart.
        let digits = || format!("{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
        Ok(Token { hash, name: name.map_or_else(|| digits().into(), Into::into) })
    };
    let tokens = words(text).enumerate().map(token).collect::<Result<Vec<_>, _>>()?;
    if tokens.is_empty() { Err(Invalid::Empty) } else { Ok(tokens) }
}

/// The characters of RFC 6750, and every other that a header takes without doubt.
fn is_sendable(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_token_of_the_list_is_valid() {
        let tokens = Tokens::open(Some("first, second\nthird"), None).unwrap();
        for token in ["first", "second", "third"] {
            assert!(tokens.accept(token.as_bytes()).is_some(), "{token}");
        }
        for token in ["", "firs", "first,", "fourth", "First"] {
            assert!(tokens.accept(token.as_bytes()).is_none(), "{token}");
        }
    }

    #[test]
    fn a_variable_without_a_token_is_a_mistake_and_not_an_open_door() {
        for text in ["", " \n,", "good bäd"] {
            Tokens::open(Some(text), None).unwrap_err();
        }
    }

    #[test]
    fn errors_and_debug_output_hold_no_token() {
        let tokens = Tokens::open(Some("hunter2"), None).unwrap();
        assert!(!format!("{tokens:?}").contains("hunter2"));
        let error = Tokens::open(Some("hunter2 hüntér3"), None).err().unwrap().to_string();
        assert!(error.contains("token number 2") && !error.contains("nt"), "{error}");
    }

    #[test]
    fn a_folder_of_files_is_a_mounted_secret() {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "..one", &[("primary", "one"), ("secondary", "two\n")]);
        let tokens = Tokens::open(Some("fixed"), Some(folder.path().to_owned())).unwrap();
        for token in ["fixed", "one", "two"] {
            assert!(tokens.accept(token.as_bytes()).is_some(), "{token}");
        }
    }

    #[test]
    fn a_token_is_called_by_its_file_or_by_the_beginning_of_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "..one", &[("empty", ""), ("team-a", "one"), ("team-b", "two")]);
        let tokens = Tokens::open(Some("fixed"), Some(folder.path().to_owned())).unwrap();
        let name = |token: &str| tokens.accept(token.as_bytes()).as_deref().map(str::to_owned);
        assert_eq!(name("one").as_deref(), Some("team-a"));
        assert_eq!(name("two").as_deref(), Some("team-b"));
        // `printf fixed | sha256sum`
        assert_eq!(name("fixed").as_deref(), Some("992a9345"));
        assert_eq!(name("three"), None);
        let file = Tokens::open(None, Some(folder.path().join("team-a"))).unwrap();
        assert_eq!(file.accept(b"one").as_deref(), Some("7692c3ad"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_secret_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "..one", &[("primary", "old")]);
        let tokens = following(folder.path());
        mount(folder.path(), "..two", &[("primary", "new")]);
        until(&tokens, "new").await;
        assert_eq!(tokens.accept(b"old"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_file_keeps_the_last_good_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "old").unwrap();
        let tokens = following(&file);
        for bad in [Some(""), Some("b\u{0}d"), None] {
            match bad {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            tokio::time::sleep(POLL * 3).await;
            assert!(tokens.accept(b"old").is_some(), "{bad:?}");
        }
        fs::write(&file, "new").unwrap();
        until(&tokens, "new").await;
        assert_eq!(tokens.accept(b"old"), None);
    }

    #[test]
    fn a_file_that_is_missing_at_the_start_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Tokens::open(None, Some(folder.path().join("token"))).err().unwrap();
        assert!(error.to_string().starts_with("LAKEHOUSE_TOKEN_FILE: `"), "{error}");
        // A folder without files is an empty list.
        Tokens::open(None, Some(folder.path().to_owned())).unwrap_err();
    }

    fn following(path: &Path) -> Tokens {
        let tokens = Tokens::open(None, Some(path.to_owned())).unwrap();
        let followed = tokens.clone();
        tokio::spawn(async move { followed.follow().await });
        tokens
    }

    async fn until(tokens: &Tokens, token: &str) {
        for _ in 0..20 {
            if tokens.accept(token.as_bytes()).is_some() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("`{token}` was never accepted");
    }

    /// Lays a version of a Secret out as kubelet does: files are links through `..data`, which is swapped by a rename.
    fn mount(folder: &Path, version: &str, files: &[(&str, &str)]) {
        fs::create_dir(folder.join(version)).unwrap();
        for (name, content) in files {
            fs::write(folder.join(version).join(name), content).unwrap();
            if !folder.join(name).exists() {
                symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
            }
        }
        symlink(version, folder.join("..next")).unwrap();
        fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    }
}
