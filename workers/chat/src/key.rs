//! A provider's key: read from its file, followed when that changes, shown to nobody but the provider.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use arc_swap::ArcSwapOption;
use axum::http::HeaderValue;
use tracing::{info, warn};

/// What stands for a key wherever one would be shown.
const HIDDEN: &str = "[key]";

/// The key in a file.
pub(crate) struct Key {
    provider: String,
    file: PathBuf,
    /// The last good one.
    current: ArcSwapOption<String>,
    /// The one before it, which an answer that was on its way may repeat.
    before: ArcSwapOption<String>,
}

impl Key {
    /// Reads the file; one that cannot be read yet is a key that is not there yet.
    pub(crate) fn open(provider: &str, file: PathBuf) -> Self {
        let key = Self {
            provider: provider.to_owned(),
            file,
            current: ArcSwapOption::empty(),
            before: ArcSwapOption::empty(),
        };
        key.refresh();
        key
    }

    /// Reads the file again, and says whether the key is another one. While the file cannot be used, the last good key stays.
    pub(crate) fn refresh(&self) -> bool {
        let provider = &self.provider;
        let had = self.current.load_full();
        match read(&self.file) {
            Ok(key) if had.as_deref() == Some(&key) => {}
            Ok(key) => {
                self.before.store(had.clone());
                self.current.store(Some(Arc::new(key)));
                if had.is_some() {
                    info!(provider, "The key of `{provider}` changed");
                }
                return true;
            }
            Err(reason) if had.is_none() => {
                warn!(provider, file = %self.file.display(), reason, "The key of `{provider}` cannot be read yet");
            }
            Err(_) => {}
        }
        false
    }

    /// The value of a header: `prefix` and the key.
    pub(crate) fn header(&self, prefix: &str) -> Option<HeaderValue> {
        let key = self.current.load_full()?;
        let mut value = HeaderValue::from_str(&format!("{prefix}{key}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A text without the key, and without the one before it. Upstreams repeat a wrong one, with stars in its middle, so such words go too.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let keys = [&self.current, &self.before].map(ArcSwapOption::load_full);
        let plain =
            keys.iter().flatten().fold(text.to_owned(), |text, key| text.replace(key.as_str(), HIDDEN));
        if !plain.contains("**") {
            return plain;
        }
        let words = plain.split(' ').map(|word| if word.contains("**") { HIDDEN } else { word });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn read(file: &PathBuf) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let key = text.trim();
    if key.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it holds a character that a key cannot have".to_owned());
    }
    Ok(key.to_owned())
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_followed_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let key = Key::open("up", file.clone());
        assert_eq!(key.header(""), None);
        for (content, expected) in
            [("one\n", "one"), ("", "one"), ("b\u{0}d", "one"), ("two words", "one"), (" two ", "two")]
        {
            fs::write(&file, content).unwrap();
            key.refresh();
            assert_eq!(key.header("Bearer ").unwrap(), format!("Bearer {expected}"), "{content:?}");
        }
        fs::remove_file(&file).unwrap();
        key.refresh();
        assert_eq!(key.header("").unwrap(), "two");
    }

    #[test]
    fn no_text_shows_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "sk-hunter2hunter2").unwrap();
        let key = Key::open("up", file);
        let said = "Incorrect API key provided: sk-hunte*****ter2. You sent sk-hunter2hunter2.";
        assert_eq!(key.scrub(said), "Incorrect API key provided: [key] You sent [key].");
        assert_eq!(key.scrub("**plain** words stay"), "[key] words stay");
        fs::write(folder.path().join("token"), "sk-hunter3hunter3").unwrap();
        key.refresh();
        assert_eq!(key.scrub("sk-hunter2hunter2 sk-hunter3hunter3"), "[key] [key]");
        let debug = format!("{key:?} {:?}", key.header("Bearer "));
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
