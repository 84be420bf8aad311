//! A provider's key: read from its file, followed when that changes, shown to nobody but the provider.

use std::{fmt, fs, ops::Range, path::PathBuf, sync::Arc};

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
        let plain = keys.iter().flatten().fold(text.to_owned(), |text, key| without(&text, key));
        if !plain.contains("**") {
            return plain;
        }
        let words = plain.split(' ').map(|word| if word.contains("**") { HIDDEN } else { word });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A text without a key, also where control characters lie in its midst, or where JSON within JSON writes its characters as escapes.
fn without(text: &str, key: &str) -> String {
    let text = text.replace(key, HIDDEN);
    let key: Vec<char> = Bare(key, 0).map(|(_, character)| character).collect();
    let is_plain = !text.contains(|c: char| c == '\\' || c.is_control());
    if is_plain || key.is_empty() {
        return text;
    }
    let bare: Vec<(Range<usize>, char)> = Bare(&text, 0).collect();
    let (mut out, mut copied, mut at) = (String::with_capacity(text.len()), 0, 0);
    while let Some(window) = bare.get(at..at + key.len()) {
        if window.iter().zip(&key).all(|((_, seen), wanted)| seen == wanted) {
            out.push_str(&text[copied..window[0].0.start]);
            out.push_str(HIDDEN);
            copied = window[key.len() - 1].0.end;
            at += key.len();
        } else {
            at += 1;
        }
    }
    out + &text[copied..]
}

/// The characters of a text from a place on, each with where it stands: without control characters, and with escapes read as what they
/// stand for, however often they were escaped again.
struct Bare<'a>(&'a str, usize);

impl Iterator for Bare<'_> {
    type Item = (Range<usize>, char);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.1;
            let rest = &self.0[start..];
            let unescaped = rest.trim_start_matches('\\');
            let is_escape = unescaped.len() < rest.len();
            let first = unescaped.chars().next()?;
            let code = unescaped.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let (length, character) = match (first, code) {
                ('u', Some(code)) if is_escape => (5, char::from_u32(code)),
                ('b' | 'f' | 'n' | 'r' | 't', _) if is_escape => (1, None),
                _ => (first.len_utf8(), Some(first)),
            };
            self.1 += rest.len() - unescaped.len() + length;
            if let Some(character) = character.filter(|character| !character.is_control()) {
                return Some((start..self.1, character));
            }
        }
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

    #[test]
    fn a_key_is_found_across_control_characters_and_behind_escapes() {
        for (said, told) in [
            ("no sk-a/b\n+c, sorry", "no [key], sorry"),
            ("\u{1b}[1msk-\u{1b}a/b+c", "\u{1b}[1m[key]"),
            (r#"{"key":"sk-a\/b\u002Bc"}"#, r#"{"key":"[key]"}"#),
            (r#"{\"key\":\"sk-a\\/b\\u002bc\"}"#, r#"{\"key\":\"[key]\"}"#),
            (r"\nsk-a/b+c\u00e9\tsk-a/\nb+csk-a\/b+c", r"\n[key]\u00e9\t[key][key]"),
            (r"\sk-a/b+\", r"\sk-a/b+\"),
            (r"sk-a/b\u00", r"sk-a/b\u00"),
        ] {
            assert_eq!(without(said, "sk-a/b+c"), told, "{said}");
        }
        assert_eq!(without(r"a\nk-1\u00zz", "nk-1"), r"a\[key]\u00zz");
        assert_eq!(without(r"C:\ \\", r"\\"), r"C:\ [key]");
    }
}
